"""What of a billing cycle a meter's state carries live: which slots are which quantities, and what key they are of.

Live is what whole numbers carry exactly in any order that settlement keeps: time of use by season and day type, tiers on
totals, tiers filled in order of time, block demand, and all that is worked out from these. Whatever needs more (see
`shape_of`) is charged from the ledger by the bill's own code, and its key is 0. The key names the structure, not the prices.
"""

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metering.calendar import US, Timeline
from metering.rating import bounds_of, ladder_of
from metering.state import KEY_BITS, SLOTS, Int64Column
from metering.tariff import Tariff
from metering.usage import Cycle, make_cycle
from schemas.tariff import DemandCharge, Version

QUARTER_S = 900
WINDOWS_S = (900, 1800, 3600)


@dataclasses.dataclass(frozen=True)
class CycleShape:
    """How a state carries one cycle."""

    key: int
    buckets: tuple[int, ...]
    """Price bucket of each slot of the first tier."""
    tiers: int
    """Tiers that are filled in order of time; 1 where only totals count. Slot: tier x buckets + bucket."""
    edges_wh: Int64Column
    """Shape (tiers - 1,), their bounds."""
    window_s: int
    """Demand window, 0 for none; the last slots, as many as buckets, are the peak energies of windows."""

    @property
    def energy_slots(self) -> int:
        """Return how many slots are energy."""
        return self.tiers * len(self.buckets)


class Shapes:
    """The shapes of a timeline's cycles, made when they are first asked for."""

    def __init__(self, tariff: Tariff, timeline: Timeline, *, is_charged: bool = True) -> None:
        """Take a compiled tariff; what is not charged has no live quantities."""
        self.tariff = tariff
        self.timeline = timeline
        count = len(timeline.cycle_start_s)
        self._is_charged = is_charged
        self._known = np.zeros(count, np.bool_)
        self._key = np.zeros(count, np.int64)
        self._ordered = np.zeros(count, np.bool_)
        self._shapes: dict[int, CycleShape] = {}
        self._shift: tuple[Int64Column, Int64Column] | None = None

    def of(self, cycle: int) -> CycleShape | None:
        """Return the shape of a cycle, or None when it is charged from the ledger."""
        if not self._known[cycle]:
            shape = shape_of(self.tariff, self.timeline, cycle) if self._is_charged else None
            self._known[cycle] = True
            if shape is not None:
                self._shapes[cycle] = shape
                self._key[cycle] = shape.key
                self._ordered[cycle] = shape.tiers > 1 or shape.window_s > 0
        return self._shapes.get(cycle)

    def keys(self, cycle: NDArray[np.integer]) -> tuple[Int64Column, NDArray[np.bool_]]:
        """Return the keys of cycles and whether the order of facts matters in them; shape of `cycle`."""
        unknown = ~self._known[cycle]
        if unknown.any():
            for index in np.unique(cycle[unknown]).tolist():
                self.of(index)
        return self._key[cycle], self._ordered[cycle]

    def window_start_us(self, at_us: Int64Column, window_s: int) -> Int64Column:
        """Return where the demand window of each instant begins by the demand clock, epoch µs; shape of `at_us`."""
        if self._shift is None:
            self._shift = _shifts(self.tariff.demand_zone, self.timeline)
        since, shift = self._shift
        shift_us = shift[np.maximum(np.searchsorted(since, at_us, side="right") - 1, 0)]
        window_us = window_s * US
        return (at_us + shift_us) // window_us * window_us - shift_us


def _shifts(zone: dt.tzinfo, timeline: Timeline) -> tuple[Int64Column, Int64Column]:
    """Return since when a clock has which offset from UTC, both in µs; it changes at quarters of an hour at the finest."""
    hours = np.arange(int(timeline.cycle_start_s[0]) - 86_400, int(timeline.cycle_end_s[-1]) + 86_400, 86_400)
    since, shift = [int(hours[0])], [_offset_s(zone, int(hours[0]))]
    for low, high in zip(hours[:-1].tolist(), hours[1:].tolist(), strict=True):
        if _offset_s(zone, high) == shift[-1]:
            continue
        for at in range(low, high + 1, QUARTER_S):
            if (offset := _offset_s(zone, at)) != shift[-1]:
                since.append(at)
                shift.append(offset)
    return np.array(since, np.int64) * US, np.array(shift, np.int64) * US


def _offset_s(zone: dt.tzinfo, at_s: int) -> int:
    offset = dt.datetime.fromtimestamp(at_s, zone).utcoffset()
    return int(offset.total_seconds()) if offset else 0


def cycle_days(tariff: Tariff, timeline: Timeline, cycle: int) -> Cycle:
    """Return a cycle of a timeline with its local days and sides."""
    edges = (int(timeline.cycle_start_s[cycle]), int(timeline.cycle_end_s[cycle]))
    start_on, end_on = (dt.datetime.fromtimestamp(at, tariff.zone).date() for at in edges)
    return make_cycle(tariff, start_on, end_on)


def shape_of(tariff: Tariff, timeline: Timeline, cycle: int) -> CycleShape | None:
    """Return the shape of a cycle, or None when its charge must come from the ledger.

    That is: reactive energy, energy fed in, indexed or further components, quantities rounded by interval, prices that
    change inside a quarter-hour, annual, seasonal or kW tiers, ladders filled in order over several versions or by period,
    demand that is sliding, coincident, averaged, ratcheted or not in kW, and more prices than slots.
    """
    days = cycle_days(tariff, timeline, cycle)
    documents = [tariff.versions[version].document for version, _ in days.versions]
    buckets = timeline.cycle_buckets[cycle]
    here = timeline.cycle == cycle
    starts_s = timeline.start_s[here]
    if any(_needs_ledger(document) for document in documents) or (starts_s % QUARTER_S).any():
        return None
    if tariff.rounding.quantity and tariff.rounding.quantity.of == "interval":
        return None
    ladder = _edges(tariff, days, documents)
    charges = [charge for document in documents for charge in document.demand]
    window_s = _window_s(tariff, days, charges, starts_s)
    if ladder is None or window_s is None:
        return None
    tiers, edges_wh = ladder
    if len(buckets) * (tiers + (window_s > 0)) > SLOTS:
        return None
    names = [(str(tariff.versions[v].valid_from), season, period) for v, season, period in tariff.buckets]
    parts = [tariff.tariff_id, days.days, [names[bucket] for bucket in buckets], edges_wh.tolist(), window_s]
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8)
    digest.update(starts_s.tobytes() + timeline.slot[here].tobytes())
    name = int.from_bytes(digest.digest(), "big") >> (1 + KEY_BITS)
    return CycleShape(name << KEY_BITS | tiers * len(buckets), buckets, tiers, edges_wh, window_s)


def _needs_ledger(document: Version) -> bool:
    rule = document.tier_rule
    if document.energy or document.reactive or document.export or any(item.per == "year" for item in document.minimum):
        return True
    if not document.tiers:
        return False
    return rule.per != "cycle" or rule.unit not in ("kWh", "kWh_per_day") or rule.prorate == "months"


def _edges(tariff: Tariff, cycle: Cycle, documents: Sequence[Version]) -> tuple[int, Int64Column] | None:
    """Return number and bounds of the tiers filled in order of time: 1 where only totals count, None if they cannot be."""
    one = 1, np.zeros(0, np.int64)
    if all(document.tier_rule.allocation != "sequential" or not document.tiers for document in documents):
        return one
    version, first_day = cycle.versions[0]
    ladder = ladder_of(tariff, version, first_day)
    if len(documents) > 1 or documents[0].tier_rule.pooled != "all":
        return None
    bounds = bounds_of(tariff.versions[version], ladder, cycle.days)
    if any(bound.denominator != 1 for bound in bounds):
        return None
    return len(ladder), np.array([int(bound) for bound in bounds], np.int64)


def _window_s(tariff: Tariff, cycle: Cycle, charges: Sequence[DemandCharge], starts_s: Int64Column) -> int | None:
    """Return the one window of all demand charges, s; 0 without any, None if windows cannot be kept live."""
    if not charges:
        return 0
    windows = {charge.window_min * 60 for charge in charges}
    sides = [(side.version, side.season) for side in cycle.sides]
    is_one_clock = tariff.schedule_zone is tariff.zone or len(sides) == 1
    if len(windows) > 1 or not is_one_clock or len(set(sides)) < len(sides) or not all(map(_is_plain, charges)):
        return None
    window_s = windows.pop()
    shifts = np.array([_offset_s(tariff.demand_zone, at) for at in starts_s.tolist()], np.int64)
    is_aligned = not ((starts_s + shifts) % window_s).any() and not (shifts % QUARTER_S).any()
    return window_s if window_s in WINDOWS_S and is_aligned else None


def _is_plain(charge: DemandCharge) -> bool:
    average = charge.average
    is_own = average is None or (average.top_n == 1 and average.rolling_months == 1)
    return (
        charge.method == "block"
        and is_own
        and not charge.ratchet
        and charge.scope != "coincident"
        and charge.quantity == "kW"
    )
