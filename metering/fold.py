"""Facts folded into the states of meters, in place: the one definition of what a meter's state is.

A fold in any batching gives the same state: what a cycle's quantities cannot carry (see `metering.cycle_shape`) sets its key
to 0, and its energy then stands in slot 0 as one total, until the cycle turns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metering.fact import Columns
from metering.fold_ordered import fold_ordered, out_of_order
from metering.piece import Pieces
from metering.pricebook import PriceBook
from metering.receipt import Cover, extend_cover
from metering.state import NEVER, Int64Column, MeterStates
from schemas.message import HAND_BOOT_ID


def first_in_group(sorted_values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of sorted values differ from the one before, shape (n,)."""
    first = np.ones(len(sorted_values), np.bool_)
    first[1:] = sorted_values[1:] != sorted_values[:-1]
    return first


def fold_facts(states: MeterStates, place: Int64Column, facts: Columns, pieces: Pieces, prices: PriceBook) -> None:
    """Fold facts into states, in place.

    Args:
        states: Of some meters, shape (m,).
        place: Row in `states` of each fact, shape (n,).
        facts: In order of arrival within each meter.
        pieces: Of `price_facts` for the same facts.
        prices: Compiled tariffs.
    """
    if not len(place):
        return
    _fold_pieces(states, place, facts, pieces, prices)
    end_at = facts["end_at"]
    newest = np.lexsort((facts["revision"], end_at, facts["epoch"], place))
    last = np.ones(len(newest), np.bool_)
    last[:-1] = place[newest][1:] != place[newest][:-1]
    newest = newest[last]
    at = place[newest]
    later = (facts["epoch"][newest] > states.epoch[at]) | (end_at[newest] >= states.last_at[at])
    newest, at = newest[later], at[later]
    states.epoch[at] = facts["epoch"][newest]
    states.last_at[at] = end_at[newest]
    states.import_wh[at] = facts["import_wh"][newest]
    states.export_wh[at] = facts["export_wh"][newest]
    first_at = np.full(len(states.first_at), np.iinfo(np.int64).max)
    np.minimum.at(first_at, place, end_at)
    seen = first_at != np.iinfo(np.int64).max
    fresh = states.first_at == NEVER
    states.first_at[seen] = np.where(fresh[seen], first_at[seen], np.minimum(first_at[seen], states.first_at[seen]))


def _fold_pieces(states: MeterStates, place: Int64Column, facts: Columns, pieces: Pieces, prices: PriceBook) -> None:
    at = place[pieces.fact_row]
    newest = states.cycle_start.copy()
    np.maximum.at(newest, at, pieces.cycle_start)
    turned = newest > states.cycle_start
    states.quantities_wh[turned] = 0
    states.cycle_export_wh[turned] = 0
    states.window_start[turned] = NEVER
    states.window_wh[turned] = 0
    states.cycle_start[:] = newest
    is_current = pieces.cycle_start == newest[at]
    current = np.flatnonzero(is_current)
    to = at[current]
    begun = turned[to]
    states.cycle_key[to[begun]] = pieces.key[current[begun]]
    _give_up(states, to, current, facts, pieces)
    is_ordered = pieces.is_ordered[current] & (states.cycle_key[to] != 0)
    slot = np.where(states.cycle_key[to] == 0, 0, pieces.slot[current])
    if is_ordered.any():
        fold_ordered(states, to[is_ordered], current[is_ordered], facts, pieces, prices)
        to, slot, current = to[~is_ordered], slot[~is_ordered], current[~is_ordered]
    width = states.quantities_wh.shape[1]
    np.add.at(states.quantities_wh.reshape(-1), to * width + slot, pieces.energy_wh[current])
    rows, first_piece = np.unique(pieces.fact_row, return_index=True)
    in_cycle = is_current[first_piece]
    np.add.at(states.cycle_export_wh, place[rows[in_cycle]], facts["export_energy_wh"][rows[in_cycle]])


def _give_up(states: MeterStates, to: Int64Column, current: Int64Column, facts: Columns, pieces: Pieces) -> None:
    """Set the key of meters to 0 whose pieces are of another structure, or come out of the order that theirs needs."""
    wrong = pieces.key[current] != states.cycle_key[to]
    is_ordered = pieces.is_ordered[current]
    if is_ordered.any():
        wrong[is_ordered] |= out_of_order(states, to[is_ordered], pieces.fact_row[current[is_ordered]], facts)
    rows = np.unique(to[wrong])
    rows = rows[states.cycle_key[rows] != 0]
    if not len(rows):
        return
    total_wh = states.take(rows).cycle_energy_wh()
    states.quantities_wh[rows] = 0
    states.quantities_wh[rows, 0] = total_wh
    states.cycle_key[rows] = 0
    states.window_start[rows] = NEVER
    states.window_wh[rows] = 0


def fold_receipts(states: MeterStates, place: Int64Column, rows: Columns) -> Int64Column:
    """Fold sequence numbers that became durable into states, in place.

    Args:
        states: Of some meters.
        place: Row in `states` of each reading, shape (n,).
        rows: `boot_id`, `seq` (uint64) and `read_at` of the readings, in order of arrival within each meter.

    Returns:
        Rows of `states` whose receipt state cannot be folded from facts alone: they have holes, or began a boot.
    """
    by_hand = rows["boot_id"] == HAND_BOOT_ID
    if by_hand.any():  # no meter waits for a receipt of them, and their boot ends none of its own
        place = place[~by_hand]
        rows = {name: rows[name][~by_hand] for name in ("boot_id", "seq", "read_at")}
    order = np.argsort(place, kind="stable")
    at, seq, boot_id = place[order], rows["seq"][order], rows["boot_id"][order]
    first = first_in_group(at)
    fresh = states.boot_id[at] == NEVER
    step = np.empty(len(seq), np.bool_)
    step[1:] = seq[1:] == seq[:-1] + np.uint64(1)
    step[first] = (fresh | (seq == states.seq[at] + np.uint64(1)))[first]
    same_boot = np.empty(len(seq), np.bool_)
    same_boot[1:] = boot_id[1:] == boot_id[:-1]
    same_boot[first] = (fresh | (boot_id == states.boot_id[at]))[first]
    plain = step & same_boot & (states.seq_pending[at] == None)  # noqa: E711  # elementwise
    odd = np.zeros(len(states.seq), np.bool_)
    odd[at[~plain]] = True
    last = np.ones(len(at), np.bool_)
    last[:-1] = first[1:]
    begins = first & fresh & ~odd[at]
    states.seq_first[at[begins]] = seq[begins]
    chosen = last & ~odd[at]
    states.boot_id[at[chosen]] = boot_id[chosen]
    states.seq[at[chosen]] = seq[chosen]
    states.seq_read_at[at[chosen]] = rows["read_at"][order][chosen]
    slow = odd[at]
    _fold_receipts_slowly(states, at[slow], order[slow], rows)
    return np.flatnonzero(odd)


def _fold_receipts_slowly(states: MeterStates, at: Int64Column, order: Int64Column, rows: Columns) -> None:
    groups: dict[int, list[int]] = {}
    for place, row in zip(at.tolist(), order.tolist(), strict=True):
        groups.setdefault(place, []).append(row)
    for place, members in groups.items():
        newest_boot = max(int(states.boot_id[place]), *(int(rows["boot_id"][row]) for row in members))
        before = None
        if newest_boot == states.boot_id[place]:
            before = Cover(int(states.seq_first[place]), int(states.seq[place]), states.seq_pending[place] or ())
        states.boot_id[place] = newest_boot
        ours = {
            int(rows["seq"][row]): int(rows["read_at"][row])
            for row in members
            if int(rows["boot_id"][row]) == newest_boot
        }
        if not ours:
            continue  # of an earlier boot: it has no receipt any more
        cover = extend_cover(before, ours)
        states.seq_first[place], states.seq[place] = cover.first, cover.last
        states.seq_pending[place] = cover.pending or None
        states.seq_read_at[place] = ours.get(cover.last, int(states.seq_read_at[place]))
