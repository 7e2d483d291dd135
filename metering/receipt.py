"""Receipts: up to which sequence number everything of a meter is durable.

A meter keeps its log until a receipt covers it, so a receipt must never cover a number that is not durable. What counts
as durable is any outcome: accepted, duplicate, or refused and kept as a dead letter.
"""

from collections.abc import Iterable

from metering.state import Range

PENDING_RANGES_MAX = 16
"""Ranges kept beyond holes for one meter; beyond it the highest are forgotten, and the meter sends them again."""


def extend_receipt(covered: int, pending: Iterable[Range], seqs: Iterable[int]) -> tuple[int, tuple[Range, ...]]:
    """Return how far everything is covered now, and the ranges that still wait beyond a hole.

    Args:
        covered: Highest number up to which there is no hole; -1 when nothing is.
        pending: Disjoint ranges above it.
        seqs: Numbers that became durable, in any order, repeated or not.

    Example:
        >>> extend_receipt(2, [], [4, 5])
        (2, ((4, 5),))
        >>> extend_receipt(2, [(4, 5)], [3, 1])
        (5, ())
    """
    ranges = sorted([*pending, *((seq, seq) for seq in seqs)])
    merged: list[Range] = []
    for low, high in ranges:
        if high <= covered:
            continue
        if low <= covered + 1:
            covered = max(covered, high)
        elif merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return covered, tuple(merged[:PENDING_RANGES_MAX])
