"""The safe consumer: the Faust that it leans on, what it does about errors, and that the database's offset decides."""

import asyncio
import importlib.metadata
import inspect
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faust
import faust.tables.recovery
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from faust.streams import Stream
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from agents import consumer
from agents.consumer import Record, _Runner, add_agent, build_app, by_partition
from agents.publisher import PublishError
from connectors.topics import ensure_topics
from monitoring.metrics import Health
from schemas.settings import Settings
from schemas.topic import METER_READINGS
from tests.agents.file_worker import FileHandler, offsets_in
from tests.fixtures.stack import Stack

ROOT = Path(__file__).parent.parent.parent


# -- what we lean on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["faust-streaming", "aiokafka", "mode-streaming", "confluent-kafka"])
def test_the_pinned_versions_are_installed(name: str) -> None:
    pinned = re.search(rf'"{name}==([^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert pinned
    assert importlib.metadata.version(name) == pinned[1]


@pytest.mark.parametrize("name", ["_committed_offset", "_read_offset"])
def test_private_attributes_of_fausts_consumer_are_maps_by_partition(name: str) -> None:
    assert re.search(rf"self\.{name} = defaultdict\(lambda: None\)", inspect.getsource(FaustConsumer.__init__))


@pytest.mark.parametrize("name", ["perform_seek", "seek", "assignment", "highwater"])
def test_methods_of_fausts_consumer_are_there(name: str) -> None:
    assert inspect.isfunction(getattr(driver.Consumer, name))


def test_perform_seek_is_what_faust_awaits_after_an_assignment() -> None:
    """Were it called at another time, we would seek in vain."""
    assert inspect.iscoroutinefunction(driver.Consumer.perform_seek)
    assert "consumer.perform_seek()" in Path(faust.tables.recovery.__file__).read_text("utf-8")


def test_noack_take_leaves_the_acknowledgement_to_us() -> None:
    assert list(inspect.signature(Stream.noack_take).parameters) == ["self", "max_", "within"]
    code = re.sub(r"#.*", "", inspect.getsource(Stream.noack_take))
    assert "enable_acks = False" in code
    assert ".ack(" not in code
    assert callable(faust.Event.ack)


def settings_at(data_dir: Path, prefix: str = "") -> Settings:
    return Settings.model_validate({"data_dir": data_dir, "kafka": {"topic_prefix": prefix, "partitions": 1}})


def runner_of(tmp_path: Path) -> _Runner:
    return _Runner(FileHandler(tmp_path / "offsets", ""), Health())


async def test_the_app_takes_our_consumer_and_makes_no_server_no_tables_no_leader(tmp_path: Path) -> None:
    runner = runner_of(tmp_path)
    app = build_app(settings_at(tmp_path), "a:1,b:2", runner, "validate")
    add_agent(app, runner, 10, 0.01)
    assert [str(url) for url in app.conf.broker] == ["kafka://a:1", "kafka://b:2"]
    assert not app.conf.web_enabled
    assert app.conf.topic_disable_leader
    nothing = {"on_partitions_revoked": None, "on_partitions_assigned": None}
    made = app.transport.create_consumer(callback=lambda _: None, **nothing)
    assert isinstance(made, driver.Consumer)
    assert type(made).__name__ == "SafeConsumer"
    assert made._committed_offset[TP("t", 0)] is None
    assert made._read_offset[TP("t", 0)] is None
    (agent,) = app.agents.values()
    assert agent.concurrency == 1
    made._thread.thread_loop.close()


# -- batches and errors ------------------------------------------------------------------------------------------


def event(topic: str, partition: int, offset: int, value: bytes | None = b"v") -> Any:
    message = types.SimpleNamespace(
        topic=topic, partition=partition, offset=offset, value=value, tp=TP(topic, partition)
    )
    return types.SimpleNamespace(message=message)


def test_a_batch_is_split_by_partition_in_the_order_of_offsets() -> None:
    batch = [event("a", 0, 1), event("a", 1, 9), event("b", 0, 5, None), event("a", 0, 2)]
    assert by_partition(batch) == {
        TP("a", 0): [Record("a", 0, 1, b"v"), Record("a", 0, 2, b"v")],
        TP("a", 1): [Record("a", 1, 9, b"v")],
        TP("b", 0): [Record("b", 0, 5, b"")],
    }
    assert by_partition([]) == {}


@pytest.mark.parametrize(
    "error", [psycopg.OperationalError, psycopg.errors.LockNotAvailable, PublishError, ConnectionError]
)
async def test_what_the_world_refuses_is_tried_again_until_it_works(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "RETRY_WAIT_S", 0.001)
    runner, left, ready = runner_of(tmp_path), [error("1"), error("2"), error("3")], []

    def commit(value: int) -> int:
        ready.append(runner.health.ready)
        if left:
            raise left.pop()
        return value

    assert await runner.call(commit, 5) == 5
    assert left == []
    assert ready == [False] * 4
    assert runner.health.ready


async def test_waits_grow_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    left = [psycopg.OperationalError()] * 9

    def commit() -> None:
        if left:
            raise left.pop()

    await runner_of(tmp_path).call(commit)
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0]


async def test_a_cancelled_batch_stays_cancelled(tmp_path: Path) -> None:
    runner = runner_of(tmp_path)
    task = asyncio.create_task(runner.call(time.sleep, 0.2))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- a worker ----------------------------------------------------------------------------------------------------


class Worker:
    """Processes of a file worker on a topic of their own."""

    def __init__(self, directory: Path, kafka: str) -> None:
        self.path = directory / "offsets.txt"
        self.faults = self.path.with_suffix(".faults")
        self.log = directory / "worker.log"
        self.kafka = kafka
        self.prefix = f"worker{time.time_ns()}."
        self.process: subprocess.Popen[bytes] | None = None
        ensure_topics(settings_at(directory, self.prefix).kafka, kafka)

    def produce(self, count: int) -> None:
        producer = Producer({"bootstrap.servers": self.kafka})
        for _ in range(count):
            producer.produce(self.prefix + METER_READINGS, b"v", partition=0)
        assert producer.flush(20) == 0

    def start(self) -> None:
        words = [str(self.path), str(self.path.parent), self.kafka, self.prefix]
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "tests.agents.file_worker", *words]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + 40
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.log.read_text('utf-8')[-2000:]}"
            time.sleep(0.05)

    def wait_offsets(self, count: int) -> None:
        self.wait(lambda: len(offsets_in(self.path)) >= count, f"{count} offsets")

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(20)

    def hint(self) -> int:
        """Return what Faust committed."""
        group = Consumer({"bootstrap.servers": self.kafka, "group.id": f"{self.prefix}gridtally-file"})
        (found,) = group.committed([TopicPartition(self.prefix + METER_READINGS, 0)], timeout=10)
        group.close()
        return int(found.offset)


@pytest.fixture
def worker(stack: Stack, tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path, stack.addresses["kafka"])
    yield made
    if made.process and made.process.poll() is None:
        made.end()


@pytest.mark.stack
def test_every_record_is_committed_once_in_order_through_errors_and_a_kill(worker: Worker) -> None:
    worker.faults.write_text("database database", "utf-8")
    worker.produce(30)
    worker.start()
    worker.wait_offsets(30)
    assert "batch_retried" in worker.log.read_text("utf-8")
    assert worker.end() == -signal.SIGKILL
    worker.produce(30)
    worker.start()
    worker.wait_offsets(60)
    assert offsets_in(worker.path) == [*range(60)]


@pytest.mark.stack
def test_a_gap_ends_the_process_with_75_and_the_next_goes_on_there(worker: Worker) -> None:
    worker.produce(5)
    worker.start()
    worker.wait_offsets(5)
    worker.faults.write_text("gap", "utf-8")
    worker.produce(5)
    assert worker.process
    assert worker.process.wait(40) == 75
    assert "worker_halted" in worker.log.read_text("utf-8")
    assert offsets_in(worker.path) == [*range(5)]
    worker.start()
    worker.wait_offsets(10)
    assert offsets_in(worker.path) == [*range(10)]


@pytest.mark.stack
def test_the_databases_offset_decides_not_fausts(worker: Worker) -> None:
    """A database put back from a backup is behind what Faust committed: its records come again."""
    worker.produce(20)
    worker.start()
    worker.wait_offsets(20)
    worker.wait(lambda: worker.hint() == 20, "Faust's own commit")
    assert worker.end(signal.SIGTERM) == 0
    worker.path.write_text("0 1 2 3 4 5 6\n", "utf-8")
    worker.start()
    worker.wait_offsets(20)
    assert offsets_in(worker.path) == [*range(20)]
