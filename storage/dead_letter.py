"""Dead letters: what was refused, with its bytes, for people to see and to replay."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from schemas.reject import RejectCode

_COLUMNS = (
    "dead_letter_id, stage, code, detail, mqtt_topic, meter_id, boot_id, seq, raw_partition, raw_offset, raw_index,"
    " received_at, state, changed_at"
)
REPLAYED_MAX = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetter:
    """What was refused, and why."""

    code: RejectCode
    detail: str
    mqtt_topic: str
    """Empty where it is not known."""
    meter_id: str | None
    boot_id: int | None
    seq: int | None
    payload: bytes
    raw: tuple[int, int, int]
    """Partition, offset and index in meter.raw; of a record that is no frame, its own place and -1."""
    received_at: int
    """Epoch µs."""


def write_dead_letters(conn: psycopg.Connection, stage: str, letters: Sequence[DeadLetter]) -> int:
    """Keep dead letters in the caller's transaction; return how many are new: the same lineage again changes nothing."""
    if not letters:
        return 0
    rows = [
        (
            stage,
            letter.code.word,
            _storable(letter.detail),
            _storable(letter.mqtt_topic),
            _storable(letter.meter_id or "") or None,
            letter.boot_id,
            letter.seq,
            letter.payload,
            *letter.raw,
            letter.received_at / 1e6,
        )
        for letter in letters
    ]
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into dead_letter (stage, code, detail, mqtt_topic, meter_id, boot_id, seq, payload, raw_partition,"
            " raw_offset, raw_index, received_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, to_timestamp(%s))"
            " on conflict do nothing",
            rows,
        )
        return cursor.rowcount


def _storable(text: str) -> str:
    """Return text without the one character that PostgreSQL's text cannot hold."""
    return text.replace("\0", "")


def fetch_dead_letters(
    conn: psycopg.Connection, *, limit: int, code: str | None = None, before_id: int | None = None
) -> list[dict[str, Any]]:
    """Return dead letters without their bytes, newest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"select {_COLUMNS}, length(payload) as payload_bytes from dead_letter"
            " where (%(code)s::text is null or code = %(code)s)"
            " and (%(before)s::bigint is null or dead_letter_id < %(before)s)"
            " order by dead_letter_id desc limit %(limit)s",
            {"code": code, "before": before_id, "limit": limit},
        ).fetchall()


def fetch_dead_letter(conn: psycopg.Connection, dead_letter_id: int) -> dict[str, Any] | None:
    """Return one dead letter with its bytes, or None."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"select {_COLUMNS}, payload from dead_letter where dead_letter_id = %s",
            (dead_letter_id,),
        ).fetchone()


def count_dead_letters(conn: psycopg.Connection) -> list[tuple[str, str, int]]:
    """Return stage, code and number of the new dead letters."""
    return conn.execute(
        "select stage, code, count(*) from dead_letter where state = 'new' group by 1, 2 order by 3 desc"
    ).fetchall()


def lock_replayable(conn: psycopg.Connection, ids: Sequence[int], code: str | None) -> list[tuple[int, str, bytes]]:
    """Return id, MQTT topic and bytes of new dead letters that have both, locked; at most REPLAYED_MAX."""
    return conn.execute(
        "select dead_letter_id, mqtt_topic, payload from dead_letter where state = 'new' and mqtt_topic <> ''"
        " and length(payload) > 0 and (dead_letter_id = any(%s) or code = %s) order by dead_letter_id limit %s for update",
        (list(ids), code, REPLAYED_MAX),
    ).fetchall()


def mark_replayed(conn: psycopg.Connection, ids: Sequence[int]) -> None:
    """Note that dead letters went through the path again; they are kept."""
    conn.execute(
        "update dead_letter set state = 'replayed', changed_at = now() where dead_letter_id = any(%s)", (list(ids),)
    )
