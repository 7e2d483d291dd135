"""Exchanges and registers by hand: checked against the ledger, entered once, all or nothing."""

import dataclasses
import datetime as dt
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from connectors.hand_reading import payload_of
from schemas.message import Reading, decode_message
from storage.exchange import (
    Exchange,
    ExchangeError,
    HandReading,
    check_reading,
    enter_exchange,
    enter_reading,
    fetch_unsettled,
)
from tests.storage.made_ledger import US, MadeLedger

T = dt.datetime(2026, 10, 5, 8, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
SWAP = Exchange("p-1", T, "m-1", 12_500, "m-2", 100, "worn")


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as conn:
        ledger = MadeLedger(conn)
        ledger.add_meter(1, 1)
        ledger.add_meter(2, 2)  # in stock: a place of its own, without a contract
        ledger.add_meter(3, 3)
        for hours, wh in ((-3, 10_000), (-2, 11_000), (-1, 12_000)):
            ledger.read(1, int((T + hours * HOUR).timestamp()) * US, wh, 500 + hours)
        ledger.flush()
        yield conn


def placements(conn: psycopg.Connection[Any]) -> list[tuple[int, int, str, str]]:
    return conn.execute(
        "select meter_no, service_point_no, (start_at at time zone 'UTC')::text, (end_at at time zone 'UTC')::text"
        " from meter_assignment where meter_no < 3 order by start_at, meter_no"
    ).fetchall()


def kept(conn: psycopg.Connection[Any]) -> tuple[Any, ...]:
    counts = conn.execute("select (select count(*) from meter_exchange), (select count(*) from audit)").fetchone()
    assert counts is not None
    return counts


AFTER = [
    (1, 1, "2026-01-01 00:00:00", "2026-10-05 08:00:00"),
    (2, 2, "2026-01-01 00:00:00", "2026-10-05 08:00:00"),
    (2, 1, "2026-10-05 08:00:00", "infinity"),
]


def test_an_exchange_ends_one_meter_and_begins_the_other_at_the_same_instant_and_again_changes_nothing(
    conn: psycopg.Connection[Any],
) -> None:
    assert enter_exchange(conn, SWAP, "ann") is False
    assert (placements(conn), kept(conn)) == (AFTER, (1, 1))
    assert enter_exchange(conn, SWAP, "ann") is True
    assert (placements(conn), kept(conn)) == (AFTER, (1, 1))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"old_meter_id": "m-9"}, "no meter 'm-9'"),
        ({"new_meter_id": "m-9"}, "no meter 'm-9'"),
        ({"new_meter_id": "m-1"}, "m-1 cannot take its own place"),
        ({"service_point_id": "p-9"}, "no service point 'p-9'"),
        ({"old_meter_id": "m-3", "final_import_wh": 0}, "m-3 does not measure p-1 before"),
        ({"at": dt.datetime(2099, 1, 1, tzinfo=dt.UTC)}, "is in the future"),
        (
            {"at": T - 1.5 * HOUR, "final_import_wh": 11_500},
            "m-1 has settled readings after .* the next at 2026-10-05T07",
        ),
        (
            {"final_import_wh": 11_999},
            (
                r"reading 11.999 kWh is lower than the last, 12 kWh of 2026-10-05T07:00:00\+00:00; it was not saved."
                " If the meter was exchanged, enter the exchange first"
            ),
        ),
        ({"new_meter_id": "m-3"}, "m-3 measures p-3 under contract k-3"),
        ({"initial_import_wh": 10**12}, "m-2 shows less than 1000000000 kWh"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_an_exchange_that_cannot_be_changes_nothing_and_says_why(
    conn: psycopg.Connection[Any], change: dict[str, Any], fault: str
) -> None:
    conn.execute("insert into customer (customer_id, name) values ('c-1', 'Li')")
    conn.execute("insert into account (account_id, customer_no, currency) values ('a-1', 1, 'CNY')")
    conn.execute(
        "insert into contract (contract_id, account_no, service_point_no, start_on) values ('k-3', 1, 3, '2026-01-01')"
    )
    before = placements(conn)
    with pytest.raises(ExchangeError, match=fault):
        enter_exchange(conn, dataclasses.replace(SWAP, **change), "ann")
    assert (placements(conn), kept(conn)) == (before, (0, 0))


def test_an_exchange_entered_with_another_register_is_refused_with_the_one_that_is_there(
    conn: psycopg.Connection[Any],
) -> None:
    enter_exchange(conn, SWAP, "ann")
    with pytest.raises(ExchangeError, match=r"with final 12.5 kWh and initial 0.1 kWh: it is kept as it was entered"):
        enter_exchange(conn, dataclasses.replace(SWAP, final_import_wh=13_000), "ann")


def test_a_service_point_may_have_its_meter_exchanged_again(conn: psycopg.Connection[Any]) -> None:
    enter_exchange(conn, SWAP, "ann")
    enter_exchange(conn, Exchange("p-1", T + 48 * HOUR, "m-2", 900, "m-3", 0, "worn"), "ann")
    chain = conn.execute(
        "select meter_no, start_at, nullif(end_at, 'infinity') from meter_assignment where service_point_no = 1 order by start_at"
    ).fetchall()
    assert [row[0] for row in chain] == [1, 2, 3]
    assert [row[2] for row in chain[:2]] == [row[1] for row in chain[1:]] == [T, T + 48 * HOUR]
    conn.execute("insert into meter (meter_no, meter_id) values (4, 'm-4')")
    with pytest.raises(ExchangeError, match=r"m-3 measures p-1 since 2026-10-07T08:00:00\+00:00"):
        enter_exchange(conn, Exchange("p-1", T + 50 * HOUR, "m-2", 900, "m-4", 0, "worn"), "ann")


def test_the_readings_of_an_exchange_wait_until_they_are_settled(conn: psycopg.Connection[Any]) -> None:
    enter_exchange(conn, SWAP, "ann")
    assert fetch_unsettled(conn, 400) == list(SWAP.readings)
    assert fetch_unsettled(conn, 1) == []


READ = HandReading("m-1", T, 12_500)


@pytest.mark.parametrize(
    ("reading", "settled"),
    [
        (READ, False),
        (HandReading("m-1", T - HOUR, 12_000), True),
        (HandReading("m-1", T - HOUR, 12_000, 499), True),
        (HandReading("m-1", T - 1.5 * HOUR, 11_400, 498), False),
        (HandReading("m-1", T - 30 * HOUR, 9_999), False),
    ],
    ids=["next", "settled", "settled with export", "between", "before all"],
)
def test_a_reading_that_fits_is_taken(conn: psycopg.Connection[Any], reading: HandReading, settled: bool) -> None:
    assert check_reading(conn, reading) is settled


@pytest.mark.parametrize(
    ("reading", "fault"),
    [
        (HandReading("m-1", T - HOUR, 12_001), r"12.001 kWh: m-1 has 12 kWh at that instant already"),
        (HandReading("m-1", T - HOUR, 12_000, 400), "at that instant already"),
        (HandReading("m-1", T - 1.5 * HOUR, 12_001), r"reading 12.001 kWh is higher than the next, 12 kWh of"),
        (HandReading("m-1", T, 12_500, 498), r"export reading 0.498 kWh is lower than the last, 0.499 kWh"),
        (HandReading("m-9", T, 1), "no meter 'm-9'"),
    ],
    ids=["other register", "other export", "above the next", "export fell", "unknown"],
)
def test_a_reading_that_the_ledger_contradicts_is_refused_with_both_values(
    conn: psycopg.Connection[Any], reading: HandReading, fault: str
) -> None:
    with pytest.raises(ExchangeError, match=fault):
        enter_reading(conn, reading, "card", "ann")
    assert kept(conn) == (0, 0)


def test_a_register_that_wrapped_is_no_lower_one(conn: psycopg.Connection[Any]) -> None:
    conn.execute("update meter set register_modulus_wh = 12600, rated_power_w = 8000 where meter_no = 1")
    assert check_reading(conn, HandReading("m-1", T, 200)) is False


def test_a_reading_is_written_into_the_audit_trail_once(conn: psycopg.Connection[Any]) -> None:
    for _ in range(2):
        assert enter_reading(conn, READ, "card", "ann") is False
    assert conn.execute("select who, action, subject, detail->>'import_wh' from audit").fetchall() == [
        ("ann", "meter.reading", "m-1", "12500")
    ]


def test_a_meter_that_measures_nothing_then_has_no_reading(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(ExchangeError, match="m-2 measures no service point at 2025"):
        enter_reading(conn, HandReading("m-2", dt.datetime(2025, 1, 1, tzinfo=dt.UTC), 1), "card", "ann")


def test_the_message_of_a_reading_is_always_the_same_and_of_the_contract(conn: psycopg.Connection[Any]) -> None:
    payload = payload_of(HandReading("m-1", T.astimezone(dt.timezone(8 * HOUR)), 12_500, 7))
    assert payload == payload_of(HandReading("m-1", T, 12_500, 7))
    ((_, found),), refused = decode_message(Reading, payload)
    assert (found.import_wh, found.export_wh, found.read_at, refused) == (12_500, 7, T, [])
