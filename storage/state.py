"""State of meters: written at checkpoints, read as checkpoint and later facts together (design §3.4)."""

import dataclasses
import datetime as dt
from typing import Any

import numpy as np
import psycopg

from metering.fact import FACT_COLUMNS, INT_NULLABLE, Columns
from metering.fold import fold_facts, fold_receipts
from metering.piece import price_facts
from metering.state import NEVER, SLOTS, Int64Column, MeterStates
from schemas.frame import ELECTRICAL
from storage.offset import OffsetRow, fetch_later_facts_from
from storage.registry import Registry
from storage.snapshot import one_snapshot

STATE_COLUMNS = (
    "epoch",
    "first_at",
    "last_at",
    "import_wh",
    "export_wh",
    "cycle_start",
    "cycle_key",
    "window_start",
    "window_wh",
    "cycle_export_wh",
    "boot_id",
    "seq_first",
    "seq",
    "seq_read_at",
)
UNSIGNED = ("seq_first", "seq")
"""Kept in bigint with the same bits."""
TIME_COLUMNS = ("start_at", "end_at")
FETCH_ROWS = 50_000


def fact_select() -> str:
    """Return the select list that gives facts as plain numbers, in the order of FACT_COLUMNS."""

    def expression(name: str) -> str:
        if name in TIME_COLUMNS:
            return f"(extract(epoch from f.{name}) * 1000000)::bigint"
        if name in INT_NULLABLE:
            return f"coalesce(f.{name}, -1)"
        if name in ELECTRICAL:
            return f"coalesce(f.{name}, 'NaN')"
        if name == "raw_index":
            return "raw_index_of(f.raw_place)"
        return f"f.{name}"

    return ", ".join(expression(name) for name in FACT_COLUMNS)


def columns_from_fetched(rows: list[tuple[Any, ...]]) -> Columns:
    """Return fact columns of rows fetched with `fact_select`."""
    values = list(zip(*rows, strict=True)) if rows else [()] * len(FACT_COLUMNS)
    return {
        name: np.array(column, np.float32 if name in ELECTRICAL else np.int64)
        for name, column in zip(FACT_COLUMNS, values, strict=True)
    }


@dataclasses.dataclass(frozen=True)
class LoadedPartition:
    """What a partition's state in memory was made from."""

    meter_no: Any
    """Meters that have any state, ascending."""
    later_meter_no: Any
    """Of these, the meters with facts after their rows, ascending: the next checkpoint must hold them."""
    facts_folded: int


def load_partition(
    conn: psycopg.Connection, states: MeterStates, registry: Registry, partition: int, offset: OffsetRow
) -> LoadedPartition:
    """Load the state of a partition's meters into `states`: their rows, then the facts after those.

    Args:
        conn: Connection.
        states: Of all meters, changed in place; those of this partition must be empty.
        registry: Master data.
        partition: Of meter.readings.
        offset: Of this partition, locked: all facts before its checkpoint are in the rows.
    """
    as_of = np.full(registry.meters.size, offset.checkpoint_offset, np.int64)
    with_row = np.zeros(registry.meters.size, np.bool_)
    with conn.cursor(binary=True) as cursor:
        cursor.execute(
            f"select meter_no, next_offset, {', '.join(STATE_COLUMNS)}, quantities_wh, seq_pending"
            " from meter_state where partition = %s",
            (partition,),
        )
        while rows := cursor.fetchmany(FETCH_ROWS):
            at = np.array([row[0] for row in rows], np.int64)
            as_of[at] = _put_rows(states, at, rows)
            with_row[at] = True
    folded = _fold_later_facts(conn, states, registry, (partition, offset), as_of)
    with_facts = folded > 0
    return LoadedPartition(np.flatnonzero(with_row | with_facts), np.flatnonzero(with_facts), int(folded.sum()))


def _put_rows(states: MeterStates, at: Any, rows: list[tuple[Any, ...]]) -> Any:
    """Put fetched rows at places of `states`; return the offsets they stand at."""
    columns = list(zip(*rows, strict=True))
    for name, values in zip(STATE_COLUMNS, columns[2:], strict=False):
        column = np.array(values, np.int64)
        getattr(states, name)[at] = column.view(np.uint64) if name in UNSIGNED else column
    states.quantities_wh[at] = np.array(columns[-2], np.int64)
    for place, text in zip(at.tolist(), columns[-1], strict=True):
        states.seq_pending[place] = pending_from_text(text)
    return np.array(columns[1], np.int64)


def pending_from_text(text: str) -> tuple[tuple[int, int], ...] | None:
    """Return ranges written as ``4-5,9-9``."""
    if not text:
        return None
    pairs = (part.split("-") for part in text.split(","))
    return tuple((int(low), int(high)) for low, high in pairs)


def text_from_pending(pending: Any) -> str:
    """Return ranges as ``4-5,9-9``."""
    return ",".join(f"{low}-{high}" for low, high in pending or ())


def _fold_later_facts(
    conn: psycopg.Connection,
    states: MeterStates,
    registry: Registry,
    since: tuple[int, OffsetRow],
    as_of: Any,
) -> Int64Column:
    """Fold the facts after the rows; return how many that were of each meter."""
    partition, offset = since
    folded = np.zeros(len(as_of), np.int64)
    with conn.transaction(), conn.cursor(name="later_facts", binary=True) as cursor:
        # The bound on `end_at` is not needed for exactness; without it every day of facts there is would be opened.
        cursor.execute(
            f"select {fact_select()} from fact f where frame_partition = %s and frame_offset >= %s"
            " and end_at >= %s::timestamptz order by frame_offset, meter_no, revision",
            (partition, offset.checkpoint_offset, offset.later_facts_from),
        )
        while rows := cursor.fetchmany(FETCH_ROWS):
            facts = columns_from_fetched(rows)
            later = facts["frame_offset"] >= as_of[facts["meter_no"]]
            facts = {name: column[later] for name, column in facts.items()}
            fold_all(states, facts["meter_no"], facts, registry)
            folded += np.bincount(facts["meter_no"], minlength=len(folded))
    return folded


def fold_all(states: MeterStates, place: Any, facts: Columns, registry: Registry) -> None:
    """Fold facts into the states at the given places: energies, cycles and receipts.

    A row that re-enters an interval beside a late reading (revision above 0) carries the sequence number of a reading that
    was folded before, so only first revisions tell something new of receipts.
    """
    if not len(facts["meter_no"]):
        return
    priced = {**facts, "quality": facts["quality"].copy()}
    pieces = price_facts(priced, registry.meters, registry.prices)
    fold_facts(states, place, facts, pieces, registry.prices)
    first = facts["revision"] == 0
    readings = {
        "boot_id": facts["boot_id"][first],
        "seq": facts["seq"][first].view(np.uint64),
        "read_at": facts["end_at"][first],
    }
    fold_receipts(states, place[first], readings)


@dataclasses.dataclass(frozen=True)
class StateRows:
    """States to be written, by meter number."""

    meter_no: Any
    states: MeterStates


def write_states(conn: psycopg.Connection, rows: StateRows, partition: int, next_offset: int) -> None:
    """Write the state of some meters as of an offset of their partition."""
    states = rows.states
    arrays = [rows.meter_no.tolist()]
    for name in STATE_COLUMNS:
        column = getattr(states, name)
        arrays.append((column.view(np.int64) if name in UNSIGNED else column).tolist())
    # PostgreSQL's unnest flattens arrays of arrays: quantities travel as one text literal a meter.
    quantities = ["{" + ",".join(map(str, row)) + "}" for row in states.quantities_wh.tolist()]
    pending = [text_from_pending(value) for value in states.seq_pending]
    names = ", ".join(STATE_COLUMNS)
    updates = ", ".join(f"{name} = excluded.{name}" for name in STATE_COLUMNS)
    conn.execute(
        f"insert into meter_state (partition, next_offset, meter_no, {names}, quantities_wh, seq_pending)"
        " select %s, %s, u.* from (select m, "
        + ", ".join(f"c{i}" for i in range(len(STATE_COLUMNS)))
        + ", q::bigint[], p from unnest(%b::int4[], "
        + ", ".join(["%b::int8[]"] * len(STATE_COLUMNS))
        + ", %b::text[], %b::text[]) as t(m, "
        + ", ".join(f"c{i}" for i in range(len(STATE_COLUMNS)))
        + ", q, p)) u on conflict (meter_no) do update set partition = excluded.partition,"
        f" next_offset = excluded.next_offset, {updates}, quantities_wh = excluded.quantities_wh,"
        " seq_pending = excluded.seq_pending",
        (partition, next_offset, *arrays, quantities, pending),
    )


def fetch_state(conn: psycopg.Connection, registry: Registry, meter_no: int) -> MeterStates:
    """Return the state of one meter, shape (1,): its checkpoint and the facts after it, together.

    Facts after a checkpoint end after the newest one in it, for a late reading is irregular and writes its meter's state
    at once; a meter without any in its row has facts after its partition's checkpoint only. Without these bounds every day
    of facts there is would be opened.
    """
    states = MeterStates.empty(1)
    as_of = 0
    with one_snapshot(conn):
        row = conn.execute(
            f"select meter_no, next_offset, {', '.join(STATE_COLUMNS)}, quantities_wh, seq_pending"
            " from meter_state where meter_no = %s",
            (meter_no,),
        ).fetchone()
        if row:
            as_of = int(_put_rows(states, np.zeros(1, np.int64), [row])[0])
        last_at = int(states.last_at[0])
        since = fetch_later_facts_from(conn) if last_at == NEVER else str(_instant(last_at))
        rows = conn.execute(
            f"select {fact_select()} from fact f where meter_no = %s and frame_offset >= %s"
            " and end_at >= %s::timestamptz order by frame_offset, revision",
            (meter_no, as_of, since),
        ).fetchall()
    fold_all(states, np.zeros(len(rows), np.int64), columns_from_fetched(rows), registry)
    return states


def _instant(at_us: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_us // 1_000_000, dt.UTC) + dt.timedelta(microseconds=at_us % 1_000_000)


assert SLOTS == 16  # `quantities_wh` of meter_state holds that many
