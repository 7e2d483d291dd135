"""The tariff's local calendar as columns: at which instants its price, billing cycle or version changes.

All of local time is here: outside, instants are UTC. A local day has 23, 24 or 25 hours, and each instant is priced by
what its local clock shows, so the hour that comes twice in autumn is priced by the clock both times.
"""

import dataclasses
import datetime as dt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metering.state import SLOTS, Int64Column
from metering.tariff import Tariff, TariffError, TariffVersion

US = 1_000_000


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


def compile_timeline(tariff: Tariff, start_on: dt.date, end_on: dt.date) -> Timeline:
    """Return the timeline of a tariff over whole calendar months that hold the given days.

    Raises:
        TariffError: A cycle has more than SLOTS price buckets.
    """
    codes = {key: code for code, key in enumerate(tariff.buckets)}
    segments: list[tuple[int, int, int, int]] = []
    cycles: list[tuple[int, int]] = []
    cycle_buckets: list[tuple[int, ...]] = []
    month = start_on.replace(day=1)
    while month < end_on:
        following = (month + dt.timedelta(days=32)).replace(day=1)
        cycle = len(cycles)
        cycles.append((local_midnight_s(tariff, month), local_midnight_s(tariff, following)))
        used: set[int] = set()
        for day in _days(month, following):
            for start_s, version, season, period in _day_segments(tariff, day):
                bucket = codes[version, season, period]
                used.add(bucket)
                if not segments or segments[-1][1:] != (bucket, cycle, version):
                    segments.append((start_s, bucket, cycle, version))
        if len(used) > SLOTS:
            raise TariffError([f"{tariff.tariff_id}: {len(used)} prices in {month:%Y-%m}, at most {SLOTS}"])
        cycle_buckets.append(tuple(sorted(used)))
        month = following
    slots = [cycle_buckets[cycle].index(bucket) for _, bucket, cycle, _ in segments]
    return Timeline(
        start_s=np.array([segment[0] for segment in segments], np.int64),
        slot=np.array(slots, np.int32),
        bucket=np.array([segment[1] for segment in segments], np.int32),
        cycle=np.array([segment[2] for segment in segments], np.int32),
        version=np.array([segment[3] for segment in segments], np.int32),
        cycle_start_s=np.array([start for start, _ in cycles], np.int64),
        cycle_end_s=np.array([end for _, end in cycles], np.int64),
        cycle_buckets=tuple(cycle_buckets),
    )


def _days(first: dt.date, end: dt.date) -> list[dt.date]:
    return [first + dt.timedelta(days=day) for day in range((end - first).days)]


def local_midnight_s(tariff: Tariff, day: dt.date) -> int:
    """Return when a local day begins, epoch seconds."""
    return int(dt.datetime.combine(day, dt.time(), tariff.zone).timestamp())


def _day_segments(tariff: Tariff, day: dt.date) -> list[tuple[int, int, str, str]]:
    """Return (start, version, season, period) of a local day, in order of time; equal neighbours may be there."""
    version_index = tariff.version_index_on(day)
    version = tariff.versions[version_index]
    season, day_type = version.season_of(day), version.day_type_of(day)
    start_s = local_midnight_s(tariff, day)
    end_s = local_midnight_s(tariff, day + dt.timedelta(days=1))
    instants = {start_s, *_clock_instants(tariff, day, version)}
    if end_s - start_s != 86_400:
        instants.add(_offset_change_s(tariff, start_s, end_s))
    segments = []
    for instant in sorted(at for at in instants if start_s <= at < end_s):
        local = dt.datetime.fromtimestamp(instant, tariff.zone)
        period = version.period_of(season, day_type, local.hour * 60 + local.minute)
        segments.append((instant, version_index, season, period))
    return segments


def _clock_instants(tariff: Tariff, day: dt.date, version: TariffVersion) -> set[int]:
    """Return when the local clock shows the ends of windows; twice where it shows them twice."""
    minutes = {edge for window in version.windows for edge in (window.start_minute, window.end_minute)}
    instants = set()
    for minute in minutes - {0, 1440}:
        clock = dt.datetime.combine(day, dt.time(minute // 60, minute % 60), tariff.zone)
        instants |= {int(clock.replace(fold=fold).timestamp()) for fold in (0, 1)}
    return instants


def _offset_change_s(tariff: Tariff, low_s: int, high_s: int) -> int:
    """Return the instant inside ``(low_s, high_s]`` at which the offset from UTC changes."""

    def offset(at_s: int) -> Any:
        return dt.datetime.fromtimestamp(at_s, tariff.zone).utcoffset()

    before = offset(low_s)
    while high_s - low_s > 1:
        middle = (low_s + high_s) // 2
        if offset(middle) == before:
            low_s = middle
        else:
            high_s = middle
    return high_s


def segment_of(timeline: Timeline, at_us: Int64Column) -> NDArray[np.int64]:
    """Return the segment of each instant.

    Args:
        timeline: Compiled tariff.
        at_us: Shape (n,), epoch µs; an instant outside is taken to the first or last segment.
    """
    return np.maximum(np.searchsorted(timeline.start_s * US, at_us, side="right") - 1, 0)


def split_energy_columns(
    timeline: Timeline, start_us: Int64Column, end_us: Int64Column, energy_wh: Int64Column
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


def split_energy(timeline: Timeline, start_us: int, end_us: int, energy_wh: int) -> list[tuple[int, int]]:
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
