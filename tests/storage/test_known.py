"""As known then: usage, charge and bills asked for with a past moment are what was shown at that moment, to the digit."""

import copy
import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from typer.testing import CliRunner

from gridtally.cli import app
from storage.charge import fetch_charge
from storage.contract import end_contract, set_contract_tariff
from storage.known import bills_known_at, fetch_charge_known, fetch_service_points, fetch_usage_known, usage_as_json
from storage.projection import fetch_projection, projection_as_json
from storage.registry import import_tariff, load_registry
from tests.storage.made_ledger import US, MadeLedger

ROOT = Path(__file__).parent.parent.parent
START = dt.datetime(2026, 6, 30, 16, tzinfo=dt.UTC)  # midnight of 1 July in Shanghai
DAY = dt.timedelta(days=1)
HEAT = {
    "tariff_id": "heat",
    "currency": "CNY",
    "zone": "Asia/Shanghai",
    "versions": [
        {
            "valid_from": "2026-01-01",
            "flags": ["heat_day"],
            "windows": [{"period": "sharp", "from": "10:00", "to": "20:00", "day_types": ["heat_day"]}],
            "rest": "day",
            "prices": {"sharp": "1.50", "day": "0.50"},
            "tiers": [{"up_to_kwh": 40, "adder": "0"}, {"adder": "0.10"}],
            "fixed_charge": {"amount": "0.25", "per": "day"},
        }
    ],
}


def load_document(conn: psycopg.Connection, tmp_path: Path, document: dict[str, Any]) -> None:
    path = tmp_path / "tariff.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    import_tariff(conn, path)


@pytest.fixture
def conn(database: str, tmp_path: Path) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        load_document(conn, tmp_path, HEAT)
        import_tariff(conn, ROOT / "tariffs" / "county-residential.yaml")
        conn.execute("insert into customer (customer_id, name) values ('c-1', 'Li')")
        conn.execute("insert into account (account_id, customer_no, currency) values ('a-1', 1, 'CNY')")
        yield conn


@pytest.fixture
def ledger(conn: psycopg.Connection) -> MadeLedger:
    """Read m-1 steadily for ten days of July, but for seven hours from 19:00 of the second."""
    made = MadeLedger(conn)
    made.add_meter(1, 1)
    conn.execute(
        "insert into contract (contract_id, account_no, service_point_no, start_on) values ('k-1', 1, 1, '2026-01-01')"
    )
    set_contract_tariff(conn, "k-1", "heat", dt.date(2026, 1, 1), {}, "ann")
    conn.execute("insert into day_flag (flag, day, published_by) values ('heat_day', '2026-07-02', 'ann')")
    register, at = 0, int(START.timestamp()) * US
    for number in range(10 * 96 + 1):
        if not 172 <= number < 200:
            made.read(1, at + number * 900 * US, register)
        register += 40 + number % 7
    made.flush()
    return made


def now_of(conn: psycopg.Connection) -> dt.datetime:
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return row[0]


def shown(conn: psycopg.Connection, at: dt.datetime | None = None) -> str:
    """Return all that a customer sees: usage by quarter-hours, lines, charge so far."""
    charge = fetch_charge_known(conn, 1, at)
    assert charge is not None
    usage = usage_as_json(fetch_usage_known(conn, 1, START, START + 20 * DAY, at))
    projection = fetch_projection(conn, 1, at)
    assert projection is not None
    return json.dumps([usage, str(charge.bill), projection_as_json(projection)], default=str)


def late_reading(conn: psycopg.Connection, ledger: MadeLedger, tmp_path: Path) -> None:
    register = (
        sum(40 + number % 7 for number in range(171)) + 400
    )  # most of the gap's energy was drawn at the sharp price
    ledger.read(1, int(START.timestamp()) * US + 175 * 900 * US, register)
    ledger.flush()


def next_readings(conn: psycopg.Connection, ledger: MadeLedger, tmp_path: Path) -> None:
    ledger.read(1, int((START + 11 * DAY).timestamp()) * US, 90_000)
    ledger.flush()


def new_prices(conn: psycopg.Connection, ledger: MadeLedger, tmp_path: Path) -> None:
    dearer = copy.deepcopy(HEAT)
    dearer["versions"][0]["prices"]["day"] = "0.60"  # type: ignore[index]
    load_document(conn, tmp_path, dearer)


def other_tariff(conn: psycopg.Connection, ledger: MadeLedger, tmp_path: Path) -> None:
    set_contract_tariff(conn, "k-1", "county-residential", dt.date(2026, 7, 3), {}, "bo")


def flag_withdrawn(conn: psycopg.Connection, ledger: MadeLedger, tmp_path: Path) -> None:
    conn.execute("update day_flag set withdrawn_at = clock_timestamp()")


def flag_published(conn: psycopg.Connection, ledger: MadeLedger, tmp_path: Path) -> None:
    conn.execute("insert into day_flag (flag, day, published_by) values ('heat_day', '2026-07-05', 'ann')")


def contract_ended(conn: psycopg.Connection, ledger: MadeLedger, tmp_path: Path) -> None:
    end_contract(conn, "k-1", dt.date(2026, 7, 20), "ann")


CHANGES = [late_reading, next_readings, new_prices, flag_withdrawn, flag_published, other_tariff, contract_ended]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_usage_and_charge_as_known_then_are_what_was_shown_then_to_the_digit(
    conn: psycopg.Connection, ledger: MadeLedger, tmp_path: Path, change: Any
) -> None:
    then, before = now_of(conn), shown(conn)
    change(conn, ledger, tmp_path)
    assert shown(conn) != before, "the change shows now"
    assert shown(conn, then) == before
    assert shown(conn, now_of(conn)) == shown(conn)


def test_each_of_many_moments_is_answered_as_it_was(
    conn: psycopg.Connection, ledger: MadeLedger, tmp_path: Path
) -> None:
    seen = []
    for change in CHANGES:
        seen.append((now_of(conn), shown(conn)))
        change(conn, ledger, tmp_path)
    assert len({text for _, text in seen}) == len(CHANGES)
    for at, text in seen:
        assert shown(conn, at) == text


def test_before_anything_was_known_there_is_no_charge_and_no_usage(
    conn: psycopg.Connection, ledger: MadeLedger
) -> None:
    long_ago = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert fetch_charge_known(conn, 1, long_ago) is None
    assert fetch_usage_known(conn, 1, START, START + DAY, long_ago).energy_wh == 0


def test_the_charge_so_far_is_priced_by_hand(conn: psycopg.Connection, ledger: MadeLedger) -> None:
    charge = fetch_charge_known(conn, 1)
    assert charge is not None
    energy = sum(40 + number % 7 for number in range(960))
    sharp = [line for line in charge.bill.lines if line.line.label == "sharp"]
    assert charge.load.energy_wh == energy
    (wh,) = [int(line.line.energy_wh) for line in sharp]
    expected = Decimal(wh) / 1000 + Decimal(energy) / 1000 * Decimal("0.50")  # sharp is 1.00 dearer
    # eleven days of 0.25: the reading at midnight begins the eleventh
    assert charge.bill.total_unrounded == expected + (Decimal(energy) / 1000 - 40) * Decimal("0.10") + Decimal("2.75")


def test_the_charge_known_now_is_the_running_charge(
    conn: psycopg.Connection, ledger: MadeLedger, tmp_path: Path
) -> None:
    for change in (late_reading, flag_published, other_tariff):
        change(conn, ledger, tmp_path)
        conn.execute("update stream_offset set later_facts_from = '2026-01-01'")
        running, known = fetch_charge(conn, load_registry(conn), 1), fetch_charge_known(conn, 1)
        assert running is not None
        assert known is not None
        assert running.total_unrounded == known.bill.total_unrounded
        assert running.energy_wh == known.load.energy_wh
        assert [line.amount for line in running.lines] == [row.amount for row in known.bill.lines]


def test_a_projection_is_the_bill_of_what_was_used_and_what_is_to_come(
    conn: psycopg.Connection, ledger: MadeLedger
) -> None:
    found = fetch_projection(conn, 1)
    assert found is not None
    assert (found.basis, found.own_days) == ("own", 10)
    assert found.low.bill is not None
    assert found.middle.bill is not None
    assert found.high.bill is not None
    assert found.charge.bill.total < found.low.bill.total < found.middle.bill.total < found.high.bill.total
    assert found.middle.energy_wh == pytest.approx(43 * 96 * 31, rel=0.01)
    fixed = [line.amount for line in found.middle.bill.lines if line.line.kind == "fixed"]
    assert fixed == [Decimal("7.75")], "all days of July"


def test_a_prosumer_pays_least_where_little_is_drawn_and_much_is_fed_in(
    conn: psycopg.Connection, tmp_path: Path
) -> None:
    sun = copy.deepcopy(HEAT) | {"tariff_id": "sun"}
    sun["versions"][0]["export"] = {"mode": "buy_all", "prices": "0.30"}  # type: ignore[index]
    load_document(conn, tmp_path, sun)
    made = MadeLedger(conn)
    made.add_meter(1, 1)
    conn.execute(
        "insert into contract (contract_id, account_no, service_point_no, start_on) values ('k-1', 1, 1, '2026-01-01')"
    )
    set_contract_tariff(conn, "k-1", "sun", dt.date(2026, 1, 1), {}, "ann")
    for number in range(8 * 96 + 1):
        made.read(1, int(START.timestamp()) * US + number * 900 * US, number * 50, number * 20)
    made.flush()
    found = fetch_projection(conn, 1)
    assert found is not None
    assert found.low.energy_wh < found.middle.energy_wh < found.high.energy_wh
    assert found.low.export_wh > found.middle.export_wh > found.high.export_wh
    assert found.middle.export_wh == pytest.approx(20 * 96 * 31, rel=0.01)
    sums = [
        sum((line.amount for line in side.bill.lines if line.line.kind == "export"), Decimal(0))
        for side in (found.low, found.high)
        if side.bill is not None
    ]
    assert sums[0] < sums[1] < 0


def test_a_new_customer_is_projected_by_the_class(conn: psycopg.Connection, ledger: MadeLedger) -> None:
    from storage.usage_day import refresh_usage_days

    conn.execute("insert into account (account_id, customer_no, currency) values ('a-2', 1, 'CNY')")
    ledger.add_meter(2, 2)
    conn.execute(
        "insert into contract (contract_id, account_no, service_point_no, start_on) values ('k-2', 2, 2, '2026-01-01')"
    )
    set_contract_tariff(conn, "k-2", "heat", dt.date(2026, 1, 1), {}, "ann")
    ledger.read_steadily(2, START + 8 * DAY, START + 10 * DAY, 100)
    ledger.flush()
    flat = fetch_projection(conn, 2)
    assert flat is not None
    assert flat.basis == "flat", "sub-totals of the class are not made yet"
    refresh_usage_days(conn)
    found = fetch_projection(conn, 2)
    assert found is not None
    assert (found.basis, found.own_days) == ("class", 2)
    assert found.middle.energy_wh == pytest.approx(100 * 96 * (2 + 21), rel=0.05)


def test_bills_have_the_state_that_they_had(conn: psycopg.Connection, ledger: MadeLedger) -> None:
    conn.execute(
        "insert into bill (bill_no, kind, state, contract_no, account_no, start_on, end_on, currency, total,"
        " total_unrounded, due_on, ledger_position, document, created_at, created_by, issued_at, sent_at, cancelled_at)"
        " values ('2026-000001', 'invoice', 'cancelled', 1, 1, '2026-06-01', '2026-07-01', 'CNY', 10, 10, '2026-07-20',"
        " '{}', '{}', '2026-07-01T10:00Z', 'ann', '2026-07-02T10:00Z', '2026-07-03T10:00Z', '2026-08-30T10:00Z')"
    )
    conn.execute(
        "insert into payment (account_no, received_on, amount, currency, reference, entered_by, entered_at)"
        " values (1, '2026-08-01', 10, 'CNY', 'r', 'ann', '2026-08-02T10:00Z')"
    )

    def at(month: int, day: int) -> list[tuple[str | None, str]]:
        moment = dt.datetime(2026, month, day, 12, tzinfo=dt.UTC)
        return [(bill.bill_no, bill.state) for bill in bills_known_at(conn, moment, account_id="a-1")]

    number = "2026-000001"
    assert at(6, 30) == []
    assert at(7, 1) == [(None, "checked")]
    assert at(7, 2) == [(number, "issued")]
    assert at(7, 3) == [(number, "sent")]
    assert at(7, 25) == [(number, "overdue")]
    assert at(8, 3) == [(number, "paid")]
    assert at(8, 31) == [(number, "cancelled")]


def test_the_commands_answer_for_now_and_then(
    conn: psycopg.Connection, ledger: MadeLedger, database: str, tmp_path: Path
) -> None:
    def run(*words: str, code: int = 0) -> str:
        found = CliRunner().invoke(app, [*words], env={"GRIDTALLY_DATABASE__DSN": database})
        assert found.exit_code == code, found.output
        return found.output

    then = now_of(conn).isoformat()
    before = json.loads(run("charge", "a-1", "--json"))
    span = ("--from", START.isoformat(), "--to", (START + 20 * DAY).isoformat())
    used = json.loads(run("usage", "m-1", *span, "--json"))
    late_reading(conn, ledger, tmp_path)
    new_prices(conn, ledger, tmp_path)
    assert json.loads(run("charge", "a-1", "--json"))["charges"] != before["charges"]
    assert json.loads(run("charge", "a-1", "--json", "--as-known-at", then))["charges"] == before["charges"]
    again = json.loads(run("usage", "p-1", *span, "--json", "--as-known-at", then))
    assert again["intervals"] == used["intervals"]
    assert again["registers"] == used["registers"]
    text = run("charge", "a-1")
    assert "8 times in 10 between" in text
    assert "its own 10 whole days" in text
    assert "total" in run("usage", "m-1", *span)
    assert "no account with a contract" in run("charge", "nobody", code=1)
    assert "before --to" in run("usage", "m-1", "--from", span[3], "--to", span[1], code=2)
    assert "no reading with a tariff was known then" in run(
        "charge", "a-1", "--as-known-at", "2020-01-01T00:00Z", code=1
    )
    assert fetch_service_points(conn, "m-1") == [(1, "p-1")]
