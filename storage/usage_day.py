"""Sub-totals of days: the energy of every quarter-hour of a meter, folded from the facts and kept up by their news.

The fold is a sum, in which a reversal takes back what its entry gave; so only facts that came since the last refresh are
looked at, of the days that have any, and added to what is there. `usage_refresh` says up to which offset each day was folded,
and is written in the transaction of the sums: a refresh that is cut off anywhere is done again from there.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from metering.calendar import US
from metering.profile import QUARTER_S, QUARTERS_A_DAY, cut, seconds_of, share_wh, sum_by
from metering.state import Int64Column
from metering.usage import Load
from storage.copy_binary import PG_EPOCH_US, encode_copy
from storage.ledger_time import offsets_by_partition, position_now
from storage.load import ESTIMATED, Placement, ServiceLoad

LOCK_KEY = 0x7573_6167
ROWS_PER_FOLD = 2_500_000
"""Facts that are taken into memory at once, by the meters' own intervals: about 1 GB."""
DAYS = ("import_wh", "export_wh", "estimated_wh", "covered_s")
_FACT = (
    ("meter_no", "int4send(f.meter_no)", ">i4"),
    ("start_at", "timestamptz_send(f.start_at)", ">i8"),
    ("end_at", "timestamptz_send(f.end_at)", ">i8"),
    ("revision", "int4send(f.revision)", ">i4"),
    ("quality", "int4send(f.quality)", ">i4"),
    ("energy_wh", "int8send(f.energy_wh)", ">i8"),
    ("export_energy_wh", "int8send(f.export_energy_wh)", ">i8"),
    ("has_export", "int4send((f.export_wh is not null)::int4)", ">i4"),
)
"""Facts come as one string of bytes a meter: a message a row, as of a query or COPY, costs three times as much."""
_FACT_SQL = " || ".join(expression for _, expression, _ in _FACT)
_FACT_ROW = np.dtype([(name, layout) for name, _, layout in _FACT])
_DAY_TYPES = [
    ("meter_no", "int4"),
    ("day", "date"),
    *((name, "quarters") for name in DAYS),
    ("quality", "int4"),
    ("refresh_no", "int8"),
]
EPOCH_DAY = dt.date(1970, 1, 1)


@dataclasses.dataclass(frozen=True)
class Refreshed:
    """What a refresh did."""

    refresh_no: int
    position: dict[int, int]
    """Facts below these offsets are in the sums, and no others."""
    days: int
    facts: int


@dataclasses.dataclass(frozen=True)
class Profiles:
    """Energy by quarter-hours of UTC days ``[first_day, first_day + days)`` of some meters."""

    meter_nos: Int64Column
    """Shape (m,), ascending."""
    first_day: dt.date
    days: int
    import_wh: Int64Column
    """Shape (m, days x 96), Wh; so are the others."""
    export_wh: Int64Column
    estimated_wh: Int64Column
    covered_s: Int64Column
    quality: Int64Column
    """Shape (m, days), flags of every fact that touched the day, of those taken back too."""
    has_export: NDArray[np.bool_]
    """Shape (m,)."""
    refresh_no: Int64Column
    """Shape (m,), the newest refresh that changed any of the days."""

    def load(self, placements: Sequence[Placement], start_us: int, end_us: int) -> ServiceLoad | None:
        """Return the load of one service point, or None where a meter came or went within a quarter-hour.

        Args:
            placements: Its meters, of `fetch_placements` over the same time.
            start_us: Epoch µs, within the days.
            end_us: Epoch µs, within the days.
        """
        step_us = QUARTER_S * US
        origin = (self.first_day - EPOCH_DAY).days * QUARTERS_A_DAY
        edges = [start_us, end_us, *(at for item in placements for at in (item.start_us, item.end_us))]
        if any(at % step_us for at in edges):
            return None
        base, count = start_us // step_us, (end_us - start_us) // step_us
        total = np.zeros((len(DAYS), count), np.int64)
        fed = False
        for item in placements:
            low, high = item.start_us // step_us, item.end_us // step_us
            row = int(np.searchsorted(self.meter_nos, item.meter_no))
            if low >= high or row == len(self.meter_nos) or self.meter_nos[row] != item.meter_no:
                continue
            fed = fed or bool(self.has_export[row])
            for place, name in enumerate(DAYS):
                total[place, low - base : high - base] += getattr(self, name)[row, low - origin : high - origin]
        here = np.flatnonzero(total[3])
        registers = {"import_wh": total[0, here], **({"export_wh": total[1, here]} if fed else {})}
        load = Load((base + here) * step_us, QUARTER_S, registers)
        return ServiceLoad(load, total[3, here], total[2, here], np.zeros(len(here), np.int64))


def refresh_usage_days(
    conn: psycopg.Connection[Any],
    days: Iterable[dt.date] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Refreshed:
    """Bring the sub-totals up to what is settled now; one at a time, the next one waits.

    Args:
        conn: In autocommit; a day is a transaction.
        days: Only facts that end on these UTC days; None is every day with news, after which the sums are exactly those of
            the facts at the position that is returned.
        progress: Told days done, and days in all.
    """
    conn.execute("select pg_advisory_lock(%s)", (LOCK_KEY,))
    try:
        return _refresh(conn, None if days is None else sorted(days), progress)
    finally:
        conn.execute("select pg_advisory_unlock(%s)", (LOCK_KEY,))


def _refresh(
    conn: psycopg.Connection[Any], days: list[dt.date] | None, progress: Callable[[int, int], None]
) -> Refreshed:
    position = position_now(conn)
    row = conn.execute("select nextval('usage_refresh_no')").fetchone()
    assert row is not None
    news: dict[dt.date, dict[int, int]] = {}
    for day, partition, since in conn.execute(
        "select l.day, l.partition, coalesce(u.next_offset, 0) from ledger_day l left join usage_refresh u"
        " using (day, partition) where l.next_offset > coalesce(u.next_offset, 0)"
        " and (%(days)s::date[] is null or l.day = any(%(days)s)) order by 1, 2",
        {"days": days},
    ):
        news.setdefault(day, {})[partition] = since
    ranges = _meter_ranges(conn)
    facts = 0
    for done, (day, since) in enumerate(news.items(), 1):
        with conn.transaction():
            for low, high in ranges:
                facts += _fold_day(conn, day, since, position, (low, high, int(row[0])))
            for partition in since:
                conn.execute(
                    "insert into usage_refresh values (%s, %s, %s) on conflict (day, partition)"
                    " do update set next_offset = excluded.next_offset",
                    (day, partition, position.get(partition, 0)),
                )
        progress(done, len(news))
    return Refreshed(int(row[0]), position, len(news), facts)


def _meter_ranges(conn: psycopg.Connection[Any]) -> list[tuple[int, int]]:
    """Return ranges of meter numbers, both ends included, with so many facts a day that memory holds them."""
    rows = np.array(
        conn.execute("select meter_no, interval_s from meter order by meter_no").fetchall(), np.int64
    ).reshape(-1, 2)
    group = np.cumsum(86_400 // np.maximum(rows[:, 1], 1)) // ROWS_PER_FOLD
    return [(int(rows[group == one, 0][0]), int(rows[group == one, 0][-1])) for one in np.unique(group).tolist()]


def _fold_day(
    conn: psycopg.Connection[Any],
    day: dt.date,
    since: dict[int, int],
    position: dict[int, int],
    meters: tuple[int, int, int],
) -> int:
    """Add the news of one day of some meters to the sums; return how many facts they were."""
    low, high, refresh_no = meters
    size = max([*since, *position], default=0) + 1
    rows = conn.cursor(binary=True).execute(
        f"select string_agg({_FACT_SQL}, ''::bytea) from fact f where f.end_at >= %(low)s and f.end_at < %(high)s"
        " and f.meter_no between %(first)s and %(last)s and f.start_at < f.end_at"
        " and f.frame_offset < (%(known)s::int8[])[f.frame_partition + 1]"
        " and f.frame_offset >= (%(since)s::int8[])[f.frame_partition + 1] group by f.meter_no",
        {
            "low": dt.datetime.combine(day, dt.time(), dt.UTC),
            "high": dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC),
            "first": low,
            "last": high,
            "known": offsets_by_partition(position),
            "since": [since.get(partition, 2**62) for partition in range(size)],
        },
    )
    data = np.frombuffer(b"".join(row[0] for row in rows), _FACT_ROW)
    facts = {name: data[name].astype(np.int64) for name, _, _ in _FACT}
    for name in ("start_at", "end_at"):
        facts[name] += PG_EPOCH_US
    if not len(facts["meter_no"]):
        return 0
    write_sums(conn, fold(facts), refresh_no)
    return len(facts["meter_no"])


@dataclasses.dataclass
class Sums:
    """Sums by meter and UTC day, sorted by both; columns of quarters have shape (n, 96)."""

    meter_no: Int64Column
    day: Int64Column
    """Days since 1970."""
    quarters: dict[str, Int64Column]
    has_export: NDArray[np.bool_]
    quality: Int64Column


def fold(facts: dict[str, NDArray[Any]]) -> Sums:
    """Return what facts add to the days that they lie in.

    Args:
        facts: `meter_no`, `start_at`, `end_at` (epoch µs), `revision`, `quality`, `energy_wh`, `export_energy_wh`,
            `has_export`; shape (n,).
    """
    start, end = facts["start_at"], facts["end_at"]
    slices = cut(start, end, QUARTER_S * US)
    row = slices.row
    day, quarter = np.divmod(slices.slot, QUARTERS_A_DAY)
    first_day = int(day.min())
    span = int(day.max()) - first_day + 1
    keys, place = np.unique(facts["meter_no"].astype(np.int64)[row] * span + (day - first_day), return_inverse=True)
    key = place * QUARTERS_A_DAY + quarter
    size = len(keys) * QUARTERS_A_DAY
    sign = np.where(facts["revision"] % 2, -1, 1).astype(np.int64)
    quality = facts["quality"].astype(np.int64)
    fed = np.where(facts["has_export"], facts["export_energy_wh"], 0)
    estimated = np.where(quality & ESTIMATED, facts["energy_wh"], 0)
    total = {
        "import_wh": sum_by(key, share_wh(slices, start, end, facts["energy_wh"]), size),
        "export_wh": _sum_if_any(key, slices, (start, end, fed), size),
        "estimated_wh": _sum_if_any(key, slices, (start, end, estimated), size),
        "covered_s": sum_by(key, seconds_of(slices) * sign[row], size),
    }
    has_export = np.zeros(len(keys), np.bool_)
    has_export[place[facts["has_export"][row] == 1]] = True
    flags = np.zeros(len(keys), np.int64)
    np.bitwise_or.at(flags, place, quality[row])
    return Sums(
        keys // span,
        keys % span + first_day,
        {name: column.reshape(-1, QUARTERS_A_DAY) for name, column in total.items()},
        has_export,
        flags,
    )


def _sum_if_any(key: Int64Column, slices: Any, spread: tuple[Int64Column, ...], size: int) -> Int64Column:
    start, end, amount = spread
    return sum_by(key, share_wh(slices, start, end, amount), size) if amount.any() else np.zeros(size, np.int64)


def write_sums(conn: psycopg.Connection[Any], sums: Sums, refresh_no: int) -> None:
    """Add sums to the table, in the caller's transaction."""
    days = [EPOCH_DAY + dt.timedelta(days=day) for day in np.unique(sums.day).tolist()]
    low, high = int(sums.meter_no.min()), int(sums.meter_no.max())
    there = conn.cursor(binary=True).execute(
        "select meter_no, day - date '1970-01-01', import_wh, export_wh, estimated_wh, covered_s, quality from usage_day"
        " where day = any(%s) and meter_no between %s and %s",
        (days, low, high),
    )
    place = {key: index for index, key in enumerate(zip(sums.meter_no.tolist(), sums.day.tolist(), strict=True))}
    old = np.zeros(len(sums.day), np.bool_)
    for meter_no, day, *quarters, quality in there:
        index = place.get((meter_no, day))
        if index is None:
            continue
        old[index] = True
        sums.quality[index] |= quality
        sums.has_export[index] |= quarters[1] is not None
        for name, value in zip(DAYS, quarters, strict=True):
            sums.quarters[name][index] += _quarters_of(value, QUARTER_S if name == "covered_s" else 0)
    _note_changes(conn, sums, refresh_no)
    _copy_sums(conn, "usage_day", sums, ~old, refresh_no)
    if old.any():
        conn.execute("create temporary table if not exists usage_news (like usage_day) on commit delete rows")
        _copy_sums(conn, "usage_news", sums, old, refresh_no)
        conn.execute(
            "update usage_day u set import_wh = n.import_wh, export_wh = n.export_wh, estimated_wh = n.estimated_wh,"
            " covered_s = n.covered_s, quality = n.quality, refresh_no = n.refresh_no"
            " from usage_news n where u.meter_no = n.meter_no and u.day = n.day"
        )
        conn.execute("delete from usage_news")


def _note_changes(conn: psycopg.Connection[Any], sums: Sums, refresh_no: int) -> None:
    """Note which days before the end of any bill have news: a correction may be due."""
    row = conn.execute("select max(end_on) + 1 - date '1970-01-01' from bill where kind = 'invoice'").fetchone()
    rows = np.flatnonzero(sums.day < (row[0] if row and row[0] else 0))
    if len(rows):
        conn.execute(
            "insert into usage_change select *, %s from unnest(%s::int4[], %s::date[]) on conflict (meter_no, day)"
            " do update set refresh_no = excluded.refresh_no",
            (refresh_no, sums.meter_no[rows].tolist(), [EPOCH_DAY + dt.timedelta(days=int(d)) for d in sums.day[rows]]),
        )


def _quarters_of(value: bytes | None, default: int) -> Any:
    return default if value is None else np.frombuffer(value, "<i4")


def _copy_sums(
    conn: psycopg.Connection[Any], table: str, sums: Sums, chosen: NDArray[np.bool_], refresh_no: int
) -> None:
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return
    quarters = {name: sums.quarters[name][rows] for name in DAYS}
    wide = max(int(np.abs(column).max(initial=0)) for column in quarters.values())
    if wide >= 2**31:
        raise ValueError(f"a quarter-hour has {wide} Wh: more than any meter carries")
    columns: dict[str, NDArray[Any]] = {
        name: np.ascontiguousarray(column.astype("<i4")).view("V384").reshape(-1) for name, column in quarters.items()
    }
    columns |= {
        "meter_no": sums.meter_no[rows],
        "day": sums.day[rows],
        "quality": sums.quality[rows],
        "refresh_no": np.full(len(rows), refresh_no, np.int64),
    }
    nulls = {
        "export_wh": ~sums.has_export[rows],
        "estimated_wh": ~quarters["estimated_wh"].any(axis=1),
        "covered_s": (quarters["covered_s"] == QUARTER_S).all(axis=1),
    }
    names = ", ".join(name for name, _ in _DAY_TYPES)
    with conn.cursor().copy(f"copy {table} ({names}) from stdin (format binary)".encode()) as copy:
        copy.write(encode_copy(columns, _DAY_TYPES, nulls))


def fetch_profiles(
    conn: psycopg.Connection[Any], meter_nos: Sequence[int], first_day: dt.date, end_day: dt.date
) -> Profiles:
    """Return the sub-totals of meters on the UTC days ``[first_day, end_day)``.

    Memory: 3 KB a meter and day.
    """
    numbers = np.unique(np.array(meter_nos, np.int64))
    days = (end_day - first_day).days
    total = {name: np.zeros((len(numbers), days, QUARTERS_A_DAY), np.int64) for name in DAYS}
    quality = np.zeros((len(numbers), days), np.int64)
    has_export = np.zeros(len(numbers), np.bool_)
    refresh_no = np.zeros(len(numbers), np.int64)
    place = {number: index for index, number in enumerate(numbers.tolist())}
    rows = conn.cursor(binary=True).execute(
        "select meter_no, day - %(first)s::date, import_wh, export_wh, estimated_wh, covered_s, quality, refresh_no"
        " from usage_day where meter_no = any(%(meters)s::int4[]) and day >= %(first)s and day < %(end)s",
        {"meters": numbers.tolist(), "first": first_day, "end": end_day},
    )
    for meter_no, day, import_wh, export_wh, estimated_wh, covered_s, flags, refreshed in rows:
        at = place[meter_no]
        total["import_wh"][at, day] = np.frombuffer(import_wh, "<i4")
        total["covered_s"][at, day] = _quarters_of(covered_s, QUARTER_S)
        if export_wh is not None:
            total["export_wh"][at, day] = np.frombuffer(export_wh, "<i4")
            has_export[at] = True
        if estimated_wh is not None:
            total["estimated_wh"][at, day] = np.frombuffer(estimated_wh, "<i4")
        quality[at, day] = flags
        refresh_no[at] = max(refresh_no[at], refreshed)
    flat = {name: column.reshape(len(numbers), -1) for name, column in total.items()}
    return Profiles(numbers, first_day, days, **flat, quality=quality, has_export=has_export, refresh_no=refresh_no)
