"""Interval energy of the ledger as local weeks, from the sub-totals of days: what the theft detector is given."""

import dataclasses
import datetime as dt
import zoneinfo
from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from metering.detect.events import meaning_of
from metering.profile import QUARTER_S
from metering.theft.weeks import Weeks, laid_out
from storage.usage_day import EPOCH_DAY, Profiles, fetch_profiles

DAY_S = 86_400
DAYS_LOOKED_AT = 60
INTERVALS_S = (900, 1800, 3600)
METERS_MAX = 200_000
EVENTS_MAX = 100_000
TAMPERING = (("tamper", True), ("magnetic_field", True))


class TheftRunError(ValueError):
    """The detector cannot run over this ledger; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Registered:
    """A meter as the detector needs it."""

    meter_no: int
    meter_id: str
    parent_id: str | None
    interval_s: int


def fetch_registered(conn: psycopg.Connection[Any]) -> list[Registered]:
    """Return all meters by name.

    Raises:
        TheftRunError: There are too many for one run.
    """
    rows = conn.execute(
        "select meter_no, meter_id, nullif(parent_id, ''), interval_s from meter order by meter_id limit %s",
        (METERS_MAX + 1,),
    ).fetchall()
    if len(rows) > METERS_MAX:
        raise TheftRunError(f"more than {METERS_MAX} meters: give the detector the files of a part (detect scan)")
    return [Registered(*row) for row in rows]


def span_of(
    conn: psycopg.Connection[Any], weeks: int, zone: zoneinfo.ZoneInfo
) -> tuple[dt.date, dt.date, dt.datetime, dt.datetime]:
    """Return the last whole local weeks: first Monday, the Monday at their end, and both as instants.

    The end is the newest day on which at least half as many meters as usual have energy: a clock that runs ahead moves nothing.

    Raises:
        TheftRunError: There is no whole week.
    """
    rows = conn.execute(
        "select day, count(*) from usage_day group by 1 order by 1 desc limit %s", (DAYS_LOOKED_AT,)
    ).fetchall()
    usual = max((count for _, count in rows), default=0)
    newest = next((day for day, count in rows if 2 * count >= usual), None)
    if newest is None:
        raise TheftRunError("the ledger has no energy yet: nothing can be looked at")
    known_until = dt.datetime.combine(newest + dt.timedelta(days=1), dt.time(), dt.UTC)
    local = known_until.astimezone(zone).date()
    end = local - dt.timedelta(days=local.weekday())
    first = end - dt.timedelta(weeks=weeks)
    oldest = conn.execute("select min(day) from usage_day").fetchone()
    assert oldest is not None
    if oldest[0] >= end:
        raise TheftRunError(f"there is no whole week before {end}: run it when the first one is over")
    start_at, end_at = (dt.datetime.combine(day, dt.time(), zone) for day in (first, end))
    return first, end, start_at, end_at


def fetch_weeks(
    conn: psycopg.Connection[Any],
    meters: Sequence[Registered],
    bounds: tuple[dt.datetime, dt.datetime],
    zone: zoneinfo.ZoneInfo,
) -> Weeks | None:
    """Return the weeks of meters that have any energy in ``[bounds)``; None where none has.

    Raises:
        TheftRunError: A meter's readings fit no interval.
    """
    able = [one for one in meters if one.interval_s <= max(INTERVALS_S)]
    if not able:
        return None
    start_s, end_s = (int(at.timestamp()) for at in bounds)
    first_day = EPOCH_DAY + dt.timedelta(days=start_s // DAY_S)
    end_day = EPOCH_DAY + dt.timedelta(days=-(-end_s // DAY_S))
    profiles = fetch_profiles(conn, [one.meter_no for one in able], first_day, end_day)
    names: list[str] = []
    meter, starts, energies = [], [], []
    for one in able:
        start, energy_wh = _cells(profiles, one)
        inside = (start >= start_s) & (start < end_s)
        if not inside.any():
            continue
        meter.append(np.full(int(inside.sum()), len(names), np.int64))
        names.append(one.meter_id)
        starts.append(start[inside])
        energies.append(energy_wh[inside])
    if not names:
        return None
    return laid_out(names, np.concatenate(meter), np.concatenate(starts), np.concatenate(energies), zone)


def _cells(profiles: Profiles, one: Registered) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return start (epoch s) and net energy of a meter's whole intervals: 15, 30 or 60 min."""
    row = int(np.searchsorted(profiles.meter_nos, one.meter_no))
    interval_s = next(size for size in INTERVALS_S if one.interval_s <= size)
    shape = (-1, interval_s // QUARTER_S)
    energy_wh = (profiles.import_wh[row] - profiles.export_wh[row]).reshape(shape).sum(1)
    whole = profiles.covered_s[row].reshape(shape).sum(1) >= interval_s
    begin_s = (profiles.first_day - EPOCH_DAY).days * DAY_S
    start_s = begin_s + np.arange(len(energy_wh), dtype=np.int64) * interval_s
    return start_s[whole], energy_wh[whole]


def fetch_event_days(
    conn: psycopg.Connection[Any], bounds: tuple[dt.datetime, dt.datetime], zone: zoneinfo.ZoneInfo
) -> dict[str, list[dt.date]]:
    """Return the local days of events that mean tampering, by meter."""
    found: dict[str, set[dt.date]] = {}
    rows = conn.execute(
        "select m.meter_id, e.at, e.code from meter_event e join meter m using (meter_no)"
        " where e.at >= %s - interval '7 days' and e.at < %s + interval '7 days' order by e.at limit %s",
        (*bounds, EVENTS_MAX),
    )
    for meter_id, at, code in rows:
        if meaning_of(code) in TAMPERING:
            found.setdefault(meter_id, set()).add(at.astimezone(zone).date())
    return {name: sorted(days) for name, days in found.items()}
