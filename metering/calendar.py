"""The tariff's local calendar as columns: at which instants its price, billing cycle or version changes.

All of local time is here: outside, instants are UTC. A local day has 23, 24 or 25 hours, and each instant is priced by
what its local clock shows, so the hour that comes twice in autumn is priced by the clock both times.
"""

import dataclasses
import datetime as dt
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metering.contract import cycle_of, cycles_between
from metering.state import SLOTS, Int64Column
from metering.tariff import Tariff, TariffVersion

US = 1_000_000
DAY_S = 86_400
NO_FLAGS: Mapping[str, frozenset[dt.date]] = {}


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Segments of constant price bucket, cycle and version, consecutive and sorted."""

    start_s: Int64Column
    """Shape (n,), epoch seconds; a segment ends where the next one starts."""
    slot: NDArray[np.int32]
    """Shape (n,), index of the segment's bucket among those of its cycle, below SLOTS."""
    bucket: NDArray[np.int32]
    """Shape (n,), code of the price bucket in the tariff."""
    cycle: NDArray[np.int32]
    """Shape (n,), index into the columns of cycles."""
    version: NDArray[np.int32]
    """Shape (n,), index of the tariff version."""
    cycle_start_s: Int64Column
    """Shape (c,), epoch seconds."""
    cycle_end_s: Int64Column
    """Shape (c,), epoch seconds."""
    cycle_buckets: tuple[tuple[int, ...], ...]
    """Bucket of each slot, by cycle."""


@dataclasses.dataclass(frozen=True)
class Segments:
    """Times of constant price bucket, consecutive and sorted."""

    start_s: Int64Column
    """Shape (n,), epoch seconds; a segment ends where the next one starts."""
    bucket: NDArray[np.int64]
    """Shape (n,), code of the price bucket in the tariff."""


def compile_segments(
    tariff: Tariff,
    start_on: dt.date,
    end_on: dt.date,
    *,
    edges_s: Iterable[int] = (),
    flags: Mapping[str, frozenset[dt.date]] = NO_FLAGS,
) -> Segments:
    """Return the price buckets of the local days ``[start_on, end_on)``.

    Args:
        tariff: Checked tariff.
        start_on: First local day of the billing clock.
        end_on: Day after the last.
        edges_s: Instants at which a segment begins whether its bucket changes or not, epoch seconds.
        flags: Published days by flag.
    """
    low, high = local_midnight_s(tariff, start_on), local_midnight_s(tariff, end_on)
    codes = {key: code for code, key in enumerate(tariff.buckets)}
    compiler = _DayCompiler(tariff, flags)
    found: dict[int, int] = {}
    for day in _days(start_on - dt.timedelta(days=1), end_on + dt.timedelta(days=2)):
        for start_s, version, season, period in compiler.day(day):
            found[start_s] = codes[version, season, period]
    starts = np.array(sorted(found), np.int64)
    buckets = np.array([found[start] for start in starts.tolist()], np.int64)
    cuts = np.unique(np.array([low, *(edge for edge in edges_s if low <= edge < high)], np.int64))
    every = np.union1d(starts[(starts >= low) & (starts < high)], cuts)
    bucket = buckets[np.searchsorted(starts, every, side="right") - 1]
    kept = np.ones(len(every), np.bool_)
    kept[1:] = (bucket[1:] != bucket[:-1]) | np.isin(every[1:], cuts)
    return Segments(every[kept], bucket[kept])


def compile_timeline(
    tariff: Tariff,
    start_on: dt.date,
    end_on: dt.date,
    *,
    billing_day: int = 1,
    flags: Mapping[str, frozenset[dt.date]] = NO_FLAGS,
    segments: Segments | None = None,
) -> Timeline:
    """Return the timeline of a tariff over whole billing cycles that hold the given days.

    Args:
        tariff: Checked tariff.
        start_on: First local day.
        end_on: Day after the last.
        billing_day: Day of the month that cycles begin on, 1 to 28.
        flags: Published days by flag.
        segments: Of a month more on both sides, if they are there already: then only the cycles are cut.
    """
    days = [span[0] for span in cycles_between(billing_day, start_on, end_on)]
    days.append(cycle_of(billing_day, days[-1])[1])
    edges = np.array([local_midnight_s(tariff, day) for day in days], np.int64)
    if segments is None:
        segments = compile_segments(tariff, days[0], days[-1], edges_s=edges.tolist(), flags=flags)
    else:
        segments = _cut(segments, edges)
    cycle = np.searchsorted(edges, segments.start_s, side="right") - 1
    cycle_buckets = []
    slot = np.zeros(len(cycle), np.int32)
    for index in range(len(days) - 1):
        here = cycle == index
        used = np.unique(segments.bucket[here])
        # A cycle of more prices than slots is charged from the ledger: its slots only have to be slots.
        slot[here] = np.minimum(np.searchsorted(used, segments.bucket[here]), SLOTS - 1)
        cycle_buckets.append(tuple(used.tolist()))
    version = np.array([key[0] for key in tariff.buckets], np.int32)
    return Timeline(
        start_s=segments.start_s,
        slot=slot,
        bucket=segments.bucket.astype(np.int32),
        cycle=cycle.astype(np.int32),
        version=version[segments.bucket],
        cycle_start_s=edges[:-1],
        cycle_end_s=edges[1:],
        cycle_buckets=tuple(cycle_buckets),
    )


def _cut(segments: Segments, edges_s: Int64Column) -> Segments:
    """Return the part of segments between the first and the last edge, begun anew at each of them."""
    starts = segments.start_s
    inside = starts[(starts > edges_s[0]) & (starts < edges_s[-1])]
    every = np.union1d(inside, edges_s[:-1])
    bucket = segments.bucket[np.maximum(np.searchsorted(starts, every, side="right") - 1, 0)]
    return Segments(every, bucket)


def _days(first: dt.date, end: dt.date) -> list[dt.date]:
    return [first + dt.timedelta(days=day) for day in range((end - first).days)]


def local_midnight_s(tariff: Tariff, day: dt.date) -> int:
    """Return when a local day begins, epoch seconds."""
    return _midnight_s(tariff.zone, day)


def _midnight_s(zone: dt.tzinfo, day: dt.date) -> int:
    return int(dt.datetime.combine(day, dt.time(), zone).timestamp())


class _DayCompiler:
    """Finds the segments of days of the schedule's clock; days alike are looked at once."""

    def __init__(self, tariff: Tariff, flags: Mapping[str, frozenset[dt.date]]) -> None:
        self._tariff = tariff
        self._flags = flags
        self._pattern = functools.lru_cache(4096)(self._pattern_of)

    def day(self, day: dt.date) -> list[tuple[int, int, str, str]]:
        """Return (start, version, season, period) of a day, in order of time."""
        tariff = self._tariff
        zone = tariff.schedule_zone
        start_s, end_s = _midnight_s(zone, day), _midnight_s(zone, day + dt.timedelta(days=1))
        flags = frozenset(name for name, days in self._flags.items() if day in days)
        around = {tariff.version_index_on(day + dt.timedelta(days=shift)) for shift in (-1, 0, 1)}
        version = tariff.version_index_on(day)
        one_version = zone is tariff.zone or len(around) == 1
        if one_version and end_s - start_s == DAY_S:
            season = tariff.versions[version].season_of(day)
            labels = tariff.versions[version].labels_of(day, flags)
            return [
                (start_s + minute * 60, version, season, period)
                for minute, period in self._pattern(version, season, labels)
            ]
        return self._odd_day(day, start_s, end_s, around, flags)

    def _pattern_of(self, version: int, season: str, labels: frozenset[str]) -> list[tuple[int, str]]:
        item = self._tariff.versions[version]
        minutes = {0, *(edge for window in item.windows for edge in (window.start_minute, window.end_minute))}
        return [(minute, item.period_of(season, labels, minute)) for minute in sorted(minutes - {1440})]

    def _odd_day(
        self, day: dt.date, start_s: int, end_s: int, around: set[int], flags: frozenset[str]
    ) -> list[tuple[int, int, str, str]]:
        """Return the segments of a day on which a clock or a version changes, instant by instant."""
        tariff, zone = self._tariff, self._tariff.schedule_zone
        instants = {start_s, _midnight_s(tariff.zone, day), _midnight_s(tariff.zone, day + dt.timedelta(days=1))}
        for version in around:
            instants |= _clock_instants(zone, day, tariff.versions[version])
        if end_s - start_s != DAY_S:
            instants.add(_offset_change_s(zone, start_s, end_s))
        segments = []
        for instant in sorted(at for at in instants if start_s <= at < end_s):
            version = tariff.version_index_on(dt.datetime.fromtimestamp(instant, tariff.zone).date())
            item = tariff.versions[version]
            local = dt.datetime.fromtimestamp(instant, zone)
            season = item.season_of(day)
            period = item.period_of(season, item.labels_of(day, flags), local.hour * 60 + local.minute)
            segments.append((instant, version, season, period))
        return segments


def _clock_instants(zone: dt.tzinfo, day: dt.date, version: TariffVersion) -> set[int]:
    """Return when the clock shows the ends of windows; twice where it shows them twice."""
    minutes = {edge for window in version.windows for edge in (window.start_minute, window.end_minute)}
    instants = set()
    for minute in minutes - {0, 1440}:
        clock = dt.datetime.combine(day, dt.time(minute // 60, minute % 60), zone)
        instants |= {int(clock.replace(fold=fold).timestamp()) for fold in (0, 1)}
    return instants


def _offset_change_s(zone: dt.tzinfo, low_s: int, high_s: int) -> int:
    """Return the instant inside ``(low_s, high_s]`` at which the offset from UTC changes."""

    def offset(at_s: int) -> Any:
        return dt.datetime.fromtimestamp(at_s, zone).utcoffset()

    before = offset(low_s)
    while high_s - low_s > 1:
        middle = (low_s + high_s) // 2
        if offset(middle) == before:
            low_s = middle
        else:
            high_s = middle
    return high_s


def segment_of(timeline: Timeline | Segments, at_us: Int64Column) -> NDArray[np.int64]:
    """Return the segment of each instant.

    Args:
        timeline: Compiled tariff.
        at_us: Shape (n,), epoch µs; an instant outside is taken to the first or last segment.
    """
    return np.maximum(np.searchsorted(timeline.start_s * US, at_us, side="right") - 1, 0)


def split_energy_columns(
    timeline: Timeline | Segments, start_us: Int64Column, end_us: Int64Column, energy_wh: Int64Column
) -> tuple[Int64Column, NDArray[np.int64], Int64Column]:
    """Return the energy of intervals by segment: evenly over time, in whole Wh, the pieces of a row summing to it.

    Args:
        timeline: Compiled tariff.
        start_us: Shape (n,), epoch µs.
        end_us: Shape (n,), epoch µs; equal to the start for an interval of no length.
        energy_wh: Shape (n,), Wh; negative for a reversal, which is split as the exact opposite.

    Returns:
        Row, segment and energy of each piece; one piece for a row inside one segment. Rows ascend.
    """
    first = segment_of(timeline, start_us)
    last = np.maximum(segment_of(timeline, end_us - 1), first)
    whole = first == last
    rows = np.flatnonzero(whole)
    if len(rows) == len(first):
        return rows, first, energy_wh
    pieces = [
        (row, segment, piece_wh)
        for row in np.flatnonzero(~whole).tolist()
        for segment, piece_wh in split_energy(timeline, int(start_us[row]), int(end_us[row]), int(energy_wh[row]))
    ]
    row, segment, piece_wh = (np.array(column, np.int64) for column in zip(*pieces, strict=True))
    row = np.concatenate([rows, row])
    order = np.argsort(row, kind="stable")
    segment = np.concatenate([first[rows], segment])
    piece_wh = np.concatenate([energy_wh[rows], piece_wh])
    return row[order], segment[order], piece_wh[order]


def split_energy(timeline: Timeline | Segments, start_us: int, end_us: int, energy_wh: int) -> list[tuple[int, int]]:
    """Return segment and energy of the pieces of one interval; see `split_energy_columns`."""
    edges = timeline.start_s
    segment = max(int(np.searchsorted(edges, start_us // US, side="right")) - 1, 0)
    sign = -1 if energy_wh < 0 else 1
    duration_us = max(end_us - start_us, 1)
    pieces, done_wh = [], 0
    while True:
        over = segment + 1 >= len(edges) or int(edges[segment + 1]) * US >= end_us
        reached_us = end_us if over else int(edges[segment + 1]) * US
        until_wh = abs(energy_wh) if over else abs(energy_wh) * (reached_us - start_us) // duration_us
        pieces.append((segment, sign * (until_wh - done_wh)))
        if over:
            return pieces
        done_wh = until_wh
        segment += 1
