"""Receivers of messages about alarms, their rules, and what was sent; every change is in the audit trail."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row

from metering.notification import Rule
from storage.audit import write_audit


class ReceiverError(ValueError):
    """What is asked for cannot be; the message says why."""


def add_receiver(conn: psycopg.Connection[Any], who: str, receiver_id: str, values: Mapping[str, Any]) -> None:
    """Add a receiver; its address was checked.

    Raises:
        ReceiverError: It is there, or its values are not fit.
    """
    try:
        with conn.transaction():
            conn.execute(
                "insert into receiver (receiver_id, channel, address, secret, language, rate_max_per_hour)"
                " values (%(id)s, %(channel)s, %(address)s, %(secret)s, %(language)s, %(rate_max)s)",
                {"id": receiver_id, **values},
            )
            write_audit(conn, who, "receiver.add", f"receiver {receiver_id}", {"channel": values["channel"]})
    except psycopg.errors.UniqueViolation:
        raise ReceiverError(f"receiver {receiver_id} is there already") from None
    except psycopg.errors.CheckViolation:
        raise ReceiverError("the id has letters, digits and ._- only, and a webhook needs a secret") from None


def remove_receiver(conn: psycopg.Connection[Any], who: str, receiver_id: str) -> None:
    """Tell a receiver nothing more; what was sent to it is kept."""
    with conn.transaction():
        number = receiver_no(conn, receiver_id)
        conn.execute("update receiver set is_active = false where receiver_no = %s", (number,))
        write_audit(conn, who, "receiver.remove", f"receiver {receiver_id}")


def receiver_no(conn: psycopg.Connection[Any], receiver_id: str) -> int:
    """Return the number of an active receiver.

    Raises:
        ReceiverError: There is none.
    """
    row = conn.execute(
        "select receiver_no from receiver where receiver_id = %s and is_active", (receiver_id,)
    ).fetchone()
    if row is None:
        raise ReceiverError(f"no receiver {receiver_id}")
    return int(row[0])


def add_rule(
    conn: psycopg.Connection[Any], who: str, receiver_id: str, rule: Rule, escalation: tuple[int, str] | None
) -> int:
    """Add a rule; `escalation` is after how many seconds, and to whom. Return its number."""
    with conn.transaction():
        after_s, to = (escalation[0], receiver_no(conn, escalation[1])) if escalation else (None, None)
        row = conn.execute(
            "insert into notification_rule (receiver_no, kinds, priority_max, area, events, weekdays, from_time,"
            " until_time, zone, escalate_after_s, escalate_to) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " returning rule_no",
            (
                receiver_no(conn, receiver_id), list(rule.kinds), rule.priority_max, rule.area, list(rule.events),
                list(rule.weekdays), rule.from_time, rule.until_time, rule.zone, after_s, to,
            ),
        ).fetchone()  # fmt: skip
        assert row is not None
        write_audit(conn, who, "rule.add", f"rule {row[0]}", {"receiver": receiver_id})
        return int(row[0])


def remove_rule(conn: psycopg.Connection[Any], who: str, rule_no: int) -> None:
    """End a rule."""
    _change(conn, "update notification_rule set is_active = false where rule_no = %s and is_active", rule_no, "rule")
    write_audit(conn, who, "rule.remove", f"rule {rule_no}")


def retry(conn: psycopg.Connection[Any], who: str, number: int, at: dt.datetime) -> None:
    """Try a message that has failed again from the beginning, with its old id."""
    statement = (
        "update notification set state = 'waiting', attempts = 0, first_try_at = null, next_try_at = now()"
        " where notification_no = %s and state = 'failed'"
    )
    _change(conn, statement, number, "failed message")
    write_audit(conn, who, "notification.retry", f"notification {number}", {"at": at})


def _change(conn: psycopg.Connection[Any], statement: str, number: int, what: str) -> None:
    if conn.execute(statement, (number,)).rowcount == 0:
        raise ReceiverError(f"no {what} {number}")


def fetch(conn: psycopg.Connection[Any], what: str, state: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """Return receivers (without secrets), rules or messages."""
    return conn.cursor(row_factory=dict_row).execute(_LISTS[what], {"state": state, "limit": limit}).fetchall()


_LISTS = {
    "receivers": "select receiver_id, channel, address, language, rate_max_per_hour from receiver where is_active"
    " order by receiver_id limit %(limit)s",
    "rules": "select rule_no, receiver_id, kinds, priority_max, area, events, weekdays, from_time, until_time, zone,"
    " escalate_after_s from notification_rule n join receiver r using (receiver_no) where n.is_active order by 1 limit %(limit)s",
    "messages": "select notification_no, receiver_id, state, step, attempts, planned_at, next_try_at, sent_at, last_error"
    " from notification join receiver using (receiver_no) where state = coalesce(%(state)s, state) order by 1 desc limit %(limit)s",
}
