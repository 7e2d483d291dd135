"""A silent gateway over two partitions: told before its meters, which it hides, and gone when they are heard again."""

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa

from agents.detect_silence import Silent, silence_changes
from metering.detect.state import Detectors
from storage.registry import Registry, import_meters, import_tariff, load_registry

ROOT = Path(__file__).parent.parent.parent
T0 = dt.datetime(2026, 11, 25, 8, tzinfo=dt.UTC)
SECONDS = itertools.count()
PARTS = {0: range(1, 6), 1: range(6, 11)}
"""Meters of the gateway by partition; meter 11 has none."""


def county(conn: psycopg.Connection[Any], tmp_path: Path) -> tuple[Registry, dict[int, Detectors]]:
    path = tmp_path / "meters.csv"
    path.write_text("meter_id\n" + "".join(f"m-{number}\n" for number in range(1, 12)), "utf-8")
    import_tariff(conn, ROOT / "tariffs" / "county-residential.yaml")
    assert import_meters(conn, path).new == 11
    registry = load_registry(conn)
    states = {}
    for partition, numbers in PARTS.items():
        state = Detectors.empty(registry.meters.size)
        meter_no = np.array([registry.number_of[f"m-{number}"] for number in numbers])
        state.gateways.hear(meter_no, pa.array(["gw-1"] * len(meter_no)))
        states[partition] = state
    return registry, states


def say(
    conn: psycopg.Connection[Any],
    registry: Registry,
    states: dict[int, Detectors],
    partition: int,
    *ids: int,
    missing: int = 0,
) -> None:
    """Let so many of the partition's meters be missing, and these be silent (with a minus sign: heard again)."""
    size = registry.meters.size
    silent, late = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    numbers = [registry.number_of[f"m-{number}"] for number in PARTS[partition]]
    late[numbers[:missing]] = True
    changed = np.array([registry.number_of[f"m-{abs(number)}"] for number in ids], np.int64)
    silent[[number for number, sign in zip(changed.tolist(), ids, strict=True) if sign > 0]] = True
    at = T0 + dt.timedelta(seconds=next(SECONDS))
    with conn.transaction():
        silence_changes(conn, partition, states[partition], registry, Silent(silent, changed, late, 3, at))


def alarms(conn: psycopg.Connection[Any]) -> dict[tuple[str, str], str]:
    return {(subject, kind): state for subject, kind, state in conn.execute("select subject, kind, state from alarm")}


def test_a_gateway_is_told_by_all_partitions_together_and_hides_its_meters_in_each(
    database: str, tmp_path: Path
) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        registry, states = county(conn, tmp_path)
        for partition in PARTS:
            say(conn, registry, states, partition)
        say(conn, registry, states, 0, missing=5)
        assert alarms(conn) == {}, "half of its meters are no silence of the gateway"
        say(conn, registry, states, 1, missing=2)
        assert alarms(conn) == {}, "seven of ten are not enough"
        say(conn, registry, states, 1, missing=3)
        assert alarms(conn) == {("gw-1", "gateway_silent"): "unacknowledged"}
        say(conn, registry, states, 0, 1, 2, missing=5)
        say(conn, registry, states, 1, 6, 7, missing=4)
        assert alarms(conn) == {
            ("gw-1", "gateway_silent"): "unacknowledged",
            **{(f"m-{number}", "silent"): "suppressed" for number in (1, 2, 6, 7)},
        }


def test_meters_of_a_gateway_that_is_back_are_heard_on_their_own(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        registry, states = county(conn, tmp_path)
        for partition in PARTS:
            say(conn, registry, states, partition)
            say(conn, registry, states, partition, missing=5)
        for partition, numbers in PARTS.items():
            say(conn, registry, states, partition, *numbers, missing=5)
        assert alarms(conn)["m-10", "silent"] == "suppressed"
        say(conn, registry, states, 0, *(-number for number in PARTS[0]))
        found = alarms(conn)
        assert found["gw-1", "gateway_silent"] == "returned"
        assert {found[f"m-{number}", "silent"] for number in PARTS[0]} == {"cleared"}
        assert {found[f"m-{number}", "silent"] for number in PARTS[1]} == {"unacknowledged"}


def test_a_meter_that_comes_by_itself_is_told_on_its_own(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        registry, states = county(conn, tmp_path)
        say(conn, registry, states, 0, 11, missing=0)
        assert alarms(conn) == {("m-11", "silent"): "unacknowledged"}
        before = conn.execute("select count(*) from alarm_transition").fetchone()
        say(conn, registry, states, 0, 11, missing=0)
        assert conn.execute("select count(*) from alarm_transition").fetchone() == before, "said twice changes nothing"
