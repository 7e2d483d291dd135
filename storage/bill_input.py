"""What a bill needs beside load and tariff: published days, price series, what earlier bills leave; as now or as known then."""

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg

from metering.bill import History
from metering.billing import decode_history
from metering.contract import Contract
from metering.pricing.fixed import DaySpan
from metering.pricing.indexed import Series
from metering.rating import NO_HISTORY
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


def fetch_history(
    conn: psycopg.Connection[Any], contract: Contract, cycle: DaySpan, known_at: dt.datetime | None = None
) -> History:
    """Return what the newest bill before a cycle leaves to it, of the bills that there were at an instant; None is now."""
    row = conn.execute(
        "select history_after from bill where contract_no = %(contract)s and kind = 'invoice' and end_on <= %(start)s"
        " and case when %(at)s::timestamptz is null then state <> 'cancelled'"
        " else created_at <= %(at)s and coalesce(cancelled_at > %(at)s, true) end order by end_on desc limit 1",
        {"contract": contract.contract_no, "start": cycle[0], "at": known_at},
    ).fetchone()
    if row is None:  # as the first bill of a contract begins; the tariff of a meter alone has no first day
        return History(service_since=contract.start_on) if contract.contract_no else NO_HISTORY
    return decode_history(row[0])
