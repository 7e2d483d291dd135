"""The charge so far of a service point: from its meters' live state where that carries it, else from the ledger.

Both ways rate with the bill's own code, so at the end of a cycle the charge so far is the bill.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal

import numpy as np
import psycopg

from metering.bill import Line, line_amount
from metering.billing import bill_cycle, interval_s_of, span_us
from metering.calendar import US
from metering.contract import Contract, ContractTariff
from metering.pricebook import Assignment
from metering.pricing.fixed import DaySpan
from metering.running import CyclePricing, charge_lines, pricing_of, quantity_kwh, shown_kind
from metering.state import NEVER, Int64Column, MeterStates
from metering.tariff import Tariff
from metering.terms import RatingError
from metering.usage import Inputs
from storage.bill_input import fetch_history, fetch_inputs
from storage.contract import fetch_contracts
from storage.ledger_time import Position
from storage.load import fetch_load, instant, until_us
from storage.registry import Registry, load_registry
from storage.snapshot import one_snapshot
from storage.state import fetch_state

StateOf = Callable[[int], MeterStates]
"""Gives the state of a meter by number, shape (1,)."""


@dataclasses.dataclass(frozen=True)
class ChargeLine:
    """One line of a charge as people see it."""

    label: str
    kind: str
    quantity_kwh: Decimal
    price: Decimal
    amount: Decimal
    amount_unrounded: Decimal
    bucket: int | None = None
    """Price bucket of the tariff, of an energy line."""
    quantity: Decimal = Decimal(0)
    unit: str = "kWh"


@dataclasses.dataclass(frozen=True)
class ChargeSoFar:
    """The charge of a service point's billing cycle so far."""

    meter_id: str
    """The meter whose reading is the newest."""
    service_point_id: str
    tariff_id: str
    """Of the newest reading."""
    currency: str
    cycle_start: dt.datetime
    cycle_end: dt.datetime
    read_at: dt.datetime
    """Until when readings are in it."""
    energy_wh: int
    lines: list[ChargeLine]
    total: Decimal
    total_unrounded: Decimal
    export_wh: int = 0
    parts: tuple[tuple[dt.date, dt.date, str], ...] = ()
    """First local day, day after the last, and tariff of each part of the cycle."""
    source: str = "state"
    """``state`` or ``ledger``."""


@dataclasses.dataclass(frozen=True)
class _Standing:
    """A service point's meters as they stand."""

    service_point_no: int
    meter_no: int
    """That of the newest reading."""
    state: MeterStates
    others: list[MeterStates]
    """Of further meters that have readings in the same cycle."""
    assignment: Assignment
    is_apart: bool
    """A meter measured elsewhere too in the cycle: its state is of both places."""
    tariff: Tariff
    cycle: int

    @property
    def read_at(self) -> int:
        """Return until when there are readings, epoch µs."""
        return int(self.state.last_at[0])


def fetch_charge(
    conn: psycopg.Connection,
    registry: Registry,
    service_point_no: int,
    as_of: dt.datetime | None = None,
    state_of: StateOf | None = None,
    *,
    known: Position | None = None,
) -> ChargeSoFar | None:
    """Return the charge so far of a service point, or None without a reading or without contract and tariff.

    Args:
        conn: Connection.
        registry: Master data.
        service_point_no: Where.
        as_of: Only what was used until then; None is until the newest reading.
        state_of: Gives states that are in memory; None reads them from the database.
        known: Only the facts that were known at a position of the ledger; None is all.

    Raises:
        RatingError: The tariff needs something that is not there, such as a published price.
    """
    with one_snapshot(conn):
        standing = _standing_of(registry, service_point_no, state_of or (lambda no: fetch_state(conn, registry, no)))
        if standing is None:
            return None
        contract = _contract_of(conn, registry, standing)
        quantities = None if as_of is not None or known is not None else _live_quantities(registry, standing)
        if quantities is not None:
            pricing = pricing_of(registry.prices.shapes[standing.assignment.tariff_index], standing.cycle)
            assert pricing is not None  # the key is not 0
            return _from_state(registry, standing, contract, pricing, quantities)
        return _from_ledger(conn, registry, standing, contract, (as_of, known))


def fetch_running_charge(
    conn: psycopg.Connection, meter_id: str, registry: Registry | None = None
) -> ChargeSoFar | None:
    """Return the charge so far of the service point that a meter measures or measured last; see `fetch_charge`.

    While the tariff needs something that is not there yet, such as a published price, there is none.

    Raises:
        LookupError: No such meter.
    """
    registry = registry or load_registry(conn)
    number = registry.meter_no_of(meter_id)
    if number is None:
        raise LookupError(f"no meter {meter_id!r}")
    items = registry.meters.assignments_of(number)
    if not items:
        return None
    try:
        charge = fetch_charge(conn, registry, items[-1].service_point_no)
    except RatingError:
        return None
    return None if charge is None else dataclasses.replace(charge, meter_id=meter_id)


def _standing_of(registry: Registry, service_point_no: int, state_of: StateOf) -> _Standing | None:
    meters = registry.meters
    found: list[tuple[int, MeterStates, Assignment]] = []
    for number in meters.meters_at(service_point_no):
        state = state_of(number)
        last_at = int(state.last_at[0])
        if last_at == NEVER:
            continue
        assignment = meters.assignment_of(number, last_at - 1, last_at) or meters.assignment_of(
            number, last_at, last_at
        )
        if assignment is not None and assignment.service_point_no == service_point_no:
            found.append((number, state, assignment))
    if not found:
        return None
    number, state, assignment = max(found, key=lambda item: int(item[1].last_at[0]))
    if assignment.tariff_index == registry.prices.none_index:
        return None
    line = registry.prices.timelines[assignment.tariff_index]
    start_us = int(state.cycle_start[0])
    cycle = max(int(np.searchsorted(line.cycle_start_s * US, start_us, side="right")) - 1, 0)
    others = [theirs for no, theirs, _ in found if no != number and int(theirs.cycle_start[0]) == start_us]
    moved = any(
        item.service_point_no != service_point_no and item.end_us > start_us
        for no, *_ in found
        for item in meters.assignments_of(no)
    )
    tariff = registry.prices.tariffs[assignment.tariff_index]
    return _Standing(service_point_no, number, state, others, assignment, moved, tariff, cycle)


def _live_quantities(registry: Registry, standing: _Standing) -> Int64Column | None:
    """Return the quantities of the cycle where the states carry them, shape (SLOTS,)."""
    item, cycle = standing.assignment, standing.cycle
    line = registry.prices.timelines[item.tariff_index]
    shape = registry.prices.shapes[item.tariff_index].of(cycle)
    is_whole = item.whole_from <= cycle < item.whole_until
    if shape is None or not is_whole or standing.is_apart:
        return None
    if int(line.cycle_start_s[cycle]) * US != int(standing.state.cycle_start[0]):
        return None
    states = [standing.state, *standing.others]
    if any(int(state.cycle_key[0]) != shape.key for state in states):
        return None
    if len(states) > 1 and (shape.tiers > 1 or shape.window_s):
        return None  # the order of both meters' readings matters
    total: Int64Column = np.sum([state.quantities_wh[0] for state in states], axis=0)
    return total


def _day_of(standing: _Standing, at_us: int) -> dt.date:
    """Return the local day that an instant ends."""
    return dt.datetime.fromtimestamp((at_us - 1) // US, standing.tariff.zone).date()


def _contract_of(conn: psycopg.Connection, registry: Registry, standing: _Standing) -> Contract:
    """Return the contract of the newest reading, or what stands for one where only the meter has a tariff."""
    day = _day_of(standing, standing.read_at)
    for contract in fetch_contracts(conn, service_point_nos=[standing.service_point_no]):
        if contract.start_on <= day and (contract.end_on is None or day < contract.end_on):
            return contract
    tariffs = (ContractTariff(dt.date.min, standing.tariff.tariff_id),)
    name = registry.service_point_id[standing.service_point_no]
    return Contract(0, name, 0, standing.service_point_no, dt.date.min, None, 1, tariffs)


def _terms(contract: Contract, day: dt.date) -> Mapping[str, Decimal]:
    started = [item for item in contract.tariffs if item.start_on <= day]
    return started[-1].terms if started else {}


def _from_state(
    registry: Registry, standing: _Standing, contract: Contract, pricing: CyclePricing, quantities: Int64Column
) -> ChargeSoFar:
    inputs = Inputs(terms=_terms(contract, pricing.cycle.days[1] - dt.timedelta(days=1)))
    lines = charge_lines(pricing, quantities.tolist(), standing.read_at, inputs)
    tariff = standing.tariff
    shown = [_shown(line, line_amount(tariff, line)) for line in lines]
    exact = sum((line.amount_unrounded for line in lines), Decimal(0))
    due = sum((line.amount for line in shown), Decimal(0)) if tariff.rounding.line else exact
    return ChargeSoFar(
        meter_id=registry.meters.meter_id[standing.meter_no],
        service_point_id=registry.service_point_id[standing.service_point_no],
        tariff_id=tariff.tariff_id,
        currency=tariff.currency,
        cycle_start=instant(pricing.start_s * US),
        cycle_end=instant(pricing.end_s * US),
        read_at=instant(standing.read_at),
        energy_wh=int(quantities[: pricing.shape.energy_slots].sum()),
        lines=shown,
        total=tariff.round_money(due),
        total_unrounded=exact,
        export_wh=int(sum(int(state.cycle_export_wh[0]) for state in [standing.state, *standing.others])),
        parts=_parts(contract, pricing.cycle.days),
    )


def _shown(line: Line, amount: Decimal) -> ChargeLine:
    quantity = Decimal(line.quantity.numerator) / Decimal(line.quantity.denominator)
    return ChargeLine(
        line.label,
        shown_kind(line),
        quantity_kwh(line),
        line.price,
        amount,
        line.amount_unrounded,
        line.bucket,
        quantity,
        line.unit,
    )


def _parts(contract: Contract, cycle: DaySpan) -> tuple[tuple[dt.date, dt.date, str], ...]:
    return tuple((*days, item.tariff_id) for days, item in contract.parts(cycle))


def _from_ledger(
    conn: psycopg.Connection,
    registry: Registry,
    standing: _Standing,
    contract: Contract,
    seen: tuple[dt.datetime | None, Position | None],
) -> ChargeSoFar:
    as_of, known = seen
    own = standing.tariff.tariff_id
    asked_us = standing.read_at if as_of is None else round(as_of.timestamp() * US)
    read_us = min(asked_us, standing.read_at)
    day = _day_of(standing, read_us)
    cycle = contract.cycle_of(day)
    by_id = {tariff.tariff_id: tariff for tariff in registry.prices.tariffs}
    tariffs = {item.tariff_id: by_id[item.tariff_id] for _, item in contract.parts(cycle) if item.tariff_id in by_id}
    start_us, end_us = span_us(contract, cycle, tariffs)
    step_s = interval_s_of(list(tariffs.values()))
    load = fetch_load(conn, standing.service_point_no, start_us, end_us, known=known, interval_s=step_s)
    kept = until_us(load, read_us).load
    inputs = fetch_inputs(conn, list(tariffs.values()), start_us, end_us)
    history = fetch_history(conn, contract, cycle)
    until = dt.datetime.fromtimestamp(read_us // US, standing.tariff.zone).date() + dt.timedelta(days=1)
    bill = bill_cycle(contract, cycle, tariffs, kept, inputs, history, until=min(until, cycle[1]))
    return ChargeSoFar(
        meter_id=registry.meters.meter_id[standing.meter_no],
        service_point_id=registry.service_point_id[standing.service_point_no],
        tariff_id=own,
        currency=bill.currency,
        cycle_start=instant(start_us),
        cycle_end=instant(end_us),
        read_at=instant(read_us),
        energy_wh=int(kept.registers["import_wh"].sum()),
        lines=[
            # Buckets are told of the tariff that is named; a cycle may have parts under others.
            dataclasses.replace(_shown(row.line, row.amount), bucket=row.line.bucket if row.tariff_id == own else None)
            for row in bill.lines
        ],
        total=bill.total,
        total_unrounded=bill.total_unrounded,
        export_wh=int(kept.registers["export_wh"].sum()) if "export_wh" in kept.registers else 0,
        parts=_parts(contract, cycle),
        source="ledger",
    )
