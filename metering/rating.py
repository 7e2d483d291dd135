"""The rating engine: load, tariff and cycles make bills; the running charge of settlement goes through the same lines.

Energy, tiers and fixed charges are here; demand and reactive energy in `rating_power`, energy fed in in `rating_export`,
what is worked out from other lines in `rating_sum`. What several versions in one cycle do: energy, tiers, fixed and demand
charges and surcharges by energy or day are of each version for its days; the rest is of the version at the cycle's end.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np

from metering.bill import Bill, History, Line, make_bill, make_line
from metering.pricing import fixed, tier
from metering.pricing.time_of_use import wh_by_bucket
from metering.rating_component import component_lines
from metering.rating_export import export_lines, net_over_bill, settle_credit
from metering.rating_power import billing_demand_kw, demand_lines, reactive_lines
from metering.rating_sum import discount_lines, minimum_lines, surcharge_lines, tax_lines
from metering.state import Int64Column
from metering.tariff import Tariff, TariffVersion, Tier
from metering.terms import term
from metering.usage import Cycle, Inputs, Load, Usage, measure

NO_INPUTS = Inputs()
NO_HISTORY = History()


def rate(
    tariff: Tariff,
    load: Load,
    edges: Sequence[dt.date],
    inputs: Inputs = NO_INPUTS,
    history: History = NO_HISTORY,
) -> list[Bill]:
    """Return the bills of a load.

    Args:
        tariff: Checked tariff.
        load: Interval energies.
        edges: Local days at which billing cycles begin, ascending; the last one ends the last cycle.
        inputs: Terms, flags, price series.
        history: What cycles before the first leave.

    Raises:
        RatingError: Something that the tariff needs is not there.
    """
    bills = []
    for cycle, usage in measure(tariff, load, edges, inputs):
        bill, history = rate_cycle(tariff, cycle, usage, inputs, history)
        bills.append(bill)
    return bills


def rate_cycle(  # all that a bill is made of
    tariff: Tariff,
    cycle: Cycle,
    usage: Usage,
    inputs: Inputs = NO_INPUTS,
    history: History = NO_HISTORY,
    *,
    until: dt.date | None = None,
) -> tuple[Bill, History]:
    """Return the bill of one cycle and what it leaves to the next; up to `until` while the cycle runs."""
    start_on, end_on = cycle.days
    history = _turn(tariff, cycle, history)
    usage, history, lines = net_over_bill(tariff, cycle, usage, history)
    lines += energy_lines(tariff, cycle, usage, history, inputs)
    lines += component_lines(tariff, cycle, usage, inputs)
    demand, peaks = demand_lines(tariff, cycle, usage, inputs, history)
    lines += demand
    lines += fixed_lines(tariff, cycle, inputs, until)
    lines += reactive_lines(tariff, cycle, usage, lines)
    lines += export_lines(tariff, cycle, usage, inputs)
    lines += surcharge_lines(tariff, cycle, usage, lines)
    lines += discount_lines(tariff, cycle, usage, lines)
    lines += minimum_lines(tariff, cycle, lines, history)
    carried, history = settle_credit(tariff, cycle, lines, history)
    lines += carried
    lines += tax_lines(tariff, cycle, lines)
    bill = make_bill(tariff, start_on, end_on, unique_ids(lines))
    energy_wh = int(usage.import_wh.sum())
    left = dataclasses.replace(
        history,
        year_wh=history.year_wh + energy_wh,
        season_wh=history.season_wh + energy_wh,
        year_billed=history.year_billed + bill.total_unrounded,
        peaks_kw=(*history.peaks_kw, *peaks)[-2000:],
    )
    return bill, left


def _turn(tariff: Tariff, cycle: Cycle, history: History) -> History:
    """Return the history with annual and seasonal positions begun anew where the cycle begins a year or season."""
    side = cycle.sides[0]
    year = cycle.days[0].year
    if history.year != year:
        position = history.year_wh if history.year == 0 else 0
        billed = history.year_billed if history.year == 0 else Decimal(0)
        history = dataclasses.replace(history, year=year, year_wh=position, year_billed=billed)
    if history.season != side.season:
        position = history.season_wh if not history.season else 0
        history = dataclasses.replace(history, season=side.season, season_wh=position)
    return history


def unique_ids(lines: Sequence[Line]) -> list[Line]:
    """Return lines with names of their own: a second of one name gets a number."""
    seen: dict[str, int] = {}
    found = []
    for line in lines:
        count = seen[line.id] = seen.get(line.id, 0) + 1
        found.append(line if count == 1 else dataclasses.replace(line, id=f"{line.id}-{count}"))
    return found


def label_of(tariff: Tariff, bucket: int, *, several: bool) -> str:
    """Return how people call a price bucket."""
    _, season, period = tariff.buckets[bucket]
    return f"{season} {period}" if several else period


def ladder_of(tariff: Tariff, version: int, first_day: dt.date) -> tuple[Tier, ...]:
    """Return the tiers of a version for a cycle in which it begins on a day."""
    item = tariff.versions[version]
    return item.tiers[item.season_of(first_day)] or (Tier(None, Decimal(0)),)


def bounds_of(
    version: TariffVersion,
    ladder: Sequence[Tier],
    span: fixed.DaySpan,
    billing_demand: Fraction = Fraction(0),
    service_since: dt.date | None = None,
) -> list[Fraction]:
    """Return the upper bounds of all tiers but the last, Wh.

    Args:
        version: Says what the bounds are of, and how they are prorated.
        ladder: Its tiers.
        span: Days that the ladder is for.
        billing_demand: kW, for bounds by kW.
        service_since: First day of service, for bounds by months in service.
    """
    rule = version.document.tier_rule
    factor = Fraction(1)
    if rule.unit in ("kWh_per_day", "kWh_per_kW_day"):
        factor *= fixed.days_of(span)
    if rule.unit in ("kWh_per_kW", "kWh_per_kW_day"):
        factor *= billing_demand
    if rule.prorate == "thirty":
        factor *= Fraction(fixed.days_of(span), 30)
    elif rule.prorate == "calendar":
        factor *= fixed.months_calendar(span)
    elif rule.prorate == "months" and service_since and service_since.year == span[0].year:
        factor *= Fraction(13 - service_since.month, 12)
    return [factor * item.up_to_wh for item in ladder if item.up_to_wh is not None]


def energy_lines(tariff: Tariff, cycle: Cycle, usage: Usage, history: History, inputs: Inputs) -> list[Line]:
    """Return the lines of the import register's prices and tiers, version after version."""
    lines: list[Line] = []
    used_wh: dict[str, int] = {}
    version_of = np.array([key[0] for key in tariff.buckets], np.int64)[usage.bucket]
    several = len({tariff.buckets[bucket][:2] for bucket in usage.bucket.tolist()}) > 1
    for version, first_day in cycle.versions:
        item = tariff.versions[version]
        here = version_of == version
        energy_wh = usage.import_wh[here]
        if item.document.prices is None:
            _add_used(tariff, used_wh, usage.bucket[here], energy_wh)
            continue
        rule = item.document.tier_rule
        is_reset = rule.on_change == "reset"
        span = days_under(cycle, version) if is_reset else cycle.served
        ladder = ladder_of(tariff, version, first_day)
        by_kw = "kW" in rule.unit.removeprefix("kWh")
        demand_kw = billing_demand_kw(tariff, item.document.demand, usage) if by_kw else Fraction(0)
        bounds = bounds_of(item, ladder, span, demand_kw, history.service_since)
        before = {"cycle": 0, "season": history.season_wh, "year": history.year_wh}[rule.per]
        position = {} if is_reset else dict(used_wh)
        part = _Part(
            tariff, item, ladder, bounds, usage.bucket[here], energy_wh, position, before, several, usage.in_order
        )
        made = part.additive_lines() if rule.allocation == "additive" else part.tier_lines()
        lines += [dataclasses.replace(line, version=version, days=days_under(cycle, version)) for line in made]
        _add_used(tariff, used_wh, usage.bucket[here], energy_wh)
    return lines


def _add_used(tariff: Tariff, used_wh: dict[str, int], bucket: Int64Column, energy_wh: Int64Column) -> None:
    """Count energy of each period, where the tiers of a later version go on."""
    for code in np.unique(bucket).tolist():
        period = tariff.buckets[code][2]
        used_wh[period] = used_wh.get(period, 0) + int(energy_wh[bucket == code].sum())


def days_under(cycle: Cycle, version: int) -> fixed.DaySpan:
    """Return the days of a cycle under one version."""
    sides = [side for side in cycle.sides if side.version == version]
    return sides[0].days[0], sides[-1].days[1]


@dataclasses.dataclass(frozen=True)
class _Part:
    """Energy of a cycle under one version."""

    tariff: Tariff
    version: TariffVersion
    ladder: tuple[Tier, ...]
    bounds_wh: list[Fraction]
    bucket: Int64Column
    energy_wh: Int64Column
    used_wh: dict[str, int]
    """Of each period, in versions of this cycle before."""
    before_wh: int
    """In cycles before."""
    several: bool
    in_order: bool

    @property
    def position_wh(self) -> int:
        """Return where the tiers begin when all periods fill them together."""
        return self.before_wh + sum(self.used_wh.values())

    def additive_lines(self) -> list[Line]:
        """Return a line a bucket at its price, and one a tier that adds something."""
        total_wh = wh_by_bucket(self.bucket, self.energy_wh, len(self.tariff.buckets))
        lines = [
            self._line(bucket, Fraction(int(total_wh[bucket])), self.tariff.bucket_price(bucket))
            for bucket in np.unique(self.bucket).tolist()
        ]
        parts = tier.total_in_tiers(int(self.energy_wh.sum()), self.bounds_wh, self.position_wh)
        for number, (inside_wh, step) in enumerate(zip(parts, self.ladder, strict=True), start=1):
            if step.adder_per_kwh:
                lines.append(
                    make_line(
                        self.tariff,
                        "energy",
                        f"tier-{number}",
                        (inside_wh / 1000, "kWh"),
                        step.adder_per_kwh,
                        label=f"tier {number}",
                        tier=number,
                    )
                )
        return lines

    def tier_lines(self) -> list[Line]:
        """Return a line a bucket and tier, each kWh in one tier at the price of its own period there."""
        rule = self.version.document.tier_rule
        split = tier.sequential if rule.allocation == "sequential" and self.in_order else tier.proportional
        total: dict[tuple[int, int], Fraction] = {}
        for group, position_wh in self._groups(rule.pooled):
            rows = split(self.energy_wh[group], self.bounds_wh, position_wh)
            for bucket, row in zip(self.bucket[group].tolist(), rows, strict=True):
                for number, inside_wh in enumerate(row):
                    key = (bucket, number)
                    total[key] = total.get(key, Fraction(0)) + inside_wh
        lines = []
        for (bucket, number), inside_wh in sorted(total.items()):
            _, season, period = self.tariff.buckets[bucket]
            step = self.ladder[number]
            price = step.prices.at(season, period) if step.prices else None
            if price is None:
                price = self.tariff.bucket_price(bucket) + step.adder_per_kwh
            if inside_wh or number == 0:
                lines.append(self._line(bucket, inside_wh, price, number + 1))
        return lines

    def _groups(self, pooled: str) -> list[tuple[Int64Column, int]]:
        """Return the parts that fill tiers together, and where they begin."""
        if pooled == "all":
            return [(np.arange(len(self.bucket)), self.position_wh)]
        period = np.array([self.tariff.buckets[bucket][2] for bucket in self.bucket.tolist()])
        return [
            (np.flatnonzero(period == name), self.before_wh + self.used_wh.get(name, 0))
            for name in dict.fromkeys(period.tolist())
        ]

    def _line(self, bucket: int, energy_wh: Fraction, price: Decimal, number: int | None = None) -> Line:
        label = label_of(self.tariff, bucket, several=self.several)
        name = f"energy-{label.replace(' ', '-')}"
        return make_line(
            self.tariff,
            "energy",
            name if number in (None, 1) else f"{name}-tier-{number}",
            (energy_wh / 1000, "kWh"),
            price,
            label=label if number in (None, 1) else f"{label}, tier {number}",
            bucket=bucket,
            tier=number,
            energy_wh=energy_wh,
        )


def fixed_lines(tariff: Tariff, cycle: Cycle, inputs: Inputs, until: dt.date | None = None) -> list[Line]:
    """Return the lines of fixed charges.

    Args:
        tariff: Checked tariff.
        cycle: With its sides.
        inputs: Terms that charges are times of.
        until: Days counted for charges per day, while the cycle runs.
    """
    lines: list[Line] = []
    for side in cycle.sides:
        span = side.days
        for charge in tariff.versions[side.version].document.fixed_charge:
            if charge.per == "day" and until is not None:
                span = (side.days[0], max(min(side.days[1], until), side.days[0]))
            price = charge.amount.at(side.season)
            assert price is not None  # checked on loading
            times = Fraction(term(tariff, inputs.terms, charge.times)) if charge.times else Fraction(1)
            count = fixed.units(charge.per, charge.prorate, span, cycle.days)
            unit = charge.per if charge.times is None else f"{charge.times} x {charge.per}"
            if price and times:
                line = make_line(tariff, "fixed", charge.id, (count * times, unit), price)
                lines.append(dataclasses.replace(line, version=side.version, days=span))
    return lines
