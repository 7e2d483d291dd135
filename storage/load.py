"""The load of a service point from the ledger: intervals, their quality, and the registers around them."""

import dataclasses
import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import psycopg

from metering.calendar import US
from metering.profile import QUARTER_S, Slices, cut, seconds_of, share_wh, sum_by
from metering.state import Int64Column
from metering.usage import Load
from schemas.bill import RegisterSpan
from schemas.quality import Quality
from storage.ledger_time import KNOWN_SQL, Position, offsets_by_partition

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FAR_US = 4_102_444_800 * US
"""2100: where an assignment without an end is taken to end."""
BEFORE_US = 2 * 86_400 * US
"""How far before the first interval its opening reading is looked for."""
ESTIMATED = int(Quality.LONG)
"""Flags of facts whose energy is measured and whose shape in time is not."""
NUMBERS = (
    "meter_no",
    "epoch",
    "start_us",
    "end_us",
    "quality",
    "energy_wh",
    "export_energy_wh",
    "import_wh",
    "export_wh",
    "import_varh",
    "export_varh",
)
_SELECT = (
    "f.meter_no, f.epoch, (extract(epoch from f.start_at) * 1000000)::int8, (extract(epoch from f.end_at) * 1000000)::int8,"
    " f.quality, f.energy_wh, f.export_energy_wh, f.import_wh, coalesce(f.export_wh, -1), coalesce(f.import_varh, -1),"
    " coalesce(f.export_varh, -1)"
)

Facts = dict[str, Int64Column]
"""Live facts as columns by names of NUMBERS, sorted by meter, epoch and end; -1 is null."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """A meter at a service point in ``[start_us, end_us)``."""

    service_point_no: int
    meter_no: int
    meter_id: str
    modulus_wh: int
    start_us: int
    end_us: int


@dataclasses.dataclass(frozen=True)
class ServiceLoad:
    """What a service point used, by intervals that anything is known of."""

    load: Load
    covered_s: Int64Column
    """Shape (n,), seconds of each interval that readings cover."""
    estimated_wh: Int64Column
    """Shape (n,), Wh drawn whose place in time is estimated: part of a long interval, spread evenly."""
    quality: Int64Column
    """Shape (n,), flags of the facts behind each interval, joined."""
    spans: tuple[RegisterSpan, ...] = ()

    @property
    def energy_wh(self) -> int:
        """Return the energy drawn, Wh."""
        return int(self.load.registers["import_wh"].sum())

    @property
    def export_wh(self) -> int:
        """Return the energy fed in, Wh."""
        column = self.load.registers.get("export_wh")
        return 0 if column is None else int(column.sum())


def instant(at_us: int) -> dt.datetime:
    """Return an instant of epoch µs."""
    return EPOCH + dt.timedelta(microseconds=at_us)


def fetch_placements(
    conn: psycopg.Connection[Any], service_point_nos: Sequence[int], start_us: int, end_us: int
) -> list[Placement]:
    """Return the meters that measured service points in ``[start_us, end_us)``, cut to it, in order of time."""
    rows = conn.execute(
        "select a.service_point_no, a.meter_no, m.meter_id, m.register_modulus_wh,"
        " greatest((extract(epoch from a.start_at) * 1000000)::int8, %(low)s),"
        " case when a.end_at = 'infinity' then %(high)s"
        " else least((extract(epoch from a.end_at) * 1000000)::int8, %(high)s) end"
        " from meter_assignment a join meter m using (meter_no)"
        " where a.service_point_no = any(%(points)s::int4[]) and a.start_at < %(until)s and a.end_at > %(since)s"
        " order by a.service_point_no, a.start_at",
        {
            "points": list(service_point_nos),
            "low": start_us,
            "high": end_us,
            "since": instant(start_us),
            "until": instant(end_us),
        },
    ).fetchall()
    return [Placement(*row) for row in rows]


def fetch_facts(
    conn: psycopg.Connection[Any], meter_nos: Sequence[int], start_us: int, end_us: int, known: Position | None = None
) -> Facts:
    """Return the live facts of meters that touch ``[start_us, end_us)``, as now or as known at a position.

    Facts of a meter tile the time, so beyond the end only the next one of each meter can reach into it. The one before the
    start comes along, for the registers that it leaves.
    """
    given = {
        "meters": list(meter_nos),
        "since": instant(start_us),
        "until": instant(end_us),
        "before": instant(start_us - BEFORE_US),
        "offsets": offsets_by_partition(known),
    }
    rows = conn.execute(
        f"select {_SELECT} from (select distinct on (f.meter_no, f.end_at) f.* from fact f"
        " where f.meter_no = any(%(meters)s::int4[]) and f.end_at > %(since)s and f.end_at <= %(until)s"
        f" and {KNOWN_SQL} order by f.meter_no, f.end_at, f.revision desc) f where f.revision %% 2 = 0",
        given,
    ).fetchall()
    rows += conn.execute(
        f"select {_SELECT} from unnest(%(meters)s::int4[]) w(meter_no) cross join lateral (select f.* from fact f"
        f" where f.meter_no = w.meter_no and f.end_at > %(until)s and {KNOWN_SQL}"
        " order by f.end_at, f.revision desc limit 1) f where f.start_at < %(until)s and f.revision %% 2 = 0",
        given,
    ).fetchall()
    rows += conn.execute(
        f"select {_SELECT} from unnest(%(meters)s::int4[]) w(meter_no) cross join lateral (select f.* from fact f"
        f" where f.meter_no = w.meter_no and f.end_at <= %(since)s and f.end_at > %(before)s and {KNOWN_SQL}"
        " order by f.end_at desc, f.revision desc limit 1) f where f.revision %% 2 = 0",
        given,
    ).fetchall()
    columns = np.array(rows, np.int64).reshape(-1, len(NUMBERS)).T
    facts = dict(zip(NUMBERS, columns, strict=True))
    order = np.lexsort((facts["end_us"], facts["epoch"], facts["meter_no"]))
    return {name: column[order] for name, column in facts.items()}


def fetch_load(
    conn: psycopg.Connection[Any],
    service_point_no: int,
    start_us: int,
    end_us: int,
    *,
    known: Position | None = None,
    interval_s: int = QUARTER_S,
) -> ServiceLoad:
    """Return the load of a service point in ``[start_us, end_us)``.

    Args:
        conn: Connection.
        service_point_no: Where.
        start_us: Epoch µs, a multiple of the interval.
        end_us: Epoch µs, a multiple of the interval.
        known: Only what was known at a position of the ledger; None is everything.
        interval_s: Finer than a quarter-hour where a tariff's windows or boundaries are.
    """
    placements = fetch_placements(conn, [service_point_no], start_us, end_us)
    meters = sorted({item.meter_no for item in placements})
    facts = fetch_facts(conn, meters, start_us, end_us, known) if meters else _no_facts()
    return load_of_facts(placements, facts, start_us, end_us, interval_s)


def _no_facts() -> Facts:
    return {name: np.zeros(0, np.int64) for name in NUMBERS}


def load_of_facts(
    placements: Iterable[Placement], facts: Facts, start_us: int, end_us: int, interval_s: int = QUARTER_S
) -> ServiceLoad:
    """Return the load that the live facts of some meters make where these were; see `fetch_load`."""
    step_us = interval_s * US
    base, count = start_us // step_us, (end_us - start_us) // step_us
    names = ("import_wh", "export_wh", "import_varh", "export_varh")
    total = {name: np.zeros(count, np.int64) for name in (*names, "covered_s", "estimated_wh", "quality")}
    seen: set[str] = set()
    spans: list[RegisterSpan] = []
    for item in placements:
        rows = _rows_of(facts, item)
        start, end = facts["start_us"][rows], facts["end_us"][rows]
        slices = _clip(cut(start, end, step_us), max(item.start_us, start_us), min(item.end_us, end_us))
        slot = slices.slot - base
        columns = {"import_wh": facts["energy_wh"][rows], "export_wh": facts["export_energy_wh"][rows]}
        columns |= {name: varh_rises(facts, rows, name) for name in ("import_varh", "export_varh")}
        if (facts["export_wh"][rows] >= 0).any():
            seen.add("export_wh")
        seen |= {name for name in ("import_varh", "export_varh") if (facts[name][rows] >= 0).any()}
        for name, column in columns.items():
            total[name] += sum_by(slot, share_wh(slices, start, end, column), count)
        quality = facts["quality"][rows]
        estimated = np.where(quality & ESTIMATED, columns["import_wh"], 0)
        total["estimated_wh"] += sum_by(slot, share_wh(slices, start, end, estimated), count)
        total["covered_s"] += sum_by(slot, seconds_of(slices), count)
        np.bitwise_or.at(total["quality"], slot, quality[slices.row])
        spans += register_spans(item, facts, rows, slices)
    here = np.flatnonzero(total["covered_s"])
    registers = {name: total[name][here] for name in names if name == "import_wh" or name in seen}
    load = Load((base + here) * step_us, interval_s, registers)
    return ServiceLoad(
        load, total["covered_s"][here], total["estimated_wh"][here], total["quality"][here], tuple(spans)
    )


def _rows_of(facts: Facts, item: Placement) -> Int64Column:
    mine = (facts["meter_no"] == item.meter_no) & (facts["end_us"] >= item.start_us - BEFORE_US)
    return np.flatnonzero(mine & (facts["start_us"] < item.end_us))


def _clip(slices: Slices, low_us: int, high_us: int) -> Slices:
    low, high = np.maximum(slices.low_us, low_us), np.minimum(slices.high_us, high_us)
    kept = low < high
    return Slices(slices.row[kept], slices.slot[kept], low[kept], high[kept])


def varh_rises(facts: Facts, rows: Int64Column, name: str) -> Int64Column:
    """Return how far a reactive register rose over each fact, varh; 0 where a reading lacks it, or it fell."""
    value, meter, epoch = facts[name][rows], facts["meter_no"][rows], facts["epoch"][rows]
    rise = np.zeros(len(rows), np.int64)
    same = (meter[1:] == meter[:-1]) & (epoch[1:] == epoch[:-1]) & (value[1:] >= 0) & (value[:-1] >= 0)
    rise[1:] = np.where(same, np.maximum(value[1:] - value[:-1], 0), 0)
    return rise


def register_spans(item: Placement, facts: Facts, rows: Int64Column, slices: Slices) -> list[RegisterSpan]:
    """Return opening and closing register of a meter over slices of its facts, one a register epoch and direction.

    Where a fact lies across an edge its register there is interpolated, as its energy is.
    """
    found = []
    epoch = facts["epoch"][rows]
    start, end = facts["start_us"][rows], facts["end_us"][rows]
    for number in np.unique(epoch[slices.row]).tolist():
        inside = np.flatnonzero(epoch[slices.row] == number)
        mine = Slices(*(column[inside] for column in slices))
        first, last = int(rows[mine.row[0]]), int(rows[mine.row[-1]])
        for register, energy, reading in (
            ("import", "energy_wh", "import_wh"),
            ("export", "export_energy_wh", "export_wh"),
        ):
            if facts[reading][last] < 0:
                continue
            used = int(share_wh(mine, start, end, facts[energy][rows]).sum())
            of_facts = int(facts[energy][rows][np.unique(mine.row)].sum())
            head = _share_before(facts, first, energy, int(mine.low_us[0]))
            opening = int(facts[reading][first]) - int(facts[energy][first]) + head
            closing = int(facts[reading][last]) - (of_facts - used - head)
            low, high = int(mine.low_us[0]), int(mine.high_us[-1])
            found.append(
                RegisterSpan(
                    meter_id=item.meter_id,
                    register=register,
                    start_at=instant(low),
                    end_at=instant(high),
                    start_wh=opening % item.modulus_wh,
                    end_wh=closing % item.modulus_wh,
                    energy_wh=used,
                )
            )
    return found


def _share_before(facts: Facts, row: int, energy: str, at_us: int) -> int:
    start, end, wh = (int(facts[name][row]) for name in ("start_us", "end_us", energy))
    if at_us <= start:
        return 0
    return abs(wh) * (at_us - start) // (end - start) * (1 if wh >= 0 else -1)


def until_us(found: ServiceLoad, end_us: int) -> ServiceLoad:
    """Return the intervals of a load that begin before an instant."""
    kept = found.load.start_us < end_us
    registers = {name: column[kept] for name, column in found.load.registers.items()}
    load = Load(found.load.start_us[kept], found.load.interval_s, registers)
    return ServiceLoad(load, found.covered_s[kept], found.estimated_wh[kept], found.quality[kept], found.spans)
