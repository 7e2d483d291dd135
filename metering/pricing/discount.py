"""Discounts."""

from decimal import Decimal
from fractions import Fraction


def free_energy(kwh_free: Fraction, energy_kwh: Fraction, energy_amount: Decimal) -> tuple[Fraction, Fraction]:
    """Return how many kWh are free and what they would have cost at the cycle's mean price."""
    free = min(kwh_free, energy_kwh)
    if free <= 0:
        return Fraction(0), Fraction(0)
    return free, Fraction(energy_amount) * free / energy_kwh


def percentage(percent: Decimal, base: Decimal) -> Fraction:
    """Return a percentage of an amount."""
    return Fraction(percent) * Fraction(base) / 100
