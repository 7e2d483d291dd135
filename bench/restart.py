"""(e) Restart with 1,000,000 meters: from the worker's start to its first commit, and its memory a meter."""

import time
from typing import Any

from agents.consumer import Record
from agents.settle import SettleHandler
from bench.rig import Rig, memory_mb, wait_for
from bench.settle import FRAME, Silent, fill, make_frames
from schemas.topic import METER_READINGS

METERS = 1_000_000
SMALL = 1_000
PARTITIONS = 4


def run_once(rig: Rig, meters: int = METERS) -> dict[str, Any]:
    """Settle one reading of each meter with a checkpoint, add a frame a partition, and start a worker."""
    place = rig.place(meters)
    frames, _ = make_frames(meters, 2)
    first = [items[: len(items) // 2] for items in frames]
    handler = SettleHandler(place.settings, place.dsn, rig.addresses.kafka, Silent(rig.addresses.kafka))
    topic = place.prefix + METER_READINGS
    handler.next_offsets({(topic, target) for target in range(PARTITIONS)})
    for target, items in enumerate(first):
        for low in range(0, len(items), 20):
            part = [Record(topic, target, low + at, frame) for at, frame in enumerate(items[low : low + 20])]
            handler._checkpoint_at[target] = 0.0  # noqa: SLF001  # each batch with its checkpoint
            handler.commit(topic, target, part)
    handler.close()
    fill(place, rig.addresses.kafka, [items[: len(items) // 2 + 2] for items in frames])
    settled = sum(len(items) for items in first) * FRAME
    query = "select sum(readings) from stream_offset where consumer = 'settle'"
    before = int(str(place.sql(query)[0][0]))
    began = time.monotonic()
    process = place.spawn("worker", "settle")
    first_commit = wait_for(lambda: int(str(place.sql(query)[0][0])) > before, "the first commit", step_s=0.1)
    wait_for(lambda: place.assigned_stages() == 1, "the assignment")
    time.sleep(1)
    memory = memory_mb(process.pid)
    rig.drop(place)
    return {"meters": meters, "settled": settled, "first_commit_s": round(first_commit - began, 2), "memory_mb": memory}
