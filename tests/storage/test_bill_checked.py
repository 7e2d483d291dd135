"""After corrections, credit notes, payments and late versions the second rater finds every bill as it makes it itself."""

import copy
import datetime as dt
from decimal import Decimal

import psycopg

from storage.bill import fetch_bill
from storage.payment import Payment, record_payment
from storage.proposal import Desk, approve, propose
from storage.second_check import check_bills
from tests.storage.made_county import (
    LENIENT,
    OCTOBER,
    SEPTEMBER,
    START,
    TARIFF,
    TODAY,
    make_county,
    put_tariff,
    run_and_issue,
)
from tests.storage.made_ledger import US

DESK = Desk(today=TODAY, rules=LENIENT)


def test_the_second_rater_finds_no_difference_after_all_that_can_happen_to_bills(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        ledger = make_county(conn, 3)
        first = int(START.timestamp()) * US
        for number in (1, 2, 3):
            ledger.read(number, first, 0)
            ledger.read(number, first + 16 * 3600 * US, 16_000)
            ledger.read_steadily(
                number, START + dt.timedelta(hours=16), START + dt.timedelta(days=92), 500, first_wh=16_000
            )
        ledger.flush()
        september = run_and_issue(conn, database, SEPTEMBER)
        ledger.read(1, first + 4 * 3600 * US, 16_000)
        ledger.read(2, first + 4 * 3600 * US, 100)
        ledger.flush()
        october = run_and_issue(conn, database, OCTOBER)
        later = copy.deepcopy(TARIFF)
        later["versions"].append({**copy.deepcopy(TARIFF["versions"][0]), "valid_from": "2026-10-16"})  # type: ignore[attr-defined,index]
        later["versions"][1]["prices"] = {"peak": "0.70", "valley": "0.30"}  # type: ignore[index]
        put_tariff(conn, later)
        for action, name, amount in (
            ("rebill", september[1], None),
            ("amend", october[0], Decimal("-5.00")),
            ("cancel", october[2], None),
        ):
            made = propose(conn, action, name, reason="tried", who="ann", desk=DESK, amount=amount)
            approve(conn, made.proposal_id, who="ben", desk=DESK)
        run_and_issue(conn, database, (dt.date(2026, 11, 1), dt.date(2026, 12, 1)))
        record_payment(conn, Payment("a-1", fetch_bill(conn, september[0])[0].total, TODAY, "B-1"), "ann", TODAY)
        found = check_bills(conn)
        kinds = {row[0] for row in conn.execute("select distinct kind from bill_line")}
        assert {"correction", "credit", "adjustment"} <= kinds, "sometimes: everything happened"
        assert found.holds, found
