"""Which charges a batch changed by late readings, and from what to what."""

from decimal import Decimal

import numpy as np
import psycopg

from agents.outgoing import Amounts, Charges
from metering.settlement import Settled
from metering.state import NEVER
from metering.terms import RatingError
from schemas.quality import Quality
from storage.charge import fetch_charge
from storage.charge_change import CLOSED_CYCLE, LATE_READING, UNPRICED, ChargeChange
from storage.ledger_time import Position
from storage.registry import Registry

LEDGER_MAX = 20
"""Meters of one batch whose charges are computed from the ledger, inside the transaction: half a second or so."""
NOTHING = Decimal(0)


def changes_of(
    conn: psycopg.Connection, registry: Registry, charges: Charges, settled: Settled, known: Position
) -> list[ChargeChange]:
    """Return the changes that the late readings of a batch made to running charges.

    A meter whose charge they changed has one entry, with the first of them; what it was and is, both until its newest
    reading, so usage that came in the same batch is in it too. Each reading of an earlier cycle has one of its own.

    Args:
        conn: Inside the settlement transaction, the batch written.
        registry: Master data.
        charges: Prices states.
        settled: What the batch changed.
        known: Position of the ledger before the batch.
    """
    facts = settled.facts
    causes = np.flatnonzero((facts["quality"] & int(Quality.LATE) != 0) & (facts["revision"] == 0))
    place = np.searchsorted(settled.touched, facts["meter_no"][causes])
    kept = settled.before.cycle_start[place] != NEVER
    causes, place = causes[kept], place[kept]
    if not len(causes):
        return []
    meters, first = np.unique(place, return_index=True)
    before, after = settled.before.take(meters), settled.states.take(meters)
    numbers = settled.touched[meters]
    old, new = (charges.price(numbers, states, after.last_at) for states in (before, after))
    old.is_known[:] &= before.cycle_start == after.cycle_start
    found: list[ChargeChange] = []
    asked = 0
    for row in np.flatnonzero(new.is_charged).tolist():
        was, now = _amount(old, row), _amount(new, row)
        if (was is None or now is None) and asked < LEDGER_MAX:
            asked += 1
            point_no = int(registry.meters.service_point_no[numbers[row]])
            was = was if was is not None else _from_ledger(conn, registry, point_no, known)
            now = now if now is not None else _from_ledger(conn, registry, point_no, None)
        start_us = int(after.cycle_start[row])
        mine = causes[place == meters[row]]
        is_closed = facts["end_at"][mine] <= start_us
        entry = _Entry(registry, settled, int(new.tariff_index[row]), start_us)
        if was is None or now is None:
            found.append(entry.of(int(causes[first[row]]), UNPRICED, was or NOTHING, now or NOTHING))
        elif was != now:
            found.append(entry.of(int(causes[first[row]]), LATE_READING, was, now))
        found += [entry.of(cause, CLOSED_CYCLE, now or NOTHING, now or NOTHING) for cause in mine[is_closed].tolist()]
    return found


class _Entry:
    """Makes the entries of one meter."""

    def __init__(self, registry: Registry, settled: Settled, tariff_index: int, cycle_start: int) -> None:
        self._meters = registry.meters
        self._facts = settled.facts
        self._currency = registry.prices.tariffs[tariff_index].currency
        self._cycle_start = cycle_start

    def of(self, row: int, reason: str, old_amount: Decimal, new_amount: Decimal) -> ChargeChange:
        names = ("meter_no", "end_at", "revision", "raw_partition", "raw_offset", "raw_index")
        meter_no, end_at, revision, *raw = (int(self._facts[name][row]) for name in names)
        return ChargeChange(
            service_point_no=int(self._meters.service_point_no[meter_no]),
            meter_no=meter_no,
            cycle_start=self._cycle_start,
            reason=reason,
            currency=self._currency,
            old_amount=old_amount,
            new_amount=new_amount,
            end_at=end_at,
            revision=revision,
            raw=(raw[0], raw[1], raw[2]),
        )


def _amount(amounts: Amounts, row: int) -> Decimal | None:
    if not amounts.is_known[row]:
        return None
    return Decimal(int(amounts.amount[row])).scaleb(-int(amounts.scale[row]))


def _from_ledger(
    conn: psycopg.Connection, registry: Registry, service_point_no: int, known: Position | None
) -> Decimal | None:
    try:
        charge = fetch_charge(conn, registry, service_point_no, known=known)
    except RatingError:
        return None
    return None if charge is None else charge.total_unrounded
