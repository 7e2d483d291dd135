"""Settlement: from readings as columns to facts, states, charges and receipts. Pure.

Readings that go on where their meter stood are settled as columns; a meter with anything else in the batch (late,
duplicate, rollover, exchange) goes through `metering.late` one reading at a time. Both give what settling frame by frame
in the order of arrival gives, so the ledger does not depend on how frames are put into batches.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metering.fact import CARRIED, FACT_COLUMNS, Columns, columns_from_rows, concatenate
from metering.fold import first_in_group, fold_facts, fold_receipts
from metering.late import MeterLedger, Row
from metering.piece import Pieces, price_facts
from metering.pricebook import Meters, PriceBook
from metering.register import US_PER_HOUR
from metering.state import NEVER, Int64Column, MeterStates
from schemas.quality import Quality
from schemas.reject import RejectCode

BoolColumn = NDArray[np.bool_]


@dataclasses.dataclass
class Plan:
    """A batch sorted out: what columns can settle, and what needs history."""

    batch: Columns
    order: Int64Column
    """Rows to settle, by meter, each meter's in order of arrival."""
    is_slow: BoolColumn
    """Shape of `order`."""
    wanted: Int64Column
    """Rows of the batch that are settled beside facts that are there: those around their instants are needed."""
    repeated: Int64Column
    """Rows that are settled already, just as they are."""


@dataclasses.dataclass
class Settled:
    """What a batch changes."""

    facts: Columns
    pieces: Pieces
    touched: Int64Column
    """Meter numbers with any reading in the batch, ascending."""
    before: MeterStates
    """Of `touched`, before the batch; so are `states` after it."""
    states: MeterStates
    irregular: BoolColumn
    """Shape of `touched`: state that the facts alone would not give back, to be written at once."""
    charged: BoolColumn
    """Shape of `touched`: meters with new facts."""
    accepted: int
    duplicates: int
    late: int
    refused: list[tuple[int, RejectCode, str]]
    refused_before: int


def old_rows(batch: Columns, states: MeterStates) -> Int64Column:
    """Return the rows that do not lie after what is settled of their meter: late or repeated ones."""
    old = (batch["refusal"] == 0) & (batch["read_at"] <= states.last_at[batch["meter_no"]])
    return np.flatnonzero(old)


def repeated_rows(batch: Columns, rows: Int64Column, found: Columns) -> Int64Column:
    """Return those of the rows that are settled already with the same registers.

    After an outage whole days come again: they are told apart as columns, and need no history.

    Args:
        batch: Columns of readings.
        rows: Rows of it that may be repeated.
        found: Live facts at exactly their instants: `meter_no`, `end_at`, `import_wh`, `export_wh`; any order.
    """
    if not len(rows) or not len(found["meter_no"]):
        return rows[:0]
    instants = np.unique(found["end_at"])
    size = len(instants)
    place = np.minimum(np.searchsorted(instants, batch["read_at"][rows]), size - 1)
    known = found["meter_no"] * size + np.searchsorted(instants, found["end_at"])
    order = np.argsort(known)
    key = batch["meter_no"][rows] * size + place
    at = order[np.minimum(np.searchsorted(known[order], key), len(known) - 1)]
    export_wh = batch["export_wh"][rows]
    same = (known[at] == key) & (instants[place] == batch["read_at"][rows])
    same &= found["import_wh"][at] == batch["import_wh"][rows]
    same &= (export_wh == -1) | (found["export_wh"][at] == export_wh)
    return rows[same]


def plan_batch(batch: Columns, states: MeterStates, meters: Meters, repeated: Int64Column | None = None) -> Plan:
    """Sort out a batch.

    Args:
        batch: Columns of `schemas.frame.READINGS_SCHEMA` in order of arrival, nulls as -1 or NaN, with `frame_offset`
            and `frame_partition`; shape (n,).
        states: Of all meters, indexed by meter number.
        meters: Master data.
        repeated: Rows of `repeated_rows`: counted, and left out.
    """
    repeated = np.zeros(0, np.int64) if repeated is None else repeated
    taken = batch["refusal"] == 0
    taken[repeated] = False
    rows = np.flatnonzero(taken)
    order = rows[np.argsort(batch["meter_no"][rows], kind="stable")]
    meter_no = batch["meter_no"][order]
    read_at = batch["read_at"][order]
    start_at, previous_wh, previous_export_wh = _previous(batch, order, states)
    regular = read_at > start_at
    regular &= batch["import_wh"][order] >= previous_wh
    export_wh = batch["export_wh"][order]
    regular &= (export_wh >= previous_export_wh) & ((export_wh < 0) == (previous_export_wh < 0)) | (start_at == NEVER)
    regular &= ~meters.irregular[meter_no]
    regular &= meters.is_newest(meter_no, np.where(start_at == NEVER, read_at, start_at), read_at)
    slow_meter = np.zeros(meters.size, np.bool_)
    slow_meter[meter_no[~regular]] = True
    is_slow = slow_meter[meter_no]
    old = is_slow & (read_at <= states.last_at[meter_no]) | is_slow & meters.irregular[meter_no]
    return Plan(batch, order, is_slow, order[old], repeated)


def neighbours_wanted(plan: Plan, meters: Meters) -> list[tuple[int, int, int]]:
    """Return meter, register epoch and instant (epoch µs) of each of ``plan.wanted``."""
    numbers, instants = plan.batch["meter_no"][plan.wanted].tolist(), plan.batch["read_at"][plan.wanted].tolist()
    return [(number, meters.epoch_at(number, at), at) for number, at in zip(numbers, instants, strict=True)]


def _previous(batch: Columns, order: Int64Column, states: MeterStates) -> tuple[Int64Column, Int64Column, Int64Column]:
    """Return instant, import and export register before each reading: of its neighbour or of the meter's state."""
    meter_no = batch["meter_no"][order]
    first = first_in_group(meter_no)

    def before(name: str, state: Int64Column) -> Int64Column:
        values = np.empty(len(order), np.int64)
        values[1:] = batch[name][order[:-1]]
        values[first] = state[meter_no[first]]
        return values

    return (
        before("read_at", states.last_at),
        before("import_wh", states.import_wh),
        before("export_wh", states.export_wh),
    )


def settle_batch(
    plan: Plan,
    history: Mapping[int, Sequence[Row]],
    states: MeterStates,
    meters: Meters,
    prices: PriceBook,
) -> Settled:
    """Return what a planned batch changes; `states` is left as it is.

    Args:
        plan: Of `plan_batch`, with the same states.
        history: By meter, sorted by epoch and end: for each of ``plan.wanted`` the live fact before its instant and the
            one at or after it, in its epoch. What lies further away is never touched.
        states: Of all meters.
        meters: Master data.
        prices: Compiled tariffs.
    """
    batch = plan.batch
    fast = _settle_columns(batch, plan.order[~plan.is_slow], states)
    slow = _settle_slowly(plan, history, states, meters)
    slow_rows = [row for ledger in slow for row in ledger.out.facts]
    facts = concatenate([fast, columns_from_rows(slow_rows)]) if slow_rows else fast
    pieces = price_facts(facts, meters, prices)
    touched, place = np.unique(batch["meter_no"], return_inverse=True)
    before, after = states.take(touched), states.take(touched)
    fact_place = np.searchsorted(touched, facts["meter_no"])
    fold_facts(after, fact_place, facts, pieces, prices)
    receipt_irregular = fold_receipts(after, place, batch)
    irregular = np.zeros(len(touched), np.bool_)
    irregular[receipt_irregular] = True
    irregular[place[batch["refusal"] != 0]] = True
    irregular[place[plan.order[plan.is_slow]]] = True
    charged = np.zeros(len(touched), np.bool_)
    charged[fact_place] = True
    return Settled(
        facts=facts,
        pieces=pieces,
        touched=touched,
        before=before,
        states=after,
        irregular=irregular,
        charged=charged,
        accepted=len(fast["meter_no"]) + sum(ledger.out.accepted for ledger in slow),
        duplicates=len(plan.repeated) + sum(ledger.out.duplicates for ledger in slow),
        late=sum(ledger.out.late for ledger in slow),
        refused=[refusal for ledger in slow for refusal in ledger.out.refused],
        refused_before=int(np.count_nonzero(batch["refusal"])),
    )


def _settle_columns(batch: Columns, order: Int64Column, states: MeterStates) -> Columns:
    """Return the facts of readings that go on where their meters stood."""
    start_at, previous_wh, previous_export_wh = _previous(batch, order, states)
    read_at = batch["read_at"][order]
    opening = start_at == NEVER
    export_wh = batch["export_wh"][order]
    facts = {name: batch[name][order] for name in CARRIED}
    facts |= {
        "meter_no": batch["meter_no"][order],
        "epoch": states.epoch[batch["meter_no"][order]],
        "start_at": np.where(opening, read_at, start_at),
        "end_at": read_at,
        "revision": np.zeros(len(order), np.int64),
        "quality": opening * np.int64(Quality.OPENING),
        "energy_wh": np.where(opening, 0, batch["import_wh"][order] - previous_wh),
        "import_wh": batch["import_wh"][order],
        "export_wh": export_wh,
        "export_energy_wh": np.where(previous_export_wh >= 0, export_wh - previous_export_wh, 0),
        "boot_id": batch["boot_id"][order],
        "seq": batch["seq"][order].view(np.int64),
        "tariff_version": np.zeros(len(order), np.int64),
        "period": np.zeros(len(order), np.int64),
        "frame_offset": batch["frame_offset"][order],
        "frame_partition": batch["frame_partition"][order],
    }
    return {name: facts[name] for name in FACT_COLUMNS}


def _settle_slowly(
    plan: Plan, history: Mapping[int, Sequence[Row]], states: MeterStates, meters: Meters
) -> list[MeterLedger]:
    ledgers: dict[int, MeterLedger] = {}
    for index in plan.order[plan.is_slow].tolist():
        number = int(plan.batch["meter_no"][index])
        if number not in ledgers:
            ledgers[number] = MeterLedger(number, meters, _chain(number, history.get(number, ()), states))
        ledgers[number].settle(index, reading_row(plan.batch, index))
    return list(ledgers.values())


def _chain(number: int, history: Sequence[Row], states: MeterStates) -> list[Row]:
    """Return the facts of a meter that its readings meet, the newest one among them as far as later readings need it."""
    if states.last_at[number] == NEVER:
        return list(history)
    epoch, last_at = int(states.epoch[number]), int(states.last_at[number])
    if any(row["epoch"] == epoch and row["end_at"] == last_at for row in history):
        return list(history)
    registers = {"import_wh": int(states.import_wh[number]), "export_wh": int(states.export_wh[number])}
    tail = {"epoch": epoch, "end_at": last_at, **registers}
    return sorted([*history, tail], key=lambda row: (row["epoch"], row["end_at"]))


def reading_row(batch: Columns, index: int) -> Row:
    """Return one reading of a batch as the beginning of a fact."""
    row: Row = {name: batch[name][index].item() for name in CARRIED}
    row |= {
        name: int(batch[name][index])
        for name in ("meter_no", "import_wh", "export_wh", "boot_id", "frame_offset", "frame_partition")
    }
    row["seq"] = int(batch["seq"].view(np.int64)[index])
    row["end_at"] = int(batch["read_at"][index])
    return row | {"revision": 0, "tariff_version": 0, "period": 0}


def mean_power_w(start_at: Int64Column, end_at: Int64Column, energy_wh: Int64Column) -> Int64Column:
    """Return the mean power of intervals, W; 0 for an interval of no length.

    Args:
        start_at: Shape (n,), epoch µs.
        end_at: Shape (n,), epoch µs.
        energy_wh: Shape (n,), Wh, below 2.5 GWh.
    """
    duration_us = np.maximum(end_at - start_at, 1)
    return np.where(end_at > start_at, energy_wh * US_PER_HOUR // duration_us, 0)
