"""The settlement transaction: facts, state, outbox and offset of one partition's batch, together or not at all."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import psycopg

from metering.fact import FACT_COLUMNS, INT_NULLABLE, Columns
from metering.settlement import Settled
from metering.state import Int64Column
from schemas.frame import ELECTRICAL
from storage.copy_binary import encode_copy
from storage.offset import OffsetCounts, advance
from storage.raw_record import raw_place_of
from storage.state import TIME_COLUMNS, StateRows, columns_from_fetched, fact_select, write_states

INT4_COLUMNS = (
    "meter_no",
    "epoch",
    "revision",
    "quality",
    "tariff_version",
    "period",
    "raw_partition",
    "raw_index",
    "frame_partition",
)
HISTORY_ROWS_MAX = 5_000_000
DAY_US = 86_400_000_000
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_COPY = f"copy fact ({', '.join(FACT_COLUMNS).replace('raw_index', 'raw_place')}) from stdin (format binary)"


def _type_of(name: str) -> str:
    if name in TIME_COLUMNS:
        return "timestamptz"
    if name in ELECTRICAL:
        return "float4"
    return "int4" if name in INT4_COLUMNS else "int8"


_TYPES = [(name, _type_of(name)) for name in FACT_COLUMNS]


class OutboxItem(Protocol):
    """What is to be published after the commit."""

    @property
    def topic(self) -> str:
        """Return the Kafka topic, without a prefix."""

    @property
    def payload(self) -> bytes:
        """Return the record's value."""


def copy_facts(conn: psycopg.Connection, facts: Columns) -> None:
    """Append facts; a row that is there already is an error, for the state knew that it was not."""
    if not len(facts["meter_no"]):
        return
    nulls: dict[str, Any] = {name: facts[name] < 0 for name in INT_NULLABLE}
    nulls |= {name: np.isnan(facts[name]) for name in ELECTRICAL}
    with conn.cursor().copy(_COPY) as copy:
        copy.write(encode_copy({**facts, "raw_index": raw_place_of(facts["raw_index"])}, _TYPES, nulls))


def days_of(end_at: Int64Column) -> set[dt.date]:
    """Return the UTC days that instants (epoch µs) lie in."""
    days = np.unique(end_at // DAY_US).tolist()
    return {EPOCH.date() + dt.timedelta(days=day) for day in days}


def fetch_history(conn: psycopg.Connection, history_from: dict[int, int]) -> dict[int, list[dict[str, Any]]]:
    """Return the live facts of some meters from an instant on, with the one before it, sorted by epoch and end.

    Meters are asked for together by the day of their instant, for a search that says where it begins opens only the days
    after it. The fact before lies a day back or, of a meter that was silent, further: only then all days are looked at.
    """
    by_day: dict[int, dict[int, int]] = {}
    for number, from_us in history_from.items():
        by_day.setdefault(from_us // DAY_US, {})[number] = from_us
    history: dict[int, list[dict[str, Any]]] = {number: [] for number in history_from}
    for day, wanted in by_day.items():
        found = _fetch_history(conn, wanted, (day - 1) * DAY_US)
        silent = {
            number: from_us
            for number, from_us in wanted.items()
            if all(row["end_at"] >= from_us for row in found.get(number, []))
        }
        if silent:
            found |= _fetch_history(conn, silent, None)
        history |= found
    return history


def _fetch_history(
    conn: psycopg.Connection, wanted: dict[int, int], begin_us: int | None
) -> dict[int, list[dict[str, Any]]]:
    """Return what `fetch_history` does as far as it ends after `begin_us`; None: after the beginning of time."""
    # Per meter and epoch the live row of an instant is its highest revision; reversals (odd) are never the highest.
    rows = conn.execute(
        f"select {fact_select()} from unnest(%(no)b::int4[], %(from)b::int8[]) as wanted(meter_no, from_us)"
        " cross join lateral (select distinct on (g.epoch, g.end_at) g.* from fact g where g.meter_no = wanted.meter_no"
        " and g.end_at >= %(begin)s::timestamptz and g.end_at >= coalesce((select max(h.end_at) from fact h"
        " where h.meter_no = wanted.meter_no and h.end_at >= %(begin)s::timestamptz"
        " and h.end_at < to_timestamp(0) + wanted.from_us * interval '1 microsecond'), '-infinity')"
        " order by g.epoch, g.end_at, g.revision desc) f limit %(limit)s",
        {
            "no": list(wanted),
            "from": list(wanted.values()),
            "begin": "-infinity" if begin_us is None else EPOCH + dt.timedelta(microseconds=begin_us),
            "limit": HISTORY_ROWS_MAX + 1,
        },
    ).fetchall()
    if len(rows) > HISTORY_ROWS_MAX:
        raise RuntimeError(f"late readings need more than {HISTORY_ROWS_MAX} settled facts at once")
    columns = columns_from_fetched(rows)
    history: dict[int, list[dict[str, Any]]] = {}
    for index in range(len(rows)):
        row = {name: columns[name][index].item() for name in FACT_COLUMNS}
        history.setdefault(row["meter_no"], []).append(row)
    return history


@dataclasses.dataclass(frozen=True)
class BatchDone:
    """How far a batch brings its partition, and by whom."""

    key: tuple[str, str, int]
    """Consumer, topic, partition."""
    readings: int
    """Rows of the batch."""
    refused: int
    """Dead letters written; what settlement refused beyond them was kept before, and counts as duplicate."""
    next_offset: int
    """First offset after the batch."""
    worker: str
    watermark_us: int
    """Newest clock of the bridge in the batch."""


def write_batch(
    conn: psycopg.Connection,
    done: BatchDone,
    settled: Settled,
    *,
    outbox: Sequence[OutboxItem],
    published: Sequence[int],
    checkpoint: StateRows | None,
) -> list[int]:
    """Write what a batch changes, inside the caller's transaction that holds the offset row.

    1. Facts. 2. State of irregular meters, or of all that changed when it is time for a checkpoint. 3. Outbox.
    4. The offset.

    Args:
        conn: In the transaction.
        done: How far the partition comes with it.
        settled: What the batch changes.
        outbox: What to publish after the commit, in order.
        published: Outbox rows of earlier batches that have been published.
        checkpoint: States to write for a checkpoint; None writes only irregular ones.

    Returns:
        Ids of the outbox rows.
    """
    copy_facts(conn, settled.facts)  # Step 1.
    partition = done.key[2]
    if checkpoint is not None:  # Step 2.
        write_states(conn, checkpoint, partition, done.next_offset)
    elif settled.irregular.any():
        rows = np.flatnonzero(settled.irregular)
        states = StateRows(settled.touched[rows], settled.states.take(rows))
        write_states(conn, states, partition, done.next_offset)
    ids = write_outbox(conn, done.key, done.next_offset, outbox, published)  # Step 3.
    counts = OffsetCounts(
        readings=done.readings,
        accepted=settled.accepted,
        duplicate=settled.duplicates + len(settled.refused) - done.refused,
        late=settled.late,
        refused=done.refused,
        refused_before=settled.refused_before,
    )
    advance(  # Step 4.
        conn,
        done.key,
        next_offset=done.next_offset,
        worker=done.worker,
        counts=counts,
        watermark_us=done.watermark_us,
        checkpoint_offset=None if checkpoint is None else done.next_offset,
        facts_from_us=int(settled.facts["end_at"].min()) if len(settled.facts["end_at"]) else None,
    )
    return ids


def write_outbox(
    conn: psycopg.Connection,
    key: tuple[str, str, int],
    next_offset: int,
    items: Sequence[OutboxItem],
    published: Sequence[int],
) -> list[int]:
    """Add what is to be published, and remove what has been; return the new ids."""
    if published:
        conn.execute("delete from outbox where outbox_id = any(%b::int8[])", (list(published),))
    ids = []
    for item in items:
        row = conn.execute(
            "insert into outbox (consumer, partition, next_offset, topic, payload) values (%s, %s, %s, %s, %b)"
            " returning outbox_id",
            (key[0], key[2], next_offset, item.topic, item.payload),
        ).fetchone()
        assert row is not None
        ids.append(int(row[0]))
    return ids


def fetch_outbox(conn: psycopg.Connection, consumer: str, partition: int) -> list[tuple[int, int, str, bytes]]:
    """Return what a former owner committed but may not have published: id, next offset, topic, payload; oldest first."""
    return conn.execute(
        "select outbox_id, next_offset, topic, payload from outbox where consumer = %s and partition = %s"
        " order by outbox_id",
        (consumer, partition),
    ).fetchall()
