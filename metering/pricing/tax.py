"""Taxes on a sum: added to it, or contained in it."""

from decimal import Decimal
from fractions import Fraction


def added(rate: Decimal, base: Decimal) -> Fraction:
    """Return a tax that is added to its base."""
    return Fraction(rate) * Fraction(base)


def contained(rate: Decimal, base: Decimal) -> Fraction:
    """Return a tax that its base contains.

    Example:
        >>> contained(Decimal("0.10"), Decimal("270.60"))
        Fraction(123, 5)
    """
    return Fraction(base) * Fraction(rate) / (1 + Fraction(rate))
