"""Rounding of prices, quantities and money: decimals and fractions, never floats."""

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_UP, Context, Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

MODES = {"half_up": ROUND_HALF_UP, "half_even": ROUND_HALF_EVEN, "down": ROUND_DOWN, "up": ROUND_UP}
EXACT_DIGITS = 12
"""Decimals that an unrounded amount is made with: a trillionth of the currency."""
_WIDE = Context(prec=60)


def decimal_from_fraction(value: Fraction, digits: int = EXACT_DIGITS) -> Decimal:
    """Return a fraction with so many decimals, halves to even; exact where it has no more.

    Example:
        >>> decimal_from_fraction(Fraction(1, 3), 4)
        Decimal('0.3333')
    """
    return Decimal(round(value * 10**digits)).scaleb(-digits, _WIDE)


def round_to(value: Decimal, step: Decimal, mode: str) -> Decimal:
    """Return a decimal rounded to a multiple of a step.

    Example:
        >>> round_to(Decimal("0.125"), Decimal("0.01"), "half_even"), round_to(Decimal("7"), Decimal("5"), "up")
        (Decimal('0.12'), Decimal('10'))
    """
    whole = _WIDE.divide(value, step).quantize(Decimal(1), MODES[mode], _WIDE)
    return _WIDE.multiply(whole, step)


def round_wh(energy_wh: NDArray[np.int64], step_wh: int, mode: str) -> NDArray[np.int64]:
    """Return energies rounded to multiples of a step, away from zero alike on both sides.

    Args:
        energy_wh: Shape (n,), Wh.
        step_wh: Step, Wh.
        mode: Of MODES.
    """
    size = np.abs(energy_wh)
    whole, rest = np.divmod(size, step_wh)
    if mode == "up":
        whole += rest > 0
    elif mode == "half_up":
        whole += 2 * rest >= step_wh
    elif mode == "half_even":
        whole += (2 * rest > step_wh) | ((2 * rest == step_wh) & (whole % 2 == 1))
    return np.sign(energy_wh) * whole * step_wh
