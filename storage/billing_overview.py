"""What pages about bills and accounts read beside the bills themselves."""

import datetime as dt
from typing import Any

import psycopg
from psycopg.rows import dict_row

ROWS_MAX = 200


def fetch_state_counts(conn: psycopg.Connection[Any]) -> dict[str, int]:
    """Return how many bills are in each state."""
    return {row[0]: int(row[1]) for row in conn.execute("select state, count(*) from bill group by 1").fetchall()}


def fetch_account(conn: psycopg.Connection[Any], account_id: str) -> dict[str, Any] | None:
    """Return an account with its customer, or None."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select a.account_no, a.account_id, a.class, a.currency, u.customer_id, u.name, u.postal_address, u.email"
            " from account a join customer u using (customer_no) where a.account_id = %s",
            (account_id,),
        ).fetchone()


def fetch_payments(conn: psycopg.Connection[Any], account_no: int, limit: int = 20) -> list[dict[str, Any]]:
    """Return the newest payments of an account."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select received_on, amount, currency, reference from payment where account_no = %s"
            " order by received_on desc, payment_no desc limit %s",
            (account_no, limit),
        ).fetchall()


def fetch_charge_changes(
    conn: psycopg.Connection[Any], service_point_no: int, since: dt.datetime, limit: int = 8
) -> list[dict[str, Any]]:
    """Return what changed the running charge of a service point beside its next readings, newest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select at, reason, old_amount, new_amount, end_at, raw_partition, raw_offset, raw_index from charge_change"
            " where service_point_no = %s and at >= %s order by charge_change_no desc limit %s",
            (service_point_no, since, limit),
        ).fetchall()


def fetch_meters_at(conn: psycopg.Connection[Any], service_point_no: int) -> list[str]:
    """Return the meters of a service point, the present one first."""
    rows = conn.execute(
        "select m.meter_id from meter_assignment a join meter m using (meter_no) where a.service_point_no = %s"
        " order by a.start_at desc limit 10",
        (service_point_no,),
    ).fetchall()
    return [row[0] for row in rows]


def fetch_failed_deliveries(conn: psycopg.Connection[Any], limit: int = ROWS_MAX) -> list[dict[str, Any]]:
    """Return the deliveries that were given up, oldest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select d.delivery_no, d.bill_id, b.bill_no, d.channel, d.address, d.last_error from delivery d"
            " join bill b using (bill_id) where d.state = 'failed' order by d.delivery_no limit %s",
            (limit,),
        ).fetchall()


def fetch_hold_reasons(conn: psycopg.Connection[Any], bill_ids: list[int]) -> dict[int, list[str]]:
    """Return why bills are held, by bill: the reasons that nobody released."""
    found: dict[int, list[str]] = {}
    for bill_id, reason in conn.execute(
        "select bill_id, reason from bill_hold where bill_id = any(%s) and released_at is null order by 1, 2",
        (bill_ids,),
    ):
        found.setdefault(bill_id, []).append(reason)
    return found
