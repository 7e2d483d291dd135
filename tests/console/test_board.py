"""The board: who counts as heard, what is stale, and what never poses as now."""

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from console.board import Board, Facts
from metering.pricebook import Meters, PriceBook
from schemas.frame import CHARGES_SCHEMA
from storage.registry import Registry

S = 1_000_000
NOW = 1_795_000_000 * S


def registry(*intervals_s: int) -> Registry:
    """Return master data of meters m1, m2, ... with these intervals."""
    size = len(intervals_s) + 1
    zeros = np.zeros(size, np.int64)
    ids = ["", *(f"m{number}" for number in range(1, size))]
    meters = Meters(
        meter_id=ids, modulus_wh=zeros, rated_power_w=zeros, interval_s=np.array([900, *intervals_s], np.int64),
        tariff_index=zeros, service_point_no=zeros, start_us=zeros, end_us=zeros, irregular=np.zeros(size, np.bool_),
        epochs={},
    )  # fmt: skip
    return Registry(1, meters, PriceBook([], []), [], {meter_id: no for no, meter_id in enumerate(ids) if no})


def charges(*rows: tuple[str, int, int, int]) -> pa.RecordBatch:
    """Return a frame of (meter, seconds ago, W, hundredths)."""
    base = {field.name: 0 for field in CHARGES_SCHEMA} | {"service_point_id": "", "currency": "CNY", "amount_scale": 2}
    return pa.RecordBatch.from_pylist(
        [
            {**base, "meter_id": meter, "read_at": NOW - ago * S, "power_w": watts, "amount": amount}
            for meter, ago, watts, amount in rows
        ],
        schema=CHARGES_SCHEMA,
    )


def facts(settled_us: dict[int, int], **more: Any) -> Facts:
    values: dict[str, Any] = {
        "at_us": NOW, "dead_letters": 0, "dead_letter_at": None, "readings": 7, "alarms": [], "alarm_counts": {},
        "stages": [], "settled_us": settled_us,
    }  # fmt: skip
    return Facts(**(values | more))


@pytest.fixture
def board() -> Board:
    made = Board(stale_after_s=20)
    made.set_registry(registry(60, 900, 900))
    made.set_facts(facts({0: NOW, 1: NOW}))
    return made


def text(board: Board, now_us: int = NOW) -> dict[str, str]:
    found: dict[str, str] = board.snapshot(now_us).figures["text"]
    return found


def test_each_meter_is_late_by_its_own_interval(board: Board) -> None:
    board.take_charges(charges(("m1", 101, 1000, 1), ("m2", 101, 2000, 1), ("m3", 1361, 4000, 1)))
    assert (text(board)["heard"], text(board)["load"], text(board)["on-time"]) == ("1", "2.0", "33.3")


def test_nothing_known_is_missing_and_not_zero() -> None:
    shown = text(Board(stale_after_s=20))
    assert {
        shown[name] for name in ("load", "fed", "heard", "meters", "readings", "charges", "delay", "letters-count")
    } == {"–"}
    assert {shown[f"active-{priority}"] for priority in (1, 2, 3, 4)} == {"–"}


def test_no_meter_heard_is_no_load_rather_than_no_power(board: Board) -> None:
    assert (text(board)["heard"], text(board)["load"]) == ("0", "–")


def test_while_settlement_stands_still_the_load_stays_and_its_age_goes_on(board: Board) -> None:
    board.take_charges(charges(("m1", 5, 1000, 1), ("m2", 5, 2000, 1)))
    assert text(board, NOW - 60 * S)["readings"] == "–"  # the first moment: no whole second yet
    assert text(board, NOW + S)["readings"] == "0.0"
    later = board.snapshot(NOW + 600 * S).figures
    assert later["text"]["load"] == "3.0"
    assert later["at"] - later["ages"]["settle"] == 600_000
    assert later["text"]["readings"] == later["text"]["charges"] == "–"


def test_the_age_is_that_of_the_partition_furthest_behind(board: Board) -> None:
    board.set_facts(facts({0: NOW + 30 * S, 1: NOW + 2 * S}))
    assert board.snapshot(NOW + 31 * S).figures["ages"]["settle"] == (NOW + 2 * S) // 1000


def test_what_is_fed_in_is_not_taken_from_the_load(board: Board) -> None:
    board.take_charges(charges(("m1", 5, -700, 1), ("m2", 5, 2000, 1)))
    assert (text(board)["load"], text(board)["fed"], text(board)["feeding"]) == ("2.0", "0.7", "1")


def test_an_older_charge_does_not_replace_a_newer_one(board: Board) -> None:
    board.take_charges(charges(("m2", 5, 2000, 250)))
    board.take_charges(charges(("m2", 60, 9000, 100)))
    row = board.meter("m2")
    assert row is not None
    assert (row["kw"], row["money"]) == ("2.00", "2.50")


def test_a_meter_that_is_not_imported_yet_spoils_nothing(board: Board) -> None:
    board.take_charges(charges(("stranger", 5, 9000, 1), ("m2", 5, 2000, 1)))
    assert text(board)["load"] == "2.0"
    assert board.meter("stranger") is None


def test_top_meters_are_by_power_and_those_that_feed_in_are_not_among_them(board: Board) -> None:
    board.take_charges(charges(("m1", 5, 100, 1), ("m2", 5, -5000, 1), ("m3", 5, 300, 1)))
    assert [row["id"] for row in board.snapshot(NOW).figures["top"]] == ["m3", "m1"]


def test_after_a_restart_a_power_without_charge_shows_no_charge_until_it_is_read(board: Board) -> None:
    board.set_powers([(2, NOW - 5 * S, 1500)])
    assert board.snapshot(NOW).figures["top"][0]["money"] == "–"
    assert board.uncharged(5) == ["m2"]
    board.set_charge("m2", Decimal("12.335"), "CNY")
    assert board.snapshot(NOW).figures["top"][0]["money"] == "12.34"
    assert board.uncharged(5) == []


def test_a_charge_read_from_the_database_does_not_replace_a_live_one(board: Board) -> None:
    board.take_charges(charges(("m2", 5, 2000, 999)))
    board.set_charge("m2", Decimal(1), "CNY")
    assert board.snapshot(NOW).figures["top"][0]["money"] == "9.99"


def test_meters_keep_their_figures_when_more_are_imported(board: Board) -> None:
    board.take_charges(charges(("m2", 5, 2000, 1)))
    board.set_registry(registry(60, 900, 900, 60))
    board.take_charges(charges(("m4", 5, 500, 1)))
    assert (text(board)["load"], text(board)["meters"]) == ("2.5", "4")


def test_rates_are_means_over_whole_seconds_and_delays_weigh_by_readings(board: Board) -> None:
    board.snapshot(NOW - 60 * S)
    for ago, readings, p50 in ((15, 900, 5), (3, 40, 10), (2, 10, 90)):
        batch = {
            "readings": readings,
            "charges": readings,
            "delay_ms_p50": p50,
            "delay_ms_max": 2 * p50,
            "partition": 0,
        }
        board.take_batch({**batch, "committed_at": NOW - ago * S}, NOW - ago * S)
    shown = text(board)
    assert shown["readings"] == "5.0"
    assert shown["delay"] == "5 / 180"
    assert shown["delayed"] == "950"


def test_two_currencies_keep_their_names(board: Board) -> None:
    frame = charges(("m1", 5, 100, 1), ("m2", 5, 200, 1)).to_pylist()
    frame[0]["currency"] = "EUR"
    board.take_charges(pa.RecordBatch.from_pylist(frame, schema=CHARGES_SCHEMA))
    assert [row["currency"] for row in board.snapshot(NOW).figures["top"]] == ["CNY", "EUR"]


def test_alarms_and_counts_are_what_the_database_said(board: Board) -> None:
    alarm = {"alarm_id": 9, "priority": 1, "state": "unacknowledged", "kind": "silent", "subject": "m1", "detail": "d"}
    when = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
    board.set_facts(facts({0: NOW}, alarms=[alarm], alarm_counts={1: (1, 2)}, dead_letter_at=when, dead_letters=3))
    snapshot = board.snapshot(NOW)
    assert [row["alarm_id"] for row in snapshot.figures["alarms"]] == [9]
    assert (snapshot.figures["text"]["unacked-1"], snapshot.figures["text"]["active-1"]) == ("1", "2")
    assert snapshot.figures["ages"]["letter"] == int(when.timestamp() * 1000)
