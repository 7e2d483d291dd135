"""What a bill needs beside load and tariff: published days and price series, as now or as known at an instant."""

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg

from metering.pricing.indexed import Series
from metering.tariff import Tariff
from metering.usage import Inputs
from storage.load import instant


def series_of(tariffs: Iterable[Tariff]) -> list[str]:
    """Return the names of the price series that tariffs follow."""
    found = set()
    for tariff in tariffs:
        for version in tariff.versions:
            parts = [part.index for part in version.document.energy]
            parts.append(version.document.export.index if version.document.export else None)
            found |= {part.name for part in parts if part}
    return sorted(found)


def fetch_inputs(
    conn: psycopg.Connection[Any],
    tariffs: Iterable[Tariff],
    start_us: int,
    end_us: int,
    known_at: dt.datetime | None = None,
) -> Inputs:
    """Return flags of days and price series around ``[start_us, end_us)``.

    Args:
        conn: Connection.
        tariffs: Say which series.
        start_us: Epoch µs.
        end_us: Epoch µs.
        known_at: As published then; None is as now.
    """
    low, high = instant(start_us) - dt.timedelta(days=2), instant(end_us) + dt.timedelta(days=2)
    flags: dict[str, set[dt.date]] = {}
    for flag, day in conn.execute(
        "select flag, day from day_flag where day between %(low)s and %(high)s"
        " and case when %(known)s::timestamptz is null then withdrawn_at is null"
        " else published_at <= %(known)s and coalesce(withdrawn_at > %(known)s, true) end",
        {"low": low.date(), "high": high.date(), "known": known_at},
    ):
        flags.setdefault(flag, set()).add(day)
    indices: dict[str, tuple[list[int], list[Decimal]]] = {}
    for name, at_s, price in conn.execute(
        "select distinct on (series, start_at) series, extract(epoch from start_at)::int8, price from price_series"
        " where series = any(%(names)s) and start_at >= %(low)s and start_at < %(high)s"
        " and published_at <= coalesce(%(known)s::timestamptz, 'infinity') order by series, start_at, published_at desc",
        {"names": series_of(tariffs), "low": low, "high": high, "known": known_at},
    ):
        starts, prices = indices.setdefault(name, ([], []))
        starts.append(at_s)
        prices.append(price)
    return Inputs(
        flags={flag: frozenset(days) for flag, days in flags.items()},
        indices={name: Series(np.array(starts, np.int64), prices) for name, (starts, prices) in indices.items()},
    )
