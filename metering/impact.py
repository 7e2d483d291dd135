"""What a proposed tariff would have changed: every account's past under both, and what that comes to. Pure.

Accounts are rated by calendar months, whatever their billing day, by the bill's own code; both tariffs see the same load.
"""

import dataclasses
import datetime as dt
import itertools
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import numpy as np

from metering.bill import History
from metering.billing import bill_cycle
from metering.contract import Contract, ContractTariff
from metering.pricing.fixed import DaySpan
from metering.profile import DAY_US
from metering.rating import NO_HISTORY, rate_cycle
from metering.tariff import Tariff
from metering.usage import Compiled, Inputs, Load, Usage, measure

HARDEST = 10
BIN_PERCENT = 2
BIN_MAX_PERCENT = 30
COVERED_MIN = Decimal("0.98")
"""Accounts with readings for less of their time are told apart: their bills are of what is there."""


@dataclasses.dataclass(frozen=True)
class Rated:
    """One account's months under one tariff."""

    totals: tuple[Decimal, ...]
    """By month."""
    energy_wh: Mapping[str, int]
    """By period of the tariff."""
    amounts: Mapping[str, Decimal]
    """By kind of line, unrounded."""


@dataclasses.dataclass(frozen=True)
class AccountImpact:
    """One contract's months under the tariff that it had, and under those proposed."""

    account_id: str
    contract_id: str
    class_name: str
    energy_wh: int
    covered: Decimal
    """Share of the contract's time that readings cover."""
    current: Rated
    proposed: tuple[Rated, ...]

    def change(self, number: int) -> Decimal:
        """Return what it would pay more under a proposed tariff."""
        return sum(self.proposed[number].totals, Decimal(0)) - sum(self.current.totals, Decimal(0))

    def change_percent(self, number: int) -> float | None:
        """Return the change in percent of what it pays; None where it pays nothing."""
        base = sum(self.current.totals, Decimal(0))
        return float(100 * self.change(number) / base) if base > 0 else None


@dataclasses.dataclass(frozen=True)
class Bin:
    """Accounts whose bill changes by ``[low, high)`` percent; None is open."""

    low_percent: int | None
    high_percent: int | None
    accounts: int


@dataclasses.dataclass(frozen=True)
class Impact:
    """All accounts under one proposed tariff."""

    tariff_id: str
    accounts: int
    winners: int
    losers: int
    unchanged: int
    current: Mapping[str, tuple[Decimal, ...]]
    """Revenue by class, by month."""
    proposed: Mapping[str, tuple[Decimal, ...]]
    current_wh: Mapping[str, int]
    """Energy by period."""
    proposed_wh: Mapping[str, int]
    current_kinds: Mapping[str, Decimal]
    """Revenue by kind of line, unrounded."""
    proposed_kinds: Mapping[str, Decimal]
    bins: tuple[Bin, ...]
    quantiles: Mapping[int, float]
    """Change in percent that so many percent of the accounts do not exceed."""
    hardest: tuple[AccountImpact, ...]
    """Those that would pay most more, first the hardest."""


def months_between(first: dt.date, last: dt.date) -> list[dt.date]:
    """Return the first days of the months from one to another, both included, and of the month after.

    Example:
        >>> [str(day) for day in months_between(dt.date(2026, 12, 1), dt.date(2027, 1, 1))]
        ['2026-12-01', '2027-01-01', '2027-02-01']
    """
    months = [first.replace(day=1)]
    while months[-1] <= last:
        months.append((months[-1] + dt.timedelta(days=32)).replace(day=1))
    return months


def under(contract: Contract, tariff_id: str, terms: Mapping[str, Decimal]) -> Contract:
    """Return a contract as if it had one tariff from its first day on, billed by calendar months.

    Its own terms hold where it has any; the newest of each name.
    """
    own: dict[str, Decimal] = dict(terms)
    for item in contract.tariffs:
        own |= item.terms
    return dataclasses.replace(contract, billing_day=1, tariffs=(ContractTariff(dt.date.min, tariff_id, own),))


def rate_months(
    contract: Contract,
    tariffs: Mapping[str, Tariff],
    load: Load,
    edges: Sequence[dt.date],
    inputs: Inputs,
    compiled: Compiled | None = None,
) -> Rated:
    """Return a contract's months under its tariffs.

    Args:
        contract: With cycles from the first of a month.
        tariffs: By name.
        load: Of all the months.
        edges: First days of months, and of the month after the last.
        inputs: Flags and price series.
        compiled: Kept between contracts of the same tariffs; see `usage.measure`.

    Raises:
        RatingError: A tariff needs something that is not there.
    """
    spans = list(itertools.pairwise(edges))
    parts = contract.parts((edges[0], edges[-1]))
    totals: list[Decimal] = []
    energy: dict[str, int] = {}
    amounts: dict[str, Decimal] = {}
    history: History = NO_HISTORY
    if len(parts) == 1 and parts[0][0] == (edges[0], edges[-1]):
        item = parts[0][1]
        tariff = tariffs[item.tariff_id]
        own = dataclasses.replace(inputs, terms={**inputs.terms, **item.terms})
        for cycle, usage in measure(tariff, load, edges, own, compiled):
            bill, history = rate_cycle(tariff, cycle, usage, own, history)
            totals.append(bill.total)
            _add(amounts, ((line.kind, line.amount_unrounded) for line in bill.lines))
            _add_energy(energy, tariff, usage)
        return Rated(tuple(totals), energy, amounts)
    for span in spans:
        if not contract.parts(span):
            totals.append(Decimal(0))
            continue
        own_load = _around(load, span)
        found = bill_cycle(contract, span, tariffs, own_load, inputs, history, compiled=compiled)
        history = found.history
        totals.append(found.total)
        _add(amounts, ((row.line.kind, row.line.amount_unrounded) for row in found.lines))
        for days, item in contract.parts(span):
            ((_, usage),) = measure(tariffs[item.tariff_id], own_load, days, inputs, compiled)
            _add_energy(energy, tariffs[item.tariff_id], usage)
    return Rated(tuple(totals), energy, amounts)


def _around(load: Load, span: DaySpan) -> Load:
    """Return the intervals of some days and of a day about them, whatever the zone."""
    low, high = ((day - dt.date(1970, 1, 1)).days * DAY_US for day in span)
    rows = slice(*np.searchsorted(load.start_us, [low - DAY_US, high + DAY_US]).tolist())
    registers = {name: column[rows] for name, column in load.registers.items()}
    return Load(load.start_us[rows], load.interval_s, registers)


def _add(total: dict[str, Decimal], rows: Iterable[tuple[str, Decimal]]) -> None:
    for name, amount in rows:
        total[name] = total.get(name, Decimal(0)) + amount


def _add_energy(total: dict[str, int], tariff: Tariff, usage: Usage) -> None:
    wh = np.zeros(len(tariff.buckets), np.int64)
    np.add.at(wh, usage.bucket, usage.import_wh)
    for bucket in np.flatnonzero(wh).tolist():
        name = tariff.buckets[bucket][2]
        total[name] = total.get(name, 0) + int(wh[bucket])


def summarize(rows: Sequence[AccountImpact], tariff_ids: Sequence[str]) -> list[Impact]:
    """Return what each proposed tariff comes to over all accounts."""
    return [_summary(rows, number, tariff_id) for number, tariff_id in enumerate(tariff_ids)]


def _summary(rows: Sequence[AccountImpact], number: int, tariff_id: str) -> Impact:
    current: dict[str, list[Decimal]] = {}
    proposed: dict[str, list[Decimal]] = {}
    current_wh: dict[str, int] = {}
    proposed_wh: dict[str, int] = {}
    current_kinds: dict[str, Decimal] = {}
    proposed_kinds: dict[str, Decimal] = {}
    for row in rows:
        for rated, revenue, wh, kinds in (
            (row.current, current, current_wh, current_kinds),
            (row.proposed[number], proposed, proposed_wh, proposed_kinds),
        ):
            months = revenue.setdefault(row.class_name, [Decimal(0)] * len(rated.totals))
            for month, total in enumerate(rated.totals):
                months[month] += total
            for period, energy_wh in rated.energy_wh.items():
                wh[period] = wh.get(period, 0) + energy_wh
            _add(kinds, rated.amounts.items())
    changes = [row.change(number) for row in rows]
    percents = np.array([value for row in rows if (value := row.change_percent(number)) is not None])
    losers = [row for row in rows if row.change(number) > 0]
    return Impact(
        tariff_id=tariff_id,
        accounts=len(rows),
        winners=sum(change < 0 for change in changes),
        losers=len(losers),
        unchanged=sum(change == 0 for change in changes),
        current={name: tuple(values) for name, values in sorted(current.items())},
        proposed={name: tuple(values) for name, values in sorted(proposed.items())},
        current_wh=dict(sorted(current_wh.items())),
        proposed_wh=dict(sorted(proposed_wh.items())),
        current_kinds=current_kinds,
        proposed_kinds=proposed_kinds,
        bins=bins_of(percents.tolist()),
        quantiles={
            share: float(np.percentile(percents, share, method="inverted_cdf"))
            for share in (5, 25, 50, 75, 95)
            if len(percents)
        },
        hardest=tuple(sorted(losers, key=lambda row: (-row.change(number), row.contract_id))[:HARDEST]),
    )


def bins_of(percents: Sequence[float]) -> tuple[Bin, ...]:
    """Return how many accounts change by so many percent, in bins of BIN_PERCENT with open ends.

    Example:
        >>> [item.accounts for item in bins_of([-80.0, -0.1, 0.0, 1.9, 2.0]) if item.accounts]
        [1, 1, 2, 1]
    """
    edges = list(range(-BIN_MAX_PERCENT, BIN_MAX_PERCENT + 1, BIN_PERCENT))
    place = np.searchsorted(edges, np.array(percents, np.float64), side="right")
    count = np.bincount(place, minlength=len(edges) + 1).tolist()
    lows: list[int | None] = [None, *edges]
    highs: list[int | None] = [*edges, None]
    return tuple(Bin(low, high, accounts) for low, high, accounts in zip(lows, highs, count, strict=True))
