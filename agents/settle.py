"""The settle agent: readings become facts, running charges and receipts, in one transaction a batch."""

import datetime as dt
import os
import socket
import time
from collections.abc import Callable, Sequence

import numpy as np
import psycopg

from agents import consumer
from agents.charge_change import changes_of
from agents.consumer import Record, split_by_bytes
from agents.frames import ReadingBatch, bad_frame_letter, batch_from_records
from agents.outbox import Outbox
from agents.outcome import CONSUMER, keep_refused, show_outcomes
from agents.outgoing import Charges, Outgoing, Slow, live_figures
from agents.publisher import Publisher, PublishError
from agents.slow_charge import SlowCharges
from metering.fact import Columns
from metering.settlement import (
    Plan,
    Settled,
    neighbours_wanted,
    old_rows,
    plan_batch,
    repeated_rows,
    settle_batch,
)
from metering.state import MeterStates
from monitoring.clock import now, now_us
from monitoring.log import get_logger
from schemas.settings import Settings
from schemas.topic import METER_READINGS
from storage.charge_change import write_changes
from storage.dead_letter import write_dead_letters
from storage.ledger_time import position_now
from storage.offset import OffsetCounts, OffsetRow, advance, lock_offset, skip_replays
from storage.partition import DailyPartitions
from storage.raw_record import RawMessages
from storage.registry import Registry, load_registry, refresh_registry
from storage.settlement import BatchDone, days_of, fetch_neighbours, fetch_settled, write_batch
from storage.state import StateRows, load_partition

PARTITIONS_AHEAD_DAYS = 3
REGISTRY_CHECK_S = 1.0
STATEMENT_TIMEOUT_MS = 60_000
LOCK_TIMEOUT_MS = 5_000
TRANSACTION_BYTES_MAX = 4 * 1024 * 1024
"""Of frames, about 20 bytes a reading compressed: some 200,000 readings and two seconds of the database."""
CLOCK_EVERY_S = 15.0
"""At least so long between two notes of how far a partition had come when."""
RAW_FETCHES_MAX = 50
"""Dead letters of one batch whose bytes are fetched back; the rest name their lineage only."""

log = get_logger("agents.settle")


class SettleHandler:
    """Settles batches of one partition at a time; holds the state of the meters of its partitions."""

    consumer = CONSUMER

    def __init__(
        self, settings: Settings, database: str, bootstrap_servers: str, publisher: Publisher | None = None
    ) -> None:
        """Connect at the first assignment; without a publisher given, publish to Kafka."""
        self.settings = settings
        self.prefix = settings.kafka.topic_prefix
        self.topics: tuple[str, ...] = (self.prefix + METER_READINGS,)
        self.database = database
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{int(time.time())}"
        self.publisher = publisher or Publisher(bootstrap_servers)
        self.raw = RawMessages(bootstrap_servers, self.prefix)
        self.days = DailyPartitions()
        self.states = MeterStates.empty(0)
        self._conn: psycopg.Connection | None = None
        self._registry: Registry | None = None
        self._registry_checked = 0.0
        self._charges: Charges | None = None
        self._slow = SlowCharges()
        self._clock_at: dict[int, float] = {}
        self._stands_at: dict[int, int] = {}
        """Offset that the state in memory stands at, by partition; absent means it must be loaded."""
        self._outbox = Outbox(CONSUMER, self.publisher, self.prefix)
        self._progress: dict[tuple[str, int], tuple[int, int]] = {}
        self._dirty = np.zeros(0, np.bool_)
        self._partition_of = np.zeros(0, np.int64)
        self._batches_since: dict[int, int] = {}
        self._checkpoint_at: dict[int, float] = {}

    # -- connection and master data ------------------------------------------------------------------------------

    def connection(self) -> psycopg.Connection:
        """Return the one connection of this worker, opened anew after an error."""
        if self._conn is None or self._conn.closed or self._conn.broken:
            options = (
                f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
                " -c idle_in_transaction_session_timeout=30000"
            )
            self._conn = psycopg.connect(
                self.database, autocommit=True, options=options, application_name=f"settle {self.worker}"
            )
        return self._conn

    def registry(self, meter_no_max: int = 0) -> Registry:
        """Return the master data, looked at again each second and when a meter is not in it yet."""
        conn = self.connection()
        stale = time.monotonic() - self._registry_checked > REGISTRY_CHECK_S
        if self._registry is None:
            self._use(load_registry(conn))
        elif stale or meter_no_max >= self._registry.meters.size:
            self._use(refresh_registry(conn, self._registry))
        assert self._registry is not None
        return self._registry

    def _use(self, registry: Registry) -> None:
        self._registry_checked = time.monotonic()
        if registry is self._registry:
            return
        self._registry = registry
        self._charges = Charges(registry)
        size = registry.meters.size
        self.states = self.states.grow(size)
        grown = size - len(self._dirty)
        if grown > 0:
            self._dirty = np.concatenate([self._dirty, np.zeros(grown, np.bool_)])
            self._partition_of = np.concatenate([self._partition_of, np.full(grown, -1)])

    # -- assignment ----------------------------------------------------------------------------------------------

    def next_offsets(self, assigned: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return where each partition goes on, with its state loaded and its outbox published."""
        ours = {partition for _, partition in assigned}
        for partition in set(self._stands_at) - ours:
            self._forget(partition)
        self._make_days_ahead()
        for partition in sorted(ours):
            with self.connection().transaction():
                row = lock_offset(self.connection(), CONSUMER, METER_READINGS, partition)
                self._load(partition, row)
        return {(topic, partition): self._stands_at[partition] for topic, partition in assigned}

    def _make_days_ahead(self) -> None:
        today = now().date()
        ahead = {today + dt.timedelta(days=day) for day in range(PARTITIONS_AHEAD_DAYS)}
        self.days.ensure(self.connection(), ahead)

    def _forget(self, partition: int) -> None:
        self._stands_at.pop(partition, None)
        self._progress.pop((self.topics[0], partition), None)
        self._outbox.forget(partition)

    def _load(self, partition: int, row: OffsetRow) -> None:
        """Load a partition's state unless the one in memory stands at the same offset."""
        if self._stands_at.get(partition) == row.next_offset:
            return
        started = time.monotonic()
        registry = self.registry()
        self._reset(partition)
        conn = self.connection()
        loaded = load_partition(conn, self.states, registry, partition, row)
        self._partition_of[loaded.meter_no] = partition
        self._dirty[loaded.later_meter_no] = True
        self._stands_at[partition] = row.next_offset
        self._outbox.load(conn, partition)
        self._batches_since[partition] = 0
        self._checkpoint_at[partition] = time.monotonic()
        log.info(
            "partition_loaded",
            partition=partition,
            next_offset=row.next_offset,
            facts_folded=loaded.facts_folded,
            seconds=round(time.monotonic() - started, 3),
        )

    def _reset(self, partition: int) -> None:
        rows = np.flatnonzero(self._partition_of == partition)
        self.states.put(rows, MeterStates.empty(len(rows)))
        self._dirty[rows] = False

    # -- batches -------------------------------------------------------------------------------------------------

    def commit(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Settle records of one partition.

        1. Publish what an earlier batch committed and could not publish. 2. Commit facts, state, outbox and offset in
        one transaction. 3. Take the new state over in memory. 4. Publish. 5. Compute and publish charges that columns do
        not give; what is lost here is computed again with the meter's next reading, and by every page that asks.
        """
        del topic
        for part in split_by_bytes(records, TRANSACTION_BYTES_MAX):
            try:
                self._outbox.publish(partition)  # Step 1.
                self._commit(partition, part)  # Steps 2 and 3.
            except psycopg.Error:
                self._stands_at.pop(partition, None)  # the commit may or may not have happened: look again
                raise
            self._outbox.publish(partition)  # Step 4.
            self._publish_slow(partition)  # Step 5.

    def _publish_slow(self, partition: int) -> None:
        """Publish some of the charges that wait; a failure costs only these."""
        if not len(self._slow):
            return
        assert self._registry is not None
        assert self._charges is not None
        try:
            for item in self._slow.compute(self.connection(), self._registry, self._charges, self.states):
                self.publisher.produce(self.prefix + item.topic, partition, item.payload)
            self.publisher.flush()
        except (psycopg.Error, PublishError) as error:
            log.warning("charges_not_published", error=f"{type(error).__name__}: {error}"[:300])

    def _commit(self, partition: int, records: Sequence[Record]) -> None:
        batch = batch_from_records(records, partition)
        if len(batch.columns["read_at"]):
            self.days.ensure(self.connection(), days_of(batch.columns["read_at"]))
        with self.connection().transaction():
            row = lock_offset(self.connection(), CONSUMER, METER_READINGS, partition)
            self._load(partition, row)
            todo = skip_replays(row, records)
            if not todo:
                return
            if len(todo) < len(records):
                batch = batch_from_records(todo, partition)
            after = self._write(partition, batch, todo)
        after()

    def _write(self, partition: int, batch: ReadingBatch, records: Sequence[Record]) -> Callable[[], None]:
        """Write one batch inside the transaction; return what to do in memory once it is committed."""
        next_offset = records[-1].offset + 1
        columns = batch.columns
        self._keep_bad_frames(batch)
        if not len(columns["read_at"]):
            counts = OffsetCounts()
            key = (CONSUMER, METER_READINGS, partition)
            advance(
                self.connection(),
                key,
                next_offset=next_offset,
                worker=self.worker,
                counts=counts,
                watermark_us=batch.watermark_us,
            )
            return lambda: self._moved(partition, next_offset, batch.watermark_us)
        registry = self.registry(int(columns["meter_no"].max()))
        plan = self._plan(columns, registry)
        history = fetch_neighbours(self.connection(), neighbours_wanted(plan, registry.meters))
        settled = settle_batch(plan, history, self.states, registry.meters, registry.prices)
        refused = keep_refused(self.connection(), columns, settled.refused, self._describer(batch))
        outbox, slow = self._outgoing(settled, batch, partition, next_offset)
        checkpoint = self._checkpoint(partition, settled)
        published = self._outbox.published(partition)
        done = BatchDone(
            (CONSUMER, METER_READINGS, partition),
            readings=len(columns["read_at"]),
            refused=refused,
            next_offset=next_offset,
            worker=self.worker,
            watermark_us=batch.watermark_us,
            notes_clock=time.monotonic() - self._clock_at.get(partition, -CLOCK_EVERY_S) >= CLOCK_EVERY_S,
        )
        ids = write_batch(self.connection(), done, settled, outbox=outbox, published=published, checkpoint=checkpoint)
        assert self._charges is not None
        if settled.late:
            known = {**position_now(self.connection()), partition: records[0].offset}
            write_changes(self.connection(), changes_of(self.connection(), registry, self._charges, settled, known))

        def committed() -> None:
            self.states.put(settled.touched, settled.states)
            self._partition_of[settled.touched] = partition
            self._dirty[settled.touched] = True
            if checkpoint is not None:
                self._dirty[checkpoint.meter_no] = False
                self._batches_since[partition] = 0
                self._checkpoint_at[partition] = time.monotonic()
            self._moved(partition, next_offset, batch.watermark_us)
            if done.notes_clock:
                self._clock_at[partition] = time.monotonic()
            self._slow.add(slow)
            self._outbox.committed(partition, next_offset, ids, outbox, len(published))
            show_outcomes(batch, settled, refused)

        return committed

    def _plan(self, columns: Columns, registry: Registry) -> Plan:
        """Sort the batch out, with what is settled already left out."""
        old = old_rows(columns, self.states)
        if not len(old):
            return plan_batch(columns, self.states, registry.meters)
        found = fetch_settled(self.connection(), columns["meter_no"][old], columns["read_at"][old])
        return plan_batch(columns, self.states, registry.meters, repeated_rows(columns, old, found))

    def _moved(self, partition: int, next_offset: int, watermark_us: int) -> None:
        """Note in memory how far a partition came."""
        self._stands_at[partition] = next_offset
        key = self.topics[0], partition
        self._progress[key] = next_offset, max(watermark_us, self._progress.get(key, (0, 0))[1])

    def _keep_bad_frames(self, batch: ReadingBatch) -> None:
        letters = [bad_frame_letter(record, why, now_us()) for record, why in batch.bad]
        write_dead_letters(self.connection(), CONSUMER, letters)

    def _describer(self, batch: ReadingBatch) -> Callable[[int], tuple[str, str, bytes]]:
        fetched = 0
        registry = self.registry()

        def describe(index: int) -> tuple[str, str, bytes]:
            nonlocal fetched
            meter_id = registry.meters.meter_id[int(batch.columns["meter_no"][index])]
            if fetched >= RAW_FETCHES_MAX:
                return "", meter_id, b""
            fetched += 1
            lineage = (int(batch.columns[name][index]) for name in ("raw_partition", "raw_offset", "raw_index"))
            topic, payload = self.raw.fetch(*lineage)
            if not topic:
                fetched = RAW_FETCHES_MAX  # gone, or Kafka is slow: a wait for each would outlast the transaction
            return topic, meter_id, payload

        return describe

    def _outgoing(
        self, settled: Settled, batch: ReadingBatch, partition: int, next_offset: int
    ) -> tuple[list[Outgoing], list[Slow]]:
        assert self._charges is not None
        frame, slow = self._charges.frame(settled, batch)
        items = [
            frame,
            self._charges.receipts(settled, batch),
            live_figures(settled, batch, partition, next_offset, now_us()),
        ]
        return [item for item in items if item is not None], slow

    def _checkpoint(self, partition: int, settled: Settled) -> StateRows | None:
        """Return the states to write when it is time: all that changed since the last checkpoint, as of this batch."""
        self._batches_since[partition] += 1
        due = self._batches_since[partition] >= self.settings.settle.checkpoint_batches
        waited_s = time.monotonic() - self._checkpoint_at[partition]
        if not due and waited_s < self.settings.settle.checkpoint_s:
            return None
        dirty = np.flatnonzero(self._dirty & (self._partition_of == partition))
        rows = np.union1d(dirty, settled.touched)
        states = self.states.take(rows)
        states.put(np.searchsorted(rows, settled.touched), settled.states)
        return StateRows(rows, states)

    def progress(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Return next offset and watermark of each partition."""
        return dict(self._progress)

    def close(self) -> None:
        """Give back the connections."""
        self.raw.close()
        if self._conn is not None:
            self._conn.close()


def run(settings: Settings, database: str, bootstrap_servers: str, name: str = CONSUMER) -> None:
    """Run one settle worker until it is told to stop."""
    handler = SettleHandler(settings, database, bootstrap_servers)
    consumer.run(
        settings,
        bootstrap_servers,
        handler,
        batch_max=settings.settle.batch_frames_max,
        batch_wait_s=settings.settle.batch_wait_s,
        name=name,
    )
