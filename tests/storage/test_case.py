"""The case file: one open case a meter, who did what, what was found, and what is billed of it."""

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from metering.theft.ledger import Fall, Lead
from storage.audit import fetch_audit
from storage.case import CaseError, conclude, fetch_case, fetch_cases, fetch_precision, open_cases, recover, take
from storage.case_evidence import Evidence
from storage.proposal import Desk
from tests.storage.made_county import OCTOBER, TODAY, make_county, read_months, run_and_issue

FALL_ON = dt.date(2026, 10, 5)
DESK = Desk(TODAY)


def made_run(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute(
        "insert into theft_run (who, zone, first_week, end_on, meters, alarms, digest)"
        " values ('ann', 'UTC', '2026-09-07', '2026-10-26', 2, 1, 'd') returning run_no"
    ).fetchone()
    assert row is not None
    return int(row[0])


def opened(conn: psycopg.Connection[Any], meter: int = 1, day: dt.date = FALL_ON, wh: int = 60_000) -> list[int]:
    fall = Fall(day, 80, 1, (wh, wh, wh), (wh // 2, wh, 2 * wh))
    at = dt.datetime(2026, 10, 19, tzinfo=dt.UTC)
    lead = Lead(f"m-{meter}", "theft_drop", at, "fell", fall)
    with conn.transaction():
        return open_cases(conn, [lead], {lead.subject: Evidence(fall, {"fall_on": day.isoformat()})}, made_run(conn))


@pytest.fixture
def county(database: str) -> Any:
    with psycopg.connect(database, autocommit=True) as conn:
        read_months(make_county(conn, 3), 3)
        yield conn


def confirmed(conn: psycopg.Connection[Any], case_no: int) -> None:
    take(conn, case_no, who="ann")
    conclude(conn, case_no, who="ann", outcome="bypass", note="a wire before the meter", is_confirmed=True)


def test_a_meter_has_one_open_case_by_a_key_of_the_database(county: Any) -> None:
    assert len(opened(county)) == 1
    assert opened(county, day=FALL_ON + dt.timedelta(days=100)) == []
    with pytest.raises(psycopg.errors.UniqueViolation):
        county.execute(
            "insert into theft_case (meter_no, kind, fall_on, opened_by, missing_wh_low, missing_wh, missing_wh_high)"
            " values (1, 'theft_drop', '2027-01-01', 'x', 0, 0, 0)"
        )


@pytest.mark.parametrize(("days", "count"), [(21, 0), (22, 1)])
def test_the_lead_of_a_rejected_case_opens_no_second_one_but_a_later_fall_does(
    county: Any, days: int, count: int
) -> None:
    (case_no,) = opened(county)
    take(county, case_no, who="ann")
    conclude(county, case_no, who="ann", outcome="empty_home", note="moved out", is_confirmed=False)
    assert len(opened(county, day=FALL_ON + dt.timedelta(days=days))) == count


def test_missing_energy_is_worth_what_the_tariff_makes_of_it(county: Any) -> None:
    (case_no,) = opened(county)
    found = fetch_case(county, case_no)
    assert found is not None
    case = found[0]
    # 60 kWh between the valley at 0.30 and the peak with the upper tier at 0.65
    assert case.money is not None
    assert Decimal(18) < case.money < Decimal(39)
    assert case.money_low is not None
    assert case.money_high is not None
    assert case.money_low < case.money < case.money_high
    assert case.currency == "CNY"
    assert "tariff county" in case.money_note


def test_without_a_contract_there_is_energy_but_no_money_and_it_is_said_why(county: Any) -> None:
    county.execute("insert into meter (meter_no, meter_id) values (9, 'm-9')")
    opened(county, meter=9)
    (case,) = fetch_cases(county)
    assert (case.money, case.currency, case.missing_wh) == (None, None, 60_000)
    assert "no contract" in case.money_note


def test_the_most_money_comes_first(county: Any) -> None:
    for meter, wh in ((1, 1000), (2, 90_000), (3, 40_000)):
        opened(county, meter=meter, wh=wh)
    assert [case.meter_no for case in fetch_cases(county)] == [2, 3, 1]
    assert [case.meter_no for case in fetch_cases(county, limit=1)] == [2]
    with pytest.raises(CaseError, match="a case is one of"):
        fetch_cases(county, states=["old"])


def test_a_case_is_taken_once_and_again_by_the_same_person_changes_nothing(county: Any) -> None:
    (case_no,) = opened(county)
    first = take(county, case_no, who="ann")
    assert take(county, case_no, who="ann") == first
    with pytest.raises(CaseError, match="investigating by ann"):
        take(county, case_no, who="ben")
    found = fetch_case(county, case_no)
    assert found is not None
    assert [(event.who, event.to_state) for event in found[1]] == [("gridtally", "new"), ("ann", "investigating")]
    assert [row["action"] for row in fetch_audit(county, f"case {case_no}")] == ["case.take", "case.open"]


def test_a_case_that_nobody_took_is_not_concluded_and_an_outcome_is_of_its_state(county: Any) -> None:
    (case_no,) = opened(county)
    with pytest.raises(CaseError, match="take it first"):
        conclude(county, case_no, who="ann", outcome="bypass", note="x", is_confirmed=True)
    take(county, case_no, who="ann")
    with pytest.raises(CaseError, match="no outcome of a rejected case"):
        conclude(county, case_no, who="ann", outcome="bypass", note="x", is_confirmed=False)
    with pytest.raises(CaseError, match="needs a note"):
        conclude(county, case_no, who="ann", outcome="bypass", note=" ", is_confirmed=True)
    with pytest.raises(CaseError, match="no case 99"):
        take(county, 99, who="ann")


def test_precision_is_the_share_of_the_concluded_that_were_confirmed(county: Any) -> None:
    assert fetch_precision(county)[-1].percent is None
    numbers = [opened(county, meter=meter)[0] for meter in (1, 2, 3)]
    confirmed(county, numbers[0])
    take(county, numbers[1], who="ann")
    conclude(county, numbers[1], who="ann", outcome="solar", note="panels", is_confirmed=False)
    by_kind = {row.kind: row for row in fetch_precision(county)}
    assert (by_kind["theft_drop"].opened, by_kind["theft_drop"].concluded, by_kind["all"].percent) == (3, 2, 50)


def test_without_an_issued_bill_it_is_said_what_to_do(county: Any) -> None:
    (case_no,) = opened(county)
    with pytest.raises(CaseError, match="only a confirmed one"):
        recover(county, case_no, who="ann", desk=DESK)
    confirmed(county, case_no)
    with pytest.raises(CaseError, match="run and issue the bills"):
        recover(county, case_no, who="ann", desk=DESK)
    found = fetch_case(county, case_no)
    assert found is not None
    assert found[0].state == "confirmed"


def test_a_confirmed_case_becomes_a_proposal_that_another_person_decides(county: Any, database: str) -> None:
    run_and_issue(county, database, OCTOBER)
    (case_no,) = opened(county)
    confirmed(county, case_no)
    case, proposal = recover(county, case_no, who="ann", desk=DESK)
    assert (case.state, case.proposal_id, proposal.state) == ("recovered", proposal.proposal_id, "pending")
    assert case.money is not None
    assert abs(Decimal(proposal.content["amount"]) - case.money) <= Decimal("0.005")
    assert "theft case" in proposal.reason
    with pytest.raises(CaseError, match="only a confirmed one"):
        recover(county, case_no, who="ann", desk=DESK)
    assert county.execute("select count(*) from proposal").fetchone() == (1,)


def test_the_history_of_a_case_is_only_added_to(county: Any) -> None:
    opened(county)
    with pytest.raises(psycopg.Error):
        county.execute("update theft_case_event set who = 'eve'")
    assert json.dumps(fetch_cases(county)[0].evidence)
