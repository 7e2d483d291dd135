"""A Kafka that lost its tail, or is a new one, halts the worker instead of being taken for replays."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from faust.types import TP

from agents.consumer import find_behind
from tests.fixtures.fix_ledger import Ledger
from tests.fixtures.stack import ROOT


def test_only_an_end_before_the_offset_is_behind() -> None:
    ends = {TP("t", 0): 7, TP("t", 1): 7}
    assert not find_behind({("t", 0): 7, ("t", 1): 0}, ends)
    assert "t/1 ends at 7 in Kafka, the database stands at 8" in find_behind({("t", 0): 7, ("t", 1): 8}, ends)


@pytest.mark.stack
def test_worker_halts_when_kafka_ends_before_the_database(make_ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    ledger = make_ledger()
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        conn.execute(
            "insert into stream_offset (consumer, topic, partition, next_offset) values ('settle', 'meter.readings', 1, 50)"
        )
    environment = {
        **os.environ,
        "GRIDTALLY_DATA_DIR": str(tmp_path),
        "GRIDTALLY_KAFKA__BOOTSTRAP_SERVERS": ledger.kafka,
        "GRIDTALLY_KAFKA__TOPIC_PREFIX": ledger.settings.kafka.topic_prefix,
        "GRIDTALLY_DATABASE__DSN": ledger.dsn,
    }
    command = [sys.executable, "-m", "gridtally", "worker", "settle"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 75, done.stderr[-2000:]
    assert "meter.readings/1 ends at 0 in Kafka, the database stands at 50" in done.stderr
