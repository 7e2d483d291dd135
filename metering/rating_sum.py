"""Lines that are worked out from other lines: surcharges, discounts, minimum bills, taxes."""

import dataclasses
from decimal import Decimal
from fractions import Fraction

from metering.bill import History, Line, make_line, sum_of
from metering.pricing import fixed, surcharge, tax
from metering.pricing.discount import free_energy, percentage
from metering.pricing.minimum import top_up
from metering.pricing.rounding import decimal_from_fraction
from metering.pricing.time_of_use import wh_by_bucket
from metering.tariff import Tariff
from metering.usage import Cycle, Side, Usage
from schemas.tariff import Discount, EnergyComponent, Surcharge, Version


def _last(tariff: Tariff, cycle: Cycle) -> Version:
    return tariff.versions[cycle.sides[-1].version].document


def surcharge_lines(tariff: Tariff, cycle: Cycle, usage: Usage, lines: list[Line]) -> list[Line]:
    """Return the lines of surcharges, in the order of the document; percentages see those before them."""
    found: list[Line] = []
    for version, _ in cycle.versions:
        for item in tariff.versions[version].document.surcharges:
            if item.per == "kWh":
                found += _per_kwh(tariff, cycle, usage, item, version)
            elif item.per != "percent":
                sides = [side for side in cycle.sides if side.version == version]
                found += [_per_time(tariff, cycle, item, side) for side in sides]
    for item in _last(tariff, cycle).surcharges:
        if item.per == "percent":
            base = sum_of([*lines, *found], item.base)
            percent = item.amount.at(cycle.sides[-1].season) if item.amount else None
            assert percent is not None  # checked on loading
            found.append(make_line(tariff, "surcharge", item.id, (Fraction(percent), "%"), base.scaleb(-2)))
    return found


def _per_kwh(tariff: Tariff, cycle: Cycle, usage: Usage, item: Surcharge, version: int) -> list[Line]:
    total_wh = wh_by_bucket(usage.bucket, usage.import_wh, len(tariff.buckets))
    own = {code: int(wh) for code, wh in enumerate(total_wh.tolist()) if tariff.buckets[code][0] == version and wh}
    if item.bands:
        bands = [(None if band.up_to_kwh is None else Fraction(band.up_to_kwh), band.amount) for band in item.bands]
        months = Fraction(fixed.days_of(cycle.served), 30) if item.per_days else Fraction(1)
        parts = surcharge.by_band(sum(own.values()), bands, months)
    else:
        by_price: dict[Decimal, int] = {}
        for code, wh in own.items():
            _, season, period = tariff.buckets[code]
            price = item.amount.at(season, period) if item.amount else None
            assert price is not None  # checked on loading
            by_price[price] = by_price.get(price, 0) + wh
        parts = [(Fraction(wh, 1000), price) for price, wh in by_price.items()]
    return [make_line(tariff, "surcharge", item.id, (kwh, "kWh"), price) for kwh, price in parts]


def _per_time(tariff: Tariff, cycle: Cycle, item: Surcharge, side: Side) -> Line:
    price = item.amount.at(side.season) if item.amount else None
    assert price is not None  # checked on loading
    count = fixed.units(item.per, "none", side.days, cycle.days)
    return make_line(tariff, "surcharge", item.id, (count, item.per), price)


def discount_lines(tariff: Tariff, cycle: Cycle, usage: Usage, lines: list[Line]) -> list[Line]:
    """Return the lines of discounts; their amounts are negative."""
    used_wh = int(usage.import_wh.sum())
    if any(part.register == "controlled" for part in _components(tariff, cycle)):
        used_wh += usage.total("controlled_wh")
    found: list[Line] = []
    for item in _last(tariff, cycle).discounts:
        found.append(_discount_line(tariff, item, Fraction(used_wh, 1000), [*lines, *found]))
    return found


def _components(tariff: Tariff, cycle: Cycle) -> list[EnergyComponent]:
    return [part for side in cycle.sides for part in tariff.versions[side.version].document.energy]


def _discount_line(tariff: Tariff, item: Discount, used_kwh: Fraction, lines: list[Line]) -> Line:
    if item.amount is not None:
        return make_line(tariff, "discount", item.id, (Fraction(1), "cycle"), -item.amount)
    if item.percent is not None:
        base = sum_of(lines, item.base)
        amount = -percentage(item.percent, base)
        return make_line(tariff, "discount", item.id, (Fraction(item.percent), "%"), -base.scaleb(-2), amount=amount)
    assert item.kwh_free is not None  # checked on loading
    energy = [line for line in lines if line.kind == "energy"]
    # A kWh that several components price is one kWh: lines are summed in money, never in quantity.
    free, worth = free_energy(Fraction(item.kwh_free), used_kwh, sum_of(energy))
    mean = decimal_from_fraction(worth / free, 8) if free else Decimal(0)
    return make_line(tariff, "discount", item.id, (free, "kWh"), -mean, amount=-worth)


def minimum_lines(tariff: Tariff, cycle: Cycle, lines: list[Line], history: History) -> list[Line]:
    """Return what fills a bill up to its minimum; an annual one with the bill of the year's last cycle."""
    found: list[Line] = []
    for item in _last(tariff, cycle).minimum:
        charged = sum_of([*lines, *found], item.tops_up)
        if item.per == "year":
            if cycle.days[1].year == cycle.days[0].year:
                continue
            missing = top_up(item.amount, charged + history.year_billed)
        else:
            times = fixed.units(item.per, item.prorate, cycle.served, cycle.days)
            missing = top_up(decimal_from_fraction(Fraction(item.amount) * times), charged)
        if missing:
            found.append(make_line(tariff, "minimum", item.id, (Fraction(1), item.per), missing))
    return found


def tax_lines(tariff: Tariff, cycle: Cycle, lines: list[Line]) -> list[Line]:
    """Return the lines of taxes: added ones, each on the lines before the taxes, and contained ones with no amount."""
    found = []
    for item in _last(tariff, cycle).taxes:
        base = sum_of(lines, item.base, item.exempt)
        if item.inclusive:
            line = make_line(tariff, "tax", item.id, (Fraction(base), tariff.currency), item.rate, amount=Fraction(0))
            included = tariff.round_money(decimal_from_fraction(tax.contained(item.rate, base)))
            found.append(dataclasses.replace(line, included=included))
        else:
            amount = tax.added(item.rate, base)
            quantity = (Fraction(base), tariff.currency)
            found.append(make_line(tariff, "tax", item.id, quantity, item.rate, amount=amount))
    return found
