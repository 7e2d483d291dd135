"""Alarms: one per (subject, kind), every transition kept (ISA-18.2 life-cycle; design §3.10)."""

import dataclasses
import datetime as dt
import json
from collections.abc import Iterable
from typing import Any

import psycopg

from metering.alarm.catalogue import KINDS
from metering.alarm.condition import Condition

SYSTEM = "gridtally"
ALARMS_LISTED_MAX = 1000


@dataclasses.dataclass(frozen=True)
class AlarmChange:
    """One alarm after a change, as it is published."""

    alarm_id: int
    subject: str
    kind: str
    priority: int
    state: str
    detail: str
    raised_at: dt.datetime
    cleared_at: dt.datetime | None

    def to_json(self) -> bytes:
        """Return the record of ``grid.alarms``."""
        return json.dumps(dataclasses.asdict(self), default=lambda moment: moment.isoformat()).encode()


_COLUMNS = "alarm_id, subject, kind, priority, state, detail, raised_at, cleared_at"


def raise_alarm(
    conn: psycopg.Connection, subject: str, kind: str, *, priority: int, detail: str, at: dt.datetime
) -> AlarmChange | None:
    """Raise an alarm; one that is active already only counts the occurrence and returns None.

    Args:
        conn: In a transaction.
        subject: Meter or other thing that it is about.
        kind: ``silent``, ``tamper``, ...
        priority: 1 (highest) to 4.
        detail: What people read.
        at: When it happened.
    """
    row = conn.execute(
        "insert into alarm (subject, kind, priority, state, detail, raised_at, last_at)"
        " values (%s, %s, %s, 'unacknowledged', %s, %s, %s) on conflict (subject, kind) where cleared_at is null"
        f" do nothing returning {_COLUMNS}",
        (subject, kind, priority, detail, at, at),
    ).fetchone()
    if row is None:
        conn.execute(
            "update alarm set occurrences = occurrences + 1, last_at = greatest(last_at, %s), detail = %s"
            " where subject = %s and kind = %s and cleared_at is null",
            (at, detail, subject, kind),
        )
        return None
    _note(conn, row[0], None, "unacknowledged", at, detail)
    return AlarmChange(*row)


def clear_alarm(conn: psycopg.Connection, subject: str, kind: str, at: dt.datetime, why: str) -> AlarmChange | None:
    """Clear an active alarm: one nobody acknowledged stays in the list as returned. None when there is none."""
    before = conn.execute(
        "select alarm_id, state from alarm where subject = %s and kind = %s and cleared_at is null for update",
        (subject, kind),
    ).fetchone()
    if before is None:
        return None
    state = "cleared" if before[1] == "acknowledged" else "returned"
    row = conn.execute(
        f"update alarm set state = %s, cleared_at = %s where alarm_id = %s returning {_COLUMNS}",
        (state, at, before[0]),
    ).fetchone()
    assert row is not None
    _note(conn, before[0], before[1], state, at, why)
    return AlarmChange(*row)


def apply_conditions(conn: psycopg.Connection, conditions: Iterable[Condition]) -> list[AlarmChange]:
    """Raise and clear alarms as detectors say, in order, in the caller's transaction; return what changed.

    A condition of no known kind is a fault of the detector (KeyError).
    """
    changes = []
    for item in conditions:
        kind = KINDS[item.kind]
        if item.is_active:
            change = raise_alarm(
                conn, item.subject, item.kind, priority=kind.priority, detail=item.detail[:500], at=item.at
            )
        else:
            change = clear_alarm(conn, item.subject, item.kind, item.at, item.detail[:500])
        if change is not None:
            changes.append(change)
    return changes


def _note(conn: psycopg.Connection, alarm_id: int, before: str | None, after: str, at: dt.datetime, why: str) -> None:
    conn.execute(
        "insert into alarm_transition (alarm_id, from_state, to_state, at, who, why) values (%s, %s, %s, %s, %s, %s)",
        (alarm_id, before, after, at, SYSTEM, why),
    )


def fetch_active(conn: psycopg.Connection, kind: str) -> list[tuple[str, dt.datetime]]:
    """Return subject and time of the last occurrence of the active alarms of a kind."""
    return conn.execute("select subject, last_at from alarm where kind = %s and cleared_at is null", (kind,)).fetchall()


def fetch_alarms(conn: psycopg.Connection, *, active: bool | None = None, limit: int = 200) -> list[dict[str, Any]]:
    """Return alarms, active ones first, then the newest."""
    where = "" if active is None else f"where cleared_at is {'null' if active else 'not null'}"
    with conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(
            f"select {_COLUMNS}, last_at, occurrences from alarm {where}"
            " order by cleared_at is not null, priority, raised_at desc limit %s",
            (min(limit, ALARMS_LISTED_MAX),),
        ).fetchall()


def fetch_open_alarms(conn: psycopg.Connection, limit: int) -> list[dict[str, Any]]:
    """Return the alarms that need someone: active ones, then those that returned and nobody acknowledged.

    Unacknowledged first, then by priority, then the newest.
    """
    with conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(
            f"select {_COLUMNS}, last_at, occurrences from alarm where state <> 'cleared'"
            " order by cleared_at is not null, state <> 'unacknowledged', priority, raised_at desc, alarm_id desc limit %s",
            (min(limit, ALARMS_LISTED_MAX),),
        ).fetchall()


def count_alarms(conn: psycopg.Connection) -> dict[int, tuple[int, int]]:
    """Return, by priority, how many alarms are active and unacknowledged, and how many are active."""
    rows = conn.execute(
        "select p, count(alarm_id) filter (where state = 'unacknowledged'), count(alarm_id)"
        " from generate_series(1, 4) p left join alarm on priority = p and cleared_at is null group by p order by p"
    ).fetchall()
    return {priority: (unacknowledged, active) for priority, unacknowledged, active in rows}
