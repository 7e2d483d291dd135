"""Bills and their lines into the database, many at once."""

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from metering.billing import encode_history
from schemas.bill import BillDocument, encode_bill
from storage.bill_make import Draft
from storage.ledger_time import Position

_BILL = (
    "bill_id, kind, state, contract_no, account_no, start_on, end_on, currency, total, total_unrounded, energy_wh,"
    " export_wh, estimated_wh, bill_run_no, ledger_position, refresh_no, document, history_before, history_after,"
    " corrects, created_by, created_at"
)
_LINE = (
    "bill_id, line_no, line_id, kind, label, quantity, unit, price, amount, amount_unrounded, tariff_document_no,"
    " tariff_version, start_on, end_on, bucket, tier, corrects, reason"
)


def write_drafts(
    conn: psycopg.Connection[Any],
    drafts: Sequence[Draft],
    *,
    who: str,
    position: Position,
    refresh_no: int | None,
    known_at: dt.datetime,
    bill_run_no: int | None = None,
) -> list[int]:
    """Write drafts as bills that are checked, or held with the reasons; return their ids.

    Args:
        conn: In a transaction.
        drafts: Of one `BillMaker`.
        who: Name of the clerk.
        position: Of the ledger that they are of.
        refresh_no: That stands for it.
        known_at: What was entered later is not in them, and is corrected by later bills.
        bill_run_no: Of the run that makes them.

    Raises:
        psycopg.errors.ExclusionViolation: A contract has an invoice for some of the days; nothing is written.
    """
    ids = next_bill_ids(conn, len(drafts))
    rows = [
        (
            bill_id,
            draft.document.kind,
            "held" if draft.holds else "checked",
            draft.contract.contract_no,
            draft.contract.account_no,
            *bill_values(draft.document),
            bill_run_no,
            json.dumps(position),
            refresh_no or 0,
            encode_bill(draft.document).decode(),
            encode_history(draft.history_before),
            encode_history(draft.history_after),
            None,
            who,
            known_at,
        )
        for bill_id, draft in zip(ids, drafts, strict=True)
    ]
    copy_rows(conn, f"bill ({_BILL})", rows)
    lines = (
        row
        for bill_id, draft in zip(ids, drafts, strict=True)
        for row in line_rows(bill_id, draft.document, draft.corrected)
    )
    copy_rows(conn, f"bill_line ({_LINE})", lines)
    holds = (
        (bill_id, hold.reason, hold.value, hold.bound)
        for bill_id, draft in zip(ids, drafts, strict=True)
        for hold in draft.holds
    )
    copy_rows(conn, "bill_hold (bill_id, reason, value, bound)", holds)
    return ids


def write_document(
    conn: psycopg.Connection[Any],
    document: BillDocument,
    *,
    contract_no: int,
    account_no: int,
    corrects: int,
    who: str,
    position: Position,
) -> int:
    """Write a credit note or an adjustment of a bill as a draft, and return its id."""
    ((bill_id,), known_at) = next_bill_ids(conn, 1), clock_of(conn)
    row = (
        bill_id,
        document.kind,
        "checked",
        contract_no,
        account_no,
        *bill_values(document),
        None,
        json.dumps(dict(position)),
        0,
        encode_bill(document).decode(),
        "{}",
        "{}",
        corrects,
        who,
        known_at,
    )
    copy_rows(conn, f"bill ({_BILL})", [row])
    corrected = {document.corrects_bill_no: corrects} if document.corrects_bill_no else {}
    copy_rows(conn, f"bill_line ({_LINE})", line_rows(bill_id, document, corrected))
    return bill_id


def bill_values(document: BillDocument) -> tuple[Any, ...]:
    """Return the columns of a bill that its document has."""
    return (
        document.start_on,
        document.end_on,
        document.currency,
        document.total,
        document.total_unrounded,
        document.energy_wh,
        document.export_wh,
        document.estimated_wh,
    )


def line_rows(bill_id: int, document: BillDocument, corrected: dict[str, int] | Any) -> Iterable[tuple[Any, ...]]:
    """Return the rows of a bill's lines; `corrected` has the ids of bills that they correct, by number."""
    for line in document.lines:
        yield (
            bill_id,
            line.line_no,
            line.line_id,
            line.kind,
            line.label,
            line.quantity,
            line.unit,
            line.price,
            line.amount,
            line.amount_unrounded,
            line.tariff_document_no,
            line.tariff_version,
            line.start_on,
            line.end_on,
            line.bucket,
            line.tier,
            corrected.get(line.corrects_bill_no) if line.corrects_bill_no else None,
            line.reason,
        )


def clock_of(conn: psycopg.Connection[Any]) -> dt.datetime:
    """Return what the database's clock shows."""
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    at: dt.datetime = row[0]
    return at


def next_bill_ids(conn: psycopg.Connection[Any], count: int) -> list[int]:
    """Return ids for new bills."""
    rows = conn.execute(
        "select nextval(pg_get_serial_sequence('bill', 'bill_id')) from generate_series(1, %s)", (count,)
    ).fetchall()
    return [int(row[0]) for row in rows]


def copy_rows(conn: psycopg.Connection[Any], target: str, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows by COPY; an id that is given stands, though the database makes its own."""
    with conn.cursor().copy(f"copy {target} from stdin".encode()) as copy:
        for row in rows:
            copy.write_row(row)
