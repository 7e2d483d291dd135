"""The load of the last day by quarter-hours, kept in memory so that a page costs the database nothing."""

import dataclasses
import datetime as dt
import time
from collections.abc import Mapping, Sequence

import psycopg

from storage.query import fetch_load_curve, fetch_long_spans

STEP = dt.timedelta(minutes=15)
SPAN = dt.timedelta(days=1)
EVERY = dt.timedelta(seconds=15)
LATE = dt.timedelta(minutes=45)
"""Quarter-hours that are read again each time. Older ones change only by late readings and a catch-up."""
WORK_PART = 50
"""All of them are read again after so many times what that took last: at most a fiftieth of one database connection."""
AVERAGED_SHARE_MIN = 0.05
"""Share of a quarter-hour's energy from long intervals that is worth a mark."""


@dataclasses.dataclass(frozen=True)
class LoadPoint:
    """One quarter-hour."""

    start: dt.datetime
    used_wh: int
    fed_wh: int
    averaged_wh: int = 0
    """Part of `used_wh` that is spread evenly over long intervals: readings are missing there, energy is not."""

    @property
    def averaged_share(self) -> float:
        """Return which part of the energy is spread."""
        return self.averaged_wh / self.used_wh if self.used_wh > 0 else 0.0

    @property
    def used_kw(self) -> float:
        """Return the mean power used, kW."""
        return self.used_wh / 1000 / (STEP.total_seconds() / 3600)

    @property
    def fed_kw(self) -> float:
        """Return the mean power fed in, kW."""
        return self.fed_wh / 1000 / (STEP.total_seconds() / 3600)


class LoadCurve:
    """Quarter-hours with data, oldest first; one thread refreshes, others read `points`."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self.points: list[LoadPoint] = []
        self.end: dt.datetime | None = None
        """Of the last whole quarter-hour that was read; None before the first time."""
        self._read_at: dt.datetime | None = None
        self._all_at: dt.datetime | None = None
        self._all_took = dt.timedelta()

    @property
    def start(self) -> dt.datetime | None:
        """Return where the curve begins."""
        return None if self.end is None else self.end - SPAN

    def refresh(self, conn: psycopg.Connection, now: dt.datetime) -> None:
        """Read what is due: the newest quarter-hours each EVERY, all of them as often as the database bears it.

        Raises:
            psycopg.Error: What was read before stays.
        """
        if self._read_at is not None and now - self._read_at < EVERY:
            return
        end = whole_quarter(now)
        everything = self._all_at is None or now - self._all_at >= WORK_PART * self._all_took
        began = time.perf_counter()
        start = end - SPAN if everything or self.end is None else max(self.end - LATE, end - SPAN)
        measured = {at: LoadPoint(at, used_wh, fed_wh) for at, used_wh, fed_wh, _ in fetch_load_curve(conn, start, end)}
        fresh = spread(measured, fetch_long_spans(conn, start, end), start, end)
        kept = [] if everything else [point for point in self.points if end - SPAN <= point.start < start]
        self.points, self.end = kept + fresh, end
        self._read_at = now
        if everything:
            self._all_at, self._all_took = now, dt.timedelta(seconds=time.perf_counter() - began)


def whole_quarter(now: dt.datetime) -> dt.datetime:
    """Return the end of the last whole quarter-hour.

    Example:
        >>> whole_quarter(dt.datetime(2026, 11, 24, 14, 44, 59, tzinfo=dt.UTC)).isoformat()
        '2026-11-24T14:30:00+00:00'
    """
    return now - dt.timedelta(seconds=now.timestamp() % STEP.total_seconds())


def spread(
    measured: Mapping[dt.datetime, LoadPoint],
    spans: Sequence[tuple[dt.datetime, dt.datetime, int, int]],
    start: dt.datetime,
    end: dt.datetime,
) -> list[LoadPoint]:
    """Return the points in [start, end) with the energy of long intervals spread evenly over their time, oldest first.

    Args:
        measured: Points without long intervals, by start.
        spans: Start, end, used Wh and fed-in Wh of long intervals.
        start: Of the first quarter-hour.
        end: Of the last one.
    """
    points = dict(measured)
    for low, high, used_wh, fed_wh in spans:
        at = max(start, whole_quarter(low))
        while at < min(high, end):
            share = (min(high, at + STEP) - max(low, at)) / (high - low)
            old = points.get(at, LoadPoint(at, 0, 0))
            used = round(used_wh * share)
            points[at] = LoadPoint(at, old.used_wh + used, old.fed_wh + round(fed_wh * share), old.averaged_wh + used)
            at += STEP
    return [points[at] for at in sorted(points)]


def averaged_bands(points: Sequence[LoadPoint]) -> list[tuple[dt.datetime, dt.datetime, float]]:
    """Return stretches of neighbours with much spread energy: start, end, and the share in all of the stretch."""
    bands: list[list[LoadPoint]] = []
    for point in points:
        if point.averaged_share < AVERAGED_SHARE_MIN:
            continue
        if bands and bands[-1][-1].start + STEP == point.start:
            bands[-1].append(point)
        else:
            bands.append([point])
    return [
        (band[0].start, band[-1].start + STEP, sum(p.averaged_wh for p in band) / max(1, sum(p.used_wh for p in band)))
        for band in bands
    ]
