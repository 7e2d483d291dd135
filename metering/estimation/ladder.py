"""The ladder E1 to E7: the first rung that works, interval by interval, scaled to the register where its advance is known.

Only valid readings are sources: never estimate from estimates. Weights are whole numbers of 1/UNIT Wh, so nothing is rounded twice.
Source: market_rules_and_control_room.md §5b; what the backtest changed is in docs/estimation.md.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from metering.estimation.load import Bools, EstimateError, Ints, Load
from metering.estimation.spread import spread

NONE, CHECK, LINEAR, REGISTER, WEEKDAY, LAST_YEAR, PROFILE, OUTAGE, ACTUAL = range(9)
CODES = ("N", "E1", "E2", "E3", "E4", "E5", "E6", "E7", "A")
"""Quality code of each rung; N is no estimate, A a reading."""

UNIT = 5040
"""Weights per Wh: a mean of the last weeks and a line over eight intervals are whole."""
LINEAR_MAX_S = 2 * 3600
GAP_MAX_S = 35 * 86_400
WEEKS_LEAST = 3
WEEKS_WEIGH = (4, 3, 2, 1)
"""Of the last valid weeks, the latest first."""
WEEKS_BACK = 9
"""How far back a valid week is looked for: four weeks before the longest gap."""
YEAR_WEEKS = 52
OWN_PARTS = 2
OWN_PARTS_REGISTER = 1
"""A short gap is one part a line and so many parts the meter's own weekday, where three weeks of that are there."""


@dataclasses.dataclass(frozen=True)
class Help:
    """What is known besides the meter's own intervals; all of it may be missing."""

    check_wh: Ints | None = None
    """Shape (cells,), Wh: the check meter on the same grid."""
    check_valid: Bools | None = None
    profile_wh: Ints | None = None
    """Shape (intervals of a week,), Wh: the class profile from Monday 00:00 local."""
    outages: Sequence[tuple[int, int]] = ()
    """[start, end) in epoch s of confirmed outages and disconnections."""
    power_failed: Sequence[int] = ()
    """Epoch s at which the power failed: no line is drawn across."""


NOTHING = Help()


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What fills a gap."""

    energy_wh: Ints
    """Shape (intervals of the gap,), Wh; 0 where the rung is NONE."""
    rung: Ints
    """Shape (intervals of the gap,)."""
    note: str = ""
    """What a person should know, such as why nothing was estimated."""

    @property
    def codes(self) -> list[str]:
        """Return the quality code of each interval."""
        return [CODES[rung] for rung in self.rung]


def estimate_gap(load: Load, gap: tuple[int, int], advance_wh: int | None = None, known: Help = NOTHING) -> Estimate:
    """Return the energy of each interval of a gap; with an advance their sum is the advance, exactly.

    Args:
        load: The meter's intervals; those of the gap are not looked at.
        gap: [start, end) in epoch s, on the grid of the load.
        advance_wh: What the register counted over the gap, where both ends are known.
        known: What is known besides.

    Raises:
        EstimateError: The gap is empty, not on the grid or outside of the load.
    """
    first, last = (edge - load.start_s for edge in gap)
    if first % load.interval_s or last % load.interval_s or not 0 <= first < last <= load.end_s - load.start_s:
        raise EstimateError(f"the gap {gap[0]} to {gap[1]} is not on the grid {load.start_s} to {load.end_s}")
    cells = np.arange(first // load.interval_s, last // load.interval_s)
    valid = load.valid.copy()
    valid[cells] = False
    shape = shape_of(dataclasses.replace(load, valid=valid), cells, known, register=advance_wh is not None)
    return scaled([shape], advance_wh)[0]


@dataclasses.dataclass(frozen=True)
class Shape:
    """How the energy of a gap lies, before it is scaled."""

    weight: list[int]
    """In 1/UNIT Wh."""
    rung: Ints
    note: str = ""


def shape_of(load: Load, cells: Ints, known: Help, *, register: bool) -> Shape:
    """Return the shape of a gap from the first rung that works for each interval.

    Args:
        load: With no valid interval in the gap.
        cells: Consecutive cells, the whole gap.
        known: What is known besides.
        register: The register's advance is known, so that any own shape will do (E3).
    """
    if len(cells) * load.interval_s > GAP_MAX_S:
        return Shape([0] * len(cells), np.full(len(cells), NONE), "longer than 35 days: not estimated")
    weight, rung = np.zeros(len(cells), np.int64), np.full(len(cells), NONE)
    _take(weight, rung, *_outage(load, cells, known), OUTAGE)
    _take(weight, rung, *_check(cells, known), CHECK)
    _take(weight, rung, *_line(load, cells, known, OWN_PARTS_REGISTER if register else OWN_PARTS), LINEAR)
    own, weeks = weekday_mean(load, cells)
    _take(weight, rung, own, weeks >= (1 if register else WEEKS_LEAST), REGISTER if register else WEEKDAY)
    source, there = load.earlier(cells, YEAR_WEEKS)
    _take(weight, rung, load.energy_wh[source] * UNIT, there, REGISTER if register else LAST_YEAR)
    if known.profile_wh is not None:
        profile = known.profile_wh[load.slots_of_week(cells)] * UNIT
        _take(weight, rung, profile, np.ones(len(cells), np.bool_), PROFILE)
    missing = rung == NONE
    if register and missing.any():
        told = ~missing & (rung != OUTAGE)
        weight[missing] = int(weight[told].sum()) // int(told.sum()) if told.any() else UNIT
        rung[missing] = REGISTER
    note = "no source for a part of it" if (rung == NONE).any() else ""
    return Shape([int(one) for one in weight], rung, note)


def scaled(shapes: list[Shape], advance_wh: int | None) -> list[Estimate]:
    """Return the energy of gaps that lie between the same two readings of the register.

    Shapes of a known advance are those that were made for a register. A confirmed outage has none of the advance, unless
    nothing else could have it: then the register says that it was none.
    """
    weight = [one for shape in shapes for one in shape.weight]
    rung = np.concatenate([shape.rung for shape in shapes])
    notes = [shape.note for shape in shapes]
    energy = np.zeros(len(weight), np.int64)
    if (rung == NONE).all():
        advance_wh = None
    if advance_wh is not None:
        if advance_wh and (rung == OUTAGE).all():
            rung = np.full(len(rung), REGISTER)
            notes = ["the register advanced in a confirmed outage"] * len(notes)
        given = np.flatnonzero(rung != OUTAGE)
        if len(given):
            energy[given] = spread(advance_wh, [weight[cell] for cell in given], UNIT)
    else:
        begin = 0
        for shape in shapes:
            place = begin + np.flatnonzero(shape.rung != NONE)
            mine = [weight[cell] for cell in place]
            if mine:
                energy[place] = spread((2 * sum(mine) + UNIT) // (2 * UNIT), mine, UNIT)
            begin += len(shape.weight)
    edges = np.cumsum([len(shape.weight) for shape in shapes])[:-1]
    parts = zip(np.split(energy, edges), np.split(rung, edges), notes, strict=True)
    return [Estimate(part, rungs, note) for part, rungs, note in parts]


def weekday_mean(load: Load, cells: Ints) -> tuple[Ints, Ints]:
    """Return the weighted mean of the same local weekday and time in the last valid weeks, in 1/UNIT Wh, and of how many."""
    total, parts, count = (np.zeros(len(cells), np.int64) for _ in range(3))
    weigh = np.array([*WEEKS_WEIGH, 0], np.int64)
    for weeks in range(1, WEEKS_BACK + 1):
        source, there = load.earlier(cells, weeks)
        there &= count < len(WEEKS_WEIGH)
        total += np.where(there, load.energy_wh[source] * weigh[count], 0)
        parts += weigh[count] * there
        count += there
    return total * UNIT // np.maximum(parts, 1), count


def _take(weight: Ints, rung: Ints, found: Ints, works: Bools, code: int) -> None:
    """Let a rung have the intervals for which it works and none before it did."""
    free = (rung == NONE) & works
    weight[free], rung[free] = found[free], code


def _outage(load: Load, cells: Ints, known: Help) -> tuple[Ints, Bools]:
    at_s = load.start_s + cells * load.interval_s
    out = np.zeros(len(cells), np.bool_)
    for start_s, end_s in known.outages:
        out |= (at_s >= start_s) & (at_s + load.interval_s <= end_s)
    return np.zeros(len(cells), np.int64), out


def _check(cells: Ints, known: Help) -> tuple[Ints, Bools]:
    if known.check_wh is None or known.check_valid is None:
        return np.zeros(len(cells), np.int64), np.zeros(len(cells), np.bool_)
    return known.check_wh[cells] * UNIT, known.check_valid[cells]


def _line(load: Load, cells: Ints, known: Help, own_parts: int) -> tuple[Ints, Bools]:
    """Return a line between the levels on both sides of a short gap, in 1/UNIT Wh; with one side it is flat."""
    count = len(cells)
    nothing = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    low_s, high_s = (
        load.start_s + int(cells[0]) * load.interval_s,
        load.start_s + (int(cells[-1]) + 1) * load.interval_s,
    )
    if high_s - low_s > LINEAR_MAX_S or any(low_s <= at_s <= high_s for at_s in known.power_failed):
        return nothing
    if any(start_s < high_s and end_s > low_s for start_s, end_s in known.outages):
        return nothing
    left, right = _beside(load, int(cells[0]) - 1), _beside(load, int(cells[-1]) + 1)
    begin, end = (right if left is None else left), (left if right is None else right)
    if begin is None or end is None:
        return nothing
    step = np.arange(1, count + 1)
    line = (begin * (count + 1 - step) + end * step) // (count + 1)
    own, weeks = weekday_mean(load, cells)
    mixed = (line + own_parts * own) // (1 + own_parts)
    return np.where(weeks >= WEEKS_LEAST, mixed, line), np.ones(count, np.bool_)


def _beside(load: Load, cell: int) -> int | None:
    """Return the interval next to a gap in 1/UNIT Wh; None where it is not valid."""
    return int(load.energy_wh[cell]) * UNIT if 0 <= cell < len(load.valid) and load.valid[cell] else None
