"""Minimum bills."""

from decimal import Decimal


def top_up(least: Decimal, charged: Decimal) -> Decimal:
    """Return what is missing to a least amount.

    Example:
        >>> top_up(Decimal(100), Decimal("63.20")), top_up(Decimal(100), Decimal(120))
        (Decimal('36.80'), Decimal('0'))
    """
    return max(least - charged, Decimal(0))
