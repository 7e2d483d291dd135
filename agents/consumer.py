"""The safe consumer: Faust delivers, the database's offset decides (design §3.3 and §3.5).

Faust brings membership, assignment, back-pressure and agents; its committed offsets are a hint, because it commits past
what an agent dropped. On assignment we seek to the database's offset; a batch is committed by the handler in one
transaction, repeated for ever when the world refuses; only then is it acknowledged. Nothing raises out of the agent.

Two private attributes of Faust's consumer are used, ``_committed_offset`` and ``_read_offset``: Faust is pinned, and
tests/agents/test_consumer.py fails when they vanish.
"""

import asyncio
import dataclasses
import itertools
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from psycopg import Error as DatabaseError

from agents.publisher import PublishError
from monitoring.clock import now_us
from monitoring.log import get_logger
from monitoring.metrics import (
    BATCH_SECONDS,
    BATCHES,
    LAG_RECORDS,
    LAG_SECONDS,
    MESSAGES,
    NEXT_OFFSET,
    RETRIES,
    Health,
    serve_metrics,
)
from schemas.settings import Settings
from storage.offset import GapError

EXIT_TEMPORARY = 75
RETRY_WAIT_S = 0.2
RETRY_WAIT_MAX_S = 5.0
SESSION_TIMEOUT_S = 6.0
HEARTBEAT_S = 1.0
REBALANCE_TIMEOUT_S = 10.0
TURN_S = 5.0
STOP_TIMEOUT_S = 8.0

log = get_logger("agents.consumer")


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record as it was delivered."""

    topic: str
    partition: int
    offset: int
    value: bytes


class Handler(Protocol):
    """What an agent does with the records of a partition. All calls come from one thread."""

    consumer: str
    topics: tuple[str, ...]

    def next_offsets(self, assigned: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return where each partition goes on, after loading what is needed for it."""

    def commit(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Make the outcome of the records durable; the same records may come again."""

    def progress(self) -> Mapping[tuple[str, int], tuple[int, int]]:
        """Return next offset and watermark (epoch µs, 0 without one) of each partition, as last committed.

        Called from the event loop while `commit` runs in its thread: it only looks.
        """

    def close(self) -> None:
        """Give back connections."""


def _halt(event: str, error: BaseException) -> None:
    """Leave at once, without Faust's shutdown: it would commit offsets. The supervisor starts us again."""
    log.error(event, error=f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_TEMPORARY)


class _Runner:
    """Runs the handler's calls in one thread, and repeats them while the world refuses."""

    def __init__(self, handler: Handler, health: Health) -> None:
        self.handler = handler
        self.health = health
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=handler.consumer)

    async def call(self, function: Any, *args: Any) -> Any:
        """Return the function's result; database and Kafka errors are tried again, for ever, with back-off."""
        loop = asyncio.get_running_loop()
        for attempt in itertools.count():
            try:
                done = await loop.run_in_executor(self._thread, function, *args)
                self.health.ready = True
                return done
            except (DatabaseError, PublishError, OSError) as error:
                wait_s = min(RETRY_WAIT_S * 2 ** min(attempt, 10), RETRY_WAIT_MAX_S)
                RETRIES.labels(self.handler.consumer).inc()
                self.health.ready = False
                log.warning("batch_retried", error=str(error)[:300], attempt=attempt, wait_s=wait_s)
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001  # a GAP or a defect: never go on past it
                _halt("worker_halted", error)
        return None


def find_behind(offsets: Mapping[tuple[str, int], int], ends: Mapping[TP, int]) -> str:
    """Return what is wrong when Kafka's log ends before the database's offset, or nothing.

    Then it lost its tail or was made anew: its next records would be taken for replays, and nothing would be settled.
    """
    for (topic, partition), offset in sorted(offsets.items()):
        end = ends.get(TP(topic, partition))
        if end is not None and end < offset:
            return (
                f"{topic}/{partition} ends at {end} in Kafka, the database stands at {offset}: Kafka lost records or was"
                " made anew; see docs/deployment.md, Kafka lost records"
            )
    return ""


def _consumer_class(runner: _Runner) -> type[driver.Consumer]:
    class SafeConsumer(driver.Consumer):
        """Faust's consumer, but it seeks to the database's offsets."""

        async def perform_seek(self) -> None:
            await super().perform_seek()
            ours = {tp for tp in self.assignment() if tp.topic in runner.handler.topics}
            keys = {(tp.topic, tp.partition) for tp in ours}
            offsets = await runner.call(runner.handler.next_offsets, keys)
            behind = find_behind(offsets, await self.highwaters(*ours) if ours else {})
            if behind:
                _halt("worker_halted", GapError(behind))
            for tp in ours:
                offset = offsets[(tp.topic, tp.partition)]
                await self.seek(tp, offset)
                self._committed_offset[tp] = offset or None
                self._read_offset[tp] = offset or None
            log.info("partitions_assigned", offsets={f"{t}/{p}": o for (t, p), o in sorted(offsets.items())})

    return SafeConsumer


def build_app(settings: Settings, bootstrap_servers: str, runner: _Runner, name: str) -> faust.App:
    """Return the Faust app of one worker: raw bytes, no tables, no web server, no leader topic."""
    handler = runner.handler
    faust_dir = settings.run_dir / "faust" / name  # with no tables nothing is kept in it
    faust_dir.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        f"{settings.kafka.topic_prefix}gridtally-{handler.consumer}",
        broker=f"kafka://{bootstrap_servers.replace(',', ';kafka://')}",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        broker_commit_interval=1.0,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_rebalance_timeout=REBALANCE_TIMEOUT_S,
        broker_request_timeout=20,
        broker_max_poll_records=500,
        consumer_max_fetch_size=8 * 1024 * 1024,
        table_standby_replicas=0,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        topic_partitions=settings.kafka.partitions,
        datadir=faust_dir,
    )
    transport = type("Transport", (driver.Transport,), {"Consumer": _consumer_class(runner)})
    app.transport = transport(app.conf.broker_consumer, app)
    return app


def add_agent(app: faust.App, runner: _Runner, batch_max: int, batch_wait_s: float) -> None:
    """Add the one agent of a worker: take a batch, commit it per partition, acknowledge it."""
    topic = app.topic(
        *runner.handler.topics,
        key_type=bytes,
        key_serializer="raw",
        value_type=bytes,
        value_serializer="raw",
    )

    consumer = runner.handler.consumer
    seconds, batches = BATCH_SECONDS.labels(consumer), BATCHES.labels(consumer)
    taken = MESSAGES.labels(consumer, "taken")

    async def consume(stream: faust.StreamT[bytes]) -> None:
        """1. Take records. 2. Commit each partition's in one transaction. 3. Only then acknowledge."""
        async for batch in stream.noack_take(batch_max, within=batch_wait_s):  # type: ignore[attr-defined]  # Step 1.
            for tp, records in by_partition(batch).items():
                with seconds.time():
                    await runner.call(runner.handler.commit, tp.topic, tp.partition, records)  # Step 2.
                batches.inc()
                taken.inc(len(records))
            for event in batch:
                event.ack()  # Step 3.

    app.agent(topic, name=f"{consumer}-agent")(consume)

    @app.timer(TURN_S)
    async def turn() -> None:
        """Show that the loop turns, and how far behind the database is."""
        runner.health.turned()
        show_lag(app, runner.handler)


def show_lag(app: faust.App, handler: Handler) -> None:
    """Show lag by the database's offsets: Faust's own are a hint."""
    now = now_us()
    for (topic, partition), (next_offset, watermark_us) in handler.progress().items():
        stage, label = handler.consumer, str(partition)
        NEXT_OFFSET.labels(stage, topic, label).set(next_offset)
        if watermark_us:
            LAG_SECONDS.labels(stage, label).set(max(now - watermark_us, 0) / 1e6)
        end_offset = app.consumer.highwater(TP(topic, partition))
        if end_offset is not None:
            LAG_RECORDS.labels(stage, topic, label).set(max(end_offset - next_offset, 0))


def by_partition(batch: Sequence[Any]) -> dict[TP, list[Record]]:
    """Return the records of a batch of events by their partition, in the order of their offsets."""
    parts: dict[TP, list[Record]] = {}
    for event in batch:
        message = event.message
        record = Record(message.topic, message.partition, message.offset, message.value or b"")
        parts.setdefault(message.tp, []).append(record)
    return parts


def split_by_bytes(records: Sequence[Record], bytes_max: int) -> Iterator[Sequence[Record]]:
    """Return consecutive parts of at most so many bytes, or of one record where that is larger."""
    start, size = 0, 0
    for place, record in enumerate(records):
        if place > start and size + len(record.value) > bytes_max:
            yield records[start:place]
            start, size = place, 0
        size += len(record.value)
    if start < len(records):
        yield records[start:]


class _Worker(faust.Worker):
    """Faust's worker, but its shutdown has an end: with Kafka away it would wait for ever."""

    async def stop(self) -> None:
        """Stop in order, or leave after STOP_TIMEOUT_S: what is not committed comes again."""
        timer = threading.Timer(STOP_TIMEOUT_S, os._exit, (EXIT_TEMPORARY,))
        timer.daemon = True
        timer.start()
        await super().stop()


def run(
    settings: Settings,
    bootstrap_servers: str,
    handler: Handler,
    *,
    batch_max: int,
    batch_wait_s: float,
    name: str,
) -> None:
    """Run one worker until it is told to stop (SIGTERM, SIGINT)."""
    health = serve_metrics(name, settings.run_dir, settings.metrics)
    runner = _Runner(handler, health)
    app = build_app(settings, bootstrap_servers, runner, name)
    add_agent(app, runner, batch_max, batch_wait_s)
    worker = _Worker(app, loglevel="WARN", redirect_stdouts=False, override_logging=False)
    try:
        worker.execute_from_commandline()
    finally:
        handler.close()
