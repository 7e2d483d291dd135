"""Deliveries of bills: queued once, worked off one by one, tried again with back-off, listed; never lost.

A delivery is locked while it is under way and committed before the next begins: two senders never have the same one. Only a
sender that dies between the server's acceptance and our commit sends one again: at least once.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from storage.audit import write_audit
from storage.bill import BillError

ATTEMPTS_MAX = 6
BACK_OFF_FIRST = dt.timedelta(minutes=1)
BACK_OFF_FACTOR = 4
"""Tried again after 1, 4, 16, 64 and 256 minutes: in all over five hours."""
ERROR_CHARS_MAX = 500


class DeliveryError(Exception):
    """A bill could not be delivered."""

    def __init__(self, text: str, *, is_final: bool = False, is_server_down: bool = False) -> None:
        """Take what happened, whether trying again cannot help, and whether no other bill would get through now."""
        super().__init__(text)
        self.is_final = is_final
        self.is_server_down = is_server_down


@dataclasses.dataclass(frozen=True)
class Delivery:
    """A bill on its way."""

    delivery_no: int
    bill_no: str
    channel: str
    address: str
    attempts: int


def queue_deliveries(
    conn: psycopg.Connection[Any], *, who: str, bill_nos: Sequence[str] | None = None, bill_run_no: int | None = None
) -> dict[str, int]:
    """Queue deliveries of issued bills as their contracts say; return how many by channel, `again` those queued before.

    Args:
        conn: In autocommit.
        who: Name of the clerk.
        bill_nos: These bills.
        bill_run_no: Or the bills of a run.

    Raises:
        BillError: One of them is not issued, or there is none.
    """
    with conn.transaction():
        rows = conn.execute(
            "select b.bill_id, b.bill_no, c.delivery, u.email from bill b join contract c using (contract_no)"
            " join account a on a.account_no = b.account_no join customer u using (customer_no)"
            " where b.bill_no is not null and (b.bill_no = any(%(nos)s::text[]) or b.bill_run_no = %(run)s) order by b.bill_id",
            {"nos": list(bill_nos or ()), "run": bill_run_no},
        ).fetchall()
        if missing := sorted(set(bill_nos or ()) - {row[1] for row in rows}):
            raise BillError(f"no issued bill {missing[0]!r}: only issued bills are sent")
        counts = {"email": 0, "file": 0, "none": 0, "again": 0}
        for bill_id, bill_no, channel, email in rows:
            if channel == "none":
                counts["none"] += 1
                continue
            address = (email or "").strip() if channel == "email" else bill_no
            added = conn.execute(
                "insert into delivery (bill_id, channel, address, state, last_error) values (%s, %s, %s, %s, %s)"
                " on conflict (bill_id, channel, address) do nothing",
                (
                    bill_id,
                    channel,
                    address,
                    *(("queued", "") if address else ("failed", "the customer has no e-mail address")),
                ),
            ).rowcount
            counts[channel if added else "again"] += 1
        subject = f"run {bill_run_no}" if bill_run_no is not None else f"bill {', '.join(bill_nos or ())}"[:200]
        write_audit(conn, who, "bill.send", subject, counts)
    return counts


def deliver_next(
    conn: psycopg.Connection[Any],
    channels: Sequence[str],
    now: dt.datetime,
    send: Callable[[Delivery], None],
) -> tuple[Delivery, DeliveryError | None] | None:
    """Take the delivery that is due first, send it, and commit what came of it; None when none is due.

    Args:
        conn: In autocommit.
        channels: Only by these.
        now: Those that wait until later are left.
        send: Raises `DeliveryError`.
    """
    with conn.transaction():
        row = conn.execute(
            "select d.delivery_no, b.bill_no, d.channel, d.address, d.attempts, d.bill_id from delivery d"
            " join bill b using (bill_id) where d.state = 'queued' and d.next_attempt_at <= %s and d.channel = any(%s)"
            " order by d.next_attempt_at, d.delivery_no limit 1 for update of d skip locked",
            (now, list(channels)),
        ).fetchone()
        if row is None:
            return None
        delivery, bill_id = Delivery(*row[:5]), row[5]
        error = None
        try:
            send(delivery)
        except DeliveryError as failure:
            error = failure
            _failed(conn, delivery, failure, now)
        else:
            _sent(conn, delivery, bill_id)
    return delivery, error


def _sent(conn: psycopg.Connection[Any], delivery: Delivery, bill_id: int) -> None:
    conn.execute(
        "update delivery set state = 'sent', attempts = attempts + 1, last_error = '', sent_at = clock_timestamp()"
        " where delivery_no = %s",
        (delivery.delivery_no,),
    )
    conn.execute("select from bill where bill_id = %s for update", (bill_id,))  # deliveries of one bill end one by one
    conn.execute(
        "update bill set sent_at = coalesce(sent_at, clock_timestamp()),"
        " state = case state when 'issued' then 'sent' else state end"
        " where bill_id = %s and not exists (select from delivery d where d.bill_id = bill.bill_id and d.state <> 'sent')",
        (bill_id,),
    )


def _failed(conn: psycopg.Connection[Any], delivery: Delivery, error: DeliveryError, now: dt.datetime) -> None:
    tried = delivery.attempts + 1
    is_over = error.is_final or tried >= ATTEMPTS_MAX
    conn.execute(
        "update delivery set state = %s, attempts = %s, next_attempt_at = %s, last_error = %s where delivery_no = %s",
        (
            "failed" if is_over else "queued",
            tried,
            now + BACK_OFF_FIRST * BACK_OFF_FACTOR ** (tried - 1),
            str(error).replace("\0", " ")[:ERROR_CHARS_MAX],
            delivery.delivery_no,
        ),
    )


def retry_delivery(conn: psycopg.Connection[Any], delivery_no: int, *, who: str, now: dt.datetime) -> str:
    """Queue a delivery again from the first attempt, to the customer's present address; return its bill's number.

    Raises:
        BillError: There is none, it was sent already, or the customer still has no address.
    """
    with conn.transaction():
        row = conn.execute(
            "select d.state, d.channel, d.address, b.bill_no, u.email, d.bill_id from delivery d join bill b using (bill_id)"
            " join account a using (account_no) join customer u using (customer_no) where d.delivery_no = %s for update of d",
            (delivery_no,),
        ).fetchone()
        if row is None:
            raise BillError(f"no delivery {delivery_no}: `gridtally bill deliveries` lists them")
        state, channel, address, bill_no, email, bill_id = row
        if state == "sent":
            raise BillError(f"delivery {delivery_no} was sent already; `gridtally bill pdf {bill_no}` makes a copy")
        if channel == "email":
            address = (email or "").strip()
        if not address:
            raise BillError(f"the customer of bill {bill_no} has no e-mail address: enter one first")
        if conn.execute(
            "select from delivery where bill_id = %s and channel = %s and address = %s and delivery_no <> %s",
            (bill_id, channel, address, delivery_no),
        ).fetchone():
            raise BillError(f"bill {bill_no} has a delivery to {address} already: retry that one")
        conn.execute(
            "update delivery set state = 'queued', attempts = 0, next_attempt_at = %s, address = %s where delivery_no = %s",
            (now, address, delivery_no),
        )
        write_audit(
            conn, who, "bill.retry-delivery", f"bill {bill_no}", {"delivery_no": delivery_no, "address": address}
        )
    return str(bill_no)


def fetch_deliveries(conn: psycopg.Connection[Any], state: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """Return deliveries, newest first, of one state or all."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select d.delivery_no, b.bill_no, d.channel, d.address, d.state, d.attempts, d.next_attempt_at, d.last_error,"
            " d.created_at, d.sent_at from delivery d join bill b using (bill_id)"
            " where %(state)s::text is null or d.state = %(state)s order by d.delivery_no desc limit %(limit)s",
            {"state": state, "limit": limit},
        ).fetchall()
