"""The bill of one cycle of a contract: each part of it rated by its tariff, the total rounded once. Pure.

A contract that begins, ends or changes its tariff inside a cycle has parts. Each is rated as a cycle whose days are the whole
one and whose sides cover the part, so that charges by share of days come out right. With `until` it is the charge so far:
the running charge and the bill are the same lines.
"""

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from metering.bill import History, Line, line_amount
from metering.calendar import local_midnight_s
from metering.contract import Contract, ContractTariff
from metering.pricing.fixed import DaySpan
from metering.rating import NO_HISTORY, NO_INPUTS, rate_cycle
from metering.tariff import Tariff
from metering.terms import RatingError
from metering.usage import Compiled, Inputs, Load, measure

STEPS_S = (900, 300, 60)
"""Intervals that loads are cut into: the coarsest that every window and boundary of the tariffs is a multiple of."""


@dataclasses.dataclass(frozen=True)
class BilledLine:
    """One row of a bill, with the days and the tariff that it is of."""

    line: Line
    amount: Decimal
    """As it is shown; the total is of the unrounded amounts unless the tariff rounds lines."""
    days: DaySpan
    tariff_id: str
    version: int
    """Index into the tariff's versions."""


@dataclasses.dataclass(frozen=True)
class CycleBill:
    """What a contract owes for a cycle."""

    cycle: DaySpan
    days: DaySpan
    """Of the cycle, those that the contract covers: from the first of its parts to the end of the last."""
    lines: tuple[BilledLine, ...]
    total: Decimal
    total_unrounded: Decimal
    currency: str
    digits: int
    history: History
    """What this cycle leaves to the next."""


def bill_cycle(  # noqa: PLR0913  # all that a bill is made of
    contract: Contract,
    cycle: DaySpan,
    tariffs: Mapping[str, Tariff],
    load: Load,
    inputs: Inputs = NO_INPUTS,
    history: History = NO_HISTORY,
    *,
    until: dt.date | None = None,
    compiled: Compiled | None = None,
) -> CycleBill:
    """Return the bill of a cycle.

    Args:
        contract: Its parts give tariffs, terms and days.
        cycle: Whole billing cycle, of `Contract.cycle_of`.
        tariffs: By name, of all its parts.
        load: Intervals of the service point; those outside of the cycle are left out.
        inputs: Flags, price series; terms of a part come before its own.
        history: What cycles before leave.
        compiled: Kept between bills of the same tariffs; see `usage.measure`.
        until: Day up to which fixed charges per day are counted, while the cycle runs; None is all of them.

    Raises:
        RatingError: No part of the cycle has a tariff, tariffs are in several currencies, or a tariff needs something
            that is not there.
    """
    parts = _parts(contract, cycle, tariffs)
    found: list[BilledLine] = []
    exact, due = Decimal(0), Decimal(0)
    for days, item in parts:
        tariff = tariffs[item.tariff_id]
        own = dataclasses.replace(inputs, terms={**inputs.terms, **item.terms})
        ((measured, usage),) = measure(tariff, load, days, own, compiled)
        bill, history = rate_cycle(tariff, dataclasses.replace(measured, days=cycle), usage, own, history, until=until)
        last = measured.sides[-1].version
        lines = [_billed_line(tariff, line, days, last) for line in bill.lines]
        found += lines
        exact += bill.total_unrounded
        due += sum((row.amount for row in lines), Decimal(0)) if tariff.rounding.line else bill.total_unrounded
    last_tariff = tariffs[parts[-1][1].tariff_id]
    return CycleBill(
        cycle=cycle,
        days=(parts[0][0][0], parts[-1][0][1]),
        lines=_with_own_ids(found),
        total=last_tariff.round_money(due),
        total_unrounded=exact,
        currency=last_tariff.currency,
        digits=last_tariff.digits,
        history=history,
    )


def _parts(contract: Contract, cycle: DaySpan, tariffs: Mapping[str, Tariff]) -> list[tuple[DaySpan, ContractTariff]]:
    """Return the parts of a cycle, all in one currency."""
    parts = contract.parts(cycle)
    if not parts:
        raise RatingError(f"contract {contract.contract_id} has no tariff from {cycle[0]} to {cycle[1]}: enter one")
    currencies = sorted({_tariff_of(tariffs, item.tariff_id).currency for _, item in parts})
    if len(currencies) > 1:
        raise RatingError(f"contract {contract.contract_id} has tariffs in {' and '.join(currencies)} in one cycle")
    return parts


def _billed_line(tariff: Tariff, line: Line, days: DaySpan, last_version: int) -> BilledLine:
    version = last_version if line.version is None else line.version
    return BilledLine(line, line_amount(tariff, line), line.days or days, tariff.tariff_id, version)


def _with_own_ids(rows: Sequence[BilledLine]) -> tuple[BilledLine, ...]:
    """Return rows whose lines have names of their own over all parts: a second of one name gets a number."""
    used: set[str] = set()
    found = []
    for row in rows:
        name, count = row.line.id, 1
        while name in used:
            count += 1
            name = f"{row.line.id}-{count}"
        used.add(name)
        found.append(dataclasses.replace(row, line=dataclasses.replace(row.line, id=name)))
    return tuple(found)


def _tariff_of(tariffs: Mapping[str, Tariff], tariff_id: str) -> Tariff:
    if tariff_id not in tariffs:
        raise RatingError(f"there is no tariff {tariff_id!r}: import it")
    return tariffs[tariff_id]


def span_us(contract: Contract, cycle: DaySpan, tariffs: Mapping[str, Tariff]) -> tuple[int, int]:
    """Return from when to when the load of a cycle is needed, epoch µs: local midnights of its parts' tariffs."""
    edges = [
        local_midnight_s(_tariff_of(tariffs, item.tariff_id), day)
        for days, item in contract.parts(cycle)
        for day in days
    ]
    if not edges:
        raise RatingError(f"contract {contract.contract_id} has no tariff from {cycle[0]} to {cycle[1]}: enter one")
    return min(edges) * 1_000_000, max(edges) * 1_000_000


def interval_s_of(tariffs: Sequence[Tariff]) -> int:
    """Return how fine the intervals of a load have to be for some tariffs, s."""
    wanted = {900}
    for tariff in tariffs:
        for version in tariff.versions:
            edges = {edge for window in version.windows for edge in (window.start_minute, window.end_minute)}
            wanted |= {edge * 60 for edge in edges if edge % 15}
            wanted |= {part.index.interval_min * 60 for part in version.document.energy if part.index}
            export = version.document.export
            wanted |= {export.index.interval_min * 60} if export and export.index else set()
            for charge in version.document.demand:
                wanted |= {charge.window_min * 60} | (
                    {charge.slip_min * 60} if charge.method == "sliding" and charge.slip_min else set()
                )
    return next(step for step in STEPS_S if all(second % step == 0 for second in wanted))


def needs_varh(tariffs: Sequence[Tariff]) -> bool:
    """Return whether a tariff charges anything by reactive energy, which sub-totals of days do not have."""
    return any(
        version.document.reactive
        or any(charge.quantity != "kW" for charge in version.document.demand)
        or any(part.unit != "kWh" or part.register == "controlled" for part in version.document.energy)
        for tariff in tariffs
        for version in tariff.versions
    )


def encode_history(history: History) -> str:
    """Return what a cycle leaves as JSON; fractions as ``n/d``, decimals and days as text."""
    return json.dumps(
        {
            "year": history.year,
            "year_wh": history.year_wh,
            "season": history.season,
            "season_wh": history.season_wh,
            "year_billed": str(history.year_billed),
            "service_since": history.service_since and history.service_since.isoformat(),
            "peaks_kw": [[name, day.isoformat(), str(peak)] for name, day, peak in history.peaks_kw],
            "credit_wh": [[period, str(wh)] for period, wh in history.credit_wh],
            "credit_money": str(history.credit_money),
        }
    )


def decode_history(value: Mapping[str, Any]) -> History:
    """Return the history of `encode_history`, as read from JSON; nothing is none."""
    if not value:
        return NO_HISTORY
    since = value["service_since"]
    return History(
        year=value["year"],
        year_wh=value["year_wh"],
        season=value["season"],
        season_wh=value["season_wh"],
        year_billed=Decimal(value["year_billed"]),
        service_since=dt.date.fromisoformat(since) if since else None,
        peaks_kw=tuple((name, dt.date.fromisoformat(day), Fraction(peak)) for name, day, peak in value["peaks_kw"]),
        credit_wh=tuple((period, Fraction(wh)) for period, wh in value["credit_wh"]),
        credit_money=Decimal(value["credit_money"]),
    )
