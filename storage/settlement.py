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


def fetch_settled(conn: psycopg.Connection, meter_no: Int64Column, at_us: Int64Column) -> Columns:
    """Return the live facts that end at exactly the given instants: `meter_no`, `end_at`, `import_wh`, `export_wh`.

    Args:
        conn: Connection.
        meter_no: Shape (n,).
        at_us: Shape (n,), epoch µs. Asked for by day, so that a search opens only that day.
    """
    rows: list[tuple[int, ...]] = []
    for day in np.unique(at_us // DAY_US).tolist():
        chosen = at_us // DAY_US == day
        rows += conn.execute(
            "select distinct on (f.meter_no, f.end_at) f.meter_no, w.at_us, f.import_wh, coalesce(f.export_wh, -1)"
            " from unnest(%b::int4[], %b::int8[]) as w(meter_no, at_us) join fact f on f.meter_no = w.meter_no"
            " and f.end_at = to_timestamp(0) + w.at_us * interval '1 microsecond' and f.end_at >= %s and f.end_at < %s"
            " order by f.meter_no, f.end_at, f.revision desc",
            (meter_no[chosen].tolist(), at_us[chosen].tolist(), *_days_around(day, 0)),
        ).fetchall()
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    return dict(zip(("meter_no", "end_at", "import_wh", "export_wh"), columns, strict=True))


def _days_around(day: int, more: int) -> tuple[dt.datetime, dt.datetime]:
    """Return the bounds of a day since 1970 with some days before and after it."""
    return EPOCH + dt.timedelta(days=day - more), EPOCH + dt.timedelta(days=day + 1 + more)


Wanted = tuple[int, int, int]
"""Meter, epoch, instant (epoch µs)."""


def fetch_neighbours(conn: psycopg.Connection, wanted: Sequence[Wanted]) -> dict[int, list[dict[str, Any]]]:
    """Return, by meter and sorted, the live facts around instants: the last one before each, the first at or after it.

    They are asked for by day, with a day on either side; only a meter that was silent longer is looked for in all days
    before, or after, that.
    """
    found: dict[int, dict[tuple[int, int], dict[str, Any]]] = {number: {} for number, *_ in wanted}
    by_day: dict[int, list[Wanted]] = {}
    for item in wanted:
        by_day.setdefault(item[2] // DAY_US, []).append(item)
    for day, items in by_day.items():
        low, high = _days_around(day, 1)
        for is_before, all_that_way in ((True, ("-infinity", high)), (False, (low, "infinity"))):
            missing = _fetch_beside(conn, items, found, is_before, (low, high))
            if missing:
                _fetch_beside(conn, missing, found, is_before, all_that_way)
    return {number: [rows[key] for key in sorted(rows)] for number, rows in found.items()}


def _fetch_beside(
    conn: psycopg.Connection,
    items: Sequence[Wanted],
    found: dict[int, dict[tuple[int, int], dict[str, Any]]],
    is_before: bool,  # noqa: FBT001
    days: tuple[dt.datetime | str, dt.datetime | str],
) -> list[Wanted]:
    """Add the neighbours on one side to `found`, and return what has none within the days."""
    low, high = days
    side, way = ("<", "desc") if is_before else (">=", "asc")
    rows = conn.execute(
        f"select w.number, {fact_select()} from unnest(%(no)b::int4[], %(epoch)b::int4[], %(at)b::int8[])"
        " with ordinality as w(meter_no, epoch, at_us, number) cross join lateral (select g.* from fact g"
        " where g.meter_no = w.meter_no and g.epoch = w.epoch"
        f" and g.end_at {side} to_timestamp(0) + w.at_us * interval '1 microsecond'"
        " and g.end_at >= %(low)s::timestamptz and g.end_at < %(high)s::timestamptz"
        f" order by g.end_at {way}, g.revision desc limit 1) f",
        {
            "no": [item[0] for item in items],
            "epoch": [item[1] for item in items],
            "at": [item[2] for item in items],
            "low": low,
            "high": high,
        },
    ).fetchall()
    columns = columns_from_fetched([row[1:] for row in rows])
    for index in range(len(rows)):
        row = {name: columns[name][index].item() for name in FACT_COLUMNS}
        found[row["meter_no"]][row["epoch"], row["end_at"]] = row
    there = {row[0] for row in rows}
    return [item for number, item in enumerate(items, 1) if number not in there]


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
    notes_clock: bool = False
    """Whether to note when the partition came so far."""


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

    1. Facts, and the days that have news. 2. State of irregular meters, or of all that changed when it is time for a
    checkpoint. 3. Outbox. 4. The offset, and now and then the time.

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
    partition = done.key[2]
    copy_facts(conn, settled.facts)  # Step 1.
    write_days(conn, partition, done.next_offset, days_of(settled.facts["end_at"]))
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
    if done.notes_clock:
        conn.execute(
            "insert into ledger_clock (partition, committed_at, next_offset) values (%s, clock_timestamp(), %s)",
            (partition, done.next_offset),
        )
    return ids


def write_days(conn: psycopg.Connection, partition: int, next_offset: int, days: set[dt.date]) -> None:
    """Note up to which offset there are facts that end on days (UTC), so that sub-totals look into days with news only."""
    if days:
        conn.execute(
            "insert into ledger_day (day, partition, next_offset) select day, %s, %s from unnest(%s::date[]) as d(day)"
            " on conflict (day, partition) do update set next_offset = greatest(ledger_day.next_offset, excluded.next_offset)",
            (partition, next_offset, sorted(days)),
        )


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
