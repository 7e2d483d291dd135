"""The part of the fold in which order matters: tiers filled as energy comes, and demand windows. Columns only."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metering.calendar import US
from metering.cycle_shape import CycleShape, Shapes
from metering.fact import Columns
from metering.piece import Pieces
from metering.pricebook import PriceBook
from metering.pricing.tier import wh_in_tiers
from metering.state import NEVER, SLOTS, Int64Column, MeterStates

PRODUCT_MAX = 2**62
CYCLES_MAX = 2**20
"""More than any timeline has."""


def out_of_order(states: MeterStates, to: Int64Column, fact_row: Int64Column, facts: Columns) -> NDArray[np.bool_]:
    """Return which pieces do not follow all that came before them of their meter, or take something back.

    Args:
        states: As they stood before the batch: `last_at` is the end of what came before.
        to: Row in `states` of each piece, shape (n,).
        fact_row: Row in `facts` of each piece, shape (n,).
        facts: In order of arrival within each meter.
    """
    order = np.lexsort((fact_row, to))
    at, row = to[order], fact_row[order]
    end = facts["end_at"][row]
    before = np.empty(len(row), np.int64)
    before[1:] = end[:-1]
    first = np.ones(len(at), np.bool_)
    first[1:] = at[1:] != at[:-1]
    before[first] = states.last_at[at[first]]
    same_fact = np.zeros(len(row), np.bool_)
    same_fact[1:] = row[1:] == row[:-1]
    wrong = (facts["start_at"][row] < before) & ~same_fact | (facts["revision"][row] != 0)
    found = np.empty(len(row), np.bool_)
    found[order] = wrong
    return found


def fold_ordered(
    states: MeterStates, to: Int64Column, piece: Int64Column, facts: Columns, pieces: Pieces, prices: PriceBook
) -> None:
    """Fold pieces that follow one another in time into tiers and demand windows.

    Args:
        states: Changed in place.
        to: Row in `states` of each piece, shape (n,).
        piece: Row in `pieces`, shape (n,).
        facts: All facts of the batch.
        pieces: All pieces.
        prices: Compiled tariffs.
    """
    order = np.lexsort((pieces.fact_row[piece], to))
    to, piece = to[order], piece[order]
    group = pieces.tariff_index[piece] * CYCLES_MAX + pieces.cycle[piece]
    for number in np.unique(group).tolist():
        mine = np.flatnonzero(group == number)
        index, cycle = divmod(number, CYCLES_MAX)
        shapes = prices.shapes[index]
        shape = shapes.of(cycle)
        assert shape is not None  # the key is not 0
        rows, at = piece[mine], to[mine]
        _fold_tiers(states, at, pieces.slot[rows], pieces.energy_wh[rows], shape)
        if shape.window_s:
            _fold_windows(states, at, windows_of_pieces(rows, facts, pieces, shapes, shape.window_s), shape)


def _fold_tiers(
    states: MeterStates, to: Int64Column, slot: Int64Column, energy_wh: Int64Column, shape: CycleShape
) -> None:
    flat = states.quantities_wh.reshape(-1)
    width = states.quantities_wh.shape[1]
    if shape.tiers == 1:
        np.add.at(flat, to * width + slot, energy_wh)
        return
    total = np.cumsum(energy_wh)
    first = np.flatnonzero(np.concatenate([[True], to[1:] != to[:-1]]))
    base = np.repeat(total[first] - energy_wh[first], np.diff(np.append(first, len(to))))
    after = total - base + states.quantities_wh[to][:, : shape.energy_slots].sum(axis=1)
    parts = wh_in_tiers(after - energy_wh, after, shape.edges_wh)
    buckets = len(shape.buckets)
    for number in range(shape.tiers):
        np.add.at(flat, to * width + number * buckets + slot, parts[:, number])


@dataclasses.dataclass(frozen=True)
class WindowParts:
    """Energy of pieces by demand window, in order of time within a meter."""

    row: Int64Column
    """Of the pieces, ascending."""
    slot: Int64Column
    start_us: Int64Column
    """Of the window."""
    energy_wh: Int64Column


def windows_of_pieces(piece: Int64Column, facts: Columns, pieces: Pieces, shapes: Shapes, window_s: int) -> WindowParts:
    """Return the energy of pieces by window; an interval over several of them is spread evenly, in whole Wh."""
    row = pieces.fact_row[piece]
    edges = np.append(shapes.timeline.start_s, shapes.timeline.cycle_end_s[-1]) * US
    low = np.maximum(facts["start_at"][row], edges[pieces.segment[piece]])
    high = np.maximum(np.minimum(facts["end_at"][row], edges[pieces.segment[piece] + 1]), low)
    start = shapes.window_start_us(low, window_s)
    count = np.maximum(-(-(high - start) // (window_s * US)), 1)
    number = np.repeat(np.arange(len(piece)), count)
    slot, energy_wh = pieces.slot[piece], pieces.energy_wh[piece]
    if len(number) == len(piece):
        return WindowParts(number, slot, start, energy_wh)
    place = np.arange(len(number)) - np.repeat(np.cumsum(count) - count, count)
    starts = start[number] + place * window_s * US
    part_low = np.maximum(low[number], starts)
    part_high = np.minimum(high[number], starts + window_s * US)
    of_fact = row[number]
    energy = _energy_until(facts, of_fact, part_high) - _energy_until(facts, of_fact, part_low)
    return WindowParts(number, slot[number], starts, np.where(count[number] == 1, energy_wh[number], energy))


def _energy_until(facts: Columns, row: Int64Column, at_us: Int64Column) -> Int64Column:
    """Return the energy of intervals up to instants, even over time and rounded down: as `split_energy` has it, Wh."""
    start, energy_wh = facts["start_at"][row], facts["energy_wh"][row]
    passed, whole = at_us - start, np.maximum(facts["end_at"][row] - start, 1)
    unit = US if not (passed % US).any() and not (whole % US).any() else 1
    if int(energy_wh.max(initial=0)) * int(whole.max(initial=0) // unit) < PRODUCT_MAX:
        return energy_wh * (passed // unit) // np.maximum(whole // unit, 1)
    each = zip(energy_wh.tolist(), passed.tolist(), whole.tolist(), strict=True)
    return np.array([wh * part // all_us for wh, part, all_us in each], np.int64)


def _fold_windows(states: MeterStates, to: Int64Column, parts: WindowParts, shape: CycleShape) -> None:
    at = to[parts.row]
    changes = np.concatenate([[True], (at[1:] != at[:-1]) | (parts.start_us[1:] != parts.start_us[:-1])])
    first = np.flatnonzero(changes)
    total_wh = np.add.reduceat(parts.energy_wh, first)
    meter, start = at[first], parts.start_us[first]
    goes_on = states.window_start[meter] == start
    total_wh = total_wh + np.where(goes_on, states.window_wh[meter], 0)
    peak_slot = SLOTS - len(shape.buckets) + parts.slot[first]
    np.maximum.at(states.quantities_wh.reshape(-1), meter * states.quantities_wh.shape[1] + peak_slot, total_wh)
    last = np.ones(len(meter), np.bool_)
    last[:-1] = meter[1:] != meter[:-1]
    states.window_start[meter[last]] = start[last]
    states.window_wh[meter[last]] = total_wh[last]


assert NEVER < 0  # no window begins there
