"""Time of use × season × tiers on the cycle's total × fixed charge, the tiers as adders (the Chinese residential ladder).

Amounts are whole numbers of 10^-amount_scale of the currency, exact and unrounded; the bill rounds once.
"""

import dataclasses
import datetime as dt
import enum
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from metering.calendar import Timeline
from metering.state import SLOTS, Int64Column
from metering.tariff import Tariff, Tier

WH_PER_KWH_DIGITS = 3
AMOUNT_MAX = 2**62


class ChargeKind(enum.StrEnum):
    """What a charge line is for."""

    ENERGY = "energy"
    TIER = "tier"
    FIXED = "fixed"


@dataclasses.dataclass(frozen=True)
class ChargeLine:
    """One row of a charge."""

    id: str
    kind: ChargeKind
    period: str
    quantity_wh: int
    price: Decimal
    """Currency per kWh; of a fixed charge the amount per cycle or day."""
    amount: Decimal
    """Rounded for the eye; only the total of a bill is rounded for money."""
    amount_unrounded: Decimal


@dataclasses.dataclass(frozen=True)
class CyclePricing:
    """Prices of one billing cycle of one tariff as columns."""

    tariff: Tariff
    labels: tuple[str, ...]
    prices: tuple[Decimal, ...]
    price: Int64Column
    """Shape (SLOTS,), units of 10^-amount_scale per Wh."""
    tiers: tuple[Tier, ...]
    tier_edges_wh: Int64Column
    """Shape (t - 1,): upper bounds of all tiers but the last."""
    tier_adder: Int64Column
    """Shape (t,), units of 10^-amount_scale per Wh."""
    fixed: int
    """Units of 10^-amount_scale, per cycle or per day."""
    fixed_per: str
    fixed_amount: Decimal
    amount_scale: int
    start_s: int
    end_s: int


def compile_cycle(tariff: Tariff, timeline: Timeline, cycle: int) -> CyclePricing:
    """Return the prices of one cycle; tiers and fixed charge are those of the version at its start."""
    start_s, end_s = int(timeline.cycle_start_s[cycle]), int(timeline.cycle_end_s[cycle])
    first_day = dt.datetime.fromtimestamp(start_s, tariff.zone).date()
    version = tariff.versions[tariff.version_index_on(first_day)]
    buckets = timeline.cycle_buckets[cycle]
    prices = [tariff.bucket_price(bucket) for bucket in buckets]
    tiers = version.tiers[version.season_of(first_day)] or (Tier(None, Decimal(0)),)
    adders = [tier.adder_per_kwh for tier in tiers]
    decimals = [*prices, *adders, version.fixed_amount]
    digits = max(0, *(-int(number.as_tuple().exponent) for number in decimals))
    price = np.zeros(SLOTS, np.int64)
    price[: len(prices)] = [int(number.scaleb(digits)) for number in prices]
    scale = digits + WH_PER_KWH_DIGITS
    several = len({tariff.buckets[bucket][:2] for bucket in buckets}) > 1
    labels = [
        f"{season} {period}" if several else period
        for _, season, period in (tariff.buckets[bucket] for bucket in buckets)
    ]
    return CyclePricing(
        tariff=tariff,
        labels=tuple(labels),
        prices=tuple(prices),
        price=price,
        tiers=tiers,
        tier_edges_wh=np.array([tier.up_to_wh for tier in tiers[:-1]], np.int64),
        tier_adder=np.array([int(number.scaleb(digits)) for number in adders], np.int64),
        fixed=int(version.fixed_amount.scaleb(scale)),
        fixed_per=version.fixed_per,
        fixed_amount=version.fixed_amount,
        amount_scale=scale,
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
        Shape (n,), units of 10^-amount_scale, exact.
    """
    total_wh = quantities_wh.sum(axis=1)
    steepest = int(np.abs(pricing.price).max() + np.abs(pricing.tier_adder).max())
    assert int(np.abs(total_wh).max(initial=0)) * steepest < AMOUNT_MAX
    amount = quantities_wh @ pricing.price
    low_wh = 0
    for index, adder in enumerate(pricing.tier_adder.tolist()):
        high_wh = pricing.tier_edges_wh[index] if index < len(pricing.tier_edges_wh) else None
        amount += np.clip(total_wh, low_wh, high_wh) * adder - low_wh * adder
        low_wh = high_wh if high_wh is not None else low_wh
    return amount + pricing.fixed * _fixed_count(pricing, as_of_us)


def _fixed_count(pricing: CyclePricing, as_of_us: int) -> int:
    if pricing.fixed_per == "cycle":
        return 1
    at_s = min(max(as_of_us // 1_000_000, pricing.start_s), pricing.end_s - 1)
    zone = pricing.tariff.zone
    first, now = (dt.datetime.fromtimestamp(moment, zone).date() for moment in (pricing.start_s, at_s))
    return (now - first).days + 1


def charge_lines(pricing: CyclePricing, quantities_wh: Sequence[int], as_of_us: int) -> list[ChargeLine]:
    """Return the charge so far of one service point, line by line; their unrounded amounts sum to `charge_columns`."""
    lines = [
        _line(pricing, f"energy-{label}", ChargeKind.ENERGY, label, quantity, price)
        for label, price, quantity in zip(pricing.labels, pricing.prices, quantities_wh, strict=False)
    ]
    total_wh, low_wh = sum(quantities_wh), 0
    for index, tier in enumerate(pricing.tiers, start=1):
        high_wh = total_wh if tier.up_to_wh is None else min(total_wh, tier.up_to_wh)
        if tier.adder_per_kwh:
            inside = max(high_wh - low_wh, 0)
            lines.append(_line(pricing, f"tier-{index}", ChargeKind.TIER, f"tier {index}", inside, tier.adder_per_kwh))
        low_wh = tier.up_to_wh or low_wh
    if pricing.fixed_amount:
        amount = pricing.fixed_amount * _fixed_count(pricing, as_of_us)
        rounded = pricing.tariff.round_money(amount)
        lines.append(ChargeLine("fixed", ChargeKind.FIXED, "fixed", 0, pricing.fixed_amount, rounded, amount))
    return lines


def _line(
    pricing: CyclePricing, line_id: str, kind: ChargeKind, label: str, quantity_wh: int, price: Decimal
) -> ChargeLine:
    amount = price * quantity_wh / 1000
    return ChargeLine(line_id, kind, label, quantity_wh, price, pricing.tariff.round_money(amount), amount)
