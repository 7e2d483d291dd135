"""Every amount is followed back to the messages that caused it."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal

import psycopg
import pytest

from storage.bill import BillError
from storage.bill_explain import explain_bill
from tests.storage.made_county import OCTOBER, SEPTEMBER, START, make_county, run_and_issue
from tests.storage.made_ledger import US, MadeLedger


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


def read_with_a_gap(ledger: MadeLedger) -> int:
    """Read a month whose first 16 hours are one interval; return its begin, epoch µs."""
    first = int(START.timestamp()) * US
    ledger.read(1, first, 0)
    ledger.read(1, first + 16 * 3600 * US, 16_000)
    ledger.read_steadily(1, START + dt.timedelta(hours=16), START + dt.timedelta(days=61), 500, first_wh=16_000)
    ledger.flush()
    return first


def test_an_energy_line_leads_to_its_price_its_intervals_and_every_reading(
    conn: psycopg.Connection, database: str
) -> None:
    read_with_a_gap(make_county(conn, 1))
    (bill_no,) = run_and_issue(conn, database, SEPTEMBER)
    (found,) = explain_bill(conn, bill_no, "energy-valley").lines
    assert found.tariff is not None
    assert (found.tariff.tariff_id, found.tariff.period, found.tariff.listed_price) == (
        "county",
        "valley",
        Decimal("0.30"),
    )
    assert found.energy_wh == found.line.quantity * 1000 == sum(item.energy_wh for item in found.intervals)
    # 29 nights of ten hours, and on the first day eight hours of the long interval and two after it.
    assert len(found.intervals) == 30 * 40
    assert found.energy_wh == 29 * 5000 + 8000 + 1000
    assert sum(item.estimated_wh for item in found.intervals) == 8000
    long = found.readings[0]
    assert (long.meter_id, long.energy_wh, long.quality, long.revision) == ("m-1", 16_000, "long", 0)
    assert (long.raw_partition, long.raw_offset, long.raw_index) == (1, 0, 1)
    assert len(found.readings) == 1 + 29 * 10 + 2
    (fixed,) = explain_bill(conn, bill_no, "standing").lines
    assert (fixed.intervals, fixed.readings) == ((), ())
    with pytest.raises(BillError, match=r"no line 'tea': its lines are energy-"):
        explain_bill(conn, bill_no, "tea")


def test_a_correction_leads_to_the_readings_that_caused_it_and_no_others(
    conn: psycopg.Connection, database: str
) -> None:
    ledger = make_county(conn, 1)
    first = read_with_a_gap(ledger)
    run_and_issue(conn, database, SEPTEMBER)
    ledger.read(1, first + 4 * 3600 * US, 16_000)
    ledger.flush()
    (october,) = run_and_issue(conn, database, OCTOBER)
    (line,) = [item for item in explain_bill(conn, october).lines if item.line.kind == "correction"]
    assert [(item.energy_wh, item.import_wh, item.raw_offset, item.revision) for item in line.readings] == [
        (16_000, 16_000, 1, 0),
        (0, 16_000, 0, 2),
    ]
