"""The audit trail: who changed what, when and why. Rows are only ever added."""

import json
from collections.abc import Mapping
from typing import Any

import psycopg


def write_audit(
    conn: psycopg.Connection[Any], who: str, action: str, subject: str, detail: Mapping[str, Any] | None = None
) -> None:
    """Note a change, in the transaction that makes it.

    Args:
        conn: In the transaction of the change.
        who: Name of the user.
        action: What was done, such as ``bill.issue``.
        subject: To what, such as ``bill 2026-000123`` or ``account A-17``.
        detail: Anything more; decimals and dates are written as text.

    Raises:
        ValueError: Nobody is named.
    """
    if not who.strip():
        raise ValueError("a change needs the name of who makes it: give --as NAME")
    conn.execute(
        "insert into audit (who, action, subject, detail) values (%s, %s, %s, %s)",
        (who, action, subject, json.dumps(dict(detail or {}), default=str, ensure_ascii=False)),
    )


def fetch_audit(conn: psycopg.Connection[Any], subject: str, limit: int = 200) -> list[dict[str, Any]]:
    """Return what was done to a subject, newest first; a name without its kind finds every kind of that name."""
    rows = conn.execute(
        "select audit_no, at, who, action, subject, detail from audit"
        " where subject = %(subject)s or split_part(subject, ' ', 2) = %(subject)s order by audit_no desc limit %(limit)s",
        {"subject": subject, "limit": limit},
    ).fetchall()
    names = ("audit_no", "at", "who", "action", "subject", "detail")
    return [dict(zip(names, row, strict=True)) for row in rows]
