"""Bill runs: every contract once, whatever happens; from the ledger as it was at the start of the run."""

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from schemas.bill import decode_bill
from storage.bill import BillQuery, checked_ids, fetch_bill, fetch_bills, fetch_holds, issue_bills
from storage.bill_make import BillMaker, Rules
from storage.bill_run import BillRunError, Selection, bill_chunk, fetch_run, lock_run, plan_run, start_run
from storage.bill_workers import work_off
from tests.storage.made_county import LENIENT, NOW, OCTOBER, SEPTEMBER, TODAY, make_county, read_months, run_bills

ROOT = Path(__file__).parents[2]


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


def test_a_run_bills_every_contract_from_the_sub_totals_and_its_lines_sum_to_the_bill(
    conn: psycopg.Connection, database: str
) -> None:
    read_months(make_county(conn, 3), 3)
    run = run_bills(conn, database, OCTOBER)
    assert (run.state, run.total, run.done, run.problems) == ("done", 3, 3, [])
    bills = fetch_bills(conn, BillQuery(from_on=OCTOBER[0]))
    assert [(bill.state, bill.start_on, bill.end_on) for bill in bills] == [("checked", *OCTOBER)] * 3
    row, document = fetch_bill(conn, f"#{bills[0].bill_id}")
    # 31 days of 14 peak and 10 valley hours of 0.5 kWh: 217 and 155 kWh; 172 kWh over 200 kWh; 31 days at 3.10.
    expected = Decimal(217) * Decimal("0.60") + 155 * Decimal("0.30") + 172 * Decimal("0.05") + 31 * Decimal("3.10")
    assert (row.total, document.total_unrounded) == (expected.quantize(Decimal("0.01")), expected)
    assert sum(line.amount_unrounded for line in document.lines) == document.total_unrounded
    assert (document.energy_wh, len(document.days), document.days[0].energy_wh) == (372_000, 31, 12_000)
    (span,) = document.registers
    assert (span.start_wh, span.end_wh, span.energy_wh) == (360_000, 732_000, 372_000)
    lines = conn.execute("select sum(amount_unrounded) from bill_line where bill_id = %s", (row.bill_id,)).fetchone()
    assert lines == (expected,)


def test_a_second_run_of_the_same_cycle_bills_nobody_twice(conn: psycopg.Connection, database: str) -> None:
    ledger = make_county(conn, 3)
    read_months(ledger, 2)
    first = run_bills(conn, database, OCTOBER, selection=Selection(account_ids=("a-1", "a-2")))
    second = run_bills(conn, database, OCTOBER)
    assert (first.done, second.total, second.done) == (2, 3, 3)
    assert conn.execute("select count(*), count(distinct contract_no) from bill").fetchone() == (3, 3)
    with psycopg.connect(database) as other:
        lock_run(other, first.bill_run_no)
        with pytest.raises(BillRunError, match="another process"):
            work_off(database, first.bill_run_no, who="b", rules=LENIENT, now=NOW, grace_h=12, workers=1)


def test_two_runs_planned_at_the_same_time_bill_nobody_twice(conn: psycopg.Connection, database: str) -> None:
    read_months(make_county(conn, 2), 2)
    runs = [start_run(conn, OCTOBER, Selection(), who) for who in ("ann", "ben")]
    plans = [plan_run(conn, run, NOW, 12) for run in runs]
    made = []
    for run, work in zip(runs, plans, strict=True):
        maker = BillMaker(conn, LENIENT, known=run.ledger_position, refresh_no=run.refresh_no)
        made.append(bill_chunk(conn, maker, run, work, "x"))
    assert ([len(work) for work in plans], made) == ([2, 2], [2, 0])
    assert conn.execute("select count(*), count(distinct contract_no) from bill").fetchone() == (2, 2)


def test_a_cycle_that_is_not_over_or_in_its_grace_is_billed_only_when_told_to(
    conn: psycopg.Connection, database: str
) -> None:
    read_months(make_county(conn, 1), 1)
    end = dt.datetime(2026, 10, 31, 16, tzinfo=dt.UTC)
    early = run_bills(conn, database, OCTOBER, now=end + dt.timedelta(hours=11))
    assert (early.total, early.done) == (0, 0)
    told = run_bills(conn, database, OCTOBER, now=end - dt.timedelta(days=9), selection=Selection(early=True))
    assert told.done == 1


def test_a_reading_that_settles_while_a_run_goes_on_is_not_in_any_of_its_bills(
    conn: psycopg.Connection, database: str
) -> None:
    ledger = make_county(conn, 4)
    read_months(ledger, 4, days=60)
    run = start_run(conn, OCTOBER, Selection(), "ann")
    for number in range(1, 5):
        ledger.read_steadily(
            number,
            dt.datetime(2026, 10, 30, 16, tzinfo=dt.UTC),
            dt.datetime(2026, 10, 31, 16, tzinfo=dt.UTC),
            999,
            first_wh=720_000,
        )
    ledger.flush()
    start_run(conn, SEPTEMBER, Selection(), "ben")  # refreshes the sub-totals: the first run has to go by the facts
    work_off(database, run.bill_run_no, who="ann", rules=LENIENT, now=NOW, grace_h=12, workers=1)
    energies = {bill.energy_wh for bill in fetch_bills(conn, BillQuery(bill_run_no=run.bill_run_no))}
    assert energies == {360_000}, "30 days of October at 12 kWh: the 31st was not known"


@pytest.mark.parametrize("after_bills", [1, 12, 25])
def test_a_run_killed_at_any_point_goes_on_and_bills_nobody_twice(
    conn: psycopg.Connection, database: str, after_bills: int
) -> None:
    size = 30
    read_months(make_county(conn, size), size, days=35)
    run = start_run(conn, SEPTEMBER, Selection(), "ann")
    code = (
        "import datetime as dt, storage.bill_workers as w\n"
        "from tests.storage.made_county import LENIENT, NOW\n"
        "import storage.bill_run\nw.CHUNK = 2\n"
        f"w.work_off({database!r}, {run.bill_run_no}, who='ann', rules=LENIENT, now=NOW, grace_h=12, workers=2)"
    )
    script = "if __name__ == '__main__':\n    " + code.replace("\n", "\n    ")
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 25
    while conn.execute("select count(*) from bill").fetchone()[0] < after_bills and process.poll() is None:  # type: ignore[index]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    before = conn.execute("select count(*) from bill").fetchone()
    print(f"killed after {before} bills")
    while True:  # its processes end by themselves, and with them their locks
        others = conn.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            " and backend_type = 'client backend'"
        ).fetchone()
        if others == (0,):
            break
        assert time.monotonic() < deadline, "a process of the killed run goes on"
        time.sleep(0.05)
    ended = work_off(database, run.bill_run_no, who="ben", rules=LENIENT, now=NOW, grace_h=12, workers=1)
    assert (ended.state, ended.total, ended.done) == ("done", size, size)
    assert conn.execute("select count(*), count(distinct contract_no), count(distinct total) from bill").fetchone() == (
        size,
        size,
        1,
    )


def test_two_processes_make_the_same_bills_as_one(conn: psycopg.Connection, database: str) -> None:
    read_months(make_county(conn, 7), 7, days=31)
    run = run_bills(conn, database, SEPTEMBER, workers=2)
    assert (run.done, run.problems) == (7, [])
    assert conn.execute("select count(*), count(distinct total) from bill").fetchone() == (7, 1)


def test_bills_that_trip_a_check_are_held_with_value_and_bound(conn: psycopg.Connection, database: str) -> None:
    ledger = make_county(conn, 4)
    ledger.read_steadily(1, *_month(0), 500)
    ledger.read_steadily(1, *_month(1), 700, first_wh=360_000)
    ledger.read_steadily(2, *_month(0), 500)
    ledger.read_steadily(2, *_month(1), 0, first_wh=360_000)
    for at, wh in ((_month(0)[0], 0), (_month(0)[1], 300_000), (_month(1)[1], 600_000)):
        ledger.read(3, int(at.timestamp()) * 1_000_000, wh)
    ledger.flush()
    run_bills(conn, database, SEPTEMBER, rules=LENIENT)
    run_bills(conn, database, OCTOBER, rules=Rules())
    holds = {(row["contract_id"], row["reason"]): (row["value"], row["bound"]) for row in fetch_holds(conn)}
    assert holds["k-1", "change_last_period"] == ("+40.0 % of 12000 Wh a day", "±25 %")
    assert holds["k-2", "zero_use"] == ("0 kWh", "more than 0 kWh")
    assert holds["k-3", "estimated_share"] == ("100.0 %", "10 %")
    assert holds["k-4", "missing_readings"] == ("100.0 %", "2 %")


def _month(number: int) -> tuple[dt.datetime, dt.datetime]:
    edges = [dt.datetime(2026, month, day, 16, tzinfo=dt.UTC) for month, day in ((8, 31), (9, 30), (10, 31))]
    return edges[number], edges[number + 1]


def test_usage_without_a_contract_is_listed_and_what_cannot_be_rated_is_named(
    conn: psycopg.Connection, database: str
) -> None:
    ledger = make_county(conn, 2)
    ledger.add_meter(9, 9)
    read_months(ledger, 2)
    ledger.read_steadily(9, *_month(1), 100)
    ledger.flush()
    ledger.add_meter(8, 8)
    enter = (
        "insert into contract (contract_id, account_no, service_point_no, start_on) values (%s, 1, %s, '2026-10-01')"
    )
    conn.execute(enter, ("k-bare", 8))
    conn.execute("insert into account (account_id, customer_no, currency) values ('a-usd', 1, 'USD')")
    conn.execute(
        "update contract set account_no = (select account_no from account where account_id = 'a-usd') where contract_no = 2"
    )
    run = run_bills(conn, database, OCTOBER, rules=LENIENT)
    (row,) = run.uncontracted
    assert (row["service_point_id"], row["first_day"], row["days"]) == ("p-9", "2026-10-01", 31)
    (hold,) = fetch_holds(conn)
    assert (hold["contract_id"], hold["reason"], hold["value"]) == ("k-2", "currency", "CNY")
    assert [(row["contract_id"], row["text"].split(":")[0]) for row in run.problems] == [
        ("k-bare", "no tariff is entered for it")
    ]
    conn.execute(enter, ("k-late", 9))
    conn.execute(
        "insert into contract_tariff (contract_no, start_on, tariff_id, entered_by)"
        " select contract_no, '2026-10-01', 'county', 'x' from contract where contract_id = 'k-late'"
    )
    again = run_bills(conn, database, OCTOBER, rules=LENIENT)
    (late,) = fetch_bills(conn, BillQuery(bill_run_no=again.bill_run_no))
    assert (late.contract_id, late.energy_wh, again.uncontracted) == ("k-late", 74_400, [])


def test_numbers_have_no_gaps_whatever_fails_while_issuing(conn: psycopg.Connection, database: str) -> None:
    read_months(make_county(conn, 6), 6)
    run = run_bills(conn, database, OCTOBER)
    ids = checked_ids(conn, run.bill_run_no)
    assert issue_bills(conn, ids[:2], who="ann", on=TODAY, due_days=21) == ["2026-000001", "2026-000002"]
    with conn.transaction(force_rollback=True):
        assert issue_bills(conn, ids[2:4], who="ann", on=TODAY, due_days=21) == ["2026-000003", "2026-000004"]
    assert issue_bills(conn, ids, who="ann", on=TODAY, due_days=21) == [f"2026-00000{n}" for n in range(3, 7)]
    assert issue_bills(conn, ids, who="ann", on=TODAY, due_days=21) == [], "what is issued is left as it is"
    row = conn.execute("select document::text, due_on from bill where bill_no = '2026-000003'").fetchone()
    assert row is not None
    document = decode_bill(row[0])
    assert (document.bill_no, document.issued_on, document.due_on) == ("2026-000003", TODAY, row[1])
    assert fetch_run(conn, run.bill_run_no).done == 6
