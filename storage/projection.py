"""The charge of a running cycle as it may end: what is used so far and what is projected, priced by the bill's own code."""

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

import numpy as np
import psycopg

from metering.billing import CycleBill, bill_cycle, span_us
from metering.calendar import US
from metering.pricing.indexed import MissingPriceError
from metering.pricing.rounding import decimal_from_fraction
from metering.profile import QUARTER_S, QUARTERS_A_DAY
from metering.projection import OWN_DAYS_MIN, PAST_DAYS, Column, join_load, local_quarters, past_of, project
from metering.state import Int64Column
from metering.terms import RatingError
from metering.usage import Load
from storage.known import ChargeKnown, fetch_charge_known
from storage.ledger_time import position_at
from storage.load import EPOCH, ServiceLoad, fetch_load, instant
from storage.snapshot import one_snapshot
from storage.usage_day import fetch_profiles

CLASS_METERS_MAX = 100
CLASS_DAYS = 28
SIDES = ("low", "middle", "high")
FED_IN = "export_wh"


@dataclasses.dataclass(frozen=True)
class Side:
    """One way in which the cycle may end."""

    energy_wh: int
    """Of the whole cycle."""
    export_wh: int
    bill: CycleBill | None
    """None where a price of the rest of the cycle is not published yet."""


@dataclasses.dataclass(frozen=True)
class Projection:
    """A running cycle: its charge so far, and what it may be at the end, 8 times in 10 between low and high."""

    charge: ChargeKnown
    low: Side
    middle: Side
    high: Side
    cycle_end_us: int
    own_days: int
    """Whole days of the last PAST_DAYS that it is based on."""
    basis: str
    """``own``, ``class`` (its shape, and its level without a whole own day), ``flat``, or ``over``: nothing is to come."""
    note: str = ""
    """Why there are no amounts."""


def fetch_projection(
    conn: psycopg.Connection[Any], service_point_no: int, known_at: dt.datetime | None = None
) -> Projection | None:
    """Return the charge so far of a service point and its projection, as now or as known at an instant.

    What a class uses, for those without a week of their own, is as of now. None: as `fetch_charge_known`.

    Raises:
        RatingError: The charge so far cannot be priced.
        ContractError: A tariff of the contract was not loaded then.
    """
    with one_snapshot(conn):
        charge = fetch_charge_known(conn, service_point_no, known_at)
        return None if charge is None else _project(conn, charge, known_at)


def _project(conn: psycopg.Connection[Any], charge: ChargeKnown, known_at: dt.datetime | None) -> Projection:
    _, end_us = span_us(charge.contract, charge.cycle, charge.tariffs)
    step_us = QUARTER_S * US
    begin_us = charge.read_us // step_us * step_us
    at_us = np.arange(begin_us, end_us, step_us)
    today = int(local_quarters(np.array([charge.read_us]), charge.zone)[0][0])
    past_us = begin_us // (86_400 * US) * (86_400 * US) - (PAST_DAYS + 2) * 86_400 * US
    known = None if known_at is None else position_at(conn, known_at)
    past = fetch_load(conn, charge.service_point_no, past_us, -(-charge.read_us // step_us) * step_us, known=known)
    names = charge.load.load.registers
    whole = past_of(past.load, past.covered_s, charge.zone, today, "import_wh")
    own_days = int(whole.known.sum())
    week, basis = None, "own"
    if own_days < OWN_DAYS_MIN:
        week, basis = fetch_class_week(conn, charge.contract.account_no, today, charge.zone), "class"
        if week is None:
            week, basis = _flat_week(past), "flat"
    day, quarter = local_quarters(at_us, charge.zone)
    rest: dict[str, dict[str, Int64Column]] = {side: {} for side in SIDES}
    for name in names:
        here = past_of(past.load, past.covered_s, charge.zone, today, name) if name in past.load.registers else None
        found = project(
            dataclasses.replace(whole, energy=np.zeros_like(whole.energy)) if here is None else here,
            day,
            quarter,
            week if name == "import_wh" else None,
        )
        ways = [found.low_wh[0], found.middle_wh[0], found.high_wh[0]]
        for side, wh in zip(SIDES, ways[::-1] if name == FED_IN else ways, strict=True):
            rest[side][name] = _without_begun(wh, charge.read_us - begin_us)
    (low, middle, high), note = _rate(charge, at_us, rest)
    return Projection(charge, low, middle, high, end_us, own_days, basis if len(at_us) else "over", note)


def _flat_week(past: ServiceLoad) -> Column:
    """Return a week at the mean power of what is known, shape (7, 96), Wh."""
    covered_s = max(int(past.covered_s.sum()), 1)
    return np.full((7, QUARTERS_A_DAY), past.energy_wh * QUARTER_S / covered_s)


def _without_begun(wh: Int64Column, begun_us: int) -> Int64Column:
    """Return energies to come without the part of the first quarter-hour that is over."""
    if begun_us and len(wh):
        wh = wh.copy()
        wh[0] -= int(wh[0]) * begun_us // (QUARTER_S * US)
    return wh


def _rate(
    charge: ChargeKnown, at_us: Int64Column, rest: Mapping[str, dict[str, Int64Column]]
) -> tuple[list[Side], str]:
    loads: list[Load] = [join_load(charge.load.load, at_us, rest[side]) for side in SIDES]
    bills: list[CycleBill | None] = []
    note = ""
    try:
        bills += [
            bill_cycle(charge.contract, charge.cycle, charge.tariffs, load, charge.inputs, charge.history)
            for load in loads
        ]
        # with a minimum bill, or prices below zero, less energy may cost as much or more
        bills.sort(key=lambda bill: bill.total_unrounded if bill else 0)
    except (RatingError, MissingPriceError) as error:
        note = str(error)
        bills = [None] * len(loads)
    sides = []
    for load, bill in zip(loads, bills, strict=True):
        fed = load.registers.get(FED_IN)
        sides.append(Side(int(load.registers["import_wh"].sum()), 0 if fed is None else int(fed.sum()), bill))
    return sides, note


def fetch_class_week(conn: psycopg.Connection[Any], account_no: int, end_day: int, zone: dt.tzinfo) -> Column | None:
    """Return what an account of the same class uses in a week, shape (7, 96), Wh, Monday first; None without others.

    Args:
        conn: Connection.
        account_no: Whose class; it is left out itself.
        end_day: Only days before, since 1970-01-01.
        zone: Local clock.
    """
    rows = conn.execute(
        "select distinct m.meter_no from account o join account a on a.class = o.class and a.account_no <> o.account_no"
        " join contract c on c.account_no = a.account_no join meter_assignment m using (service_point_no)"
        " where o.account_no = %s order by 1 limit %s",
        (account_no, CLASS_METERS_MAX),
    ).fetchall()
    if not rows:
        return None
    first = EPOCH.date() + dt.timedelta(days=end_day - CLASS_DAYS)
    profiles = fetch_profiles(conn, [row[0] for row in rows], first, EPOCH.date() + dt.timedelta(days=end_day))
    at_us = (end_day - CLASS_DAYS) * 86_400 * US + np.arange(CLASS_DAYS * QUARTERS_A_DAY) * QUARTER_S * US
    day, quarter = local_quarters(at_us, zone)
    key = (day + 3) % 7 * QUARTERS_A_DAY + quarter
    size = 7 * QUARTERS_A_DAY
    energy = np.bincount(key, profiles.import_wh.sum(axis=0), size)
    covered = np.bincount(key, profiles.covered_s.sum(axis=0), size)
    if (covered == 0).any():
        return None
    return (energy / covered * QUARTER_S).reshape(7, QUARTERS_A_DAY)


def projection_as_json(found: Projection) -> dict[str, Any]:
    """Return a projection for the API and `gridtally charge --json`: decimals as text, instants as RFC 3339."""
    charge = found.charge

    def side(one: Side) -> dict[str, Any]:
        total = None if one.bill is None else f"{one.bill.total:f}"
        return {"energy_wh": one.energy_wh, "export_wh": one.export_wh, "total": total}

    return {
        "contract": charge.contract.contract_id,
        "cycle": {"start": charge.cycle[0].isoformat(), "end": charge.cycle[1].isoformat()},
        "read_at": instant(charge.read_us).isoformat(),
        "currency": charge.bill.currency,
        "tariffs": [
            {"start": days[0].isoformat(), "end": days[1].isoformat(), "tariff": item.tariff_id}
            for days, item in charge.contract.parts(charge.cycle)
        ],
        "so_far": {
            "energy_wh": charge.load.energy_wh,
            "export_wh": charge.load.export_wh,
            "estimated_wh": int(charge.load.estimated_wh.sum()),
            "lines": [
                {
                    "id": row.line.id,
                    "kind": row.line.kind,
                    "label": row.line.label,
                    "quantity": f"{decimal_from_fraction(row.line.quantity).normalize():f}",
                    "unit": row.line.unit,
                    "price": f"{row.line.price:f}",
                    "amount": f"{row.amount:f}",
                }
                for row in charge.bill.lines
            ],
            "total": f"{charge.bill.total:f}",
        },
        "projection": {
            **{name: side(getattr(found, name)) for name in SIDES},
            "range": "8 times in 10 between low and high",
            "basis": found.basis,
            "own_days": found.own_days,
            "note": found.note,
        },
    }
