"""(g) What a rich tariff costs settlement: time of use x tiers in order of time x demand, against one flat price.

The job of `bench.settle`, METERS meters x ROUNDS rounds, once under each tariff, one after the other in the same run. Whole path
of settlement: Kafka frames → one worker → facts, states, charges, offsets committed; and fed from memory without Kafka.
"""

import json
import os
from pathlib import Path
from typing import Any

import psycopg

from bench import settle
from bench.made import START_S
from bench.rig import Place, Rig, cpu_s
from storage.registry import import_tariff, load_registry

FLAT = {"rest": "all", "prices": "0.60886875"}
RICH = {
    "windows": [
        {"period": "valley", "from": "00:00", "to": "08:30"},
        {"period": "peak", "from": "09:00", "to": "10:00", "day_types": ["weekend"]},
        {"period": "peak", "from": "10:00", "to": "12:00"},
        {"period": "peak", "from": "14:00", "to": "19:00"},
    ],
    "rest": "flat",
    "prices": {"peak": "1.02896875", "flat": "0.60886875", "valley": "0.23676875"},
    "tiers": [{"up_to_kwh": 1, "adder": "0"}, {"up_to_kwh": 2, "adder": "0.05"}, {"adder": "0.30"}],
    "tier_rule": {"allocation": "sequential"},
    "demand": {"scope": "period", "prices": "31.5", "window_min": 30},
    "fixed_charge": {"amount": "0.2", "per": "day"},
}
TARIFFS: dict[str, dict[str, Any]] = {"flat": FLAT, "time of use x tiers x demand": RICH}
"""Bounds are low so that meters pass them within the job; periods begin and end, and windows go on over batches."""


def give(place: Place, version: dict[str, Any]) -> None:
    """Put all meters under a tariff."""
    with psycopg.connect(place.dsn, autocommit=True) as conn:
        row = conn.execute("select tariff_id from tariff").fetchone()
        assert row is not None
        document = {"tariff_id": row[0], "currency": "CNY", "zone": "Asia/Shanghai"}
        document |= {"versions": [{"valid_from": "2024-01-01", **version}]}
        path = Path(place.log).with_suffix(".json")
        path.write_text(json.dumps(document))
        import_tariff(conn, path)


def check_live(place: Place) -> None:
    """Refuse a figure of meters whose charge was not kept live."""
    with psycopg.connect(place.dsn, autocommit=True) as conn:
        shapes = load_registry(conn).prices.shapes
        cycle = int((shapes[0].timeline.cycle_start_s <= START_S).sum()) - 1
        assert shapes[0].of(cycle) is not None
        row = conn.execute("select count(*) from meter_state where cycle_key = 0").fetchone()
        assert row == (0,), row


def run_once(rig: Rig, job: tuple[list[list[bytes]], int]) -> dict[str, dict[str, dict[str, float]]]:
    """Return readings/s, and CPU seconds per million readings of worker and database, by way and tariff.

    CPU says what a tariff costs also on a machine that others use; which tariff comes first changes from way to way.
    """
    frames, energy_wh = job
    readings = settle.METERS * settle.ROUNDS
    found: dict[str, dict[str, dict[str, float]]] = {"one worker": {}, "memory": {}}
    for way, rates in found.items():
        for name in TARIFFS if way == "memory" else reversed(TARIFFS):
            place = rig.place(settle.METERS)
            give(place, TARIFFS[name])
            if way == "memory":
                pids = [os.getpid(), rig.pid("postgres")]
                before = sum(map(cpu_s, pids))
                rate = settle.from_memory(place, rig.addresses.kafka, frames)
                cpu = (sum(map(cpu_s, pids)) - before) / readings * 1e6
            else:
                measured = settle.from_kafka(rig, place, 1, frames)
                rate = measured["readings_per_s"]
                cpu = sum(measured["cpu_s_per_million"][name] for name in ("settle", "postgres"))
            rates[name] = {"readings_per_s": rate, "cpu_s_per_million": cpu}
            settle.check_sum(place, readings, energy_wh)
            check_live(place)
            rig.drop(place)
    return found
