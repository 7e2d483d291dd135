"""(b) Kafka frames → committed, against the same settlement transaction fed from memory.

Job: METERS meters x ROUNDS rounds in frames of 1,000 readings, 4 partitions, as in the peers' measurements. Memory-fed is
one thread over one connection: decode, plan, settle, write, commit, for batches of the same size, without Kafka.
"""

import time
from typing import Any

import numpy as np
from confluent_kafka import Producer

from agents.consumer import Record
from agents.publisher import Publisher
from agents.settle import SettleHandler
from bench.made import Fleet, frame_bytes, round_columns
from bench.rig import Place, Rig, cpu_s, wait_for
from schemas.ids import partition_of
from schemas.topic import METER_READINGS

METERS = 100_000
ROUNDS = 10
FRAME = 1_000
PARTITIONS = 4


def make_frames(meters: int = METERS, rounds: int = ROUNDS) -> tuple[list[list[bytes]], int]:
    """Return frames by partition, in order of time, and the energy that the ledger must show, Wh."""
    partition = np.array([partition_of(f"b-{number:07d}", PARTITIONS) for number in range(1, meters + 1)])
    rises = Fleet(meters).rises_wh(rounds)
    registers = np.cumsum(rises, axis=0) + 1_000
    frames: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    for number in range(rounds):
        for target in range(PARTITIONS):
            places = np.flatnonzero(partition == target)
            for low in range(0, len(places), FRAME):
                chosen = places[low : low + FRAME]
                frames[target].append(frame_bytes(round_columns(chosen + 1, registers[number][chosen], number)))
    return frames, int(rises[1:].sum())


def fill(place: Place, bootstrap: str, frames: list[list[bytes]]) -> None:
    """Put the frames on meter.readings."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 5})
    for target, items in enumerate(frames):
        for frame in items:
            producer.produce(place.prefix + METER_READINGS, frame, partition=target)
            producer.poll(0)
    assert producer.flush(60) == 0


def check_sum(place: Place, readings: int, energy_wh: int) -> None:
    """Refuse a figure whose ledger is not exact."""
    found = place.sql("select count(*), coalesce(sum(energy_wh), 0)::bigint from fact")[0]
    assert found == (readings, energy_wh), (found, readings, energy_wh)


class Silent(Publisher):
    """Publishes nothing: for the transaction alone."""

    def produce(self, *_: Any, **__: Any) -> None:
        """Take a record and forget it."""

    def flush(self, timeout_s: float = 0) -> None:
        """Have nothing to wait for."""


def from_memory(place: Place, bootstrap: str, frames: list[list[bytes]]) -> float:
    """Return readings/s of the transaction alone, batches of the worker's own size."""
    handler = SettleHandler(place.settings, place.dsn, bootstrap, Silent(bootstrap))
    topic = place.prefix + METER_READINGS
    handler.next_offsets({(topic, target) for target in range(PARTITIONS)})
    size = max(1, place.settings.settle.batch_frames_max // PARTITIONS)
    records = [
        [Record(topic, target, at, frame) for at, frame in enumerate(items)] for target, items in enumerate(frames)
    ]
    began = time.monotonic()
    for low in range(0, max(map(len, records)), size):
        for target, items in enumerate(records):
            if items[low : low + size]:
                handler.commit(topic, target, items[low : low + size])
    seconds = time.monotonic() - began
    handler.close()
    return METERS * ROUNDS / seconds


def from_kafka(rig: Rig, place: Place, workers: int, frames: list[list[bytes]]) -> dict[str, Any]:
    """Return readings/s and CPU seconds per million readings of workers that are ready when `make_frames` are produced.

    The clock runs from the first record produced, so producing is inside it, to the last commit.
    """
    wanted = METERS * ROUNDS
    processes = [place.spawn("worker", "settle", "--name", f"settle-{n}") for n in range(1, workers + 1)]
    wait_for(lambda: place.assigned() == [PARTITIONS // workers] * workers, "the assignment")
    pids = {"kafka": [rig.pid("kafka")], "settle": [p.pid for p in processes]}
    if place.dsn.rsplit("/", 1)[0] == rig.addresses.database.rsplit("/", 1)[0]:  # another server's process is not known
        pids["postgres"] = [rig.pid("postgres")]
    before = {name: sum(map(cpu_s, items)) for name, items in pids.items()}
    began = time.monotonic()
    fill(place, rig.addresses.kafka, frames)
    ended = place.wait_settled(wanted)
    after = {name: sum(map(cpu_s, items)) for name, items in pids.items()}
    cpu = {name: round((after[name] - before[name]) / wanted * 1e6, 2) for name in pids}
    return {"readings_per_s": wanted / (ended - began), "cpu_s_per_million": cpu}
