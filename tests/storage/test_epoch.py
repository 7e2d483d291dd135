"""A register that begins again, and a meter that takes over a service point: no energy is lost or counted twice."""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from agents.consumer import Record
from storage.charge import fetch_running_charge
from storage.check import check_all
from storage.epoch import EpochError, open_epoch
from storage.registry import import_meters
from tests.fixtures.fix_ledger import Ledger, frame_of

pytestmark = pytest.mark.stack

START_S = int(dt.datetime(2026, 11, 2, 1, tzinfo=dt.UTC).timestamp())
STEP_S = 900


def record(offset: int, meter_no: int, *readings: tuple[int, int]) -> Record:
    """Return a frame of (place, register) readings."""
    rows: list[dict[str, Any]] = [
        {
            "meter_no": meter_no,
            "seq": place,
            "read_at": (START_S + place * STEP_S) * 1_000_000,
            "import_wh": wh,
            "received_at": int(time.time() * 1e6),
            "raw_offset": offset,
            "raw_index": number,
        }
        for number, (place, wh) in enumerate(readings)
    ]
    return Record("meter.readings", 0, offset, frame_of(rows))


def at(place: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(START_S + place * STEP_S, dt.UTC)


def assert_balanced(ledger: Ledger) -> None:
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        broken = [result for result in check_all(conn) if not result.holds]
    assert not broken, broken


def test_register_that_fell_is_refused_until_an_epoch_is_opened(make_ledger: Callable[..., Ledger]) -> None:
    ledger = make_ledger()
    handler = ledger.handler()
    topic = handler.topics[0]
    handler.commit(topic, 0, [record(0, 1, (0, 700_000), (1, 700_100))])
    handler.commit(topic, 0, [record(1, 1, (2, 5), (3, 45))])
    assert ledger.sql("select code, count(*) from dead_letter group by 1") == [("register_decreased", 2)]
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        with pytest.raises(EpochError, match="settled readings until"):
            open_epoch(conn, "x-001", at(1), "board replaced")
        with pytest.raises(EpochError, match="no meter"):
            open_epoch(conn, "nobody", at(2), "board replaced")
        with pytest.raises(EpochError, match="a reason"):
            open_epoch(conn, "x-001", at(2), " ")
        assert open_epoch(conn, "x-001", at(2), "board replaced") == 1
        assert open_epoch(conn, "x-001", at(2), "board replaced") == 1  # twice changes nothing
    handler._registry_checked = 0.0  # the next batch looks at the master data
    handler.commit(topic, 0, [record(2, 1, (2, 5), (3, 45))])  # as `dead-letters replay` sends them again
    handler.commit(topic, 0, [record(3, 1, (4, 50))])
    rows = ledger.sql("select epoch, sum(energy_wh)::int, count(*) from fact group by 1 order by 1")
    assert rows == [(0, 100, 2), (1, 45, 3)]
    assert_balanced(ledger)
    fresh = ledger.handler()
    fresh.commit(topic, 0, [record(4, 1, (5, 60))])  # another owner knows the epoch
    assert ledger.sql("select sum(energy_wh)::int from fact") == [(155,)]
    assert_balanced(ledger)


def test_exchanged_meter_goes_on_with_the_charge_of_its_service_point(make_ledger: Callable[..., Ledger]) -> None:
    ledger = make_ledger()
    handler = ledger.handler()
    topic = handler.topics[0]
    handler.commit(topic, 0, [record(0, 1, (0, 1_000_000), (1, 1_000_400))])
    path = ledger.path.with_name("exchange.csv")
    path.write_text("meter_id,service_point_id,installed_on\nnew-001,x-001,2026-11-03\n", "utf-8")
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        assert not import_meters(conn, path).faults
        number = conn.execute("select meter_no from meter where meter_id = 'new-001'").fetchone()
    assert number is not None
    handler._registry_checked = 0.0
    later = 24 * 4  # the day after
    handler.commit(topic, 0, [record(1, number[0], (later, 10), (later + 1, 610))])
    handler.commit(topic, 0, [record(2, 1, (later + 2, 1_000_900))])  # the old one still speaks, at no service point
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        charges = [fetch_running_charge(conn, meter_id) for meter_id in ("x-001", "new-001")]
    assert [charge and charge.energy_wh for charge in charges] == [1000, 1000]  # 400 and 600 Wh, once
    assert ledger.sql("select code, count(*) from dead_letter group by 1") == [("no_tariff", 1)]
    assert_balanced(ledger)
