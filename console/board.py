"""What the live page shows, in columns by meter number; one thread puts in what Kafka says, another what the database says."""

import collections
import dataclasses
import datetime as dt
import json
import threading
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from console.figure import MISSING, count_text, delay_text, kilo_text, money_text, power_text, rate_text, share_text
from console.pipeline import StageRow
from storage.registry import Registry

WINDOW_S = 60
RATE_S = 10
TOP_METERS = 40
HEARD_INTERVALS = 1.5
"""A meter is late after so many of its intervals (console guide §6) and HEARD_GRACE_S for the way."""
HEARD_GRACE_S = 10
SECOND_US = 1_000_000
UNKNOWN_SCALE = -1
PRIORITIES = (1, 2, 3, 4)


@dataclasses.dataclass
class _Second:
    at_s: int
    readings: int = 0
    charges: int = 0
    delays: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    """p50 ms, max ms and readings of each batch."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the database said last."""

    at_us: int
    dead_letters: int
    dead_letter_at: dt.datetime | None
    readings: int
    alarms: list[dict[str, Any]]
    alarm_counts: dict[int, tuple[int, int]]
    stages: list[StageRow]
    settled_us: dict[int, int]
    """Watermark of each partition that settlement has come to."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One rendering for all who watch."""

    number: int
    text: str
    """JSON, as the stream sends it."""
    figures: dict[str, Any]
    """The same before it became JSON, for the first rendering of a page."""
    alarms: list[dict[str, Any]]


class Board:
    """Holds the live figures; every method may be called from any thread."""

    def __init__(self, stale_after_s: float) -> None:
        """Begin empty.

        Args:
            stale_after_s: When the oldest partition's settlement is further behind, figures are shown as stale.
        """
        self._lock = threading.Lock()
        self._stale_after_us = int(stale_after_s * SECOND_US)
        self._registry: Registry | None = None
        self._meters = 0
        self._read_at: NDArray[np.int64] = np.zeros(0, np.int64)
        self._power_w: NDArray[np.int64] = np.zeros(0, np.int64)
        self._amount: NDArray[np.int64] = np.zeros(0, np.int64)
        self._scale: NDArray[np.int8] = np.zeros(0, np.int8)
        self._currencies: list[str] = []
        self._currency_no: NDArray[np.int8] = np.zeros(0, np.int8)
        self._seconds: collections.deque[_Second] = collections.deque(maxlen=WINDOW_S + RATE_S)
        self._began_s: float | None = None
        self._settled_us: dict[int, int] = {}
        self._facts: Facts | None = None
        self._number = 0
        self.curve_end_ms: int | None = None
        """Until when the load curve is drawn."""

    # -- what comes in -------------------------------------------------------------------------------------------

    def set_registry(self, registry: Registry) -> None:
        """Take new master data; meters keep their numbers."""
        with self._lock:
            self._registry = registry
            self._meters = len(registry.number_of)
            more = registry.meters.size - len(self._read_at)
            if more > 0:
                self._read_at = np.concatenate([self._read_at, np.zeros(more, np.int64)])
                self._power_w = np.concatenate([self._power_w, np.zeros(more, np.int64)])
                self._amount = np.concatenate([self._amount, np.zeros(more, np.int64)])
                self._scale = np.concatenate([self._scale, np.full(more, UNKNOWN_SCALE, np.int8)])
                self._currency_no = np.concatenate([self._currency_no, np.zeros(more, np.int8)])

    def set_facts(self, facts: Facts) -> None:
        """Take what the database said."""
        with self._lock:
            self._facts = facts
            for partition, at_us in facts.settled_us.items():
                self._settled_us[partition] = max(at_us, self._settled_us.get(partition, 0))

    def set_powers(self, rows: Sequence[tuple[int, int, int]]) -> None:
        """Take meter number, end (epoch µs) and power (W) of newest intervals, where nothing newer is known."""
        with self._lock:
            for meter_no, at_us, power_w in rows:
                if meter_no < len(self._read_at) and at_us > self._read_at[meter_no]:
                    self._read_at[meter_no], self._power_w[meter_no] = at_us, power_w

    def take_charges(self, frame: pa.RecordBatch) -> None:
        """Take a frame of meter.charges; meters that are not in the master data yet are left out until they are."""
        with self._lock:
            if self._registry is None:
                return
            number_of = self._registry.number_of
            found = (number_of.get(meter_id, 0) for meter_id in frame.column("meter_id").to_pylist())
            numbers = np.fromiter(found, np.int64, frame.num_rows)
            read_at = frame.column("read_at").to_numpy()
            rows = np.flatnonzero((numbers > 0) & (numbers < len(self._read_at)))
            rows = rows[read_at[rows] >= self._read_at[numbers[rows]]]
            at = numbers[rows]
            self._read_at[at] = read_at[rows]
            self._power_w[at] = frame.column("power_w").to_numpy()[rows]
            is_priced = ~frame.column("amount").is_null().to_numpy(zero_copy_only=False)[rows]
            at, rows = at[is_priced], rows[is_priced]
            self._amount[at] = frame.column("amount").fill_null(0).to_numpy()[rows]
            self._scale[at] = frame.column("amount_scale").to_numpy()[rows]
            self._currency_no[at] = self._numbers_of_currencies(frame.column("currency"))[rows]

    def _numbers_of_currencies(self, column: pa.Array) -> NDArray[np.int8]:
        coded = column.dictionary_encode()
        for code in coded.dictionary.to_pylist():
            if code not in self._currencies:
                self._currencies.append(code)
        places = np.array([self._currencies.index(code) for code in coded.dictionary.to_pylist()], np.int8)
        return places[coded.indices.to_numpy()]

    def take_batch(self, figures: dict[str, Any], now_us: int) -> None:
        """Take a record of grid.live: what one batch of settlement did."""
        with self._lock:
            second = self._second(now_us // SECOND_US)
            second.readings += figures["readings"]
            second.charges += figures["charges"]
            if figures["readings"]:
                second.delays.append((figures["delay_ms_p50"], figures["delay_ms_max"], figures["readings"]))
            partition = figures["partition"]
            self._settled_us[partition] = max(figures["committed_at"], self._settled_us.get(partition, 0))

    def _second(self, at_s: int) -> _Second:
        if not self._seconds or self._seconds[-1].at_s < at_s:
            self._seconds.append(_Second(at_s))
        return self._seconds[-1]

    def uncharged(self, limit: int) -> list[str]:
        """Return ids of meters on the top list whose charge is not known, because none came since the console began."""
        with self._lock:
            if self._registry is None:
                return []
            lacking = [number for number in self._top(self._heard()) if self._scale[number] == UNKNOWN_SCALE]
            return [self._registry.meters.meter_id[number] for number in lacking[:limit]]

    def set_charge(self, meter_id: str, amount: Decimal, currency: str) -> None:
        """Take an unrounded charge read from the database, unless a newer one came meanwhile."""
        scale = max(0, -int(amount.as_tuple().exponent))
        with self._lock:
            number = self._registry.number_of.get(meter_id, 0) if self._registry else 0
            if number and self._scale[number] == UNKNOWN_SCALE:
                if currency not in self._currencies:
                    self._currencies.append(currency)
                self._amount[number], self._scale[number] = int(amount.scaleb(scale)), scale
                self._currency_no[number] = self._currencies.index(currency)

    # -- what goes out -------------------------------------------------------------------------------------------

    def as_of_us(self) -> int | None:
        """Return until when every partition is settled, epoch µs; None when nothing is known."""
        return min(self._settled_us.values(), default=None)

    def meter(self, meter_id: str) -> dict[str, Any] | None:
        """Return the live figures of one meter, or None when nothing of it came yet."""
        with self._lock:
            number = self._registry.number_of.get(meter_id, 0) if self._registry else 0
            return self._row(number) if number and self._read_at[number] else None

    def snapshot(self, now_us: int) -> Snapshot:
        """Return the figures as of now, as text, rendered once for all."""
        with self._lock:
            self._number += 1
            if self._began_s is None:
                self._began_s = now_us / SECOND_US
            facts, heard = self._facts, self._heard()
            alarms = facts.alarms if facts else []
            figures = {
                "id": self._number,
                "at": now_us // 1000,
                "text": self._text(heard, now_us),
                "ages": {
                    "settle": _ms(self.as_of_us()),
                    "database": _ms(facts.at_us if facts else None),
                    "curve": self.curve_end_ms,
                    "letter": int(facts.dead_letter_at.timestamp() * 1000) if facts and facts.dead_letter_at else None,
                },
                "stale_after_ms": self._stale_after_us // 1000,
                "top": [self._row(number) for number in self._top(heard)],
                "alarms": [
                    {name: alarm[name] for name in ("alarm_id", "priority", "state", "kind", "subject")}
                    for alarm in alarms
                ],
                "stages": [stage.to_dict(now_us) for stage in (facts.stages if facts else [])],
            }
            return Snapshot(self._number, json.dumps(figures, ensure_ascii=False), figures, alarms)

    def _heard(self) -> NDArray[np.bool_]:
        """Return which meters have a reading no older than their interval allows, as of what is settled."""
        as_of = self.as_of_us()
        if as_of is None or self._registry is None:
            return np.zeros(len(self._read_at), np.bool_)
        interval_s = self._registry.meters.interval_s[: len(self._read_at)]
        limit_us = as_of - (interval_s * HEARD_INTERVALS + HEARD_GRACE_S) * SECOND_US
        return (self._read_at > 0) & (self._read_at >= limit_us)

    def _top(self, heard: NDArray[np.bool_]) -> list[int]:
        numbers = np.flatnonzero(heard & (self._power_w > 0))
        if len(numbers) > TOP_METERS:
            powers = self._power_w[numbers]
            numbers = numbers[np.argpartition(-powers, TOP_METERS)[:TOP_METERS]]
        order = np.lexsort((numbers, -self._power_w[numbers]))
        return [int(number) for number in numbers[order]]

    def _row(self, number: int) -> dict[str, Any]:
        assert self._registry is not None
        known = self._scale[number] != UNKNOWN_SCALE
        return {
            "id": self._registry.meters.meter_id[number],
            "kw": kilo_text(int(self._power_w[number]), 2),
            "money": money_text(int(self._amount[number]), int(self._scale[number])) if known else MISSING,
            "currency": self._currencies[self._currency_no[number]] if known else "",
            "at": int(self._read_at[number]) // 1000,
        }

    def _text(self, heard: NDArray[np.bool_], now_us: int) -> dict[str, str]:
        count = int(np.count_nonzero(heard)) if self.as_of_us() is not None else None
        powers = self._power_w[heard]
        load, load_unit = power_text(int(powers[powers > 0].sum()) if count else None)
        fed, fed_unit = power_text(-int(powers[powers < 0].sum()) if count else None)
        recent = [second for second in self._seconds if second.at_s * SECOND_US >= now_us - WINDOW_S * SECOND_US]
        delays = [batch for second in recent for batch in second.delays]
        delay, delay_unit = delay_text(weighted_median(delays), max((largest for _, largest, _ in delays), default=0))
        facts = self._facts
        counts = facts.alarm_counts if facts else {}
        return {
            "load": load,
            "load-unit": load_unit,
            "fed": fed,
            "fed-unit": fed_unit,
            "feeding": count_text(int(np.count_nonzero(powers < 0)) if count else None),
            "on-time": share_text(count, self._meters),
            "heard": count_text(count),
            "meters": count_text(self._meters if self._registry else None),
            "readings": rate_text(self._rate("readings", now_us)),
            "charges": rate_text(self._rate("charges", now_us)),
            "settled": count_text(facts.readings if facts else None),
            "delay": delay,
            "delay-unit": delay_unit,
            "delayed": count_text(sum(count for _, _, count in delays)),
            "letters-count": count_text(facts.dead_letters if facts else None),
            **{f"unacked-{p}": count_text(counts[p][0] if p in counts else None) for p in PRIORITIES},
            **{f"active-{p}": count_text(counts[p][1] if p in counts else None) for p in PRIORITIES},
        }

    def _rate(self, name: str, now_us: int) -> float | None:
        """Return the mean per second of the last whole seconds; unknown while settlement does not move."""
        as_of, end_s = self.as_of_us(), now_us // SECOND_US
        if as_of is None or self._began_s is None or now_us - as_of > self._stale_after_us:
            return None
        span_s = min(RATE_S, int(end_s - self._began_s))
        if span_s < 1:
            return None
        total = sum(getattr(second, name) for second in self._seconds if end_s - span_s <= second.at_s < end_s)
        return float(total) / span_s


def _ms(at_us: int | None) -> int | None:
    return None if at_us is None else at_us // 1000


def weighted_median(delays: Sequence[tuple[int, int, int]]) -> int | None:
    """Return the median of batches' medians, each weighing as much as its readings: near the true one, never exact.

    Args:
        delays: Median ms, largest ms and number of readings of each batch.

    Example:
        >>> weighted_median([(10, 20, 1), (50, 90, 8)]), weighted_median([])
        (50, None)
    """
    ordered = sorted(delays)
    half = sum(weight for *_, weight in ordered) / 2
    for p50, _, weight in ordered:
        half -= weight
        if half <= 0:
            return p50
    return None
