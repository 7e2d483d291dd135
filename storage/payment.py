"""Payments, open items, and whether bills are paid or overdue: money is set off against the oldest items first."""

import csv
import dataclasses
import datetime as dt
import io
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import psycopg

from storage.audit import write_audit

FILE_ROWS_MAX = 100_000
FAULTS_MAX = 200
HEADER = ("account", "amount", "on", "reference")


class PaymentError(ValueError):
    """A payment cannot be recorded; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Payment:
    """Money received."""

    account_id: str
    amount: Decimal
    received_on: dt.date
    reference: str


@dataclasses.dataclass(frozen=True)
class OpenItem:
    """A bill with what is still open of it."""

    bill_id: int
    bill_no: str
    kind: str
    state: str
    due_on: dt.date
    total: Decimal
    open: Decimal
    corrects: int | None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of a statement."""

    on: dt.date
    what: str
    """``invoice``, ``credit_note``, ``adjustment``, ``payment``."""
    reference: str
    amount: Decimal
    """What the customer owes more, or less."""
    balance: Decimal


def record_payment(conn: psycopg.Connection[Any], payment: Payment, who: str, today: dt.date) -> int:
    """Record a payment, set it off, and return its number.

    Raises:
        PaymentError: No such account, no amount, no reference, or the reference is there already.
    """
    if not payment.reference.strip():
        raise PaymentError("a payment needs the reference of the bank: give --reference")
    if payment.amount == 0 or not payment.amount.is_finite():
        raise PaymentError("a payment needs an amount")
    with conn.transaction():
        account_no, currency = account_of(conn, payment.account_id)
        row = conn.execute(
            "insert into payment (account_no, received_on, amount, currency, reference, entered_by)"
            " values (%s, %s, %s, %s, %s, %s) on conflict (account_no, reference) do nothing returning payment_no",
            (account_no, payment.received_on, payment.amount, currency, payment.reference, who),
        ).fetchone()
        if row is None:
            raise PaymentError(
                f"account {payment.account_id} has a payment with reference {payment.reference!r} already"
            )
        detail = {**dataclasses.asdict(payment), "payment_no": row[0]}
        write_audit(conn, who, "payment.record", f"account {payment.account_id}", detail)
        refresh_states(conn, [account_no], today)
    return int(row[0])


def account_of(conn: psycopg.Connection[Any], account_id: str, *, lock: bool = True) -> tuple[int, str]:
    """Return number and currency of an account, its row locked against other payments until the transaction ends.

    Raises:
        PaymentError: There is none of that id.
    """
    row = conn.execute(
        "select account_no, currency from account where account_id = %s" + " for no key update" * lock, (account_id,)
    ).fetchone()
    if row is None:
        raise PaymentError(f"no account {account_id!r}")
    return int(row[0]), str(row[1])


def parse_payments(text: str) -> tuple[list[Payment], list[str]]:
    """Return the payments of a CSV text with the header ``account,amount,on,reference``, and every fault with its line."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")))
    header = next(reader, [])
    if tuple(name.strip() for name in header) != HEADER:
        return [], [f"line 1: expected the header {','.join(HEADER)}"]
    found, faults, seen = [], [], dict[tuple[str, str], int]()
    for row in reader:
        line = reader.line_num
        if not row:
            continue
        if line > FILE_ROWS_MAX + 1:
            faults.append(f"line {line}: more than {FILE_ROWS_MAX} payments: split the file")
            break
        try:
            payment = _parse_row(row)
        except ValueError as error:
            faults.append(f"line {line}: {error}")
            continue
        key = (payment.account_id, payment.reference)
        if key in seen:
            faults.append(f"line {line}, reference: {payment.reference!r} is on line {seen[key]} already")
        seen.setdefault(key, line)
        found.append(payment)
    return found, faults[:FAULTS_MAX]


def _parse_row(row: Sequence[str]) -> Payment:
    if len(row) != len(HEADER):
        raise ValueError(f"{len(row)} fields, expected {len(HEADER)}")
    account_id, amount, on, reference = (value.strip() for value in row)
    try:
        money = Decimal(amount)
    except InvalidOperation:
        raise ValueError(f"amount: {amount!r} is no decimal number") from None
    if not money.is_finite() or money == 0:
        raise ValueError(f"amount: {amount!r} is no amount of money")
    try:
        day = dt.date.fromisoformat(on)
    except ValueError:
        raise ValueError(f"on: {on!r} is no date such as 2026-11-25") from None
    if not account_id or not reference:
        raise ValueError("account and reference have to be given")
    return Payment(account_id, money, day, reference)


def import_payments(
    conn: psycopg.Connection[Any], payments: Sequence[Payment], who: str, today: dt.date, *, dry_run: bool
) -> list[str]:
    """Record all payments of a file, or none of them when any has a fault; return the faults.

    Args:
        conn: Connection.
        payments: Of `parse_payments`.
        who: Name of the clerk.
        today: Local day, for what is overdue.
        dry_run: Only look for faults.
    """
    faults = []
    with conn.transaction() as transaction:
        for number, payment in enumerate(payments, 2):
            try:
                record_payment(conn, payment, who, today)
            except PaymentError as error:
                faults.append(f"payment {number - 1}: {error}")
                if len(faults) >= FAULTS_MAX:
                    break
        if faults or dry_run:
            raise psycopg.Rollback(transaction)
    return faults


def open_items(
    conn: psycopg.Connection[Any], account_no: int, known_at: dt.datetime | None = None
) -> tuple[list[OpenItem], Decimal]:
    """Return the bills of an account with what is open of each, oldest first, and its balance.

    What is in the customer's favour (credit notes, negative bills, payments) is set off: a credit note against the bill that
    it is for, the rest against the oldest open items. The balance is what the customer owes; negative, what is owed to them.
    With `known_at` only what was issued and entered by then is there.
    """
    rows = conn.execute(
        "select bill_id, bill_no, kind, state, coalesce(due_on, start_on), total, corrects from bill"
        " where account_no = %s and bill_no is not null and issued_at <= coalesce(%s::timestamptz, 'infinity')"
        " order by issued_at, bill_id",
        (account_no, known_at),
    ).fetchall()
    paid = conn.execute(
        "select coalesce(sum(amount), 0) from payment where account_no = %s"
        " and entered_at <= coalesce(%s::timestamptz, 'infinity')",
        (account_no, known_at),
    ).fetchone()
    assert paid is not None
    rest = {row[0]: row[5] for row in rows}
    for row in rows:
        if rest[row[0]] < 0 and row[6] in rest and rest[row[6]] > 0:
            used = min(-rest[row[0]], rest[row[6]])
            rest[row[0]] += used
            rest[row[6]] -= used
    credit = Decimal(paid[0]) - sum((value for value in rest.values() if value < 0), Decimal(0))
    items = []
    for row in sorted(rows, key=lambda row: (row[4], row[0])):
        value = max(rest[row[0]], Decimal(0))
        used = max(min(value, credit), Decimal(0))
        credit -= used
        bill_id, bill_no, kind, state, due_on, total, corrects = row
        items.append(OpenItem(bill_id, bill_no, kind, state, due_on, total, value - used, corrects))
    balance = sum((row[5] for row in rows), Decimal(0)) - Decimal(paid[0])
    return items, balance


def refresh_states(conn: psycopg.Connection[Any], account_nos: Sequence[int], today: dt.date) -> int:
    """Bring the states of issued bills of accounts up to date: paid, overdue, or neither; return how many changed."""
    changed = 0
    for account_no in account_nos:
        items, _ = open_items(conn, account_no)
        for item in items:
            if item.state == "cancelled":
                continue
            if item.open == 0:
                state = "paid"
            elif item.due_on < today:
                state = "overdue"
            else:
                state = item.state if item.state in ("issued", "sent") else "sent"
            if state != item.state:
                changed += conn.execute(
                    "update bill set state = case when %(state)s = 'sent' and sent_at is null then 'issued' else %(state)s end"
                    " where bill_id = %(id)s",
                    {"state": state, "id": item.bill_id},
                ).rowcount
    return changed


def refresh_overdue(conn: psycopg.Connection[Any], today: dt.date) -> int:
    """Mark what is unpaid and due before a day as overdue; return how many bills that were.

    Payments and issues keep `paid` up to date, so what is still issued or sent is open.
    """
    return conn.execute(
        "update bill set state = 'overdue' where state in ('issued', 'sent') and due_on < %s and total > 0", (today,)
    ).rowcount


def statement(
    conn: psycopg.Connection[Any], account_id: str, from_on: dt.date | None, to_on: dt.date | None
) -> tuple[Decimal, list[Entry]]:
    """Return the balance of an account before a day, and every bill and payment from it until another.

    Raises:
        PaymentError: There is no such account.
    """
    account_no, _ = account_of(conn, account_id, lock=False)
    rows = conn.execute(
        "select (document ->> 'issued_on')::date as on, kind, bill_no, total, 0, bill_id from bill"
        " where account_no = %(no)s and bill_no is not null"
        " union all select received_on, 'payment', reference, -amount, 1, payment_no from payment where account_no = %(no)s"
        " order by 1, 5, 6",
        {"no": account_no},
    ).fetchall()
    opening = sum((row[3] for row in rows if from_on and row[0] < from_on), Decimal(0))
    balance, entries = opening, []
    for on, what, reference, amount, *_ in rows:
        if (from_on and on < from_on) or (to_on and on >= to_on):
            continue
        balance += amount
        entries.append(Entry(on, what, reference, amount, balance))
    return opening, entries
