"""Alarms: what detectors say goes through the life-cycle (`metering.alarm.life_cycle`), every transition kept.

One open alarm per (subject, kind), by a database key. What a detector says is ordered by the event's own time: an older word
that arrives later changes no state, so that every order of arrival comes to the same alarms. (Kinds with a delay are said by
detectors that read one meter's values in order.)
"""

import dataclasses
import datetime as dt
import json
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from psycopg.rows import class_row

from metering.alarm.catalogue import KINDS, Kind
from metering.alarm.condition import Condition
from metering.alarm.life_cycle import Event, Standing, State, after

SYSTEM = "gridtally"
ALARMS_LISTED_MAX = 1000
DETAIL_MAX = 500
TICK_MAX = 1000
"""Of each timer at once."""
CHATTERING_CHANGES, CHATTERING_S = 3, 60


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
    area: str = ""
    value: float | None = None
    limit_value: float | None = None

    def to_json(self) -> bytes:
        """Return the record of ``grid.alarms``."""
        return json.dumps(dataclasses.asdict(self), default=lambda moment: moment.isoformat()).encode()


@dataclasses.dataclass(frozen=True)
class Open:
    """An open alarm as the life-cycle needs it."""

    alarm_id: int
    subject: str
    kind: str
    state: str
    cleared_at: dt.datetime | None
    is_acknowledged: bool
    is_one_shot: bool

    @property
    def standing(self) -> Standing:
        """Return where it stands."""
        return Standing(State(self.state), self.cleared_at is None, self.is_acknowledged, self.is_one_shot)


_CHANGE = "alarm_id, subject, kind, priority, state, detail, raised_at, cleared_at, area, value, limit_value"
_COLUMNS = "alarm_id, subject, kind, priority, state, detail, raised_at, cleared_at"
OPEN_COLUMNS = "alarm_id, subject, kind, state, cleared_at, is_acknowledged, is_one_shot"


# -- what detectors say ----------------------------------------------------------------------------------------------


def apply_conditions(conn: psycopg.Connection[Any], conditions: Iterable[Condition]) -> list[AlarmChange]:
    """Take what detectors say, in the caller's transaction; return the alarms that changed.

    A condition of no known kind is a fault of the detector (KeyError).
    """
    return [change for item in conditions if (change := _apply(conn, item, KINDS[item.kind], None)) is not None]


def raise_alarm(
    conn: psycopg.Connection[Any], subject: str, kind: str, *, priority: int, detail: str, at: dt.datetime
) -> AlarmChange | None:
    """Raise an alarm with a priority of its own; one that stands already only counts the occurrence and returns None."""
    return _apply(conn, Condition(subject, kind, is_active=True, at=at, detail=detail), KINDS[kind], priority)


def clear_alarm(
    conn: psycopg.Connection[Any], subject: str, kind: str, at: dt.datetime, why: str
) -> AlarmChange | None:
    """Say that a condition has ended; None when that changes no alarm."""
    return _apply(conn, Condition(subject, kind, is_active=False, at=at, detail=why), KINDS[kind], None)


def _apply(conn: psycopg.Connection[Any], item: Condition, kind: Kind, priority: int | None) -> AlarmChange | None:
    key = item.subject, item.kind
    before = conn.execute(
        "select is_active, at, due_at from alarm_condition where subject = %s and kind = %s for update", key
    ).fetchone()
    is_stale = before is not None and (
        before[1] > item.at or (before[1] == item.at and before[0] and not item.is_active)
    )
    if is_stale:
        assert before is not None
        return _apply_stale(conn, item, kind, before)
    delay_s = kind.on_delay_s if item.is_active else kind.off_delay_s
    standing = fetch_open(conn, *key)
    stands = standing is not None and standing.cleared_at is None
    due_at = since = None
    if delay_s and stands != item.is_active:
        goes_on = before is not None and before[0] == item.is_active and before[2] is not None
        since = before[2] if goes_on and before is not None else item.at + dt.timedelta(seconds=delay_s)
        due_at = since if item.at < since else None
    conn.execute(
        "insert into alarm_condition (subject, kind, is_active, at, due_at, detail, value, limit_value)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict (subject, kind) do update set is_active = excluded.is_active,"
        " at = excluded.at, due_at = excluded.due_at, detail = excluded.detail, value = excluded.value,"
        " limit_value = excluded.limit_value",
        (*key, item.is_active, item.at, due_at, item.detail[:DETAIL_MAX], item.value, item.limit),
    )
    if due_at is not None:
        return None
    if item.is_active:
        return _raise(conn, item, kind, standing, priority)
    return _change(conn, standing, Event.RETURN, item.at, SYSTEM, item.detail) if stands and standing else None


def _apply_stale(
    conn: psycopg.Connection[Any], item: Condition, kind: Kind, newest: tuple[Any, ...]
) -> AlarmChange | None:
    """Take what is older than the newest word: it is counted; an alarm that it missed is raised and returns at once."""
    if not item.is_active:
        return None
    standing = fetch_open(conn, item.subject, item.kind)
    if standing is not None:
        conn.execute(
            "update alarm set occurrences = occurrences + 1, raised_at = least(raised_at, %(at)s),"
            " cleared_at = case when cleared_at < %(at)s then %(newest)s else cleared_at end where alarm_id = %(id)s",
            {"at": item.at, "newest": newest[1], "id": standing.alarm_id},
        )
        return None
    is_active, newest_at, _ = newest
    if is_active or (newest_at - item.at).total_seconds() < kind.on_delay_s:
        return None
    row = conn.execute(
        "select from alarm where subject = %s and kind = %s and raised_at <= %s and cleared_at >= %s",
        (item.subject, item.kind, item.at, item.at),
    ).fetchone()
    if row is not None:
        return None  # it belongs to an alarm that somebody closed
    _raise(conn, item, kind, None, None)
    raised = fetch_open(conn, item.subject, item.kind)
    assert raised is not None
    return _change(conn, raised, Event.RETURN, newest_at, SYSTEM, "the condition had ended before this was heard")


def _raise(
    conn: psycopg.Connection[Any], item: Condition, kind: Kind, standing: Open | None, priority: int | None
) -> AlarmChange | None:
    if standing is None:
        return _open(conn, item, kind, priority)
    conn.execute(
        "update alarm set occurrences = occurrences + 1, last_at = greatest(last_at, %s), detail = %s, value = %s,"
        " limit_value = %s where alarm_id = %s",
        (item.at, item.detail[:DETAIL_MAX], item.value, item.limit, standing.alarm_id),
    )
    if standing.cleared_at is None:
        return None
    return _change(conn, standing, Event.RAISE, item.at, SYSTEM, item.detail)


def _open(conn: psycopg.Connection[Any], item: Condition, kind: Kind, priority: int | None) -> AlarmChange:
    """Open an alarm: suppressed or out of service where that was said before it came."""
    hidden = conn.execute(
        "select (select suppressed_by from alarm_suppression where subject = %(subject)s and kind = %(kind)s),"
        " exists (select from alarm_out_of_service where subject = %(subject)s and kind = %(kind)s and until > %(at)s)",
        {"subject": item.subject, "kind": item.kind, "at": item.at},
    ).fetchone()
    assert hidden is not None
    standing = after(Standing(), Event.RAISE)
    if hidden[1]:
        standing = after(standing, Event.TAKE_OUT)
    elif hidden[0] is not None:
        standing = after(standing, Event.SUPPRESS)
    row = conn.execute(
        "insert into alarm (subject, kind, priority, state, detail, raised_at, last_at, value, limit_value, suppressed_by, area)"
        " values (%(subject)s, %(kind)s, %(priority)s, %(state)s, %(detail)s, %(at)s, %(at)s, %(value)s, %(limit)s, %(by)s,"
        " coalesce((select parent_id from meter where meter_id = %(subject)s),"
        " case when position('/' in %(subject)s) > 0 then %(subject)s else '' end))"
        f" returning {_CHANGE}",
        {
            **dataclasses.asdict(item),
            "priority": kind.priority if priority is None else priority,
            "state": standing.state,
            "detail": item.detail[:DETAIL_MAX],
            "by": hidden[0],
        },
    ).fetchone()
    assert row is not None
    note_transition(conn, row[0], None, standing.state, (item.at, SYSTEM, item.detail))
    return AlarmChange(*row)


# -- transitions -----------------------------------------------------------------------------------------------------


def fetch_open(conn: psycopg.Connection[Any], subject: str, kind: str) -> Open | None:
    """Return the open alarm of a subject and kind, locked."""
    return (
        conn.cursor(row_factory=class_row(Open))
        .execute(
            f"select {OPEN_COLUMNS} from alarm where subject = %s and kind = %s and state <> 'cleared' for update",
            (subject, kind),
        )
        .fetchone()
    )


def _change(
    conn: psycopg.Connection[Any], standing: Open, event: Event, at: dt.datetime, who: str, why: str
) -> AlarmChange | None:
    return change_standing(
        conn, standing, after(standing.standing, event, is_latched=is_latched(standing)), (at, who, why)
    )


def is_latched(alarm: Open) -> bool:
    """Return whether an alarm stays until a person resets it; a kind that is gone from the catalogue does not."""
    return alarm.kind in KINDS and KINDS[alarm.kind].is_latched


def change_standing(
    conn: psycopg.Connection[Any], before: Open, now: Standing, cause: tuple[dt.datetime, str, str]
) -> AlarmChange | None:
    """Write where an alarm stands now, with its transition; None when nothing changed.

    Args:
        conn: In a transaction that holds the alarm's row.
        before: The alarm as it stood.
        now: Where it stands.
        cause: When, who, why.
    """
    if now == before.standing:
        return None
    at = cause[0]
    row = conn.execute(
        "update alarm set state = %(state)s, is_acknowledged = %(acked)s, is_one_shot = %(one_shot)s,"
        " cleared_at = case when %(active)s then null else coalesce(cleared_at, greatest(%(at)s, raised_at)) end,"
        " shelved_until = case when %(state)s = 'shelved' then shelved_until end,"
        " suppressed_by = case when %(state)s = 'suppressed' then suppressed_by end,"
        " re_alarm_at = case when %(state)s = 'acknowledged' then re_alarm_at end"
        f" where alarm_id = %(alarm_id)s returning {_CHANGE}",
        {
            "state": now.state,
            "acked": now.is_acknowledged,
            "one_shot": now.is_one_shot,
            "active": now.is_active,
            "at": at,
            "alarm_id": before.alarm_id,
        },
    ).fetchone()
    assert row is not None
    note_transition(conn, before.alarm_id, before.state, now.state, cause)
    return AlarmChange(*row)


def note_transition(
    conn: psycopg.Connection[Any], alarm_id: int, state: str | None, now: str, cause: tuple[dt.datetime, str, str]
) -> None:
    """Keep who changed an alarm, when and why; mark one that changes again and again."""
    conn.execute(
        "insert into alarm_transition (alarm_id, from_state, to_state, at, who, why) values (%s, %s, %s, %s, %s, %s)",
        (alarm_id, state, now, *cause[:2], cause[2][:DETAIL_MAX]),
    )
    if cause[1] == SYSTEM:
        conn.execute(
            "update alarm set chattering_at = %(at)s where alarm_id = %(id)s and (select count(*) from alarm_transition"
            " where alarm_id = %(id)s and who = %(who)s and at > %(at)s - %(s)s * interval '1 second' and at <= %(at)s) >= %(n)s",
            {"at": cause[0], "id": alarm_id, "who": SYSTEM, "s": CHATTERING_S, "n": CHATTERING_CHANGES},
        )


# -- timers ----------------------------------------------------------------------------------------------------------


def tick(
    conn: psycopg.Connection[Any], at: dt.datetime, clear_after_s: Mapping[str, int] | None = None
) -> list[AlarmChange]:
    """Do what time brings, in the caller's transaction: delays, events without an end, re-alarms, ends of shelves.

    Args:
        conn: In a transaction.
        at: Now, by the clock that the path itself has (a watermark), so that a replay does the same.
        clear_after_s: Instead of the catalogue's, by kind.
    """
    changes = [*_end_delays(conn, at), *_expire(conn, at, clear_after_s or {}), *_ask_again(conn, at)]
    return [*changes, *_end_shelves(conn, at), *_end_out_of_service(conn, at)]


def _end_delays(conn: psycopg.Connection[Any], at: dt.datetime) -> list[AlarmChange]:
    rows = conn.execute(
        "select subject, kind, is_active, due_at, detail, value, limit_value from alarm_condition where due_at <= %s"
        " order by due_at, subject, kind limit %s for update",
        (at, TICK_MAX),
    ).fetchall()
    changes = []
    for subject, kind, is_active, due_at, detail, value, limit in rows:
        conn.execute("update alarm_condition set due_at = null where subject = %s and kind = %s", (subject, kind))
        standing = fetch_open(conn, subject, kind)
        if is_active and kind in KINDS:
            item = Condition(subject, kind, is_active=True, at=due_at, detail=detail, value=value, limit=limit)
            changes.append(_raise(conn, item, KINDS[kind], standing, None))
        elif standing is not None and not is_active:
            changes.append(_change(conn, standing, Event.RETURN, due_at, SYSTEM, detail))
    return [change for change in changes if change is not None]


def _expire(conn: psycopg.Connection[Any], at: dt.datetime, other_s: Mapping[str, int]) -> list[AlarmChange]:
    limits = {kind.kind: kind.clear_after_s for kind in KINDS.values() if kind.clear_after_s} | dict(other_s)
    rows = conn.execute(
        "select subject, kind, last_at from alarm where cleared_at is null and kind = any(%s) order by last_at limit %s",
        (list(limits), TICK_MAX),
    ).fetchall()
    old = [row for row in rows if at - row[2] > dt.timedelta(seconds=limits[row[1]])]
    why = "no further event for {} s"
    changes = [clear_alarm(conn, subject, kind, at, why.format(limits[kind])) for subject, kind, _ in old]
    return [change for change in changes if change is not None]


def _ask_again(conn: psycopg.Connection[Any], at: dt.datetime) -> list[AlarmChange]:
    return _timer(conn, "re_alarm_at <= %s and state = 'acknowledged'", at, Event.RE_ALARM, "it still stands")


def _end_shelves(conn: psycopg.Connection[Any], at: dt.datetime) -> list[AlarmChange]:
    return _timer(conn, "shelved_until <= %s and state = 'shelved'", at, Event.UNSHELVE, "the shelf's time is over")


def _end_out_of_service(conn: psycopg.Connection[Any], at: dt.datetime) -> list[AlarmChange]:
    conn.execute("delete from alarm_out_of_service where until <= %s", (at,))
    where = (
        "state = 'out_of_service' and raised_at <= %s and not exists (select from alarm_out_of_service o"
        " where o.subject = alarm.subject and o.kind = alarm.kind)"
    )
    return _timer(conn, where, at, Event.PUT_BACK, "the time out of service is over")


def _timer(conn: psycopg.Connection[Any], where: str, at: dt.datetime, event: Event, why: str) -> list[AlarmChange]:
    rows = (
        conn.cursor(row_factory=class_row(Open))
        .execute(
            f"select {OPEN_COLUMNS} from alarm where {where} order by alarm_id limit %s for update", (at, TICK_MAX)
        )
        .fetchall()
    )
    return [change for row in rows if (change := _change(conn, row, event, at, SYSTEM, why)) is not None]


def fetch_active(conn: psycopg.Connection[Any], kind: str) -> list[tuple[str, dt.datetime]]:
    """Return subject and time of the last occurrence of the alarms of a kind whose condition holds."""
    return conn.execute("select subject, last_at from alarm where kind = %s and cleared_at is null", (kind,)).fetchall()


def fetch_alarms(
    conn: psycopg.Connection[Any], *, active: bool | None = None, limit: int = 200
) -> list[dict[str, Any]]:
    """Return alarms, active ones first, then the newest."""
    where = "" if active is None else f"where cleared_at is {'null' if active else 'not null'}"
    with conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(
            f"select {_COLUMNS}, last_at, occurrences from alarm {where}"
            " order by cleared_at is not null, priority, raised_at desc limit %s",
            (min(limit, ALARMS_LISTED_MAX),),
        ).fetchall()


def fetch_open_alarms(conn: psycopg.Connection[Any], limit: int) -> list[dict[str, Any]]:
    """Return the alarms that need someone: active ones, then those that returned and nobody acknowledged.

    Unacknowledged first, then by priority, then the newest; none that is shelved, suppressed or out of service.
    """
    with conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(
            f"select {_COLUMNS}, last_at, occurrences from alarm"
            " where state in ('unacknowledged', 'acknowledged', 'returned')"
            " order by cleared_at is not null, state <> 'unacknowledged', priority, raised_at desc, alarm_id desc limit %s",
            (min(limit, ALARMS_LISTED_MAX),),
        ).fetchall()


def count_alarms(conn: psycopg.Connection[Any]) -> dict[int, tuple[int, int]]:
    """Return, by priority, how many alarms stand unacknowledged, and how many stand; none that is hidden."""
    rows = conn.execute(
        "select p, count(alarm_id) filter (where state = 'unacknowledged'), count(alarm_id)"
        " from generate_series(1, 4) p left join alarm on priority = p and cleared_at is null"
        " and state in ('unacknowledged', 'acknowledged') group by p order by p"
    ).fetchall()
    return {priority: (unacknowledged, active) for priority, unacknowledged, active in rows}
