"""Surcharges by energy in bands."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from metering.pricing.tier import total_in_tiers


def by_band(
    energy_wh: int, bands: Sequence[tuple[Fraction | None, Decimal]], months: Fraction
) -> list[tuple[Fraction, Decimal]]:
    """Return energy and price of each band that has a price.

    Args:
        energy_wh: Of the cycle, Wh.
        bands: Upper bound in kWh for a month (None: open) and price per kWh, in order.
        months: How many months' bounds hold.

    Returns:
        kWh and price per kWh.
    """
    bounds = [bound * months * 1000 for bound, _ in bands if bound is not None]
    parts = total_in_tiers(energy_wh, bounds, 0)
    return [(wh / 1000, price) for wh, (_, price) in zip(parts, bands, strict=True) if price]
