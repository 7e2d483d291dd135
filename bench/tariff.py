"""(g) What a rich tariff costs settlement: time of use x tiers in order of time x demand, against one flat price.

The job of `bench.settle`, METERS meters x ROUNDS rounds, once under each tariff, one after the other in the same run. Whole path
of settlement: Kafka frames → one worker → facts, states, charges, offsets committed; and fed from memory without Kafka. Beside
them what the worker's own code takes, by the clock of its thread: decode, settle, fold, charge, encode, without the database.
"""

import datetime as dt
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from agents.consumer import Record
from agents.frames import batch_from_records
from agents.outgoing import Charges
from bench import settle
from bench.made import START_S, Fleet, frame_bytes, make_meters, round_columns
from bench.rig import Place, Rig, cpu_s
from metering.calendar import compile_timeline
from metering.pricebook import PriceBook
from metering.settlement import plan_batch, settle_batch
from metering.state import MeterStates
from metering.tariff import parse_tariff
from storage.registry import Registry, import_tariff, load_registry

FRAME = 1_000
FRAMES_A_BATCH = 16
WORKER_METERS = 40_000
WORKER_ROUNDS = 8
WORKER_REPEATS = 6

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


def worker_us(version: dict[str, Any]) -> float:
    """Return the CPU time of the worker's own code for a reading, µs: from frames to charges and receipts."""
    tariff = parse_tariff(
        {
            "tariff_id": "t",
            "currency": "CNY",
            "zone": "Asia/Shanghai",
            "versions": [{"valid_from": "2024-01-01", **version}],
        }
    )
    prices = PriceBook([tariff], [compile_timeline(tariff, dt.date(2025, 12, 1), dt.date(2027, 12, 1))])
    meters = make_meters(WORKER_METERS, prices)
    charges = Charges(Registry(1, meters, prices, list(meters.meter_id), {}))
    states = MeterStates.empty(meters.size)
    registers = np.cumsum(Fleet(WORKER_METERS).rises_wh(WORKER_ROUNDS), axis=0) + 1_000
    numbers = np.arange(1, WORKER_METERS + 1)
    frames = [
        frame_bytes(round_columns(numbers[low : low + FRAME], registers[number][low : low + FRAME], number))
        for number in range(WORKER_ROUNDS)
        for low in range(0, WORKER_METERS, FRAME)
    ]
    began = time.thread_time()
    for low in range(0, len(frames), FRAMES_A_BATCH):
        records = [Record("", 0, low + place, frame) for place, frame in enumerate(frames[low : low + FRAMES_A_BATCH])]
        batch = batch_from_records(records, 0)
        settled = settle_batch(plan_batch(batch.columns, states, meters), {}, states, meters, prices)
        states.put(settled.touched, settled.states)
        _, slow = charges.frame(settled, batch)
        charges.receipts(settled, batch)
        assert not slow  # all charges came from columns
    return (time.thread_time() - began) / (WORKER_METERS * WORKER_ROUNDS) * 1e6


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
