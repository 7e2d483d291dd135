"""Energy in tiers: by position on the ladder, in order of time, or shared over the periods."""

from collections.abc import Sequence
from fractions import Fraction
from math import lcm

import numpy as np

from metering.state import Int64Column

LIMIT = 2**62


def scale_of(bounds_wh: Sequence[Fraction]) -> int:
    """Return by what bounds must be multiplied to be whole."""
    return lcm(1, *(bound.denominator for bound in bounds_wh))


def wh_in_tiers(before_wh: Int64Column, after_wh: Int64Column, edges_wh: Int64Column) -> Int64Column:
    """Return how much of the way from one position to another lies in each tier.

    Positions below zero are in the first tier, so the tiers always sum to the way.

    Args:
        before_wh: Shape (n,), position on the ladder before.
        after_wh: Shape (n,), position after.
        edges_wh: Shape (t - 1,), upper bounds of all tiers but the last, ascending; all in one unit.

    Returns:
        Shape (n, t).
    """
    low = np.concatenate([np.array([-LIMIT], np.int64), edges_wh])
    high = np.concatenate([edges_wh, np.array([LIMIT], np.int64)])
    after = np.clip(after_wh[:, np.newaxis], low, high)
    return after - np.clip(before_wh[:, np.newaxis], low, high)


def sequential(segment_wh: Int64Column, bounds_wh: Sequence[Fraction], position_wh: int) -> list[list[Fraction]]:
    """Return the energy of consecutive parts in each tier, filled in order of time.

    Args:
        segment_wh: Shape (n,), Wh, in order of time.
        bounds_wh: Upper bounds of all tiers but the last, Wh; fractions where bounds are prorated.
        position_wh: Position on the ladder before the first part.

    Returns:
        By part and tier.
    """
    scale = scale_of(bounds_wh)
    after = (np.cumsum(segment_wh) + position_wh) * scale
    before = after - segment_wh * scale
    edges = np.array([int(bound * scale) for bound in bounds_wh], np.int64)
    return [[Fraction(wh, scale) for wh in row] for row in wh_in_tiers(before, after, edges).tolist()]


def proportional(segment_wh: Int64Column, bounds_wh: Sequence[Fraction], position_wh: int) -> list[list[Fraction]]:
    """Return the energy of parts in each tier, each tier shared over the parts by their energy; as `sequential`."""
    total_wh = int(segment_wh.sum())
    tiers = total_in_tiers(total_wh, bounds_wh, position_wh)
    if not total_wh:
        return [[Fraction(0)] * len(tiers) for _ in segment_wh]
    return [[Fraction(part) * tier / total_wh for tier in tiers] for part in segment_wh.tolist()]


def total_in_tiers(total_wh: int, bounds_wh: Sequence[Fraction], position_wh: int) -> list[Fraction]:
    """Return how much of one quantity lies in each tier."""
    return sequential(np.array([total_wh], np.int64), bounds_wh, position_wh)[0]
