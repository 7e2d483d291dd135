"""What was known when: positions of the ledger, which are the next offset of each partition.

A fact was known at a position when the frame that brought it lies below its partition's offset. Facts are never changed,
so every position of the past can be asked for as long as the facts are kept.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import psycopg

Position = Mapping[int, int]
"""Partition → first offset that was not yet settled; a partition that is not named had nothing."""


def position_now(conn: psycopg.Connection[Any]) -> dict[int, int]:
    """Return how far settlement has come; read in the snapshot of the facts it is exactly what they hold."""
    rows = conn.execute(
        "select partition, max(next_offset) from stream_offset where consumer = 'settle' group by 1 order by 1"
    ).fetchall()
    return {int(partition): int(offset) for partition, offset in rows}


def position_at(conn: psycopg.Connection[Any], at: dt.datetime) -> dict[int, int]:
    """Return how far settlement had come at an instant, as settlement noted it: at most some seconds short of it.

    Args:
        conn: Connection.
        at: Aware instant.
    """
    rows = conn.execute(
        "select partition, max(next_offset) from (select partition, next_offset from ledger_clock where committed_at <= %(at)s"
        " union all select partition, next_offset from stream_offset where consumer = 'settle' and updated_at <= %(at)s)"
        " known group by 1 order by 1",
        {"at": at},
    ).fetchall()
    return {int(partition): int(offset) for partition, offset in rows}


def offsets_by_partition(known: Position | None) -> list[int] | None:
    """Return a position as an array for SQL, the offset of partition p in place p + 1; None stays None: everything."""
    if known is None:
        return None
    return [known.get(partition, 0) for partition in range(max(known, default=-1) + 1)]


KNOWN_SQL = "(%(offsets)s::int8[] is null or f.frame_offset < (%(offsets)s::int8[])[f.frame_partition + 1])"
"""Condition that a fact `f` was known; `offsets` is of `offsets_by_partition`."""
