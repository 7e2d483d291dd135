"""A small county: contracts with steady meters, for tests of bills."""

import datetime as dt
import json
from typing import Any

import psycopg

from metering.bill_check import Bounds
from storage.bill import checked_ids, issue_bills
from storage.bill_make import Rules
from storage.bill_run import BillRun, Selection, start_run
from storage.bill_workers import work_off
from tests.storage.made_ledger import MadeLedger

TARIFF = {
    "tariff_id": "county",
    "currency": "CNY",
    "zone": "Asia/Shanghai",
    "versions": [
        {
            "valid_from": "2024-01-01",
            "windows": [{"period": "peak", "from": "08:00", "to": "22:00"}],
            "rest": "valley",
            "prices": {"peak": "0.60", "valley": "0.30"},
            "tiers": [{"up_to_kwh": 200, "adder": "0"}, {"adder": "0.05"}],
            "fixed_charge": [{"id": "standing", "amount": "3.10", "per": "day"}],
        }
    ],
}
START = dt.datetime(2026, 8, 31, 16, tzinfo=dt.UTC)
"""2026-09-01 in Shanghai."""
OCTOBER = (dt.date(2026, 10, 1), dt.date(2026, 11, 1))
SEPTEMBER = (dt.date(2026, 9, 1), dt.date(2026, 10, 1))
NOW = dt.datetime(2027, 6, 1, tzinfo=dt.UTC)
TODAY = dt.date(2026, 11, 2)
LENIENT = Rules(bounds=Bounds(estimated_percent=100, missing_percent=100, change_percent=10_000))
HOUR_S = 3600
EVERYBODY = Selection()


def put_tariff(conn: psycopg.Connection[Any], document: dict[str, Any]) -> None:
    conn.execute(
        "insert into tariff (tariff_id, document, document_sha256) values (%(id)s, %(doc)s::text::jsonb, md5(%(doc)s::text))"
        " on conflict (tariff_id) do update set document = excluded.document, document_sha256 = excluded.document_sha256,"
        " loaded_at = now()",
        {"id": document["tariff_id"], "doc": json.dumps(document)},
    )


def make_county(conn: psycopg.Connection[Any], size: int) -> MadeLedger:
    """Make contracts 1 to `size`, each with its own customer, account, service point and hourly meter."""
    put_tariff(conn, TARIFF)
    ledger = MadeLedger(conn, interval_s=HOUR_S)
    for number in range(1, size + 1):
        ledger.add_meter(number, number)
        conn.execute("insert into customer (customer_id, name) values (%s, %s)", (f"c-{number}", f"Customer {number}"))
        conn.execute(
            "insert into account (account_id, customer_no, currency) values (%s, %s, 'CNY')", (f"a-{number}", number)
        )
        conn.execute(
            "insert into contract (contract_id, account_no, service_point_no, start_on) values (%s, %s, %s, '2026-09-01')",
            (f"k-{number}", number, number),
        )
        conn.execute(
            "insert into contract_tariff (contract_no, start_on, tariff_id, entered_by) values (%s, '2026-09-01', 'county', 'x')",
            (number,),
        )
    return ledger


def read_months(ledger: MadeLedger, size: int, days: int = 61, wh: Any = 500, skip: tuple[int, ...] = ()) -> None:
    """Read all meters from START on for some days, the meters of `skip` not at all."""
    for number in range(1, size + 1):
        if number not in skip:
            ledger.read_steadily(number, START, START + dt.timedelta(days=days), wh)
    ledger.flush()


def run_bills(
    conn: psycopg.Connection[Any],
    dsn: str,
    days: tuple[dt.date, dt.date],
    *,
    rules: Rules = LENIENT,
    workers: int = 1,
    selection: Selection = EVERYBODY,
    now: dt.datetime = NOW,
) -> BillRun:
    run = start_run(conn, days, selection, "ann")
    return work_off(dsn, run.bill_run_no, who="ann", rules=rules, now=now, grace_h=12, workers=workers)


def run_and_issue(conn: psycopg.Connection[Any], dsn: str, days: tuple[dt.date, dt.date], **more: Any) -> list[str]:
    run = run_bills(conn, dsn, days, **more)
    return issue_bills(conn, checked_ids(conn, run.bill_run_no), who="ann", on=TODAY, due_days=21)
