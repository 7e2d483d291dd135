"""The books of bills without rating anything: totals, numbers, states, days, credit notes, payments and what is open."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from storage.second_known import Conn

LIMIT = 20


def book_findings(conn: Conn) -> tuple[list[str], str]:
    """Return what does not fit together among all issued bills and payments, and what was looked at."""
    checks: list[Callable[[Conn], list[str]]] = [
        _sums,
        _documents,
        _numbers,
        _stamps,
        _days,
        _credit_notes,
        _money_in,
        _open,
    ]
    findings = [finding for check in checks for finding in check(conn)[:LIMIT]]
    row = conn.execute(
        "select (select count(*) from bill where bill_no is not null), (select count(*) from payment)"
    ).fetchone()
    assert row is not None
    return findings, f"{row[0]} issued bills and {row[1]} payments added up"


def _sums(conn: Conn) -> list[str]:
    """Lines sum to the bill, to the last digit."""
    rows = conn.execute(
        "select b.bill_no, b.total_unrounded, coalesce(sum(l.amount_unrounded), 0) from bill b left join bill_line l"
        " using (bill_id) where b.bill_no is not null group by b.bill_id"
        " having coalesce(sum(l.amount_unrounded), 0) <> b.total_unrounded order by 1 limit %s",
        (LIMIT,),
    ).fetchall()
    return [f"bill {number}: its lines sum to {lines}, its total unrounded is {total}" for number, total, lines in rows]


def _documents(conn: Conn) -> list[str]:
    """The document that the customer has says the same as the rows of the database."""
    rows = conn.execute(
        "select bill_no, total, document ->> 'total', total_unrounded, document ->> 'total_unrounded', document ->> 'bill_no'"
        " from bill where bill_no is not null and ((document ->> 'total')::numeric is distinct from total"
        " or (document ->> 'total_unrounded')::numeric is distinct from total_unrounded"
        " or document ->> 'bill_no' is distinct from bill_no or (document ->> 'energy_wh')::int8 is distinct from energy_wh)"
        " order by 1 limit %s",
        (LIMIT,),
    ).fetchall()
    found = [
        f"bill {row[0]}: its document says {row[5]}, {row[2]}, unrounded {row[4]}; the bill {row[1]}, unrounded {row[3]}"
        for row in rows
    ]
    rows = conn.execute(
        "select coalesce(d.bill_no, l.bill_no), coalesce(l.line_id, d.line ->> 'line_id'), l.amount, d.line ->> 'amount',"
        " l.amount_unrounded, d.line ->> 'amount_unrounded'"
        " from (select bill_id, bill_no, line from bill, jsonb_array_elements(document -> 'lines') line"
        " where bill_no is not null) d"
        " full join (select l.*, b.bill_no from bill_line l join bill b using (bill_id) where b.bill_no is not null) l"
        " on l.bill_id = d.bill_id and l.line_no = (d.line ->> 'line_no')::int"
        " where l.amount is distinct from (d.line ->> 'amount')::numeric"
        " or l.amount_unrounded is distinct from (d.line ->> 'amount_unrounded')::numeric"
        " or l.kind is distinct from d.line ->> 'kind' order by 1, 2 limit %s",
        (LIMIT,),
    ).fetchall()
    return found + [
        f"bill {row[0]} line {row[1]}: its document says {row[3]} ({row[5]}), the line is {row[2]} ({row[4]})"
        for row in rows
    ]


def _numbers(conn: Conn) -> list[str]:
    """Numbers of a series follow each other from 1 to where the series stands."""
    rows = conn.execute(
        "with taken as (select split_part(bill_no, '-', 1) as series, split_part(bill_no, '-', 2)::int8 as number"
        " from bill where bill_no is not null)"
        " select s.series, n.number from (select coalesce(t.series, b.series) as series, greatest(coalesce(b.next_number, 1) - 1,"
        " coalesce(t.newest, 0)) as newest, coalesce(b.next_number, 1) as next_number from (select series, max(number) as newest"
        " from taken group by 1) t full join bill_number b using (series)) s cross join lateral"
        " generate_series(1, s.newest) n(number) left join taken t on t.series = s.series and t.number = n.number"
        " where t.number is null or n.number >= s.next_number order by 1, 2 limit %s",
        (LIMIT,),
    ).fetchall()
    return [f"numbers of {series}: {series}-{number:06d} is missing, or beyond the series" for series, number in rows]


def _stamps(conn: Conn) -> list[str]:
    """The state of a bill fits when it was issued, sent, cancelled."""
    rows = conn.execute(
        "select coalesce(bill_no, '#' || bill_id), state, issued_at, sent_at, cancelled_at from bill where"
        " (bill_no is null) <> (issued_at is null) or (state = 'cancelled') <> (cancelled_at is not null)"
        " or (state = 'sent' and sent_at is null) or (bill_no is not null and due_on is null)"
        " or sent_at < issued_at or cancelled_at < issued_at or (state in ('draft', 'held', 'checked') and sent_at is not null)"
        " or (state = 'overdue' and due_on > now()::date + 1) order by 1 limit %s",
        (LIMIT,),
    ).fetchall()
    return [f"bill {row[0]} is {row[1]}: issued {row[2]}, sent {row[3]}, cancelled {row[4]}" for row in rows]


def _days(conn: Conn) -> list[str]:
    """No day of a contract is billed twice."""
    rows = conn.execute(
        "select a.contract_no, a.bill_no, b.bill_no from bill a join bill b on b.contract_no = a.contract_no"
        " and b.bill_id > a.bill_id and b.start_on < a.end_on and a.start_on < b.end_on where a.kind = 'invoice'"
        " and b.kind = 'invoice' and a.state <> 'cancelled' and b.state <> 'cancelled' and a.bill_no is not null"
        " and b.bill_no is not null order by 1 limit %s",
        (LIMIT,),
    ).fetchall()
    return [f"contract {row[0]}: bills {row[1]} and {row[2]} are for the same days" for row in rows]


def _credit_notes(conn: Conn) -> list[str]:
    """A credit note is exactly the negative of what it cancels and of corrections charged for it; each cancelled bill has one."""
    rows = conn.execute(
        "select n.bill_no, n.total, n.total_unrounded, c.bill_no, c.total, c.total_unrounded, c.state, coalesce(("
        " select sum(l.amount) from bill_line l join bill o using (bill_id) where l.corrects = c.bill_id and l.kind = 'correction'"
        " and o.kind = 'invoice' and o.created_at <= n.created_at and coalesce(o.cancelled_at > n.created_at, true)), 0) as later"
        " from bill n left join bill c on c.bill_id = n.corrects where n.kind = 'credit_note' and n.bill_no is not null"
    ).fetchall()
    found = []
    for number, total, exact, of, of_total, of_exact, state, later in rows:
        if of is None or state != "cancelled":
            found.append(f"credit note {number}: bill {of} that it cancels is {state}")
        elif total != -of_total - later or exact != -of_exact - later:
            more = f" and {later} of corrections" if later else ""
            found.append(f"credit note {number}: {total}, bill {of} is {of_total}{more}")
    rows = conn.execute(
        "select n.bill_no, l.line_id, l.amount, x.amount from bill n join bill_line x on x.bill_id = n.corrects"
        " left join bill_line l on l.bill_id = n.bill_id and l.line_no = x.line_no where n.kind = 'credit_note'"
        " and n.bill_no is not null and (l.amount, l.amount_unrounded, l.quantity)"
        " is distinct from (-x.amount, -x.amount_unrounded, -x.quantity) order by 1 limit %s",
        (LIMIT,),
    ).fetchall()
    found += [f"credit note {row[0]} line {row[1]}: {row[2]}, the line that it cancels is {row[3]}" for row in rows]
    rows = conn.execute(
        "select b.bill_no, count(n.bill_id) from bill b left join bill n on n.corrects = b.bill_id and n.kind = 'credit_note'"
        " where b.state = 'cancelled' group by b.bill_id having count(n.bill_id) <> 1 order by 1 limit %s",
        (LIMIT,),
    ).fetchall()
    return found + [f"bill {row[0]} is cancelled and has {row[1]} credit notes" for row in rows]


def _money_in(conn: Conn) -> list[str]:
    """Each payment is in the audit trail, and each that the trail has is there."""
    rows = conn.execute(
        "select coalesce(p.payment_no, (a.detail ->> 'payment_no')::int8), p.amount, a.detail ->> 'amount', a.subject"
        " from (select * from audit where action = 'payment.record') a full join payment p"
        " on p.payment_no = (a.detail ->> 'payment_no')::int8"
        " where p.amount is distinct from (a.detail ->> 'amount')::numeric order by 1 limit %s",
        (LIMIT,),
    ).fetchall()
    return [f"payment {row[0]} of {row[3]}: it is {row[1]}, the audit trail has {row[2]}" for row in rows]


class _Item(NamedTuple):
    bill_id: int
    bill_no: str
    state: str
    total: Decimal
    corrects: int | None
    due_on: dt.date


def _open(conn: Conn) -> list[str]:
    """A bill is paid exactly when nothing of it is open."""
    paid: dict[int, Decimal] = dict(conn.execute("select account_no, sum(amount) from payment group by 1").fetchall())
    accounts: dict[int, list[_Item]] = {}
    for account_no, *row in conn.execute(
        "select account_no, bill_id, bill_no, state, total, corrects, coalesce(due_on, start_on) from bill"
        " where bill_no is not null order by account_no, issued_at, bill_id"
    ):
        accounts.setdefault(account_no, []).append(_Item(*row))
    found = []
    for account_no, items in accounts.items():
        left = _left_open(items, paid.get(account_no, Decimal(0)))
        found += [
            f"bill {item.bill_no} is {item.state}, and {left[item.bill_id]} of {item.total} is open"
            for item in items
            if item.state != "cancelled" and (item.state == "paid") != (left[item.bill_id] == 0)
        ]
    return found


def _left_open(items: list[_Item], paid: Decimal) -> dict[int, Decimal]:
    """Return what is open of each bill: credit notes go to what they cancel, everything else to what is oldest."""
    left: dict[int, Any] = {item.bill_id: item.total for item in items}
    for item in items:
        if item.total < 0 and item.corrects in left and left[item.corrects] > 0:
            used = min(-left[item.bill_id], left[item.corrects])
            left[item.corrects] -= used
            left[item.bill_id] += used
    purse = paid - sum((value for value in left.values() if value < 0), Decimal(0))
    for item in sorted(items, key=lambda item: (item.due_on, item.bill_id)):
        owed = max(left[item.bill_id], Decimal(0))
        used = max(Decimal(0), min(owed, purse))
        purse -= used
        left[item.bill_id] = owed - used
    return left
