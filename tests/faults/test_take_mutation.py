"""M2: an agent on Faust's `take` loses a batch that failed; the offset check turns that into a halt."""

import os
import signal
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
    log = (tmp_path / "mutant.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.mutant", mode], env=environment, cwd=ROOT, stdout=log, stderr=log
    )


def wait(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s"
        time.sleep(0.1)


@pytest.fixture
def records(make_ledger: Callable[..., Ledger]) -> tuple[Ledger, Ledger, list[Any]]:
    """Return a ledger settled as it must be, an empty one whose topic holds the same records, and those."""
    records = make_records(31, frames=10)
    expected, ledger = make_ledger(), make_ledger()
    settle(expected, records)
    producer = Producer({"bootstrap.servers": ledger.kafka})
    for record in records:
        producer.produce(ledger.settings.kafka.topic_prefix + "meter.readings", record.value, partition=0)
    assert producer.flush(20) == 0
    return expected, ledger, records


def test_m2_is_halted_by_the_offset_check(records: tuple[Ledger, Ledger, list[Any]], tmp_path: Path) -> None:
    expected, ledger, _ = records
    process = start(ledger, tmp_path, "checked")
    assert process.wait(60) == 75
    assert "GapError" in (tmp_path / "mutant.log").read_text()
    done = ledger.sql("select next_offset from stream_offset where consumer = 'settle' and partition = 0")[0][0]
    assert 0 < done < 10, "sometimes: it had worked before it failed"
    assert not is_green(ledger, expected)


def test_m2_without_the_offset_check_is_seen_by_the_oracle(
    records: tuple[Ledger, Ledger, list[Any]], tmp_path: Path
) -> None:
    expected, ledger, items = records
    process = start(ledger, tmp_path, "unchecked")
    query = "select coalesce(max(next_offset), 0) from stream_offset where consumer = 'settle'"
    try:
        wait(lambda: ledger.sql(query)[0][0] == len(items))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert "simulated failure" in (tmp_path / "mutant.log").read_text()
    assert not is_green(ledger, expected)
