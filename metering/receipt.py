"""Receipts: which sequence numbers of a meter are durable, from the first seen to the highest without a hole.

A meter keeps its log until a receipt covers it, so a receipt must never cover a number that is not durable. What counts
as durable is any outcome: accepted, duplicate, or refused and kept as a dead letter. Nobody tells us where a meter begins to
count, so a receipt names its first number too: what lies below it may have been lost on the way, and is to be sent again.
"""

import dataclasses
from collections.abc import Iterable

from metering.state import Range

PENDING_RANGES_MAX = 16
"""Ranges kept apart from the covered one; beyond it the highest are forgotten, and the meter sends them again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cover:
    """The numbers of one boot that are durable."""

    first: int
    """First number of the covered range."""
    last: int
    """Last number of it; below `first` when nothing is covered."""
    pending: tuple[Range, ...] = ()
    """Disjoint ranges apart from it, ascending."""


def extend_cover(cover: Cover | None, seqs: Iterable[int]) -> Cover:
    """Return what is covered now.

    Args:
        cover: What was covered before; None at the beginning of a boot, when the lowest number begins the range.
        seqs: Numbers that became durable, at least one, in any order, repeated or not.

    Example:
        >>> extend_cover(None, [2, 4, 5])
        Cover(first=2, last=2, pending=((4, 5),))
        >>> extend_cover(Cover(2, 2, ((4, 5),)), [3, 0])
        Cover(first=2, last=5, pending=((0, 0),))
        >>> extend_cover(Cover(2, 5, ((0, 0),)), [1])
        Cover(first=0, last=5, pending=())
    """
    known = [] if cover is None else [(cover.first, cover.last), *cover.pending]
    ranges = sorted([*known, *((seq, seq) for seq in seqs)])
    merged: list[Range] = []
    for low, high in ranges:
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    main = merged[0] if cover is None else next(span for span in merged if span[0] <= cover.last <= span[1])
    apart = [span for span in merged if span != main]
    return Cover(*main, tuple(apart[:PENDING_RANGES_MAX]))
