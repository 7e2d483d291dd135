"""Bills: found, shown, released, issued with numbers that have no gaps; drafts deleted. An issued bill is never edited."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import psycopg

from schemas.bill import BillDocument, decode_bill, encode_bill
from storage.audit import write_audit
from storage.bill_past import OPEN_STATES
from storage.payment import refresh_states

DRAFT_STATES = ("draft", "held", "checked")
ISSUE_CHUNK = 500


class BillError(ValueError):
    """What was asked of a bill cannot be; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class BillRow:
    """A bill without its document."""

    bill_id: int
    bill_no: str | None
    kind: str
    state: str
    contract_no: int
    contract_id: str
    account_no: int
    account_id: str
    customer_name: str
    start_on: dt.date
    end_on: dt.date
    currency: str
    total: Decimal
    energy_wh: int
    due_on: dt.date | None
    bill_run_no: int | None
    corrects: int | None
    row_version: int

    @property
    def name(self) -> str:
        """Return how people call it: its number, or its id while it has none."""
        return self.bill_no or f"#{self.bill_id}"


_ROW = (
    "select b.bill_id, b.bill_no, b.kind, b.state, b.contract_no, c.contract_id, b.account_no, a.account_id, u.name,"
    " b.start_on, b.end_on, b.currency, b.total, b.energy_wh, b.due_on, b.bill_run_no, b.corrects, b.row_version"
    " from bill b join contract c using (contract_no) join account a on a.account_no = b.account_no"
    " join customer u using (customer_no)"
)


@dataclasses.dataclass(frozen=True)
class BillQuery:
    """What bills to find; all that is given has to fit."""

    customer: str | None = None
    """Id, or part of the name."""
    account_id: str | None = None
    meter_id: str | None = None
    bill_no: str | None = None
    """Beginning of the number."""
    from_on: dt.date | None = None
    """Periods that touch the days from here on."""
    to_on: dt.date | None = None
    states: tuple[str, ...] = ()
    amount_min: Decimal | None = None
    amount_max: Decimal | None = None
    bill_run_no: int | None = None
    limit: int = 100
    offset: int = 0


def fetch_bills(conn: psycopg.Connection[Any], query: BillQuery) -> list[BillRow]:
    """Return the bills that fit, newest period first."""
    rows = conn.execute(
        f"{_ROW} where (%(customer)s::text is null or u.customer_id = %(customer)s"
        " or position(lower(%(customer)s) in lower(u.name)) > 0)"
        " and (%(account_id)s::text is null or a.account_id = %(account_id)s)"
        " and (%(meter_id)s::text is null or exists (select from meter_assignment ma join meter m using (meter_no)"
        " where m.meter_id = %(meter_id)s and ma.service_point_no = c.service_point_no"
        " and ma.start_at < b.end_on + 1 and ma.end_at > b.start_on - 1))"
        " and (%(bill_no)s::text is null or starts_with(b.bill_no, %(bill_no)s))"
        " and (%(from_on)s::date is null or b.end_on > %(from_on)s) and (%(to_on)s::date is null or b.start_on < %(to_on)s)"
        " and (%(any_state)s or b.state = any(%(states)s))"
        " and (%(amount_min)s::numeric is null or b.total >= %(amount_min)s)"
        " and (%(amount_max)s::numeric is null or b.total <= %(amount_max)s)"
        " and (%(bill_run_no)s::int8 is null or b.bill_run_no = %(bill_run_no)s)"
        " order by b.start_on desc, b.bill_id desc limit %(limit)s offset %(offset)s",
        {**dataclasses.asdict(query), "states": list(query.states), "any_state": not query.states},
    ).fetchall()
    return [BillRow(*row) for row in rows]


def fetch_bill(conn: psycopg.Connection[Any], name: str, *, lock: bool = False) -> tuple[BillRow, BillDocument]:
    """Return a bill by its number, or by ``#`` and its id, with its document.

    Raises:
        BillError: There is none of that name.
    """
    is_id = name.startswith("#") and name[1:].isdecimal()
    row = conn.execute(
        f"{_ROW} where {'b.bill_id = %s' if is_id else 'b.bill_no = %s'}" + (" for update of b" if lock else ""),
        (int(name[1:]) if is_id else name,),
    ).fetchone()
    if row is None:
        raise BillError(f"no bill {name!r}: a bill is named by its number, a draft by # and its id")
    document = conn.execute("select document::text from bill where bill_id = %s", (row[0],)).fetchone()
    assert document is not None
    return BillRow(*row), decode_bill(document[0])


def fetch_holds(
    conn: psycopg.Connection[Any], bill_ids: Sequence[int] | None = None, limit: int = 1000
) -> list[dict[str, Any]]:
    """Return why bills are held, largest amounts first; those of some bills with what was released too."""
    rows = conn.execute(
        "select h.bill_id, c.contract_id, a.account_id, b.start_on, b.end_on, b.total, b.currency, h.reason, h.value,"
        " h.bound, h.released_at, h.released_by, h.release_note from bill_hold h join bill b using (bill_id)"
        " join contract c using (contract_no) join account a on a.account_no = b.account_no"
        " where case when %(ids)s::int8[] is null then b.state = 'held' and h.released_at is null"
        " else h.bill_id = any(%(ids)s) end order by abs(b.total) desc, h.bill_id, h.reason limit %(limit)s",
        {"ids": None if bill_ids is None else list(bill_ids), "limit": limit},
    ).fetchall()
    names = (
        *(
            "bill_id",
            "contract_id",
            "account_id",
            "start_on",
            "end_on",
            "total",
            "currency",
            "reason",
            "value",
            "bound",
        ),
        *("released_at", "released_by", "release_note"),
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def release_bill(
    conn: psycopg.Connection[Any], name: str, *, note: str, who: str, reason: str | None = None
) -> BillRow:
    """Let a held bill go on: every reason of it, or one; return it as it is then.

    Args:
        conn: Connection.
        name: Number or ``#id``.
        note: Why it is right.
        who: Name of the clerk.
        reason: Only this one.

    Raises:
        BillError: It is not held, or not for that reason, or no note is given.
    """
    if not note.strip():
        raise BillError("a release needs a reason: give --reason TEXT")
    with conn.transaction():
        bill, _ = fetch_bill(conn, name, lock=True)
        if bill.state != "held":
            raise BillError(f"bill {bill.name} is not held, but {bill.state}")
        released = conn.execute(
            "update bill_hold set released_at = now(), released_by = %s, release_note = %s where bill_id = %s"
            " and released_at is null and (%s::text is null or reason = %s)",
            (who, note, bill.bill_id, reason, reason),
        ).rowcount
        if not released:
            raise BillError(f"bill {bill.name} is not held for {reason}")
        conn.execute(
            "update bill set state = 'checked', row_version = row_version + 1 where bill_id = %s and not exists"
            " (select from bill_hold where bill_id = %s and released_at is null)",
            (bill.bill_id, bill.bill_id),
        )
        write_audit(conn, who, "bill.release", f"bill {bill.name}", {"note": note, "reason": reason or "all"})
        return fetch_bill(conn, name)[0]


def issue_bills(
    conn: psycopg.Connection[Any],
    bill_ids: Sequence[int],
    *,
    who: str,
    on: dt.date,
    due_days: int,
) -> list[str]:
    """Issue checked bills, and return their numbers in the order of the bills' ids.

    Each chunk is a transaction that holds the series' row: a number is used up exactly when its bill is issued.

    Args:
        conn: In autocommit, or in the transaction that made the bills.
        bill_ids: Which; those that are issued already are left out.
        who: Name of the clerk.
        on: Day of issue.
        due_days: Until it is to be paid.

    Raises:
        BillError: One is held, or is none; nothing of its chunk is issued.
    """
    numbers: list[str] = []
    ids = sorted(set(bill_ids))
    for start in range(0, len(ids), ISSUE_CHUNK):
        with conn.transaction():
            numbers += _issue(conn, ids[start : start + ISSUE_CHUNK], who, on, due_days)
    return numbers


def _issue(conn: psycopg.Connection[Any], ids: Sequence[int], who: str, on: dt.date, due_days: int) -> list[str]:
    rows = conn.execute(
        "select bill_id, state, account_no, document::text from bill where bill_id = any(%s) order by bill_id for update",
        (list(ids),),
    ).fetchall()
    if len(rows) < len(ids):
        raise BillError(f"no bill #{min(set(ids) - {row[0] for row in rows})}")
    held = [row[0] for row in rows if row[1] not in ("checked", *OPEN_STATES, "cancelled")]
    if held:
        raise BillError(f"bill #{held[0]} is held: `gridtally bill release '#{held[0]}'` when it is right")
    todo = [row for row in rows if row[1] == "checked"]
    first = take_numbers(conn, str(on.year), len(todo))
    numbers, values = [], []
    for place, (bill_id, _, _, text) in enumerate(todo):
        number = f"{on.year}-{first + place:06d}"
        document = decode_bill(text)
        due_on = on + dt.timedelta(days=due_days) if document.total > 0 else on
        issued = msgspec.structs.replace(document, bill_no=number, issued_on=on, due_on=due_on)
        values.append((number, due_on, encode_bill(issued).decode(), bill_id))
        numbers.append(number)
    with conn.cursor() as cursor:
        cursor.executemany(
            "update bill set bill_no = %s, state = 'issued', due_on = %s, document = %s, issued_at = now(),"
            " row_version = row_version + 1 where bill_id = %s",
            values,
        )
        cursor.execute(  # a correction changes what a proposal about the corrected bill was about
            "update bill set row_version = row_version + 1 where bill_id in"
            " (select corrects from bill_line where bill_id = any(%s) and corrects is not null)",
            ([row[0] for row in todo],),
        )
        cursor.executemany(
            "insert into audit (who, action, subject, detail) values (%s, 'bill.issue', %s, %s)",
            [(who, f"bill {number}", f'{{"bill_id": {row[0]}}}') for number, row in zip(numbers, todo, strict=True)],
        )
    # Only what an account has paid ahead, or is owed, can change a state here.
    with_credit = conn.execute(
        "select a.account_no from unnest(%s::int4[]) a(account_no) where exists (select from payment p where"
        " p.account_no = a.account_no) or exists (select from bill b where b.account_no = a.account_no"
        " and b.bill_no is not null and b.total <= 0)",
        (sorted({row[2] for row in todo}),),
    ).fetchall()
    refresh_states(conn, [row[0] for row in with_credit], on)
    return numbers


def take_numbers(conn: psycopg.Connection[Any], series: str, count: int) -> int:
    """Return the first of some numbers in a row; the series is locked until the transaction ends."""
    conn.execute("insert into bill_number (series) values (%s) on conflict do nothing", (series,))
    row = conn.execute(
        "update bill_number set next_number = next_number + %s where series = %s returning next_number", (count, series)
    ).fetchone()
    assert row is not None
    return int(row[0]) - count


def delete_draft(conn: psycopg.Connection[Any], name: str, *, who: str, reason: str) -> BillRow:
    """Delete a bill that was not issued, and return what it was.

    Raises:
        BillError: It was issued.
    """
    with conn.transaction():
        bill, _ = fetch_bill(conn, name, lock=True)
        if bill.state not in DRAFT_STATES:
            raise BillError(f"bill {bill.name} was issued: propose to cancel it by a credit note, it is never deleted")
        conn.execute("delete from bill where bill_id = %s", (bill.bill_id,))
        detail: Mapping[str, Any] = {"reason": reason, "total": bill.total, "contract_id": bill.contract_id}
        write_audit(conn, who, "bill.delete", f"bill {bill.name}", detail)
    return bill


def checked_ids(conn: psycopg.Connection[Any], bill_run_no: int) -> list[int]:
    """Return the bills of a run that may be issued."""
    rows = conn.execute(
        "select bill_id from bill where bill_run_no = %s and state = 'checked' order by 1", (bill_run_no,)
    ).fetchall()
    return [int(row[0]) for row in rows]
