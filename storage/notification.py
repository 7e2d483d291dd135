"""Messages about alarms: planned once from the transitions, taken one after the other, and what became of them."""

import dataclasses
import datetime as dt
from typing import Any

import psycopg
from psycopg.rows import class_row

from metering.notification import EVENTS, Change, Rule, matches, next_try

PLANNED_MAX = 1000
"""Transitions at once; the next plan goes on."""
LEASE_S = 120
"""A message that was taken and of which nothing more was heard is sent again after so long, with the same id."""
ERROR_MAX = 500


@dataclasses.dataclass(frozen=True)
class Message:
    """A message to be sent; the same at every attempt."""

    notification_no: int
    idempotency_id: str
    receiver_no: int
    channel: str
    address: str
    secret: str | None = dataclasses.field(repr=False)
    language: str
    step: int
    attempts: int
    first_try_at: dt.datetime
    alarm_id: int | None
    subject: str
    kind: str
    priority: int
    area: str
    state: str
    at: dt.datetime
    why: str
    more: int = 0
    """Of a summary: how many alarms the hour's limit held back."""

    def to_json(self) -> dict[str, Any]:
        """Return what a machine is told."""
        told = {"id": self.idempotency_id, "at": self.at.isoformat()}
        if self.alarm_id is None:
            return {**told, "type": "summary", "more": self.more}
        event = next((event for event, state in EVENTS.items() if state == self.state), self.state)
        named = ("alarm_id", "subject", "kind", "priority", "area", "state", "why")
        return {
            **told, "type": "alarm", "event": event, "is_escalation": self.step == 1,
            **{name: getattr(self, name) for name in named},
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _RuleRow:
    receiver_no: int
    kinds: list[str]
    priority_max: int
    area: str
    events: list[str]
    weekdays: list[int]
    from_time: dt.time
    until_time: dt.time
    zone: str
    escalate_after_s: int | None
    escalate_to: int | None
    transaction_id: str

    @property
    def rule(self) -> Rule:
        return Rule(
            self.kinds, self.priority_max, self.area, self.events, self.weekdays, self.from_time, self.until_time, self.zone
        )  # fmt: skip


# -- planning --------------------------------------------------------------------------------------------------------


def plan(conn: psycopg.Connection[Any], at: dt.datetime) -> int:
    """Plan messages of the transitions that were not looked at; return how many transitions were. Own transaction."""
    with conn.transaction():
        cursor = conn.execute(
            "select transaction_id::text, alarm_transition_id, transaction_id >= pg_snapshot_xmax(pg_current_snapshot())"
            " from notification_cursor for update"
        ).fetchone()
        assert cursor is not None
        if cursor[2]:
            cursor = _after_restore(conn, cursor[1])
        rows = conn.execute(
            "select t.transaction_id::text, t.alarm_transition_id, a.kind, a.priority, a.area, t.to_state"
            " from alarm_transition t join alarm a using (alarm_id)"
            " where (t.transaction_id, t.alarm_transition_id) > (%s::xid8, %s)"
            " and t.transaction_id < pg_snapshot_xmin(pg_current_snapshot())"
            " order by t.transaction_id, t.alarm_transition_id limit %s",
            (cursor[0], cursor[1], PLANNED_MAX),
        ).fetchall()
        if not rows:
            return 0
        rules = _fetch_rules(conn)
        for transaction_id, transition_id, *change in rows:
            for rule in rules:
                if int(rule.transaction_id) <= int(transaction_id) and matches(rule.rule, Change(*change), at):
                    _plan_one(conn, transition_id, rule, change[3], at)
        conn.execute("update notification_cursor set transaction_id = %s::xid8, alarm_transition_id = %s", rows[-1][:2])
        return len(rows)


def _after_restore(conn: psycopg.Connection[Any], transition_id: int) -> tuple[str, int, bool]:
    """Go on in a database that was restored into another server, whose transactions count from the beginning."""
    for table in ("alarm_transition", "notification_rule"):
        conn.execute(
            f"update {table} set transaction_id = '3' where transaction_id >= pg_snapshot_xmax(pg_current_snapshot())"
        )
    return "3", transition_id, False


def _fetch_rules(conn: psycopg.Connection[Any]) -> list[_RuleRow]:
    names = ", ".join(field.name for field in dataclasses.fields(_RuleRow) if field.name != "transaction_id")
    return (
        conn.cursor(row_factory=class_row(_RuleRow))
        .execute(f"select {names}, transaction_id::text from notification_rule where is_active order by rule_no")
        .fetchall()
    )


def _plan_one(conn: psycopg.Connection[Any], transition_id: int, rule: _RuleRow, state: str, at: dt.datetime) -> None:
    steps = [(rule.receiver_no, 0, at)]
    if rule.escalate_after_s is not None and rule.escalate_to is not None and state == EVENTS["raised"]:
        steps.append((rule.escalate_to, 1, at + dt.timedelta(seconds=rule.escalate_after_s)))
    for receiver_no, step, due in steps:
        conn.execute(
            "insert into notification (alarm_transition_id, receiver_no, step, planned_at, next_try_at)"
            " select %s, receiver_no, %s, %s, %s from receiver where receiver_no = %s and is_active"
            " on conflict (alarm_transition_id, receiver_no, step) do nothing",
            (transition_id, step, at, due, receiver_no),
        )


# -- sending ---------------------------------------------------------------------------------------------------------

_DUE = """
select distinct on (n.receiver_no) n.notification_no
from notification n join receiver r using (receiver_no)
where n.state = 'waiting' and n.next_try_at <= %s and r.is_active
order by n.receiver_no, n.next_try_at, n.notification_no
"""
_MESSAGE = """
select n.notification_no, n.idempotency_id::text, n.receiver_no, r.channel, r.address, r.secret, r.language, n.step, n.attempts,
       n.first_try_at, a.alarm_id, coalesce(a.subject, '') as subject, coalesce(a.kind, '') as kind,
       coalesce(a.priority, 0) as priority, coalesce(a.area, '') as area, coalesce(t.to_state, '') as state,
       coalesce(t.at, n.summary_hour) as at, coalesce(t.why, '') as why,
       (select count(*)::int from notification h where h.receiver_no = n.receiver_no and h.state = 'held'
        and h.charged_hour = n.summary_hour) as more
from notification n join receiver r using (receiver_no)
left join alarm_transition t using (alarm_transition_id) left join alarm a using (alarm_id)
where n.notification_no = %s
"""


def take(conn: psycopg.Connection[Any], at: dt.datetime, limit: int = 8) -> list[Message]:
    """Take what is due, at most one a receiver; what its hour's limit does not let go is held. Own transactions."""
    due = [row[0] for row in conn.execute(f"{_DUE} limit %s", (at, limit)).fetchall()]
    return [message for number in due if (message := _take_one(conn, number, at)) is not None]


def _take_one(conn: psycopg.Connection[Any], number: int, at: dt.datetime) -> Message | None:
    with conn.transaction():
        row = conn.execute(
            "select n.receiver_no, n.alarm_transition_id, n.step, n.charged_hour, n.summary_hour, r.rate_max_per_hour"
            " from notification n join receiver r using (receiver_no)"
            " where n.notification_no = %s and n.state = 'waiting' and n.next_try_at <= %s for update skip locked",
            (number, at),
        ).fetchone()
        if row is None:
            return None
        receiver_no, transition_id, step, charged, summary_hour, rate_max = row
        if step == 1 and not _is_unheard(conn, transition_id):
            conn.execute("update notification set state = 'cancelled' where notification_no = %s", (number,))
            return None
        hour = at.replace(minute=0, second=0, microsecond=0)
        if charged is None and summary_hour is None and _is_over(conn, receiver_no, hour, rate_max):
            _hold(conn, number, receiver_no, hour, at)
            return None
        conn.execute(
            "update notification set attempts = attempts + 1, first_try_at = coalesce(first_try_at, %(at)s),"
            " next_try_at = %(lease)s, charged_hour = case when summary_hour is null then coalesce(charged_hour, %(hour)s) end"
            " where notification_no = %(number)s",
            {"at": at, "lease": at + dt.timedelta(seconds=LEASE_S), "hour": hour, "number": number},
        )
        return conn.cursor(row_factory=class_row(Message)).execute(_MESSAGE, (number,)).fetchone()


def _is_over(conn: psycopg.Connection[Any], receiver_no: int, hour: dt.datetime, rate_max: int) -> bool:
    row = conn.execute(
        "select count(*) from notification where receiver_no = %s and charged_hour = %s and state <> 'held'",
        (receiver_no, hour),
    ).fetchone()
    return row is not None and row[0] >= rate_max


def _hold(conn: psycopg.Connection[Any], number: int, receiver_no: int, hour: dt.datetime, at: dt.datetime) -> None:
    """Hold a message back; one summary, at the hour's end, says how many there were."""
    conn.execute("update notification set state = 'held', charged_hour = %s where notification_no = %s", (hour, number))
    conn.execute(
        "insert into notification (receiver_no, summary_hour, planned_at, next_try_at) values (%s, %s, %s, %s)"
        " on conflict (receiver_no, summary_hour) do nothing",
        (receiver_no, hour, at, hour + dt.timedelta(hours=1)),
    )


def _is_unheard(conn: psycopg.Connection[Any], transition_id: int) -> bool:
    """Return whether nobody has acknowledged an alarm, or put it aside, since a transition."""
    row = conn.execute(
        "select from alarm a join alarm_transition t using (alarm_id) where t.alarm_transition_id = %s"
        " and a.state in ('unacknowledged', 'returned') and not a.is_acknowledged"
        " and not exists (select from alarm_transition l where l.alarm_id = a.alarm_id"
        " and l.alarm_transition_id > t.alarm_transition_id and l.to_state in ('acknowledged', 'cleared'))",
        (transition_id,),
    ).fetchone()
    return row is not None


def mark_sent(conn: psycopg.Connection[Any], message: Message, at: dt.datetime) -> None:
    """Note that a message has arrived."""
    conn.execute(
        "update notification set state = 'sent', sent_at = %s, last_error = '' where notification_no = %s",
        (at, message.notification_no),
    )


def mark_failed(
    conn: psycopg.Connection[Any], message: Message, error: str, at: dt.datetime, *, is_final: bool = False
) -> None:
    """Note that an attempt has failed: it is tried again later, or has failed for good."""
    due = None if is_final else next_try(message.attempts, message.first_try_at, at)
    conn.execute(
        "update notification set state = %s, next_try_at = coalesce(%s, next_try_at), last_error = %s"
        " where notification_no = %s and state = 'waiting'",
        ("failed" if due is None else "waiting", due, error[:ERROR_MAX], message.notification_no),
    )
