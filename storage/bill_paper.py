"""What a bill's sheet needs beside its document: the tariffs' pictures, and the balance when it was issued."""

import dataclasses
from decimal import Decimal
from typing import Any

import psycopg

from metering.tariff import Tariff
from schemas.bill import BillDocument
from storage.bill import BillRow, fetch_bill
from storage.bill_bundle import fetch_bill_tariffs
from storage.snapshot import one_snapshot


@dataclasses.dataclass(frozen=True)
class BillOnPaper:
    """An issued bill or a draft with what its sheet shows."""

    row: BillRow
    document: BillDocument
    tariffs: dict[int, Tariff]
    balance_before: Decimal | None
    """What the account owed in the bill's currency just before it was issued; None of a draft."""


def fetch_on_paper(conn: psycopg.Connection[Any], name: str) -> BillOnPaper:
    """Return a bill by its number or ``#id``; of an issued one always the same.

    Raises:
        storage.bill.BillError: There is none.
    """
    with one_snapshot(conn):
        row, document = fetch_bill(conn, name)
        tariffs = {number: item[0] for number, item in fetch_bill_tariffs(conn, document).items()}
        return BillOnPaper(row, document, tariffs, _balance_before(conn, row) if row.bill_no else None)


def _balance_before(conn: psycopg.Connection[Any], row: BillRow) -> Decimal:
    """Return bills less payments of the account before a bill; both are only ever added, so it never changes."""
    found = conn.execute(
        "select coalesce((select sum(o.total) from bill o where o.account_no = b.account_no and o.currency = b.currency"
        " and o.bill_no is not null and (o.issued_at, o.bill_id) < (b.issued_at, b.bill_id)), 0)"
        " - coalesce((select sum(p.amount) from payment p where p.account_no = b.account_no and p.currency = b.currency"
        " and p.entered_at < b.issued_at), 0) from bill b where b.bill_id = %s",
        (row.bill_id,),
    ).fetchone()
    assert found is not None
    return Decimal(found[0])
