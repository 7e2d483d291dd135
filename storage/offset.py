"""The offset row of each partition: the authority on what has been done (design §3.3)."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, TypeVar

import psycopg


class GapError(RuntimeError):
    """Records are missing between the database's offset and what was delivered.

    Operator action: none at first; the process halts, is started again and seeks back. If it comes again at once, Kafka
    no longer holds the records (retention, or a re-created topic): see docs/operations.md.
    """


class _HasOffset(Protocol):
    @property
    def offset(self) -> int: ...


RecordT = TypeVar("RecordT", bound=_HasOffset)


@dataclasses.dataclass(frozen=True, slots=True)
class OffsetRow:
    """A locked row of `stream_offset`."""

    next_offset: int
    checkpoint_offset: int
    watermark_us: int
    worker: str
    later_facts_from: str
    """Earliest end among the facts after the checkpoint, as PostgreSQL writes it; `infinity` when there is none."""


@dataclasses.dataclass(frozen=True, slots=True)
class OffsetCounts:
    """Outcomes of one batch, in readings: ``readings = accepted + duplicate + refused + refused_before``."""

    readings: int = 0
    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    """Of the accepted, those that arrived after a later one of their meter."""
    refused: int = 0
    refused_before: int = 0
    """Refused by an earlier stage, which kept the dead letter."""


_KEY = "consumer = %s and topic = %s and partition = %s"


def lock_offset(conn: psycopg.Connection, consumer: str, topic: str, partition: int) -> OffsetRow:
    """Return the row, locked until the end of the transaction: two owners of a partition take turns."""
    query = (
        "select next_offset, checkpoint_offset, watermark_us, worker, later_facts_from::text from stream_offset"
        f" where {_KEY} for update"
    )
    key = (consumer, topic, partition)
    row = conn.execute(query, key).fetchone()
    if row is None:
        conn.execute(
            "insert into stream_offset (consumer, topic, partition) values (%s, %s, %s) on conflict do nothing",
            key,
        )
        row = conn.execute(query, key).fetchone()
    assert row is not None
    return OffsetRow(*row)


def fetch_next_offsets(
    conn: psycopg.Connection, consumer: str, assigned: set[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """Return where each assigned partition goes on; a partition without a row begins at 0."""
    rows = conn.execute(
        "select topic, partition, next_offset from stream_offset where consumer = %s", (consumer,)
    ).fetchall()
    known = {(topic, partition): next_offset for topic, partition, next_offset in rows}
    return {key: known.get(key, 0) for key in assigned}


def fetch_later_facts_from(conn: psycopg.Connection) -> str:
    """Return the earliest end among all facts after their partition's checkpoint, as PostgreSQL writes it."""
    row = conn.execute(
        "select coalesce(min(later_facts_from), 'infinity')::text from stream_offset where consumer = 'settle'"
    ).fetchone()
    assert row is not None
    return str(row[0])


def skip_replays(row: OffsetRow, records: Sequence[RecordT]) -> list[RecordT]:
    """Return the records that are still to be done.

    Raises:
        GapError: The first record lies above the row's offset, or an offset is missing among them. The topics are
            neither compacted nor written in transactions, so offsets without a hole prove that nothing was lost.
    """
    todo = [record for record in records if record.offset >= row.next_offset]
    for expected, record in enumerate(todo, start=row.next_offset):
        if record.offset != expected:
            raise GapError(f"expected offset {expected}, got {record.offset}")
    return todo


def advance(  # noqa: PLR0913  # the row has that many columns
    conn: psycopg.Connection,
    key: tuple[str, str, int],
    *,
    next_offset: int,
    worker: str,
    counts: OffsetCounts,
    watermark_us: int = 0,
    checkpoint_offset: int | None = None,
    facts_from_us: int | None = None,
) -> None:
    """Move a locked row forward, and add up the outcomes.

    Args:
        conn: In the transaction that locked the row.
        key: Consumer, topic, partition.
        next_offset: First offset not yet done.
        worker: Name of this owner; a change of it is kept in `stream_owner`.
        counts: Outcomes of this batch.
        watermark_us: Newest clock of the bridge seen in this partition, epoch µs.
        checkpoint_offset: All state in `meter_state` stands at or past this offset; None leaves it.
        facts_from_us: Earliest end of the batch's facts, epoch µs; None when it has none.
    """
    conn.execute(
        "update stream_offset set next_offset = %s, worker = %s, readings = readings + %s, accepted = accepted + %s,"
        " duplicate = duplicate + %s, late = late + %s, refused = refused + %s, refused_before = refused_before + %s,"
        " watermark_us = greatest(watermark_us, %s), checkpoint_offset = coalesce(%s, checkpoint_offset),"
        " later_facts_from = case when %s then 'infinity' else"
        " least(later_facts_from, to_timestamp(0) + %s::int8 * interval '1 microsecond') end,"
        f" updated_at = now() where {_KEY}",
        (
            next_offset,
            worker,
            *dataclasses.astuple(counts),
            watermark_us,
            checkpoint_offset,
            checkpoint_offset is not None,
            facts_from_us,
            *key,
        ),
    )
