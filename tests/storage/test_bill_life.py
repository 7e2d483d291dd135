"""After the issue: corrections on the next bill, four eyes, credit notes, payments; an issued bill is never edited."""

import copy
import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from storage.audit import fetch_audit
from storage.bill import BillError, BillQuery, delete_draft, fetch_bill, fetch_bills, release_bill
from storage.payment import (
    Payment,
    PaymentError,
    import_payments,
    open_items,
    parse_payments,
    record_payment,
    refresh_overdue,
    statement,
)
from storage.proposal import Desk, approve, fetch_proposals, propose, reject
from tests.storage.made_county import (
    LENIENT,
    OCTOBER,
    SEPTEMBER,
    START,
    TARIFF,
    TODAY,
    make_county,
    put_tariff,
    read_months,
    run_and_issue,
    run_bills,
)
from tests.storage.made_ledger import US

DESK = Desk(today=TODAY, rules=LENIENT)
SEPTEMBER_TOTAL = 30 * (14 * Decimal("0.30") + 10 * Decimal("0.15")) + 160 * Decimal("0.05") + 30 * Decimal("3.10")
"""30 days of 14 peak and 10 valley hours of 0.5 kWh, 160 of 360 kWh in the upper tier, 30 days standing charge."""


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


def corrections(conn: psycopg.Connection, name: str) -> list[tuple[Any, ...]]:
    return [
        (line.amount, line.start_on, line.end_on, line.corrects_bill_no, line.reason)
        for line in fetch_bill(conn, name)[1].lines
        if line.kind == "correction"
    ]


def balance(conn: psycopg.Connection, account_no: int = 1) -> Decimal:
    return open_items(conn, account_no)[1]


def test_a_reading_known_after_the_bill_gives_one_correction_on_the_next_bill(
    conn: psycopg.Connection, database: str
) -> None:
    ledger = make_county(conn, 2)
    first = int(START.timestamp()) * US
    for number in (1, 2):
        ledger.read(number, first, 0)
        # The reading of 20:00 UTC (04:00 in Shanghai) is missing: 16:00 to 08:00 UTC is spread evenly.
        ledger.read(number, first + 16 * 3600 * US, 16_000)
        ledger.read_steadily(
            number, START + dt.timedelta(hours=16), START + dt.timedelta(days=30), 500, first_wh=16_000
        )
    ledger.flush()
    (bill_no, _) = run_and_issue(conn, database, SEPTEMBER)
    before = fetch_bill(conn, bill_no)
    ledger.read(1, first + 4 * 3600 * US, 16_000)  # all of it in the first four hours of the night
    for number in (1, 2):
        ledger.read_steadily(
            number, START + dt.timedelta(days=30), START + dt.timedelta(days=61), 500, first_wh=368_000
        )
    ledger.flush()
    october = run_and_issue(conn, database, OCTOBER)
    # Before, 8 of the 16 hours were in the valley (00:00 to 08:00): 8 kWh move from 0.60 to 0.30.
    (found,) = corrections(conn, october[0])
    assert found[:4] == (Decimal("-2.40"), *SEPTEMBER, bill_no)
    assert "readings of 2026-08-31" in found[4]
    assert corrections(conn, october[1]) == [], "nothing changed for the other"
    assert fetch_bill(conn, bill_no) == (before[0].__class__(**{**before[0].__dict__, "row_version": 3}), before[1])
    row, document = fetch_bill(conn, october[0])
    assert sum(line.amount_unrounded for line in document.lines) == document.total_unrounded
    ledger.read_steadily(1, START + dt.timedelta(days=61), START + dt.timedelta(days=62), 500, first_wh=740_000)
    ledger.flush()
    november = run_bills(conn, database, (dt.date(2026, 11, 1), dt.date(2026, 12, 1)))
    third = fetch_bills(conn, BillQuery(bill_run_no=november.bill_run_no, account_id="a-1"))[0]
    assert corrections(conn, third.name) == [], "a correction is charged once"
    assert row.total == document.total


def test_a_tariff_version_entered_late_corrects_the_cycles_it_changes_and_no_others(
    conn: psycopg.Connection, database: str
) -> None:
    read_months(make_county(conn, 1), 1, days=91)
    run_and_issue(conn, database, SEPTEMBER)
    run_and_issue(conn, database, OCTOBER)
    changed = copy.deepcopy(TARIFF)
    changed["versions"].append({**copy.deepcopy(TARIFF["versions"][0]), "valid_from": "2026-10-16"})  # type: ignore[attr-defined,index]
    changed["versions"][1]["prices"] = {"peak": "0.70", "valley": "0.30"}  # type: ignore[index]
    put_tariff(conn, changed)
    run = run_bills(conn, database, (dt.date(2026, 11, 1), dt.date(2026, 12, 1)))
    (bill,) = fetch_bills(conn, BillQuery(bill_run_no=run.bill_run_no))
    (found,) = corrections(conn, bill.name)
    # 16 days of 7 kWh in peak hours at 0.10 more.
    assert found[:4] == (Decimal("11.20"), *OCTOBER, "2026-000002")
    assert "tariff county" in found[4]


def test_a_contract_that_turns_out_to_begin_later_gets_the_days_before_back(
    conn: psycopg.Connection, database: str
) -> None:
    read_months(make_county(conn, 1), 1)
    (bill_no,) = run_and_issue(conn, database, SEPTEMBER)
    conn.execute("update contract set start_on = '2026-09-26'")
    (october,) = run_and_issue(conn, database, OCTOBER)
    (found,) = corrections(conn, october)
    # Five days of 12 kWh below the ladder's first bound, and five days standing charge, stay.
    stays = 5 * (7 * Decimal("0.60") + 5 * Decimal("0.30")) + 5 * Decimal("3.10")
    assert (found[0], found[3]) == (stays - SEPTEMBER_TOTAL, bill_no)
    assert "the contract's days" in found[4]


def test_what_becomes_known_after_the_last_bill_of_a_contract_is_named_until_it_is_rebilled(
    conn: psycopg.Connection, database: str
) -> None:
    ledger = make_county(conn, 1)
    first = int(START.timestamp()) * US
    ledger.read(1, first, 0)
    ledger.read(1, first + 16 * 3600 * US, 16_000)
    ledger.read_steadily(1, START + dt.timedelta(hours=16), START + dt.timedelta(days=30), 500, first_wh=16_000)
    ledger.flush()
    (bill_no,) = run_and_issue(conn, database, SEPTEMBER)
    conn.execute("update contract set end_on = '2026-10-01'")
    assert run_bills(conn, database, OCTOBER).problems == []
    ledger.read(1, first + 4 * 3600 * US, 16_000)
    ledger.flush()
    (problem,) = run_bills(conn, database, OCTOBER).problems
    assert problem["contract_id"] == "k-1"
    assert f"bill {bill_no} would be corrected by -2.40" in problem["text"]
    proposal = propose(conn, "rebill", bill_no, reason="late reading", who="ann", desk=DESK)
    assert proposal.effect["change"] == "-2.40"
    approve(conn, proposal.proposal_id, who="ben", desk=DESK)
    assert run_bills(conn, database, OCTOBER).problems == []


def test_a_contract_tariff_entered_late_corrects_the_closed_cycle(conn: psycopg.Connection, database: str) -> None:
    read_months(make_county(conn, 1), 1)
    (bill_no,) = run_and_issue(conn, database, SEPTEMBER)
    free = copy.deepcopy(TARIFF) | {"tariff_id": "free"}
    free["versions"][0]["fixed_charge"] = []  # type: ignore[index]
    put_tariff(conn, free)
    conn.execute(
        "insert into contract_tariff (contract_no, start_on, tariff_id, entered_by) values (1, '2026-09-21', 'free', 'x')"
    )
    (october,) = run_and_issue(conn, database, OCTOBER)
    # The last ten days without the standing charge; the new tariff's ladder begins at nothing: 40 kWh less in its upper tier.
    (found,) = corrections(conn, october)
    upper = Decimal("0.05") * (240 - 200)
    assert found[0] == -10 * Decimal("3.10") + upper - Decimal("0.05") * 160
    assert found[3] == bill_no


def test_a_yearly_ladder_goes_on_from_bill_to_bill_and_a_correction_moves_it(
    conn: psycopg.Connection, database: str
) -> None:
    ledger = make_county(conn, 1)
    yearly = copy.deepcopy(TARIFF)
    yearly["versions"][0] |= {  # type: ignore[index]
        "tiers": [{"up_to_kwh": 500, "adder": "0"}, {"adder": "0.10"}],
        "tier_rule": {"per": "year"},
    }
    put_tariff(conn, yearly)
    read_months(ledger, 1, days=60)
    run_and_issue(conn, database, SEPTEMBER)
    (october,) = run_and_issue(conn, database, OCTOBER)

    def upper(name: str) -> list[Decimal]:
        return [line.quantity for line in fetch_bill(conn, name)[1].lines if line.tier == 2]

    assert upper(october) == [Decimal(360 + 360 - 500)], "30 days of October are known"
    ledger.read_steadily(1, START + dt.timedelta(days=60), START + dt.timedelta(days=91), 500, first_wh=720_000)
    ledger.flush()
    run = run_bills(conn, database, (dt.date(2026, 11, 1), dt.date(2026, 12, 1)))
    (november,) = fetch_bills(conn, BillQuery(bill_run_no=run.bill_run_no))
    assert upper(november.name) == [Decimal(360)]
    # The 31st of October: 7 kWh peak, 5 kWh valley, all of it in the upper tier.
    assert corrections(conn, november.name)[0][0] == 7 * Decimal("0.60") + 5 * Decimal("0.30") + 12 * Decimal("0.10")
    row = conn.execute(
        "select history_before ->> 'year_wh' from bill where bill_id = %s", (november.bill_id,)
    ).fetchone()
    assert row == ("732000",)


def test_cancel_and_rebill_nets_to_zero_when_nothing_changed(conn: psycopg.Connection, database: str) -> None:
    read_months(make_county(conn, 1), 1)
    (bill_no,) = run_and_issue(conn, database, SEPTEMBER)
    owed = balance(conn)
    assert owed == SEPTEMBER_TOTAL
    proposal = propose(conn, "rebill", bill_no, reason="asked for", who="ann", desk=DESK)
    assert proposal.effect["change"] == "0.00"
    made = approve(conn, proposal.proposal_id, who="ben", desk=DESK)
    credit, again = (fetch_bill(conn, name)[0] for name in made)
    assert (credit.kind, credit.total, again.kind, again.total) == ("credit_note", -owed, "invoice", owed)
    assert fetch_bill(conn, bill_no)[0].state == "cancelled"
    assert balance(conn) == owed
    lines = conn.execute(
        "select sum(amount_unrounded) from bill_line join bill using (bill_id) where bill_no in (%s, %s)",
        (bill_no, made[0]),
    ).fetchone()
    assert lines == (0,)


def test_rebilling_a_bill_that_was_corrected_later_takes_the_correction_back(
    conn: psycopg.Connection, database: str
) -> None:
    ledger = make_county(conn, 1)
    first = int(START.timestamp()) * US
    ledger.read(1, first, 0)
    ledger.read(1, first + 16 * 3600 * US, 16_000)
    ledger.read_steadily(1, START + dt.timedelta(hours=16), START + dt.timedelta(days=61), 500, first_wh=16_000)
    ledger.flush()
    (september,) = run_and_issue(conn, database, SEPTEMBER)
    ledger.read(1, first + 4 * 3600 * US, 16_000)
    ledger.flush()
    (october,) = run_and_issue(conn, database, OCTOBER)
    assert corrections(conn, october)[0][0] == Decimal("-2.40")
    owed = balance(conn)
    proposal = propose(conn, "rebill", september, reason="wants one clean bill", who="ann", desk=DESK)
    approve(conn, proposal.proposal_id, who="ben", desk=DESK)
    assert balance(conn) == owed, "the new bill has the reading in it, and the correction is credited back"


def test_a_bill_is_not_taken_back_while_a_draft_corrects_it(conn: psycopg.Connection, database: str) -> None:
    read_months(make_county(conn, 1), 1)
    (september,) = run_and_issue(conn, database, SEPTEMBER)
    changed = copy.deepcopy(TARIFF)
    changed["versions"][0]["prices"] = {"peak": "0.70", "valley": "0.30"}  # type: ignore[index]
    put_tariff(conn, changed)
    run = run_bills(conn, database, OCTOBER)
    (draft,) = fetch_bills(conn, BillQuery(bill_run_no=run.bill_run_no))
    assert corrections(conn, draft.name)
    for action in ("cancel", "rebill"):
        with pytest.raises(BillError, match=f"draft {draft.name} has a correction of bill {september}"):
            propose(conn, action, september, reason="wrong customer", who="ann", desk=DESK)
    delete_draft(conn, draft.name, who="ann", reason="anew")
    assert propose(conn, "cancel", september, reason="wrong customer", who="ann", desk=DESK).state == "pending"


def test_an_amendment_is_proposed_by_one_and_approved_by_another(conn: psycopg.Connection, database: str) -> None:
    read_months(make_county(conn, 1), 1)
    (bill_no,) = run_and_issue(conn, database, SEPTEMBER)
    proposal = propose(conn, "amend", bill_no, reason="goodwill", who="ann", desk=DESK, amount=Decimal("-5.00"))
    with pytest.raises(BillError, match="ann's own"):
        approve(conn, proposal.proposal_id, who="ann", desk=DESK)
    with pytest.raises(BillError, match=r"proposal that waits .* amend by -5.00, by ann .*goodwill"):
        propose(conn, "amend", bill_no, reason="mine", who="cat", desk=DESK, amount=Decimal("-7.00"))
    before = fetch_bill(conn, bill_no)[1]
    (made,) = approve(conn, proposal.proposal_id, who="ben", desk=DESK)
    row, document = fetch_bill(conn, made)
    assert (row.kind, row.total, document.corrects_bill_no, document.reason) == (
        "adjustment",
        Decimal("-5.00"),
        bill_no,
        "goodwill",
    )
    assert fetch_bill(conn, bill_no)[1] == before
    assert balance(conn) == before.total - 5
    with pytest.raises(BillError, match="approved by ben already"):
        reject(conn, proposal.proposal_id, who="cat")
    assert [row["action"] for row in fetch_audit(conn, f"bill {bill_no}")] == [
        "bill.amend",
        "bill.propose-amend",
        "bill.issue",
    ]


def test_a_changed_bill_makes_the_proposal_about_it_void(conn: psycopg.Connection, database: str) -> None:
    ledger = make_county(conn, 1)
    read_months(ledger, 1)
    (bill_no,) = run_and_issue(conn, database, SEPTEMBER)
    proposal = propose(conn, "rebill", bill_no, reason="check", who="ann", desk=DESK)
    changed = copy.deepcopy(TARIFF)
    changed["versions"][0]["prices"] = {"peak": "0.61", "valley": "0.30"}  # type: ignore[index]
    put_tariff(conn, changed)
    with pytest.raises(BillError, match="comes to another sum"):
        approve(conn, proposal.proposal_id, who="ben", desk=DESK)
    proposal = propose(conn, "amend", bill_no, reason="check", who="ann", desk=DESK, amount=Decimal(1))
    run_and_issue(conn, database, OCTOBER)  # corrects September
    with pytest.raises(BillError, match="has changed since"):
        approve(conn, proposal.proposal_id, who="ben", desk=DESK)
    assert [item.state for item in fetch_proposals(conn, None)] == ["void", "void"]
    assert fetch_bill(conn, bill_no)[0].state == "issued"


def test_deleting_and_releasing_exist_for_drafts_only(conn: psycopg.Connection, database: str) -> None:
    read_months(make_county(conn, 1), 1)
    (bill_no,) = run_and_issue(conn, database, SEPTEMBER)
    with pytest.raises(BillError, match="never deleted"):
        delete_draft(conn, bill_no, who="ann", reason="x")
    with pytest.raises(psycopg.errors.RaiseException, match="never edited"):
        conn.execute("update bill set total = total + 1")
    with pytest.raises(BillError, match="not held, but issued"):
        release_bill(conn, bill_no, note="right", who="ann")
    run_bills(conn, database, OCTOBER)
    (draft,) = fetch_bills(conn, BillQuery(states=("checked",)))
    delete_draft(conn, draft.name, who="ann", reason="wrong cycle")
    assert len(fetch_bills(conn, BillQuery())) == 1
    assert run_bills(conn, database, OCTOBER).done == 1, "what was deleted is billed by the next run"


def test_payments_settle_the_oldest_open_items_and_overdue_ones_are_marked(
    conn: psycopg.Connection, database: str
) -> None:
    read_months(make_county(conn, 1), 1)
    (september,) = run_and_issue(conn, database, SEPTEMBER)
    (october,) = run_and_issue(conn, database, OCTOBER)
    total = fetch_bill(conn, october)[0].total
    record_payment(conn, Payment("a-1", SEPTEMBER_TOTAL + 10, TODAY, "B-1"), "ann", TODAY)
    assert [fetch_bill(conn, name)[0].state for name in (september, october)] == ["paid", "issued"]
    with pytest.raises(PaymentError, match="reference 'B-1' already"):
        record_payment(conn, Payment("a-1", SEPTEMBER_TOTAL + 10, TODAY, "B-1"), "ben", TODAY)
    items, owed = open_items(conn, 1)
    assert ([item.open for item in items], owed) == ([Decimal("0.00"), total - 10], total - 10)
    assert refresh_overdue(conn, TODAY + dt.timedelta(days=21)) == 0
    assert refresh_overdue(conn, TODAY + dt.timedelta(days=22)) == 1
    assert fetch_bill(conn, october)[0].state == "overdue"
    opening, entries = statement(conn, "a-1", None, None)
    assert (opening, entries[-1].balance, len(entries)) == (0, total - 10, 3)
    late = TODAY + dt.timedelta(days=30)
    record_payment(conn, Payment("a-1", total, late, "B-2"), "ann", late)
    assert (fetch_bill(conn, october)[0].state, balance(conn)) == ("paid", -10)


def test_a_credit_note_is_set_off_against_its_own_bill_before_older_ones(
    conn: psycopg.Connection, database: str
) -> None:
    read_months(make_county(conn, 1), 1)
    (september,) = run_and_issue(conn, database, SEPTEMBER)
    (october,) = run_and_issue(conn, database, OCTOBER)
    proposal = propose(conn, "cancel", october, reason="wrong", who="ann", desk=DESK)
    approve(conn, proposal.proposal_id, who="ben", desk=DESK)
    assert [fetch_bill(conn, name)[0].state for name in (september, october)] == ["issued", "cancelled"]
    assert balance(conn) == SEPTEMBER_TOTAL
    with pytest.raises(BillError, match="is cancelled: nothing more"):
        propose(conn, "amend", october, reason="late", who="ann", desk=DESK, amount=Decimal(1))


def test_a_file_of_payments_is_recorded_whole_or_not_at_all(conn: psycopg.Connection, database: str) -> None:
    make_county(conn, 2)
    good = "account,amount,on,reference\na-1,10.50,2026-11-02,X1\na-2,3,2026-11-02,X1\n"
    payments, faults = parse_payments("\ufeff" + good)
    assert (len(payments), faults) == (2, [])
    assert import_payments(conn, payments, "ann", TODAY, dry_run=True) == []
    assert conn.execute("select count(*) from payment").fetchone() == (0,)
    _, faults = parse_payments(
        good + "a-1,ten,2026-11-02,X2\na-1,1,soon,X3\na-1,1,2026-11-02,X1\na-1,NaN,2026-11-02,X4\n,,\n"
    )
    assert [fault.split(":")[0] for fault in faults] == ["line 4", "line 5", "line 6, reference", "line 7", "line 8"]
    assert parse_payments("a;b\n") == ([], ["line 1: expected the header account,amount,on,reference"])
    unknown = [*payments, Payment("a-9", Decimal(1), TODAY, "Y")]
    assert import_payments(conn, unknown, "ann", TODAY, dry_run=False) == ["payment 3: no account 'a-9'"]
    assert conn.execute("select count(*) from payment").fetchone() == (0,)
    assert import_payments(conn, payments, "ann", TODAY, dry_run=False) == []
    assert balance(conn) == Decimal("-10.50")


def test_bills_are_found_by_customer_meter_number_period_state_and_amount(
    conn: psycopg.Connection, database: str
) -> None:
    read_months(make_county(conn, 2), 2)
    numbers = run_and_issue(conn, database, SEPTEMBER)
    run_bills(conn, database, OCTOBER)
    for query, count in (
        (BillQuery(customer="c-1"), 2),
        (BillQuery(customer="customer 2"), 2),
        (BillQuery(meter_id="m-2"), 2),
        (BillQuery(bill_no=numbers[0]), 1),
        (BillQuery(bill_no="2026-"), 2),
        (BillQuery(to_on=OCTOBER[0]), 2),
        (BillQuery(states=("checked",)), 2),
        (BillQuery(amount_min=SEPTEMBER_TOTAL + 1), 2),
        (BillQuery(amount_max=SEPTEMBER_TOTAL, account_id="a-1"), 1),
        (BillQuery(limit=3), 3),
        (BillQuery(customer="100%"), 0),
    ):
        assert len(fetch_bills(conn, query)) == count, query
