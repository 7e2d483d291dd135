"""Energy of facts by equal intervals of time: long ones spread evenly, in whole Wh, so that every sum stays exact.

The energy until an instant is the floor of its share, as `calendar.split_energy` has it: between any two edges of intervals
the sum is the same as of the facts themselves. A reversal is spread as the exact opposite.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metering.calendar import US
from metering.state import Int64Column

QUARTER_S = 900
QUARTERS_A_DAY = 96
DAY_US = 86_400 * US
PRODUCT_MAX = 2**62


class Slices(NamedTuple):
    """Intervals of facts cut at multiples of a step; columns of one length."""

    row: Int64Column
    """Which fact."""
    slot: Int64Column
    """Which multiple of the step since 1970."""
    low_us: Int64Column
    high_us: Int64Column


def cut(start_us: Int64Column, end_us: Int64Column, step_us: int) -> Slices:
    """Return the slices of intervals, each within one slot; an interval of no length has none.

    Args:
        start_us: Shape (n,), epoch µs.
        end_us: Shape (n,), epoch µs, not before the start.
        step_us: Length of a slot, µs.
    """
    first = start_us // step_us
    count = np.where(end_us > start_us, (end_us - 1) // step_us - first + 1, 0)
    row = np.repeat(np.arange(len(start_us)), count)
    begins = np.cumsum(count) - count
    slot = first[row] + np.arange(len(row)) - begins[row]
    low_us = np.maximum(slot * step_us, start_us[row])
    high_us = np.minimum((slot + 1) * step_us, end_us[row])
    return Slices(row, slot, low_us, high_us)


def share_wh(slices: Slices, start_us: Int64Column, end_us: Int64Column, energy_wh: Int64Column) -> Int64Column:
    """Return the energy of each slice.

    Args:
        slices: Of `cut`, possibly cut further.
        start_us: Shape (n,), of the facts.
        end_us: Shape (n,), of the facts.
        energy_wh: Shape (n,), Wh, or any other whole quantity.
    """
    row = slices.row
    whole = (slices.low_us == start_us[row]) & (slices.high_us == end_us[row])
    found = energy_wh[row].copy()
    if whole.all():
        return found
    rest = np.flatnonzero(~whole)
    at = row[rest]
    size = np.abs(energy_wh[at])
    duration = end_us[at] - start_us[at]
    low, high = slices.low_us[rest] - start_us[at], slices.high_us[rest] - start_us[at]
    step = math.gcd(*(int(np.gcd.reduce(column)) for column in (duration, low, high))) or 1
    wide: Any = np.int64
    if int(size.max(initial=0)) * (int(duration.max(initial=0)) // step) >= PRODUCT_MAX:
        wide = object  # whole numbers of any size, for what 64 bits do not hold
    size, duration = size.astype(wide), (duration // step).astype(wide)
    until = size * (high // step).astype(wide) // duration
    before = size * (low // step).astype(wide) // duration
    found[rest] = np.sign(energy_wh[at]) * (until - before).astype(np.int64)
    return found


def seconds_of(slices: Slices) -> Int64Column:
    """Return the whole seconds that each slice holds, summing to those of the interval."""
    return slices.high_us // US - slices.low_us // US


def sum_by(key: Int64Column, values: Int64Column, size: int) -> NDArray[np.int64]:
    """Return the sums of values by key, shape (size,); exact."""
    total = np.zeros(size, np.int64)
    np.add.at(total, key, values)
    return total
