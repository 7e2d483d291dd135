"""Charges by time, surcharges, discounts, minimum bills and taxes by the second rater. Pure."""

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from metering.second_energy import Chunk, table_lines
from metering.second_sheet import Line, Sheet
from schemas.tariff import Minimum, Surcharge

MONTHS = 12


def fixed_lines(sheet: Sheet, until: dt.date | None = None) -> list[Line]:
    """Return fixed charges, each side with its days; those by the day up to `until` while the cycle runs."""
    lines = []
    for side in sheet.sides:
        for charge in sheet.document.versions[side.version].fixed_charge:
            price = charge.amount.at(side.season) or Decimal(0)
            days = side.days
            if charge.per == "day" and until is not None:
                days = [day for day in days if day < until]
            count = sheet.count(charge.per, charge.prorate, days)
            times = sheet.term(charge.times) if charge.times else Fraction(1)
            lines.append(sheet.line(charge.id, "fixed", count * times, price, unit=charge.per))
    return lines


def surcharge_lines(sheet: Sheet, chunks: Sequence[Chunk], lines: Sequence[Line]) -> list[Line]:
    """Return surcharges: by energy and by day of each version, others of the last."""
    found: list[Line] = []
    for index in sheet.versions:
        for charge in sheet.document.versions[index].surcharges:
            if charge.per == "percent":
                if index == sheet.versions[-1]:
                    found.append(_percent_line(sheet, charge, [*lines, *found]))
            elif charge.per == "kWh":
                found += _by_energy(sheet, charge, [chunk for chunk in chunks if chunk.version == index])
            else:
                found += _by_time(sheet, charge, index)
    return found


def _percent_line(sheet: Sheet, charge: Surcharge, lines: Sequence[Line]) -> Line:
    assert charge.amount is not None
    percent = charge.amount.at(sheet.sides[-1].season) or Decimal(0)
    base = sheet.sum_of(lines, charge.base)
    return sheet.line(charge.id, "surcharge", Fraction(percent), Decimal(0), base * Fraction(percent) / 100)


def _by_time(sheet: Sheet, charge: Surcharge, index: int) -> list[Line]:
    assert charge.amount is not None
    return [
        sheet.line(
            charge.id,
            "surcharge",
            sheet.count(charge.per, "none", side.days),
            charge.amount.at(side.season) or Decimal(0),
            unit=charge.per,
        )
        for side in sheet.sides
        if side.version == index
    ]


def _by_energy(sheet: Sheet, charge: Surcharge, chunks: Sequence[Chunk]) -> list[Line]:
    if charge.amount is not None:
        amounts = [(chunk.season, chunk.period, chunk.drawn_wh) for chunk in chunks]
        return table_lines(sheet, charge.id, "surcharge", charge.amount, amounts)
    energy = sum((chunk.drawn_wh for chunk in chunks), Fraction(0)) / 1000
    found, low = [], Fraction(0)
    for band in charge.bands:
        factor = Fraction(len(sheet.days), 30) if charge.per_days else Fraction(1)
        high = energy if band.up_to_kwh is None else min(energy, Fraction(band.up_to_kwh) * factor)
        found.append(sheet.line(charge.id, "surcharge", max(Fraction(0), high - low), band.amount))
        low = max(low, high)
    return found


def discount_lines(sheet: Sheet, lines: Sequence[Line], used_kwh: Fraction) -> list[Line]:
    """Return discounts of the last version."""
    found: list[Line] = []
    for discount in sheet.last.discounts:
        before = [*lines, *found]
        if discount.kwh_free is not None:
            energy = sheet.sum_of(lines, ["energy"])
            free = min(Fraction(discount.kwh_free), used_kwh)
            amount = -energy * free / used_kwh if used_kwh else Fraction(0)
            found.append(sheet.line(discount.id, "discount", free, Decimal(0), amount))
        elif discount.percent is not None:
            amount = -sheet.sum_of(before, discount.base) * Fraction(discount.percent) / 100
            found.append(sheet.line(discount.id, "discount", Fraction(discount.percent), Decimal(0), amount))
        else:
            found.append(
                sheet.line(discount.id, "discount", Fraction(1), -(discount.amount or Decimal(0)), unit="cycle")
            )
    return found


def minimum_lines(sheet: Sheet, lines: Sequence[Line]) -> list[Line]:
    """Return what is missing to the least amounts of the last version."""
    found: list[Line] = []
    for minimum in sheet.last.minimum:
        have = sheet.sum_of([*lines, *found], minimum.tops_up)
        missing = _least(sheet, minimum) - have
        if minimum.per == "year":
            if not sheet.ends_month(MONTHS):
                continue
            before = sheet.history.year_billed if sheet.history.year == sheet.cycle[0].year else Fraction(0)
            missing = Fraction(minimum.amount) - before - have
        if missing > 0:
            found.append(sheet.line(minimum.id, "minimum", Fraction(1), Decimal(0), missing))
    return found


def _least(sheet: Sheet, minimum: Minimum) -> Fraction:
    return Fraction(minimum.amount) * sheet.count(minimum.per, minimum.prorate, sheet.days)


def tax_lines(sheet: Sheet, lines: Sequence[Line]) -> list[Line]:
    """Return taxes of the last version; one that prices contain has no amount, only what is contained."""
    found: list[Line] = []
    for tax in sheet.last.taxes:
        seen = lines if not tax.base else [*lines, *found]
        taxed = [line for line in seen if not tax.exempt or not sheet.sum_of([line], tax.exempt)]
        amount = sum((line.amount for line in taxed), Fraction(0)) if not tax.base else sheet.sum_of(taxed, tax.base)
        rate = Fraction(tax.rate)
        if tax.inclusive:
            row = sheet.line(tax.id, "tax", amount, tax.rate, Fraction(0))
            found.append(row._replace(included=amount * rate / (1 + rate)))
        else:
            found.append(sheet.line(tax.id, "tax", amount, tax.rate, unit="money"))
    return found
