"""Prices that follow a published series: multiplied, added to, bounded; they may be negative."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from metering.state import Int64Column


class Series(NamedTuple):
    """A published price series."""

    start_s: Int64Column
    """Shape (n,), epoch seconds, ascending: a price holds from here for the index's interval."""
    price: Sequence[Decimal]
    """Currency per kWh."""


class Formula(NamedTuple):
    """How a price is made of a published one."""

    multiply: Decimal
    add: Decimal
    add_when: Mapping[str, Decimal]
    low: Decimal | None
    high: Decimal | None


class MissingPriceError(ValueError):
    """A price series has no price for a time that energy was used in."""


def place_in_series(series: Series, at_s: Int64Column, interval_s: int) -> Int64Column:
    """Return which published price holds at each instant.

    Args:
        series: Published prices.
        at_s: Shape (n,), epoch seconds.
        interval_s: How long a price holds.

    Raises:
        MissingPriceError: Naming the first instant without one, epoch seconds.
    """
    place = np.searchsorted(series.start_s, at_s, side="right") - 1
    known = (
        (place >= 0) & (at_s < series.start_s[np.maximum(place, 0)] + interval_s) if len(series.start_s) else at_s < 0
    )
    if not known.all():
        raise MissingPriceError(int(at_s[~known].min()))
    return place


def price_of(published: Decimal, period: str, formula: Formula) -> Decimal:
    """Return the price of a kWh.

    Example:
        >>> price_of(
        ...     Decimal("60"), "peak", Formula(Decimal("2.2"), Decimal(0), {"peak": Decimal(12)}, None, Decimal(95))
        ... )
        Decimal('95')
    """
    price = published * formula.multiply + formula.add + formula.add_when.get(period, Decimal(0))
    if formula.high is not None:
        price = min(price, formula.high)
    return price if formula.low is None else max(price, formula.low)
