"""Stages: the partition furthest behind speaks for its stage, and what Kafka does not tell is not zero."""

import datetime as dt
from typing import Any

from console.pipeline import settled_until, stage_rows

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000


def row(consumer: str, topic: str, partition: int, ago_s: int | None, next_offset: int = 10) -> dict[str, Any]:
    watermark = None if ago_s is None else NOW - dt.timedelta(seconds=ago_s)
    return {
        "consumer": consumer, "topic": topic, "partition": partition, "next_offset": next_offset, "readings": 5,
        "watermark": watermark,
    }  # fmt: skip


PROGRESS = [
    row("validate", "meter.raw", 0, 1),
    row("validate", "meter.raw", 1, 2),
    row("settle", "meter.readings", 0, 1),
    row("settle", "meter.readings", 1, 90),
    row("settle", "meter.readings", 2, None),
    row("detect", "meter.readings", 0, 4),
    row("detect", "meter.events", 0, None, 3),
]


def test_the_partition_furthest_behind_speaks_for_its_stage() -> None:
    stages = {stage.name: stage.to_dict(NOW_US) for stage in stage_rows(PROGRESS, None, 20)}
    assert {name: (stage["lag"], stage["behind"]) for name, stage in stages.items()} == {
        "validate": ("2 s", False),
        "settle": ("1 min", True),
        "detect": ("4 s", False),
    }


def test_waiting_counts_what_the_topics_hold_beyond_what_is_done() -> None:
    ends = {"meter.raw": {0: 10, 1: 12}, "meter.readings": {0: 10, 1: 30, 2: 10}}
    stages = {stage.name: stage.waiting for stage in stage_rows(PROGRESS, ends, 20)}
    assert stages == {"validate": 2, "settle": 20, "detect": 40}


def test_waiting_is_unknown_while_kafka_does_not_answer() -> None:
    assert [stage.to_dict(NOW_US)["waiting"] for stage in stage_rows(PROGRESS, None, 20)] == ["–", "–", "–"]


def test_a_stage_that_never_began_is_behind_and_has_no_lag() -> None:
    stages = [stage.to_dict(NOW_US) for stage in stage_rows([], None, 20)]
    assert [(stage["lag"], stage["behind"]) for stage in stages] == [("–", True)] * 3


def test_settled_until_leaves_out_partitions_that_heard_nothing() -> None:
    assert settled_until(PROGRESS) == {0: NOW_US - 1_000_000, 1: NOW_US - 90_000_000}
