"""M2: an agent on Faust's `take` loses a batch that failed; the offset check turns that into a halt."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.faults.test_mutations import is_green, settle
from tests.fixtures.fix_ledger import Ledger, make_records
from tests.fixtures.stack import ROOT

BEFORE = 10

pytestmark = [pytest.mark.stack, pytest.mark.faults]


def start(ledger: Ledger, tmp_path: Path, mode: str) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        "GRIDTALLY_DATA_DIR": str(tmp_path),
        "GRIDTALLY_MQTT__URL": "mqtt://127.0.0.1:1",
        "GRIDTALLY_KAFKA__BOOTSTRAP_SERVERS": ledger.kafka,
        "GRIDTALLY_KAFKA__TOPIC_PREFIX": ledger.settings.kafka.topic_prefix,
        "GRIDTALLY_DATABASE__DSN": ledger.dsn,
    }
    command = [sys.executable, "-m", "tests.faults.mutant", mode]
    with (tmp_path / "mutant.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)


def wait(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s"
        time.sleep(0.1)


@pytest.fixture
def records(make_ledger: Callable[..., Ledger]) -> tuple[Ledger, Ledger, list[Any]]:
    """Return a ledger settled as it must be, an empty one whose topic holds the same records, and those."""
    records = make_records(31, frames=14)
    expected, ledger = make_ledger(), make_ledger()
    settle(expected, records)
    produce(ledger, records[:BEFORE])
    return expected, ledger, records


def produce(ledger: Ledger, records: list[Any]) -> None:
    producer = Producer({"bootstrap.servers": ledger.kafka})
    for record in records:
        producer.produce(ledger.settings.kafka.topic_prefix + "meter.readings", record.value, partition=0)
    assert producer.flush(20) == 0


def go_on_after_the_failure(ledger: Ledger, records: list[Any], log: Path) -> None:
    """Let more records come once the agent has failed: Faust has acknowledged what it dropped."""
    wait(lambda: "simulated failure" in log.read_text())
    produce(ledger, records[BEFORE:])


def test_m2_is_halted_by_the_offset_check(records: tuple[Ledger, Ledger, list[Any]], tmp_path: Path) -> None:
    expected, ledger, items = records
    process = start(ledger, tmp_path, "checked")
    try:
        go_on_after_the_failure(ledger, items, tmp_path / "mutant.log")
        assert process.wait(60) == 75
    finally:
        process.kill()
        process.wait()
    assert "GapError" in (tmp_path / "mutant.log").read_text()
    done = ledger.sql("select next_offset from stream_offset where consumer = 'settle' and partition = 0")[0][0]
    assert 0 < done < BEFORE, "sometimes: it had worked before it failed"
    assert not is_green(ledger, expected)


def test_m2_without_the_offset_check_is_seen_by_the_oracle(
    records: tuple[Ledger, Ledger, list[Any]], tmp_path: Path
) -> None:
    expected, ledger, items = records
    process = start(ledger, tmp_path, "unchecked")
    query = "select coalesce(max(next_offset), 0) from stream_offset where consumer = 'settle'"
    try:
        go_on_after_the_failure(ledger, items, tmp_path / "mutant.log")
        wait(lambda: ledger.sql(query)[0][0] == len(items))
    finally:
        process.kill()
        process.wait()
    assert not is_green(ledger, expected)
