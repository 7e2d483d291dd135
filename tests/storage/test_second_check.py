"""The second rater finds every bill and charge as it is made of the facts, and names what was broken by hand."""

import copy
import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import yaml

from storage.bill import fetch_bill
from storage.charge import fetch_charge
from storage.check import check_all
from storage.payment import Payment, record_payment
from storage.proposal import Desk, approve, propose
from storage.registry import load_registry
from storage.second_charge import check_charges
from storage.second_check import check_bills
from tests.agents.test_contract_charge import BUSY, QUARTERS, Town
from tests.golden.made_load import ROOT
from tests.storage.made_county import (
    HOUR_S,
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
)
from tests.storage.made_ledger import US, MadeLedger

DESK = Desk(today=TODAY, rules=LENIENT)
START_US = int(START.timestamp()) * US
HOUR_US = HOUR_S * US
EXCHANGE = START + dt.timedelta(days=40, hours=5)


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


def uneven(number: int) -> int:
    return 300 + number * 137 % 1900


def read_but(
    ledger: MadeLedger, meter: int, hours: range, first_wh: int, missing: tuple[int, ...] = (), first: int = 0
) -> int:
    """Read a meter at whole hours since START, some of them not; return the last register."""
    register = first_wh
    for hour in hours:
        register += uneven(hour) if hour != hours[0] or first else 0
        if hour not in missing:
            ledger.read(meter, START_US + hour * HOUR_US, register)
    return register


def contracts_of_each_kind(conn: psycopg.Connection) -> MadeLedger:
    """Make a home, a works, a shop, a home in a zone with summer time, and one that changes its tariff inside a cycle."""
    ledger = make_county(conn, 5)
    documents = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / "tariffs").glob("*.yaml")}
    summer = copy.deepcopy(documents["county-residential"])
    summer |= {"tariff_id": "berlin", "zone": "Europe/Berlin"}
    for document in [*documents.values(), summer]:
        put_tariff(conn, json.loads(json.dumps(document, default=str)))
    names = ("county-residential", "county-industrial", "county-commercial", "berlin", "county-residential")
    for number, name in enumerate(names, 1):
        conn.execute("update contract_tariff set tariff_id = %s where contract_no = %s", (name, number))
    conn.execute(
        "insert into contract_tariff (contract_no, start_on, tariff_id, entered_by)"
        " values (5, '2026-09-16', 'county-industrial', 'x'), (5, '2026-11-05', 'county-commercial', 'x')"
    )
    conn.execute("update meter_assignment set end_at = %s where meter_no = 1", (EXCHANGE,))
    ledger.add_meter(6, 1, start_at=EXCHANGE)
    return ledger


def test_bills_of_every_kind_are_what_the_second_rater_makes_of_the_facts(
    conn: psycopg.Connection, database: str
) -> None:
    """Late readings, a correction, an exchange of meters, a tariff that changes inside a cycle, the day of 25 hours."""
    ledger = contracts_of_each_kind(conn)
    thirty_one, all_hours = range(31 * 24), range(70 * 24 + 8)
    exchanged_h = 40 * 24 + 5
    read_but(ledger, 1, range(exchanged_h + 1), 0)
    read_but(ledger, 6, range(exchanged_h, all_hours[-1] + 1), 77_000)
    late = {number: tuple(range(50, 60)) for number in (2, 3)}
    registers = {number: read_but(ledger, number, thirty_one, 0, late.get(number, ())) for number in range(2, 6)}
    ledger.flush()
    run_and_issue(conn, database, SEPTEMBER)
    for number in (2, 3):  # most of what was spread over ten hours was used in the first of them
        ledger.read(number, START_US + 50 * HOUR_US, sum(uneven(hour) for hour in range(1, 60)))
    for number in range(2, 6):
        read_but(ledger, number, all_hours[31 * 24 :], registers[number], first=1)
    ledger.flush()
    numbers = run_and_issue(conn, database, OCTOBER)
    kinds = [line.kind for number in numbers for line in fetch_bill(conn, number)[1].lines]
    assert kinds.count("correction") == 2
    assert kinds.count("demand") == 2
    proposal = propose(conn, "rebill", numbers[0], reason="one clean bill", who="ann", desk=DESK)
    approve(conn, proposal.proposal_id, who="ben", desk=DESK)
    record_payment(conn, Payment("a-2", Decimal(100_000), TODAY, "B1"), "ann", TODAY)
    found = check_bills(conn)
    assert found.findings == []
    assert found.checked.startswith("11 of 11 bills and 2 corrections rated again"), found.checked
    assert "not checked" not in found.checked
    conn.execute("update stream_offset set later_facts_from = '-infinity'")  # no worker was there: states are all facts
    charges = check_charges(conn)
    assert charges.findings == []
    assert charges.checked == "3 from live state and 5 from the ledger, 5 of 5 service points"
    conn.execute(UNGUARDED + "update bill_line set amount = amount + 1 where kind = 'correction'")
    wrong = [text for text in check_bills(conn).findings if " line correction-2026-00000" in text]
    assert sum(", the second rater has " in text for text in wrong) == 2, wrong


def test_a_bill_whose_meters_were_exchanged_later_is_said_not_to_be_checked(
    conn: psycopg.Connection, database: str
) -> None:
    """Where meters measured has no history: what was there then cannot be asked for."""
    one_month(conn, database)
    conn.execute("update meter_assignment set end_at = '2026-09-10T00:00Z' where meter_no = 2")
    conn.execute(
        "insert into meter_exchange (service_point_no, at, old_meter_no, final_import_wh, new_meter_no, initial_import_wh,"
        " reason, entered_by) values (2, '2026-09-10T00:00Z', 2, 0, 1, 0, 'worn', 'x')"
    )
    found = check_bills(conn)
    assert found.findings == []
    assert "not checked: bill 2026-000002: a meter exchange of 2026-09-10T00:00:00+00:00 was entered" in found.checked


def test_readings_known_after_a_bill_are_no_difference(conn: psycopg.Connection, database: str) -> None:
    """What is above the position of a bill is the next bill's."""
    ledger = one_month(conn, database)
    ledger.read(1, START_US + 22 * HOUR_US, 11_500)
    ledger.flush()
    assert check_bills(conn).findings == []


def one_month(conn: psycopg.Connection, database: str) -> MadeLedger:
    """Make two bills of September, the first one paid; meter 1 was not read at 22:00 of the first day, where the peak ends."""
    ledger = make_county(conn, 2)
    ledger.read_steadily(1, START, START + dt.timedelta(hours=21), 500)
    ledger.read_steadily(1, START + dt.timedelta(hours=23), START + dt.timedelta(days=30), 500, first_wh=11_500)
    read_months(ledger, 2, days=30, skip=(1,))
    (number, _) = run_and_issue(conn, database, SEPTEMBER)
    total = fetch_bill(conn, number)[0].total
    record_payment(conn, Payment("a-1", total, TODAY, "B1"), "ann", TODAY)
    return ledger


UNGUARDED = "alter table bill disable trigger bill_guard; alter table bill_line disable trigger bill_line_guard;"
BROKEN = {
    "an amount in the document": (
        UNGUARDED
        + "update bill set document = jsonb_set(document, '{lines,0,amount}', '\"1.00\"') where bill_no = '2026-000001'",
        "bill 2026-000001 line energy-valley: its document says 1.00",
    ),
    "an amount in the document and its line": (
        UNGUARDED
        + "update bill set document = jsonb_set(document, '{lines,0,amount_unrounded}', '\"1\"') where bill_no = '2026-000001';"
        " update bill_line set amount_unrounded = 1 where line_id = 'energy-peak' and bill_id = (select min(bill_id) from bill)",
        "bill 2026-000001 line energy-peak: 1, the second rater has ",
    ),
    "the total": (
        UNGUARDED
        + "update bill set total = total + 1, document = jsonb_set(document, '{total}', to_jsonb((total + 1)::text))"
        " where bill_no = '2026-000002'",
        "bill 2026-000002 total: ",
    ),
    "a gap in numbers": (
        UNGUARDED
        + "update bill set bill_no = '2026-000003', document = jsonb_set(document, '{bill_no}', '\"2026-000003\"')"
        " where bill_no = '2026-000002'",
        "numbers of 2026: 2026-000002 is missing",
    ),
    "a payment removed": (
        "alter table payment disable trigger payment_kept; delete from payment",
        "bill 2026-000001 is paid, and ",
    ),
    "a document that is torn": (
        UNGUARDED + "update bill set document = document #- '{tariffs,0,terms}' where bill_no = '2026-000002'",
        "bill 2026-000002: the second rater cannot make it: 'terms'",
    ),
    "a state that does not fit": (
        "update bill set state = 'cancelled' where bill_no = '2026-000002'",
        "bill 2026-000002 is cancelled: issued ",
    ),
    "other terms of the contract": (
        'update contract_tariff set terms = \'{"contract_kw": "9"}\' where contract_no = 2',
        "bill 2026-000002: the second rater cannot make it: its parts are ",
    ),
    "what it leaves to the next": (
        UNGUARDED
        + "update bill set history_after = jsonb_set(history_after, '{year_wh}', '1') where bill_no = '2026-000002'",
        "bill 2026-000002 leaves year_wh 1, the second rater 360000",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_by_hand_is_named(what: str, conn: psycopg.Connection, database: str) -> None:
    one_month(conn, database)
    assert check_bills(conn).findings == []
    statement, said = BROKEN[what]
    conn.execute(statement)  # type: ignore[arg-type]
    found = check_bills(conn).findings
    assert any(text.startswith(said) for text in found), found


def test_a_fact_below_the_position_of_a_bill_is_named(conn: psycopg.Connection, database: str) -> None:
    ledger = one_month(conn, database)
    ledger.next_offset[1] = 0  # the frame that the bill has seen gets another row
    ledger.read(1, START_US + 22 * HOUR_US, 11_500)
    ledger.flush()
    (first, *_) = check_bills(conn).findings
    # A half of two hours' 1 kWh was in the valley and is in the peak now.
    assert first == "bill 2026-000001 line energy-valley: 45, the second rater has 44.85"


def test_a_credit_note_that_is_not_the_negative_of_its_bill_is_named(conn: psycopg.Connection, database: str) -> None:
    one_month(conn, database)
    proposal = propose(conn, "cancel", "2026-000002", reason="wrong customer", who="ann", desk=DESK)
    approve(conn, proposal.proposal_id, who="ben", desk=DESK)
    assert check_bills(conn).findings == []
    conn.execute(UNGUARDED + "update bill_line set amount = amount - 1 where kind = 'credit' and line_no = 1")
    conn.execute("update bill set total = total - 1 where kind = 'credit_note'")
    found = check_bills(conn).findings
    assert any(text.startswith("credit note 2026-000003: ") for text in found), found
    assert any(text.startswith("credit note 2026-000003 line energy-valley: ") for text in found), found


def test_a_live_state_that_was_altered_is_named(database: str) -> None:
    town = Town(database)
    town.tariff("busy", **BUSY)
    for number in (1, 2):
        town.meter(number, number)
        town.contract(number, "busy")
        town.read(number, *QUARTERS)
    try:
        assert check_charges(town.conn).checked.startswith("2 from live state and 2 from the ledger")
        assert check_charges(town.conn).findings == []
        town.conn.execute("update meter_state set quantities_wh[1] = quantities_wh[1] + 1000 where meter_no = 2")
        (found,) = check_charges(town.conn).findings
        assert found.startswith("p2 charge so far from live state: ")
        broken: Any = {result.invariant for result in check_all(town.conn) if not result.holds}
        assert {"I5", "I16"} <= broken
    finally:
        town.handler.close()
        town.conn.close()


def test_a_first_years_ladder_by_months_of_service_is_that_of_the_bill(conn: psycopg.Connection, database: str) -> None:
    """A contract of September has 4 of 12 parts of the year's first tier, in the charge so far as on the bill."""
    document = copy.deepcopy(TARIFF)
    rule = {"tier_rule": {"per": "year", "prorate": "months"}}
    document["versions"][0] |= rule  # type: ignore[index]
    ledger = make_county(conn, 1)
    put_tariff(conn, document)
    ledger.read_steadily(1, START, START + dt.timedelta(days=30), 500)
    ledger.flush()
    conn.execute("update stream_offset set later_facts_from = '-infinity'")
    before = check_charges(conn)
    charge = fetch_charge(conn, load_registry(conn), 1)
    (number,) = run_and_issue(conn, database, SEPTEMBER)
    assert before.findings == []
    assert check_bills(conn).findings == []
    assert charge is not None
    assert charge.total == fetch_bill(conn, number)[0].total
