"""The charge so far made again by the second rater, from the facts, up to the same instant: no difference may be left."""

import datetime as dt
import zoneinfo
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import psycopg

from metering.pricing.indexed import MissingPriceError
from metering.second_cycle import Days, Part, SlowCycle, cycle_about, rate_parts, series_named, span_s, step_s
from metering.second_sheet import SlowHistory, read_history
from metering.terms import RatingError
from storage.charge import ChargeSoFar, fetch_charge
from storage.check_result import FINDINGS_MAX, CheckResult
from storage.registry import load_registry
from storage.second_known import NOW, Conn, documented, fetch_intervals, fetch_parts, fetch_published

POINTS_MAX = 100
NEAR = Fraction(1, 10**9)
"""The first rater makes amounts with 12 decimals, a line each; the second has other lines for the same."""


def check_charges(conn: psycopg.Connection[Any]) -> CheckResult:
    """Return whether charges so far, of live states and of the ledger, are what the second rater makes of the facts."""
    registry = load_registry(conn)
    points = [
        int(row[0])
        for row in conn.execute(
            "select service_point_no from service_point p where exists (select from meter_assignment a"
            " where a.service_point_no = p.service_point_no) order by md5(service_point_no::text)"
        )
    ]
    findings: list[str] = []
    unchecked: list[str] = []
    count = {"state": 0, "ledger": 0}
    for point in points[:POINTS_MAX]:
        try:
            live = fetch_charge(conn, registry, point)
            if live is None:
                continue
            # As of its own instant it is made from the ledger, whatever the state carries.
            charges = [live, fetch_charge(conn, registry, point, live.read_at)] if live.source == "state" else [live]
            second = _second(conn, point, live)
        except (RatingError, MissingPriceError, ValueError) as error:
            unchecked.append(f"{registry.service_point_id[point]}, {error}")
            continue
        for charge in charges:
            assert charge is not None  # there is one of the same instant
            count[charge.source] += 1
            findings += _findings(charge, second)
    what = f"{count['state']} from live state and {count['ledger']} from the ledger,"
    what += f" {min(len(points), POINTS_MAX)} of {len(points)} service points"
    if unchecked:
        what += f"; not checked: {'; '.join(unchecked[:FINDINGS_MAX])}"
    return CheckResult(
        "I16", "charges so far are what the second rater makes of the facts", what, findings[:FINDINGS_MAX]
    )


def _findings(charge: ChargeSoFar, second: SlowCycle) -> list[str]:
    name = f"{charge.service_point_id} charge so far from {'live state' if charge.source == 'state' else 'the ledger'}"
    found = []
    if abs(Fraction(charge.total_unrounded) - second.total_unrounded) > NEAR:
        other = Decimal(round(second.total_unrounded * 10**9)).scaleb(-9)
        found.append(f"{name}: {charge.total_unrounded.normalize():f}, the second rater has {other.normalize():f}")
    elif charge.total != second.total:
        found.append(f"{name}: {charge.total} rounded, the second rater has {second.total}")
    return found


def _second(conn: Conn, point: int, charge: ChargeSoFar) -> SlowCycle:
    """Return what the second rater makes of the facts of a service point until the instant of a charge.

    Raises:
        ValueError: Something that the tariff needs is not there.
    """
    read_s = charge.read_at.timestamp()
    day = (charge.read_at - dt.timedelta(microseconds=1)).astimezone(_zone(conn, charge.tariff_id)).date()
    cycle, rows, history = _agreed(conn, point, day)
    parts: Sequence[Part] = documented(conn, rows, NOW)
    documents = [part.document for part in parts]
    span = span_s(parts)
    intervals = fetch_intervals(conn, point, span, step_s(documents), None)
    read = [interval for interval in intervals if interval.start_s < read_s]
    until = charge.read_at.astimezone(_zone(conn, charge.tariff_id)).date() + dt.timedelta(days=1)
    published = fetch_published(conn, series_named(documents), span, NOW)
    return rate_parts(parts, cycle, read, published, history, until=until)


def _zone(conn: Conn, tariff_id: str) -> dt.tzinfo:
    row = conn.execute("select document ->> 'zone' from tariff where tariff_id = %s", (tariff_id,)).fetchone()
    assert row is not None
    return zoneinfo.ZoneInfo(row[0])


def _agreed(
    conn: Conn, point: int, day: dt.date
) -> tuple[Days, list[tuple[Days, str, dict[str, Decimal]]], SlowHistory]:
    """Return the cycle that holds a day, its parts, and what the newest bill before it leaves.

    Raises:
        ValueError: Neither contract nor meter has a tariff.
    """
    row = conn.execute(
        "select c.contract_no, c.billing_day, c.start_on from contract c where c.service_point_no = %(point)s"
        " and c.start_on <= %(day)s"
        " and coalesce(c.end_on, 'infinity') > %(day)s and exists (select from contract_tariff t"
        " where t.contract_no = c.contract_no and t.replaced_at is null)",
        {"point": point, "day": day},
    ).fetchone()
    if row is None:
        row = conn.execute(
            "select tariff_id from meter_assignment where service_point_no = %s and tariff_id is not null"
            " order by start_at desc limit 1",
            (point,),
        ).fetchone()
        if row is None:
            raise ValueError("there is no tariff")
        cycle = cycle_about(1, day)
        return cycle, [(cycle, str(row[0]), {})], SlowHistory()
    cycle = cycle_about(row[1], day)
    left = conn.execute(
        "select history_after from bill where contract_no = %s and kind = 'invoice' and state <> 'cancelled' and end_on <= %s"
        " order by end_on desc limit 1",
        (row[0], cycle[0]),
    ).fetchone()
    history = read_history(left[0]) if left else SlowHistory(service_since=row[2])
    return cycle, fetch_parts(conn, row[0], cycle, NOW), history
