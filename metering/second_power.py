"""Demand and reactive energy by the second rater. Pure."""

import dataclasses
import datetime as dt
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction

from metering.second_clock import Interval, Piece, clock_of, periods_of
from metering.second_sheet import Line, Sheet, Side, rounded, to_step
from schemas.document import Table
from schemas.tariff import DemandCharge, Reactive

SQRT_SCALE = 10**15
"""Square roots are cut off after so many parts of one."""


def root(square: Fraction) -> Fraction:
    """Return a square root to 15 decimals, cut off."""
    return Fraction(math.isqrt(square.numerator * SQRT_SCALE**2 // square.denominator), SQRT_SCALE)


def power_kw(quantity: str, energies: Sequence[Interval], seconds: int) -> Fraction:
    """Return the mean power of some intervals over a time, kW, kVA or kvar."""
    active = Fraction(sum(item.import_wh for item in energies) * 36, seconds * 10)
    reactive = Fraction(sum(item.varh for item in energies) * 36, seconds * 10)
    if quantity == "kW":
        return active
    return reactive if quantity == "kvar" else root(active**2 + reactive**2)


Row = Callable[[str, Fraction, Decimal], Line]
Window = tuple[int, Fraction, Piece]
"""Start of a window, its mean power, and the piece that it begins in."""


def windows_of(sheet: Sheet, pieces: Sequence[Piece], charge: DemandCharge) -> list[Window]:
    """Return the mean power of every window of the cycle."""
    seconds = charge.window_min * 60
    by_start: dict[int, list[Piece]] = {}
    if charge.method == "sliding":
        return _sliding(pieces, charge, seconds)
    clock = clock_of(sheet.document.clocks.demand, sheet.document.zone)
    for piece in pieces:
        local = dt.datetime.fromtimestamp(piece.energy.start_s, clock)
        into_s = local.hour * 3600 + local.minute * 60 + local.second
        by_start.setdefault(piece.energy.start_s - into_s % seconds, []).append(piece)
    found = []
    for start_s, rows in by_start.items():
        longest = max(row.energy.duration_s for row in rows)
        if longest >= seconds:
            found += [(start_s, power_kw(charge.quantity, [row.energy], row.energy.duration_s), row) for row in rows]
        else:
            found.append((start_s, power_kw(charge.quantity, [row.energy for row in rows], seconds), rows[0]))
    return found


def _sliding(pieces: Sequence[Piece], charge: DemandCharge, seconds: int) -> list[Window]:
    found = []
    for place, piece in enumerate(pieces):
        rows, reached = [], 0
        for row in pieces[place:]:
            if reached >= seconds:
                break
            rows.append(row.energy)
            reached += row.energy.duration_s
        if reached >= seconds:
            found.append((piece.energy.start_s, power_kw(charge.quantity, rows, reached), piece))
    return found


def demand_lines(
    sheet: Sheet, pieces: Sequence[Piece], system_peaks_s: Sequence[int], energy_kwh: Fraction
) -> list[Line]:
    """Return the lines of every demand charge of every side, and note this cycle's peaks."""
    lines: list[Line] = []
    peaks: dict[str, Fraction] = {}
    whole = Side(sheet.sides[-1].version, sheet.sides[-1].season, sheet.days)
    for_all = {charge.id for charge in sheet.last.demand if charge.on_change == "last"}
    for side in sheet.sides:
        for charge in sheet.document.versions[side.version].demand:
            if charge.id not in for_all:
                lines += _side_lines(sheet, side, charge, pieces, system_peaks_s, energy_kwh, peaks)
    for charge in sheet.last.demand:
        if charge.id in for_all:
            lines += _side_lines(sheet, whole, charge, pieces, system_peaks_s, energy_kwh, peaks)
    sheet.history.peaks_kw += [(name, sheet.cycle[0], peak) for name, peak in peaks.items()]
    return lines


def _side_lines(  # a side of a charge and all that it is made of
    sheet: Sheet,
    side: Side,
    charge: DemandCharge,
    pieces: Sequence[Piece],
    system_peaks_s: Sequence[int],
    energy_kwh: Fraction,
    peaks: dict[str, Fraction],
) -> list[Line]:
    document = sheet.document
    windows = windows_of(sheet, pieces, charge)
    days = set(side.days)
    own = [row for row in windows if row[2].day in days]
    version = document.versions[side.version]
    names: list[tuple[str, str | None]] = [(charge.id, None)]
    if charge.scope == "period" and not charge.periods:
        names = [(f"{charge.id}-{period}", period) for period in periods_of(version, side.season)]
    if charge.scope == "coincident":
        own = [row for row in own if any(0 <= at - row[0] < charge.window_min * 60 for at in system_peaks_s)]
    if charge.periods:
        own = [row for row in own if row[2].period in charge.periods]
    lines = []
    share = sheet.count(charge.per, charge.prorate, side.days)
    for name, period in names:
        mine = [row for row in own if period is None or row[2].period == period]
        keys = (side.season, period) if period else (side.season,)
        if not any(price.at(*keys) for price in _tables(charge)):
            continue
        peak = Fraction(0) if charge.basis == "capacity" else _own_peak(sheet, charge, mine)
        peaks[name] = max(peak, peaks.get(name, Fraction(0)))
        power = _billed_kw(sheet, charge, name, peak)
        lines += _priced(sheet, charge, name, keys, power, share, energy_kwh)
    return lines


def _tables(charge: DemandCharge) -> list[Table]:
    return [charge.prices] if charge.prices is not None else [tier.prices for tier in charge.tiers]


def _own_peak(sheet: Sheet, charge: DemandCharge, windows: Sequence[Window]) -> Fraction:
    """Return the highest power, or the mean of several."""
    average = charge.average
    values = [row[1] for row in windows]
    if average is None or average.top_n == 1:
        return max(values, default=Fraction(0))
    if average.distinct_days:
        days: dict[dt.date, Fraction] = {}
        clock = clock_of(sheet.document.clocks.demand, sheet.document.zone)
        for start_s, power, _ in windows:
            day = dt.datetime.fromtimestamp(start_s, clock).date()
            days[day] = max(power, days.get(day, Fraction(0)))
        values = list(days.values())
    top = sorted(values, reverse=True)[: average.top_n]
    return sum(top, Fraction(0)) / len(top) if top else Fraction(0)


def _earlier(sheet: Sheet, name: str, months: int) -> list[tuple[dt.date, Fraction]]:
    """Return the peaks of a charge in so many cycles before this one."""
    rows = [(day, kw) for of, day, kw in sheet.history.peaks_kw if of == name]
    return rows[-months:] if months else []


def _billed_kw(sheet: Sheet, charge: DemandCharge, name: str, peak: Fraction) -> Fraction:
    power = peak
    average = charge.average
    if average is not None:
        floor = Fraction(average.floor_kw)
        months = [kw for _, kw in _earlier(sheet, name, average.rolling_months - 1)] + [peak]
        if average.floor_on == "month":
            months = [max(kw, floor) for kw in months]
        power = sum(months, Fraction(0)) / len(months)
        power = max(power, floor) if average.floor_on == "mean" else power
    ratchet = charge.ratchet
    if ratchet is not None:
        before = [
            kw
            for day, kw in _earlier(sheet, name, ratchet.months)
            if not ratchet.of_months or day.month in ratchet.of_months
        ]
        power = max(power, max(before, default=Fraction(0)) * Fraction(ratchet.percent) / 100, Fraction(ratchet.min_kw))
    return max(power, Fraction(charge.min_kw))


def _priced(
    sheet: Sheet,
    charge: DemandCharge,
    name: str,
    keys: tuple[str, ...],
    power: Fraction,
    share: Fraction,
    energy_kwh: Fraction,
) -> list[Line]:
    def row(suffix: str, kw: Fraction, price: Decimal) -> Line:
        return sheet.line(name + suffix, "demand", kw, price, kw * Fraction(price) * share)

    if charge.tiers:
        lines, low = [], Fraction(0)
        for count, tier in enumerate(charge.tiers, 1):
            high = power if tier.up_to_kw is None else min(power, Fraction(tier.up_to_kw))
            price = tier.prices.at(*keys) or Decimal(0)
            lines.append(
                row(f"-tier-{count}", max(Fraction(0), high - low), _discounted(sheet, charge, price, energy_kwh))
            )
            low = max(low, high)
        return lines
    assert charge.prices is not None
    price = _discounted(sheet, charge, charge.prices.at(*keys) or Decimal(0), energy_kwh)
    if charge.basis == "capacity":
        capacity = charge.contract.capacity_term if charge.contract else "capacity_kva"
        return [row("", sheet.term(capacity), price)]
    if charge.basis == "actual":
        return [row("", power, price)]
    return _contract_rows(sheet, charge, power, price, row)


def _contract_rows(sheet: Sheet, charge: DemandCharge, power: Fraction, price: Decimal, row: Row) -> list[Line]:
    contract = charge.contract
    assert contract is not None
    agreed = sheet.term(contract.term)
    if contract.floor_share is not None:
        agreed = max(agreed, Fraction(contract.floor_share) * sheet.term(contract.capacity_term))
    lines = [row("", agreed, price)] if contract.base else []
    over = max(Fraction(0), power - agreed * Fraction(contract.tolerance))
    low = Fraction(0)
    for count, band in enumerate(contract.over, 1):
        high = over if band.up_to_share is None else min(over, Fraction(band.up_to_share) * agreed)
        lines.append(row(f"-over-{count}", max(Fraction(0), high - low), price * band.multiplier))
        low = max(low, high)
    return lines


def _discounted(sheet: Sheet, charge: DemandCharge, price: Decimal, energy_kwh: Fraction) -> Decimal:
    discount = charge.discount
    if discount is None:
        return price
    capacity = sheet.term(discount.capacity_term)
    if energy_kwh < Fraction(discount.kwh_per_kva_min) * capacity:
        return price
    return rounded(price * discount.factor, sheet.document.rounding.price)


# -- reactive energy --------------------------------------------------------------------------------------------------


def reactive_lines(sheet: Sheet, pieces: Sequence[Piece], whole: Sequence[Piece], lines: Sequence[Line]) -> list[Line]:
    """Return the lines for reactive energy and power factor, of the version at the end.

    Raises:
        ValueError: The load has no reactive energy, and a charge is not optional.
    """
    found: list[Line] = []
    known = any(piece.energy.import_varh is not None for piece in pieces)
    for charge in sheet.last.reactive:
        if not known:
            if charge.optional:
                continue
            raise ValueError(f"{charge.id} needs reactive energy, which the load has not")
        found.append(_reactive_line(sheet, charge, pieces, whole, [*lines, *found]))
    return found


def _reactive_line(
    sheet: Sheet, charge: Reactive, pieces: Sequence[Piece], whole: Sequence[Piece], lines: Sequence[Line]
) -> Line:
    kwh = Fraction(sum(piece.energy.import_wh for piece in pieces), 1000)
    kvarh = Fraction(sum(piece.energy.import_varh or 0 for piece in pieces), 1000)
    if charge.q == "absolute_sum":
        kvarh += Fraction(sum(piece.energy.export_varh or 0 for piece in pieces), 1000)
    if charge.mode in ("ratio", "kvarh"):
        free = kwh * Fraction(charge.ratio) if charge.mode == "ratio" else 0
        return sheet.line(charge.id, "reactive", max(Fraction(0), kvarh - free), charge.price, unit="kvarh")
    if charge.mode == "kvar":
        whole = [dataclasses.replace(row, energy=dataclasses.replace(row.energy, export_varh=0)) for row in whole]
        high, active = (
            max(
                (row[1] for row in windows_of(sheet, whole, DemandCharge(quantity=of, window_min=charge.window_min))),
                default=Fraction(0),
            )
            for of in ("kvar", "kW")
        )
        over = max(Fraction(0), high - active * Fraction(charge.ratio))
        return sheet.line(charge.id, "reactive", over, charge.price, unit="kvar")
    factor = _power_factor(kwh, kvarh, charge.digits)
    percent = _percent(charge, factor)
    base = sheet.sum_of(lines, charge.base) - kwh * Fraction(charge.less_per_kwh)
    return sheet.line(charge.id, "reactive", percent, Decimal(0), base * percent / 100)


def _power_factor(kwh: Fraction, kvarh: Fraction, digits: int) -> Fraction:
    if not kwh and not kvarh:
        return Fraction(1)
    return to_step(kwh / root(kwh**2 + kvarh**2), Fraction(1, 10**digits), "half_up")


def _percent(charge: Reactive, factor: Fraction) -> Fraction:
    if charge.mode == "table":
        return next((Fraction(row.percent) for row in charge.table if factor >= Fraction(row.from_)), Fraction(0))
    if charge.mode == "ramp":
        assert charge.ramp is not None
        reached = min(factor, Fraction(charge.ramp.best))
        return -Fraction(charge.ramp.percent) * ((reached - Fraction(charge.ramp.base)) / Fraction(charge.ramp.step))
    return _notice_1983(charge.standard, factor)


def _notice_1983(standard: str, factor: Fraction) -> Fraction:
    """Return the percentage of (83)水电财字第215号: positive is a surcharge."""
    steps = int((Fraction(Decimal(standard)) - Fraction(math.floor(factor * 100), 100)) * 100)
    if steps > 0:
        hard = 20  # 0.5 % a step down to 10 %, then 1 % to 15 %, then 2 %
        if steps <= hard:
            return Fraction(steps, 2)
        return Fraction(10 + steps - hard) if steps <= hard + 5 else Fraction(15 + 2 * (steps - hard - 5))
    better = -steps
    if standard == "0.90":
        return -Fraction(75, 100) if better >= 5 else -Fraction(15, 100) * better
    best = {
        "0.85": {6: "0.65", 7: "0.80", 8: "0.95", 9: "1.10"},
        "0.80": {11: "1.15", 12: "1.30"},
    }[standard]
    if better >= min(best):
        return -Fraction(Decimal(best[min(better, max(best))]))
    return -Fraction(better, 10)
