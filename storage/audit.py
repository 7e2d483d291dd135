"""The audit trail: who did what to what, append-only."""

import json
from collections.abc import Mapping
from typing import Any

import psycopg


def write_audit(conn: psycopg.Connection[Any], who: str, action: str, subject: str, detail: Mapping[str, Any]) -> None:
    """Write a row of the audit trail, in the caller's transaction.

    Args:
        conn: Connection; the change it tells of is in the same transaction.
        who: Name of the user.
        action: Such as ``contract.end``.
        subject: What was changed, as people name it.
        detail: JSON; dates and decimals become text.
    """
    conn.execute(
        "insert into audit (who, action, subject, detail) values (%s, %s, %s, %s)",
        (who, action, subject, json.dumps(detail, default=str, ensure_ascii=False)),
    )
