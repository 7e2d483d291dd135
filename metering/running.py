"""The running charge from live quantities: what a cycle's state costs so far, by the bill's own lines.

The state of a meter holds energy by price bucket and tier and the peaks of demand windows (`metering.cycle_shape`). From these
a usage is made that the bill's code rates (`charge_lines`). Where all of it is linear or additive the same amounts are had as
columns (`charge_columns`): whole numbers of 10^-amount_scale of the currency, exact and unrounded; the bill rounds once.
"""

import dataclasses
import datetime as dt
import functools
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from metering.bill import Line
from metering.calendar import US
from metering.cycle_shape import CycleShape, Shapes, cycle_days
from metering.pricing import tier
from metering.pricing.rounding import EXACT_DIGITS
from metering.rating import NO_HISTORY, NO_INPUTS, bounds_of, fixed_lines, ladder_of, rate_cycle
from metering.rating_power import demand_lines
from metering.state import SLOTS, Int64Column
from metering.tariff import Tariff
from metering.usage import Cycle, Inputs, Load, Usage
from schemas.tariff import Version

WH_PER_KWH_DIGITS = 3
AMOUNT_MAX = 2**62
DIGITS_MAX = 9
"""Of a price in columns; finer ones are rated meter by meter."""
PROBE_WH = 1000
KINDS = ("energy", "demand", "fixed")
"""Of lines that columns have."""


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The tiers of the slots of one version, as columns."""

    slots: Int64Column
    edges_wh: Int64Column
    """Shape (t - 1,)."""
    adder: Int64Column
    """Shape (t,), units of 10^-amount_scale per Wh."""
    is_reset: bool


@dataclasses.dataclass(frozen=True)
class PeakPrice:
    """What the highest of some slots costs."""

    slots: Int64Column
    price: int
    """Units of 10^-amount_scale per Wh of a window."""


@dataclasses.dataclass(frozen=True)
class TaxRate:
    """A tax that is added to lines of some kinds."""

    rate: int
    """Units of 10^-digits."""
    digits: int
    kinds: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CyclePricing:
    """Prices of one billing cycle of one tariff as columns."""

    tariff: Tariff
    cycle: Cycle
    shape: CycleShape
    labels: tuple[str, ...]
    """Of each bucket."""
    first_start_s: Int64Column
    """When each bucket begins first in the cycle, epoch seconds."""
    price: Int64Column
    """Shape (SLOTS,), units of 10^-amount_scale per Wh."""
    ladders: tuple[Ladder, ...]
    peaks: tuple[PeakPrice, ...]
    taxes: tuple[TaxRate, ...]
    price_scale: int
    """Of the prices above; amounts with taxes have EXACT_DIGITS."""
    amount_scale: int
    start_s: int
    end_s: int
    has_columns: bool
    """False: `charge_columns` cannot price it, `charge_lines` can."""


@functools.lru_cache(1024)
def pricing_of(shapes: Shapes, cycle: int) -> CyclePricing | None:
    """Return the prices of one cycle of a timeline, or None when its charge comes from the ledger."""
    tariff, timeline, shape = shapes.tariff, shapes.timeline, shapes.of(cycle)
    if shape is None:
        return None
    here = timeline.cycle == cycle
    slot, start_s = timeline.slot[here], timeline.start_s[here]
    keys = [tariff.buckets[bucket] for bucket in shape.buckets]
    several = len({key[:2] for key in keys}) > 1
    days = cycle_days(tariff, timeline, cycle)
    bare = CyclePricing(
        tariff=tariff,
        cycle=days,
        shape=shape,
        labels=tuple(f"{season} {period}" if several else period for _, season, period in keys),
        first_start_s=np.array([start_s[np.argmax(slot == index)] for index in range(len(keys))], np.int64),
        price=np.zeros(SLOTS, np.int64),
        ladders=(),
        peaks=(),
        taxes=(),
        price_scale=0,
        amount_scale=0,
        start_s=int(timeline.cycle_start_s[cycle]),
        end_s=int(timeline.cycle_end_s[cycle]),
        has_columns=False,
    )
    documents = [tariff.versions[version].document for version, _ in days.versions]
    if tariff.rounding.line or tariff.rounding.quantity or not all(map(_is_linear, documents)):
        return bare
    return _with_columns(bare)


def _is_linear(document: Version) -> bool:
    rest = (document.surcharges, document.discounts, document.minimum)
    if any(not tax.inclusive and (tax.exempt or not set(tax.base) <= set(KINDS)) for tax in document.taxes):
        return False
    by_terms = any(charge.times for charge in document.fixed_charge)
    is_simple = all(
        charge.basis == "actual" and not charge.tiers and not charge.contract and not charge.min_kw and not charge.discount
        and not charge.average
        for charge in document.demand
    )  # fmt: skip
    is_shared = bool(document.tiers) and document.tier_rule.allocation == "proportional"
    return document.prices is not None and not any(rest) and not by_terms and is_simple and not is_shared


def _with_columns(bare: CyclePricing) -> CyclePricing:
    """Return prices with their columns, unless a bound or price is no whole number of them."""
    tariff, shape, whole = bare.tariff, bare.shape, bare.cycle
    rungs = [(version, ladder_of(tariff, version, first)) for version, first in whole.versions]
    if shape.tiers > 1:
        prices = _tier_prices(bare)
        rungs = []
    else:
        prices = [tariff.bucket_price(bucket) for bucket in shape.buckets]
    bounds = {version: bounds_of(tariff.versions[version], ladder, _span(bare, version)) for version, ladder in rungs}
    peaks = _peak_amounts(bare)
    adders = [step.adder_per_kwh for _, ladder in rungs for step in ladder]
    amounts = [line.price for line in fixed_lines(tariff, whole, NO_INPUTS)]
    numbers = [*prices, *adders, *amounts, *(amount for _, amount in peaks)]
    digits = max(0, *(-int(number.normalize().as_tuple().exponent) for number in numbers))
    if digits > DIGITS_MAX or any(bound.denominator != 1 for row in bounds.values() for bound in row):
        return bare
    price = np.zeros(SLOTS, np.int64)
    price[: len(prices)] = [int(number.scaleb(digits)) for number in prices]
    ladders = tuple(
        Ladder(
            np.array([slot for slot, code in enumerate(shape.buckets) if tariff.buckets[code][0] == version], np.int64),
            np.array([int(bound) for bound in bounds[version]], np.int64),
            np.array([int(step.adder_per_kwh.scaleb(digits)) for step in ladder], np.int64),
            tariff.versions[version].document.tier_rule.on_change == "reset",
        )
        for version, ladder in rungs
    )
    costs = tuple(PeakPrice(slots, int(amount.scaleb(digits))) for slots, amount in peaks)
    scale = digits + WH_PER_KWH_DIGITS
    taxes = tuple(
        TaxRate(int(item.rate.scaleb(places)), places, item.base or KINDS)
        for item in tariff.versions[whole.sides[-1].version].document.taxes
        if not item.inclusive
        for places in [max(0, -int(item.rate.normalize().as_tuple().exponent))]
    )
    return dataclasses.replace(
        bare,
        price=price,
        ladders=ladders,
        peaks=costs,
        taxes=taxes,
        price_scale=scale,
        amount_scale=EXACT_DIGITS if taxes else scale,
        has_columns=True,
    )


def _span(pricing: CyclePricing, version: int) -> tuple[dt.date, dt.date]:
    if pricing.tariff.versions[version].document.tier_rule.on_change == "reset":
        return next(side.days for side in pricing.cycle.sides if side.version == version)
    return pricing.cycle.days


def _tier_prices(pricing: CyclePricing) -> list[Decimal]:
    """Return the price of each energy slot of a ladder that is filled in order of time."""
    version, first_day = pricing.cycle.versions[0]
    prices = []
    for step in ladder_of(pricing.tariff, version, first_day):
        for bucket in pricing.shape.buckets:
            _, season, period = pricing.tariff.buckets[bucket]
            own = step.prices.at(season, period) if step.prices else None
            prices.append(pricing.tariff.bucket_price(bucket) + step.adder_per_kwh if own is None else own)
    return prices


def _peak_amounts(pricing: CyclePricing) -> list[tuple[Int64Column, Decimal]]:
    """Return of each demand line the slots that it looks at, and what PROBE_WH in one of them costs: found by asking."""
    if not pricing.shape.window_s:
        return []
    first = SLOTS - len(pricing.shape.buckets)
    found: dict[int, tuple[list[int], Decimal]] = {}
    for slot in range(first, SLOTS):
        quantities = np.zeros(SLOTS, np.int64)
        quantities[slot] = PROBE_WH
        lines, _ = demand_lines(
            pricing.tariff, pricing.cycle, usage_of(pricing, quantities.tolist()), NO_INPUTS, NO_HISTORY
        )
        for number, line in enumerate(lines):
            if line.quantity:
                slots, _ = found.setdefault(number, ([], line.amount_unrounded))
                slots.append(slot)
    return [(np.array(slots, np.int64), amount) for slots, amount in found.values()]


def fits_columns(pricing: CyclePricing, quantities_wh: Int64Column) -> NDArray[np.bool_]:
    """Return which rows `charge_columns` can price within 64 bits, shape (n,); the others are rated line by line."""
    adder_max = max((int(np.abs(ladder.adder).max()) for ladder in pricing.ladders), default=0)
    steepest = int(np.abs(pricing.price).max()) + adder_max + sum(abs(peak.price) for peak in pricing.peaks)
    widest = max(
        2 * 10 ** (pricing.amount_scale - pricing.price_scale), *(2 * abs(tax.rate) for tax in pricing.taxes), 1
    )
    fits: NDArray[np.bool_] = np.abs(quantities_wh).sum(axis=1) <= AMOUNT_MAX // max(steepest * widest, 1)
    return fits


def charge_columns(pricing: CyclePricing, quantities_wh: Int64Column, as_of_us: int) -> Int64Column:
    """Return the charge so far of each row.

    Args:
        pricing: Of the cycle that the quantities belong to; it has columns.
        quantities_wh: Shape (n, SLOTS), Wh by slot; they fit (`fits_columns`).
        as_of_us: Until when, epoch µs; a fixed charge per day counts the days begun.

    Returns:
        Shape (n,), units of 10^-amount_scale; exact but for fixed charges by shares of days, rounded to a unit.
    """
    assert pricing.has_columns
    assert fits_columns(pricing, quantities_wh).all()
    energy = quantities_wh[:, : pricing.shape.energy_slots]
    total_wh = energy.sum(axis=1)
    amount = energy @ pricing.price[: pricing.shape.energy_slots]
    before_wh = np.zeros(1, np.int64)
    for ladder in pricing.ladders:
        if ladder.is_reset:
            before_wh = np.zeros(1, np.int64)
        is_only = len(pricing.ladders) == 1
        after_wh = before_wh + (total_wh if is_only else quantities_wh[:, ladder.slots].sum(axis=1))
        amount += tier.wh_in_tiers(before_wh, after_wh, ladder.edges_wh) @ ladder.adder
        before_wh = after_wh
    demand = np.zeros_like(amount)
    for peak in pricing.peaks:
        demand += quantities_wh[:, peak.slots].max(axis=1) * peak.price
    due = sum((Fraction(line.amount_unrounded) for line in _fixed(pricing, as_of_us)), Fraction(0))
    fixed = np.full_like(amount, round(due * 10**pricing.price_scale))
    return _with_taxes(pricing, {"energy": amount, "demand": demand, "fixed": fixed})


def _with_taxes(pricing: CyclePricing, parts: Mapping[str, Int64Column]) -> Int64Column:
    """Return the sum of parts with the taxes on them, each tax with EXACT_DIGITS, halves to even, as a line has it."""
    total = (parts["energy"] + parts["demand"] + parts["fixed"]) * 10 ** (pricing.amount_scale - pricing.price_scale)
    for item in pricing.taxes:
        product = np.sum([parts[kind] for kind in item.kinds], axis=0) * item.rate
        surplus = pricing.price_scale + item.digits - EXACT_DIGITS
        if surplus <= 0:
            total += product * 10**-surplus
            continue
        unit = 10**surplus
        whole, rest = np.divmod(product, unit)
        total += whole + ((2 * rest > unit) | ((2 * rest == unit) & (whole % 2 == 1)))
    return total


def _until(pricing: CyclePricing, as_of_us: int) -> dt.date:
    """Return the day up to which charges per day are counted: the day after the one that has begun."""
    at_s = min(max(as_of_us // US, pricing.start_s), pricing.end_s - 1)
    return dt.datetime.fromtimestamp(at_s, pricing.tariff.zone).date() + dt.timedelta(days=1)


def _fixed(pricing: CyclePricing, as_of_us: int) -> list[Line]:
    return fixed_lines(pricing.tariff, pricing.cycle, NO_INPUTS, until=_until(pricing, as_of_us))


def usage_of(pricing: CyclePricing, quantities_wh: Sequence[int]) -> Usage:
    """Return a usage that costs what the quantities of a state cost.

    Tiers that were filled in order of time become parts in the order of tiers; each peak becomes one window at the time
    that its bucket first begins, so that it is of the same side and period.
    """
    shape = pricing.shape
    count = len(shape.buckets)
    parts = [(slot % count, quantities_wh[slot]) for slot in range(shape.energy_slots)]
    kept = [part for place, part in enumerate(parts) if place < count or part[1]]
    energy_wh = np.array([wh for _, wh in kept], np.int64)
    load = bucket_at_start = None
    if shape.window_s:
        order = np.argsort(pricing.first_start_s)
        peaks = np.array(quantities_wh[SLOTS - count :], np.int64)[order]
        load = Load(pricing.first_start_s[order] * US, shape.window_s, {"import_wh": peaks})
        bucket_at_start = np.array(shape.buckets, np.int64)[order]
    return Usage(
        bucket=np.array([shape.buckets[place] for place, _ in kept], np.int64),
        import_wh=energy_wh,
        export_wh=np.zeros_like(energy_wh),
        load=load,
        bucket_at_start=bucket_at_start,
    )


def charge_lines(
    pricing: CyclePricing, quantities_wh: Sequence[int], as_of_us: int, inputs: Inputs = NO_INPUTS
) -> list[Line]:
    """Return the charge so far of one service point, line by line; their unrounded amounts sum to `charge_columns`.

    Lines of price buckets come first, in the order of buckets.
    """
    usage = usage_of(pricing, quantities_wh)
    bill, _ = rate_cycle(pricing.tariff, pricing.cycle, usage, inputs, until=_until(pricing, as_of_us))
    return sorted(bill.lines, key=lambda line: (line.bucket is None, line.bucket or 0))


def shown_kind(line: Line) -> str:
    """Return the kind of a line as the console tells it: tiers apart from energy."""
    return "tier" if line.kind == "energy" and line.tier is not None and line.bucket is None else line.kind


def quantity_kwh(line: Line) -> Decimal:
    """Return the energy of a line, kWh; 0 of a line that is not for energy."""
    wh = line.quantity * 1000 if line.unit == "kWh" else Fraction(0)
    return Decimal(int(wh)) / 1000
