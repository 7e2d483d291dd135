"""The running charge of settlement: what a cycle's quantities cost so far, by the models and lines of `rating`.

Settlement keeps Wh by price bucket of the cycle (slots), so here is what these alone decide: time of use, season, tiers as
adders, fixed charges. `unsupported_parts` names what is more; a tariff with such parts is not put in force.
Amounts of many meters are whole numbers of 10^-amount_scale of the currency, exact and unrounded; the bill rounds once.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np

from metering.bill import Line
from metering.calendar import Timeline
from metering.pricing import tier
from metering.rating import NO_HISTORY, NO_INPUTS, bounds_of, energy_lines, fixed_lines, ladder_of
from metering.state import SLOTS, Int64Column
from metering.tariff import Tariff
from metering.usage import Cycle, Usage, make_cycle

WH_PER_KWH_DIGITS = 3
AMOUNT_MAX = 2**62
SUPPORTED = (
    "seasons",
    "holidays",
    "days",
    "windows",
    "rest",
    "prices",
    "composed",
    "tiers",
    "tier_rule",
    "fixed_charge",
)


def unsupported_parts(tariff: Tariff) -> list[str]:
    """Return the parts of a tariff that the running charge cannot compute yet, with their places."""
    found = []
    for index, version in enumerate(tariff.versions):
        for field in dataclasses.fields(version.document):
            given = getattr(version.document, field.name)
            if field.name not in (*SUPPORTED, "valid_from", "valid_to") and given not in (None, (), {}):
                found.append(f"versions[{index}].{field.name}")
        rule = version.document.tier_rule
        if (rule.allocation, rule.unit, rule.per, rule.prorate, rule.pooled) != (
            "additive",
            "kWh",
            "cycle",
            "none",
            "all",
        ):
            found.append(f"versions[{index}].tier_rule")
        if version.document.prices is None:
            found.append(f"versions[{index}]: no `prices`")
        if any(charge.times for charge in version.document.fixed_charge):
            found.append(f"versions[{index}].fixed_charge: `times`")
    if tariff.rounding.quantity or tariff.rounding.line:
        found.append("rounding of quantities or lines")
    return found


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
class CyclePricing:
    """Prices of one billing cycle of one tariff as columns."""

    tariff: Tariff
    cycle: Cycle
    buckets: tuple[int, ...]
    """Of each slot in use."""
    labels: tuple[str, ...]
    price: Int64Column
    """Shape (SLOTS,), units of 10^-amount_scale per Wh."""
    ladders: tuple[Ladder, ...]
    amount_scale: int
    start_s: int
    end_s: int


def compile_cycle(tariff: Tariff, timeline: Timeline, cycle: int) -> CyclePricing:
    """Return the prices of one cycle of a timeline."""
    start_s, end_s = int(timeline.cycle_start_s[cycle]), int(timeline.cycle_end_s[cycle])
    start_on, end_on = (dt.datetime.fromtimestamp(at, tariff.zone).date() for at in (start_s, end_s))
    buckets = timeline.cycle_buckets[cycle]
    whole = make_cycle(tariff, start_on, end_on)
    prices = [tariff.bucket_price(bucket) for bucket in buckets]
    rungs = [(version, ladder_of(tariff, version, first)) for version, first in whole.versions]
    adders = [step.adder_per_kwh for _, ladder in rungs for step in ladder]
    amounts = [line.price for line in fixed_lines(tariff, whole, NO_INPUTS)]
    digits = max(0, *(-int(number.as_tuple().exponent) for number in [*prices, *adders, *amounts]))
    price = np.zeros(SLOTS, np.int64)
    price[: len(prices)] = [int(number.scaleb(digits)) for number in prices]
    ladders = []
    for version, ladder in rungs:
        item = tariff.versions[version]
        bounds = bounds_of(item, ladder, whole.days)
        ladders.append(
            Ladder(
                np.array([slot for slot, code in enumerate(buckets) if tariff.buckets[code][0] == version], np.int64),
                np.array([int(bound) for bound in bounds], np.int64),
                np.array([int(step.adder_per_kwh.scaleb(digits)) for step in ladder], np.int64),
                item.document.tier_rule.on_change == "reset",
            )
        )
    several = len({tariff.buckets[bucket][:2] for bucket in buckets}) > 1
    keys = [tariff.buckets[bucket] for bucket in buckets]
    return CyclePricing(
        tariff=tariff,
        cycle=whole,
        buckets=buckets,
        labels=tuple(f"{season} {period}" if several else period for _, season, period in keys),
        price=price,
        ladders=tuple(ladders),
        amount_scale=digits + WH_PER_KWH_DIGITS,
        start_s=start_s,
        end_s=end_s,
    )


def charge_columns(pricing: CyclePricing, quantities_wh: Int64Column, as_of_us: int) -> Int64Column:
    """Return the charge so far of each row.

    Args:
        pricing: Of the cycle that the quantities belong to.
        quantities_wh: Shape (n, SLOTS), Wh by slot.
        as_of_us: Until when, epoch µs; a fixed charge per day counts the days begun.

    Returns:
        Shape (n,), units of 10^-amount_scale; exact but for fixed charges by shares of days, rounded to a unit.
    """
    total_wh = quantities_wh.sum(axis=1)
    steepest = int(np.abs(pricing.price).max() + max(int(np.abs(ladder.adder).max()) for ladder in pricing.ladders))
    assert int(np.abs(total_wh).max(initial=0)) * steepest < AMOUNT_MAX
    amount = quantities_wh @ pricing.price
    before_wh = np.zeros(1, np.int64)
    for ladder in pricing.ladders:
        if ladder.is_reset:
            before_wh = np.zeros(1, np.int64)
        is_only = len(pricing.ladders) == 1
        after_wh = before_wh + (total_wh if is_only else quantities_wh[:, ladder.slots].sum(axis=1))
        amount += tier.wh_in_tiers(before_wh, after_wh, ladder.edges_wh) @ ladder.adder
        before_wh = after_wh
    due = sum((Fraction(line.amount_unrounded) for line in _fixed(pricing, as_of_us)), Fraction(0))
    return amount + round(due * 10**pricing.amount_scale)


def _fixed(pricing: CyclePricing, as_of_us: int) -> list[Line]:
    at_s = min(max(as_of_us // 1_000_000, pricing.start_s), pricing.end_s - 1)
    today = dt.datetime.fromtimestamp(at_s, pricing.tariff.zone).date()
    return fixed_lines(pricing.tariff, pricing.cycle, NO_INPUTS, until=today + dt.timedelta(days=1))


def charge_lines(pricing: CyclePricing, quantities_wh: Sequence[int], as_of_us: int) -> list[Line]:
    """Return the charge so far of one service point, line by line; their unrounded amounts sum to `charge_columns`.

    Lines of price buckets come first, in the order of slots.
    """
    count = len(pricing.buckets)
    usage = Usage(
        bucket=np.array(pricing.buckets, np.int64),
        import_wh=np.array(quantities_wh[:count], np.int64),
        export_wh=np.zeros(count, np.int64),
    )
    lines = energy_lines(pricing.tariff, pricing.cycle, usage, NO_HISTORY, NO_INPUTS)
    lines.sort(key=lambda line: (line.bucket is None, line.bucket or 0))
    return lines + _fixed(pricing, as_of_us)


def shown_kind(line: Line) -> str:
    """Return the kind of a line as the console tells it: tiers apart from energy."""
    return "tier" if line.kind == "energy" and line.tier is not None else line.kind


def quantity_kwh(line: Line) -> Decimal:
    """Return the energy of a line, kWh; 0 of a line that is not for energy."""
    wh = line.quantity * 1000 if line.unit == "kWh" else Fraction(0)
    return Decimal(int(wh)) / 1000
