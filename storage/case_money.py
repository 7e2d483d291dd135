"""What missing energy is worth: the load of the days since the fall under the contract's tariff, with the energy and without.

The missing energy is spread evenly over the quarter-hours of those days; fixed charges cancel out. It is a figure to rank and
to propose by, and a person decides.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg

from metering.bill import History
from metering.calendar import US, local_midnight_s
from metering.offer import edges_of, present_tariff
from metering.rating import rate
from metering.tariff import Tariff, TariffError
from metering.terms import RatingError
from metering.usage import Load
from storage.bill_input import fetch_inputs
from storage.contract import ContractError, fetch_contracts, fetch_tariff
from storage.load import fetch_load


@dataclasses.dataclass(frozen=True)
class Worth:
    """Money of a low, a likely and a high energy; None where it cannot be said, and why."""

    amounts: tuple[Decimal, Decimal, Decimal] | None
    currency: str | None
    note: str


def worth_of(
    conn: psycopg.Connection[Any], meter_no: int, days: tuple[dt.date, dt.date], missing_wh: Sequence[int]
) -> Worth:
    """Return what missing energy of a meter comes to.

    Args:
        conn: Any.
        meter_no: Meter.
        days: First local day of the fall, and the day after the last.
        missing_wh: Low, likely, high.
    """
    row = conn.execute(
        "select c.contract_no from contract c join meter_assignment a using (service_point_no) where a.meter_no = %s"
        " and c.start_on <= %s and coalesce(c.end_on, 'infinity') > %s and a.end_at > %s::date"
        " order by a.start_at desc, c.start_on desc limit 1",
        (meter_no, days[0], days[0], days[0]),
    ).fetchone()
    contracts = fetch_contracts(conn, contract_nos=[row[0]]) if row else []
    if not contracts:
        return Worth(None, None, "no contract with a tariff on that day: nothing can be priced")
    contract = contracts[0]
    item = present_tariff(contract, days[0])
    try:
        tariff, _, _ = fetch_tariff(conn, item.tariff_id)
        end = min(days[1], contract.end_on or days[1])
        start_us, end_us = (local_midnight_s(tariff, day) * US for day in (days[0], end))
        load = fetch_load(conn, contract.service_point_no, start_us, end_us).load
        if not len(load.start_us):
            return Worth(None, None, "no energy of those days is known: nothing can be priced")
        inputs = dataclasses.replace(fetch_inputs(conn, [tariff], start_us, end_us), terms=item.terms)
        edges = edges_of(contract, days[0], end)

        def total(wh: int) -> Decimal:
            bills = rate(tariff, _with(load, wh), edges, inputs, History(service_since=contract.start_on))
            return sum((bill.total for bill in bills), Decimal(0))

        base = total(0)
        low, likely, high = (max(Decimal(0), total(int(wh)) - base) for wh in missing_wh)
    except (ContractError, RatingError, TariffError, ValueError) as error:
        return Worth(None, None, f"it cannot be priced: {error}"[:500])
    note = (
        f"{contract.contract_id}, tariff {item.tariff_id}: the bill of {days[0]} until {end} with the missing energy, spread"
        " evenly over the time, less the bill without it"
    )
    return Worth((low, likely, high), _currency(tariff), note)


def _currency(tariff: Tariff) -> str:
    return str(tariff.document.currency)


def _with(load: Load, wh: int) -> Load:
    """Return a load with so much more energy; every Wh of it goes somewhere."""
    count = len(load.start_us)
    share, rest = divmod(wh, count)
    more = np.full(count, share, np.int64)
    more[:rest] += 1
    registers = {**load.registers, "import_wh": load.registers["import_wh"] + more}
    return dataclasses.replace(load, registers=registers)
