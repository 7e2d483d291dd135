"""Faults that strike real processes in the middle of the work: afterwards the ledger is the truth, to the Wh.

Each fault is told with `sometimes`: a run in which it did not strike is a failed run.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.town import Town, wait_for_database
from tests.fixtures.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(600)]

SETTINGS = """
[bridge]
heartbeat_s = 0.5
receipts_wait_s = 0.1
[settle]
checkpoint_batches = 20
checkpoint_s = 2.0
[console]
port = 28780
[metrics]
port_base = 29780
"""
SESSION_TIMEOUT_S = 6.0


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A system of its own, with two settle workers that share the partitions."""
    stack = Stack(tmp_path_factory.mktemp("faults"), SETTINGS)
    stack.start("--settle-workers", "2")
    yield stack
    stack.stop()
    stack.discard()


def is_back(stack: Stack, name: str, old_pid: int) -> Callable[[], bool]:
    def check() -> bool:
        row = next(row for row in stack.status()["processes"] if row["name"] == name)
        return row["state"] == "running" and row["pid"] not in (None, old_pid)

    return check


def kill(name: str) -> Callable[[Stack, Town], None]:
    """Return a fault: kill -9, while readings go on; over when the supervisor brought the process back."""

    def strike(stack: Stack, town: Town) -> None:
        pid = stack.kill(name)
        town.live(1.0)
        stack.wait(is_back(stack, name, pid), 60, f"sometimes: {name} was killed and came back")
        wait_for_database(stack)

    return strike


def freeze(name: str, seconds: float) -> Callable[[Stack, Town], None]:
    """Return a fault: the process answers nothing for a while, as if the network swallowed it, and then goes on."""

    def strike(stack: Stack, town: Town) -> None:
        pids = family(stack.pid(name))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            town.live(seconds, per_s=100)
            states = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] for pid in pids]
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert states == ["T"] * len(pids), "sometimes: it really stood still"

    return strike


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    found = [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


FAULTS: dict[str, Callable[[Stack, Town], None]] = {
    "settle killed": kill("settle"),
    "second settle killed": kill("settle-2"),
    "validate killed": kill("validate"),
    "bridge killed": kill("bridge"),
    "detect killed": kill("detect"),
    "mqtt broker killed": kill("mqtt"),
    "kafka killed": kill("kafka"),
    "postgres killed": kill("postgres"),
    "settle frozen past the session": freeze("settle", SESSION_TIMEOUT_S + 5),
    "validate frozen past the session": freeze("validate", SESSION_TIMEOUT_S + 5),
    "kafka unreachable": freeze("kafka", 8),
    "postgres unreachable": freeze("postgres", 8),
}
SHORT = ("settle killed", "validate killed", "bridge killed", "mqtt broker killed", "kafka killed", "postgres killed")


def run_faults(stack: Stack, name: str, faults: list[str], seed: int) -> Town:
    with stack.sender(name, begins_at=0) as sender:
        town = Town(stack, sender, name, meters=40, seed=seed)
        town.live(1.0)
        for fault in faults:
            print(f"{time.strftime('%H:%M:%S')} {fault}")
            FAULTS[fault](stack, town)
            town.live(1.5)
        town.settle_down()
        town.assert_exact()
        return town


def test_short_seeded_run_of_faults_leaves_the_ledger_exact(faulty: Stack) -> None:
    """Every process that carries readings is killed once, in an order drawn by the seed."""
    seed = int(os.environ.get("FAULTS_SEED", "0")) or random.randrange(1, 10**6)
    faults = random.Random(seed).sample(SHORT, len(SHORT))
    town = run_faults(faulty, f"short{seed}", faults, seed)
    assert town.readings() > 1000, "sometimes: there was work while the faults struck"
    assert faulty.sql("select count(*) from fact where revision % 2 = 1")[0][0] > 0, "sometimes: late readings"
    assert faulty.sql("select sum(duplicate) from stream_offset")[0][0] > 0, "sometimes: repeated readings"


def test_frozen_worker_loses_its_partitions_and_changes_nothing_when_it_wakes(faulty: Stack) -> None:
    """A zombie: its session is over, another owner went on; the row lock and the offset fence it."""
    before = faulty.sql("select count(*) from stream_owner where consumer = 'settle'")[0][0]
    run_faults(faulty, "zombie", ["settle frozen past the session"], seed=5)
    after = faulty.sql("select count(*) from stream_owner where consumer = 'settle'")[0][0]
    assert after > before, "sometimes: the partitions had another owner meanwhile"


@pytest.mark.long
@pytest.mark.parametrize("fault", list(FAULTS))
def test_each_fault_leaves_the_ledger_exact(faulty: Stack, fault: str) -> None:
    name = "f" + "".join(word[0] for word in fault.split()) + str(list(FAULTS).index(fault))
    run_faults(faulty, name, [fault] * 2, seed=list(FAULTS).index(fault) + 1)


@pytest.mark.long
@pytest.mark.parametrize("seed", [101, 102, 103])
def test_long_seeded_run_of_faults_leaves_the_ledger_exact(faulty: Stack, seed: int) -> None:
    draw = random.Random(seed)
    run_faults(faulty, f"long{seed}", [draw.choice(list(FAULTS)) for _ in range(8)], seed)
