"""The six attacks of Jokar, Arianpoo and Leung (2016), by day; the detector does not know them.

Each takes days, shape (n, slots), Wh, and returns the same. What the register shows is stepped afterwards in the meter's own
resolution.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def fdi1(days: Floats, chance: np.random.Generator) -> Floats:
    """Constant factor."""
    return days * chance.uniform(0.1, 0.8)


def fdi2(days: Floats, chance: np.random.Generator) -> Floats:
    """Off for 4 hours or more each day."""
    out, slots = days.copy(), days.shape[1]
    for day in out:
        length = int(chance.integers(slots // 6, slots + 1))
        first = int(chance.integers(0, slots - length + 1))
        day[first : first + length] = 0
    return out


def fdi3(days: Floats, chance: np.random.Generator) -> Floats:
    """Random factor per interval."""
    return days * chance.uniform(0.1, 0.8, days.shape)


def fdi4(days: Floats, chance: np.random.Generator) -> Floats:
    """Mean of the day times a random factor per interval."""
    return days.mean(1, keepdims=True) * chance.uniform(0.1, 0.8, days.shape)


def fdi5(days: Floats, _chance: np.random.Generator) -> Floats:
    """Mean of the day."""
    return np.repeat(days.mean(1, keepdims=True), days.shape[1], axis=1)


def fdi6(days: Floats, _chance: np.random.Generator) -> Floats:
    """The day reversed."""
    return days[:, ::-1]


ATTACKS = {"FDI1": fdi1, "FDI2": fdi2, "FDI3": fdi3, "FDI4": fdi4, "FDI5": fdi5, "FDI6": fdi6}
STEALING = ("FDI1", "FDI2", "FDI3", "FDI4")
"""Attacks that take energy; the other two move it to cheaper hours."""
