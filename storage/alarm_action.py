"""What people do with alarms, and the system's suppression by design: each with who, when, why, in one transaction."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import class_row

from metering.alarm.catalogue import KINDS
from metering.alarm.life_cycle import Event, LifeCycleError, after
from schemas.topic import GRID_ALARMS
from storage.alarm import (
    OPEN_COLUMNS,
    SYSTEM,
    AlarmChange,
    Open,
    change_standing,
    fetch_open,
    is_latched,
    note_transition,
)
from storage.audit import write_audit

AT_ONCE_MAX = 500
OUT_OF_SERVICE_DAYS_MAX = 90
TEXT_MAX = 500


class AlarmError(ValueError):
    """What is asked for cannot be; the message says why and what to do."""


DESK = "alarm-desk"
"""Consumer of the outbox rows of what people do: a detect worker publishes them after the commit."""


def announce(conn: psycopg.Connection[Any], changes: Sequence[AlarmChange | None]) -> list[AlarmChange]:
    """Leave changes for publishing, in the transaction that makes them; return those that are some."""
    made = [change for change in changes if change is not None]
    for change in made:
        conn.execute(
            "insert into outbox (consumer, partition, next_offset, topic, payload) values (%s, 0, 0, %s, %b)",
            (DESK, GRID_ALARMS, change.to_json()),
        )
    return made


def acknowledge(
    conn: psycopg.Connection[Any], alarm_ids: Sequence[int], *, who: str, at: dt.datetime, note: str = ""
) -> list[AlarmChange]:
    """Acknowledge alarms: one that has returned is closed; one that is acknowledged already stays as it is.

    Raises:
        AlarmError: An alarm is not there, is hidden, or there are too many at once; nothing is changed.
    """
    if not alarm_ids or len(alarm_ids) > AT_ONCE_MAX:
        raise AlarmError(f"name 1 to {AT_ONCE_MAX} alarms, not {len(alarm_ids)}")
    with conn.transaction():
        found = [
            _act(conn, alarm_id, Event.ACKNOWLEDGE, who, at, note or "acknowledged")
            for alarm_id in sorted(set(alarm_ids))
        ]
        changes = announce(conn, found)
        for change in changes:
            asks_again = change.state == "acknowledged" and change.kind in KINDS
            re_alarm_s = KINDS[change.kind].re_alarm_s if asks_again else None
            again = None if re_alarm_s is None else at + dt.timedelta(seconds=re_alarm_s)
            conn.execute(
                "update alarm set acknowledged_at = %s, acknowledged_by = %s, re_alarm_at = %s where alarm_id = %s",
                (at, who, again, change.alarm_id),
            )
    return changes


def shelve(
    conn: psycopg.Connection[Any],
    alarm_id: int,
    *,
    who: str,
    at: dt.datetime,
    reason: str,
    until: dt.datetime | None = None,
) -> list[AlarmChange]:
    """Shelve an alarm until a time, or, without one, until its condition ends; either way at most its kind's longest.

    Raises:
        AlarmError: No reason, a time in the past or beyond the kind's longest, or the alarm cannot be shelved.
    """
    with conn.transaction():
        alarm = _locked(conn, alarm_id)
        longest_s = KINDS[alarm.kind].shelve_max_s if alarm.kind in KINDS else 0
        latest = at + dt.timedelta(seconds=longest_s)
        if not reason.strip():
            raise AlarmError("a shelf needs a reason: give --reason TEXT")
        if until is not None and not at < until <= latest:
            raise AlarmError(f"{alarm.kind} can be shelved for {longest_s // 3600} h at most, and not into the past")
        change = _act(conn, alarm_id, Event.SHELVE, who, at, reason, is_one_shot=until is None)
        conn.execute("update alarm set shelved_until = %s where alarm_id = %s", (until or latest, alarm_id))
        return announce(conn, [change])


def unshelve(conn: psycopg.Connection[Any], alarm_id: int, *, who: str, at: dt.datetime) -> list[AlarmChange]:
    """Take an alarm off its shelf."""
    with conn.transaction():
        change = _act(conn, alarm_id, Event.UNSHELVE, who, at, "unshelved")
        return announce(conn, [change])


def reset_latched(
    conn: psycopg.Connection[Any], alarm_id: int, *, who: str, at: dt.datetime, note: str
) -> list[AlarmChange]:
    """Close an alarm whose condition has ended; the way out of a latched one.

    Raises:
        AlarmError: The condition still holds.
    """
    with conn.transaction():
        change = _act(conn, alarm_id, Event.RESET, who, at, note)
        return announce(conn, [change])


def take_out_of_service(
    conn: psycopg.Connection[Any],
    subject: str,
    kind: str,
    *,
    who: str,
    at: dt.datetime,
    reason: str,
    until: dt.datetime,
) -> list[AlarmChange]:
    """Take a kind of alarm of a subject out of service until a time: what comes meanwhile is kept, and hidden.

    Raises:
        AlarmError: No reason, an unknown kind, or a time that is past or more than OUT_OF_SERVICE_DAYS_MAX ahead.
    """
    if kind not in KINDS:
        raise AlarmError(f"{kind!r} is no kind of alarm: see `gridtally alarm kinds`")
    if not reason.strip():
        raise AlarmError("taking out of service needs a reason: give --reason TEXT")
    if not at < until <= at + dt.timedelta(days=OUT_OF_SERVICE_DAYS_MAX):
        raise AlarmError(f"give a time within the next {OUT_OF_SERVICE_DAYS_MAX} days")
    with conn.transaction():
        conn.execute(
            "insert into alarm_out_of_service (subject, kind, until, who, reason, at) values (%s, %s, %s, %s, %s, %s)"
            " on conflict (subject, kind) do update set until = excluded.until, who = excluded.who,"
            " reason = excluded.reason, at = excluded.at",
            (subject, kind, until, who, reason[:TEXT_MAX], at),
        )
        write_audit(
            conn, who, "alarm.out-of-service", f"alarm {subject} {kind}", {"reason": reason, "until": until.isoformat()}
        )
        alarm = fetch_open(conn, subject, kind)
        change = None if alarm is None else _move(conn, alarm, Event.TAKE_OUT, (at, who, reason))
        return announce(conn, [change])


def return_to_service(
    conn: psycopg.Connection[Any], subject: str, kind: str, *, who: str, at: dt.datetime
) -> list[AlarmChange]:
    """Return a kind of alarm of a subject to service; what stands is heard anew.

    Raises:
        AlarmError: It is not out of service.
    """
    with conn.transaction():
        gone = conn.execute(
            "delete from alarm_out_of_service where subject = %s and kind = %s", (subject, kind)
        ).rowcount
        alarm = fetch_open(conn, subject, kind)
        if not gone and (alarm is None or alarm.state != "out_of_service"):
            raise AlarmError(f"{kind} of {subject} is not out of service")
        write_audit(conn, who, "alarm.return-to-service", f"alarm {subject} {kind}")
        is_out = alarm is not None and alarm.state == "out_of_service"
        change = _move(conn, alarm, Event.PUT_BACK, (at, who, "returned to service")) if alarm and is_out else None
        return announce(conn, [change])


def assign(
    conn: psycopg.Connection[Any], alarm_id: int, *, who: str, at: dt.datetime, to: str | None
) -> list[AlarmChange]:
    """Assign an alarm to a person, or to nobody."""
    with conn.transaction():
        alarm = _locked(conn, alarm_id)
        conn.execute("update alarm set assigned_to = %s where alarm_id = %s", (to, alarm_id))
        _note_action(conn, alarm, "alarm.assign", who, at, f"assigned to {to or 'nobody'}")
    return []


def comment(conn: psycopg.Connection[Any], alarm_id: int, *, who: str, at: dt.datetime, text: str) -> list[AlarmChange]:
    """Add a comment to an alarm's history."""
    if not text.strip():
        raise AlarmError("a comment needs words")
    with conn.transaction():
        _note_action(conn, _locked(conn, alarm_id), "alarm.comment", who, at, text)
    return []


def suppress(
    conn: psycopg.Connection[Any], subjects: Sequence[str], kinds: Sequence[str], *, by: str, at: dt.datetime
) -> list[AlarmChange]:
    """Suppress by design: while a parent stands, alarms of these kinds below it are kept, and hidden. Said twice it holds once.

    Args:
        conn: In the caller's transaction.
        subjects: Meters below the parent.
        kinds: What the parent explains.
        by: The parent.
        at: Since when.
    """
    conn.execute(
        "insert into alarm_suppression (subject, kind, suppressed_by, at)"
        " select s, k, %s, %s from unnest(%s::text[]) s, unnest(%s::text[]) k on conflict do nothing",
        (by, at, list(subjects), list(kinds)),
    )
    changes = []
    for alarm in _open_of(conn, "subject = any(%(a)s) and kind = any(%(b)s)", {"a": list(subjects), "b": list(kinds)}):
        change = _move(conn, alarm, Event.SUPPRESS, (at, SYSTEM, f"explained by {by}"))
        if change is not None and change.state == "suppressed":
            conn.execute("update alarm set suppressed_by = %s where alarm_id = %s", (by, alarm.alarm_id))
            changes.append(change)
    return changes


def unsuppress(conn: psycopg.Connection[Any], *, by: str, at: dt.datetime) -> list[AlarmChange]:
    """End a parent's suppression, in the caller's transaction: what still stands below it is heard."""
    conn.execute("delete from alarm_suppression where suppressed_by = %s", (by,))
    found = _open_of(conn, "suppressed_by = %(a)s and state = 'suppressed'", {"a": by})
    changes = [_move(conn, alarm, Event.UNSUPPRESS, (at, SYSTEM, f"{by} explains it no longer")) for alarm in found]
    return [change for change in changes if change is not None]


def _open_of(conn: psycopg.Connection[Any], where: str, values: Mapping[str, Any]) -> list[Open]:
    return (
        conn.cursor(row_factory=class_row(Open))
        .execute(
            f"select {OPEN_COLUMNS} from alarm where state <> 'cleared' and {where} order by alarm_id for update",
            values,
        )
        .fetchall()
    )


def _locked(conn: psycopg.Connection[Any], alarm_id: int) -> Open:
    found = _open_of(conn, "alarm_id = %(a)s", {"a": alarm_id})
    if not found:
        raise AlarmError(f"there is no open alarm {alarm_id}")
    return found[0]


def _act(
    conn: psycopg.Connection[Any],
    alarm_id: int,
    event: Event,
    who: str,
    at: dt.datetime,
    why: str,
    *,
    is_one_shot: bool = False,
) -> AlarmChange | None:
    """Do what a person asks for, with its audit."""
    alarm = _locked(conn, alarm_id)
    write_audit(
        conn, who, f"alarm.{event}", f"alarm {alarm_id}", {"subject": alarm.subject, "kind": alarm.kind, "why": why}
    )
    return _move(conn, alarm, event, (at, who, why), is_one_shot=is_one_shot)


def _move(
    conn: psycopg.Connection[Any],
    alarm: Open,
    event: Event,
    cause: tuple[dt.datetime, str, str],
    *,
    is_one_shot: bool = False,
) -> AlarmChange | None:
    try:
        now = after(alarm.standing, event, is_latched=is_latched(alarm), is_one_shot=is_one_shot)
    except LifeCycleError as error:
        raise AlarmError(f"alarm {alarm.alarm_id} ({alarm.subject}, {alarm.kind}): {error}") from None
    return change_standing(conn, alarm, now, cause)


def _note_action(conn: psycopg.Connection[Any], alarm: Open, action: str, who: str, at: dt.datetime, text: str) -> None:
    note_transition(conn, alarm.alarm_id, alarm.state, alarm.state, (at, who, text))
    write_audit(conn, who, action, f"alarm {alarm.alarm_id}", {"text": text[:TEXT_MAX]})
