"""What the schema itself refuses, whatever the program does."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors

CONTRACT = (
    "insert into contract (contract_id, account_no, service_point_no, start_on, end_on) values (%s, 1, 1, %s, %s)"
    " returning contract_no"
)
BILL = (
    "insert into bill (kind, state, contract_no, account_no, start_on, end_on, currency, total, total_unrounded,"
    " ledger_position, document, created_by) values ('invoice', 'draft', 1, 1, %s, %s, 'CNY', 1, 1, '{}', '{}', 'ann')"
    " returning bill_id"
)


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("insert into service_point values (1, 'p-1')")
        conn.execute("insert into customer (customer_id, name) values ('c-1', 'Li')")
        conn.execute("insert into account (account_id, customer_no, currency) values ('a-1', 1, 'CNY')")
        conn.execute(CONTRACT, ("k-1", "2026-01-01", "2026-07-01"))
        yield conn


def issued(conn: psycopg.Connection) -> int:
    row = conn.execute(BILL, ("2026-01-01", "2026-02-01")).fetchone()
    assert row is not None
    conn.execute("update bill set state = 'issued', bill_no = 'B1', issued_at = now() where bill_id = %s", row)
    return int(row[0])


def test_contracts_of_a_service_point_may_meet_but_not_overlap(conn: psycopg.Connection) -> None:
    conn.execute(CONTRACT, ("k-2", "2026-07-01", None))
    with pytest.raises(errors.ExclusionViolation, match="contracts_overlap"):
        conn.execute(CONTRACT, ("k-3", "2026-12-31", None))


def test_days_are_billed_once(conn: psycopg.Connection) -> None:
    conn.execute(BILL, ("2026-01-01", "2026-02-01"))
    conn.execute(BILL, ("2026-02-01", "2026-03-01"))
    with pytest.raises(errors.ExclusionViolation, match="bills_overlap"):
        conn.execute(BILL, ("2026-01-31", "2026-02-02"))


def test_an_issued_bill_is_never_edited_or_deleted(conn: psycopg.Connection) -> None:
    bill_id = issued(conn)
    conn.execute("update bill set state = 'sent', sent_at = now() where bill_id = %s", (bill_id,))
    for change in ("total = 2", "due_on = '2026-03-01'", "bill_no = 'B2'", "document = '{\"a\": 1}'"):
        with pytest.raises(errors.RaiseException, match="never edited"):
            conn.execute(f"update bill set {change} where bill_id = %s", (bill_id,))
    with pytest.raises(errors.RaiseException, match="never deleted"):
        conn.execute("delete from bill where bill_id = %s", (bill_id,))


def test_a_draft_may_be_deleted_with_its_lines(conn: psycopg.Connection) -> None:
    row = conn.execute(BILL, ("2026-01-01", "2026-02-01")).fetchone()
    conn.execute(
        "insert into bill_line (bill_id, line_no, line_id, kind, label, quantity, unit, price, amount, amount_unrounded,"
        " start_on, end_on) values (%s, 1, 'x', 'energy', 'x', 1, 'kWh', 1, 1, 1, '2026-01-01', '2026-02-01')",
        row,
    )
    conn.execute("delete from bill where bill_id = %s", row)
    assert conn.execute("select count(*) from bill_line").fetchone() == (0,)


def test_a_number_belongs_to_what_was_issued(conn: psycopg.Connection) -> None:
    row = conn.execute(BILL, ("2026-01-01", "2026-02-01")).fetchone()
    with pytest.raises(errors.CheckViolation):
        conn.execute("update bill set bill_no = 'B1' where bill_id = %s", row)


def test_nobody_decides_on_his_own_proposal(conn: psycopg.Connection) -> None:
    bill_id = issued(conn)
    conn.execute(
        "insert into proposal (action, bill_id, bill_row_version, content, effect, reason, proposed_by)"
        " values ('cancel', %s, 1, '{}', '{}', 'wrong meter', 'ann')",
        (bill_id,),
    )
    with pytest.raises(errors.CheckViolation):
        conn.execute("update proposal set state = 'approved', decided_by = 'ann'")
    with pytest.raises(errors.UniqueViolation):
        conn.execute(
            "insert into proposal (action, bill_id, bill_row_version, content, effect, reason, proposed_by)"
            " values ('amend', %s, 1, '{}', '{}', 'discount', 'bob')",
            (bill_id,),
        )


def test_audit_and_payments_are_kept(conn: psycopg.Connection) -> None:
    conn.execute("insert into audit (who, action, subject) values ('ann', 'bill.issue', 'B1')")
    conn.execute(
        "insert into payment (account_no, received_on, amount, currency, reference, entered_by)"
        " values (1, '2026-02-10', 10, 'CNY', 'bank-1', 'ann')"
    )
    for change in (
        "update audit set who = 'bob'",
        "delete from audit",
        "truncate audit",
        "update payment set amount = 1",
    ):
        with pytest.raises(errors.RaiseException):
            conn.execute(change)


def test_every_document_of_a_tariff_is_kept(conn: psycopg.Connection) -> None:
    conn.execute("insert into tariff (tariff_id, document, document_sha256) values ('t', '{\"n\": 1}', 'one')")
    conn.execute("update tariff set document = '{\"n\": 2}', document_sha256 = 'two'")
    assert conn.execute("select document_sha256 from tariff_document order by 1").fetchall() == [("one",), ("two",)]
    with pytest.raises(errors.RaiseException):
        conn.execute("delete from tariff_document")
