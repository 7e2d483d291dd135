"""The detect agent: silence, events and measured values become alarms, one per (subject, kind), in the offset's transaction."""

import datetime as dt
import os
import socket
import time
from collections.abc import Sequence

import numpy as np
import psycopg

from agents import consumer
from agents.consumer import Record
from agents.detect_silence import SILENT, Silent, silence_changes
from agents.frames import bad_frame_letter, batch_from_records
from agents.outbox import Outbox
from agents.outgoing import Outgoing
from agents.publisher import Publisher
from metering.alarm.catalogue import KINDS
from metering.alarm.condition import Condition
from metering.detect.electrical import KIND_OF, Limits, said_of, take
from metering.detect.events import meaning_of
from metering.detect.state import Detectors
from monitoring.clock import now_us
from monitoring.log import get_logger
from monitoring.metrics import ALARMS_ACTIVE
from schemas.frame import FrameError, decode_events
from schemas.settings import Settings
from schemas.topic import GRID_ALARMS, METER_EVENTS, METER_READINGS
from storage.alarm import AlarmChange, apply_conditions, fetch_active, tick
from storage.alarm_action import DESK
from storage.dead_letter import write_dead_letters
from storage.offset import GapError, OffsetCounts, advance, lock_offset
from storage.registry import Registry, load_registry, refresh_registry
from storage.settlement import write_outbox

CONSUMER = "detect"
REGISTRY_CHECK_S = 1.0
TICK_S = 1.0
"""How often the partition that has the clock looks at the alarms' timers."""

log = get_logger("agents.detect")


class DetectHandler:
    """Holds when each meter was heard; commits state, alarms and offset together when an alarm changes or time passed."""

    consumer = CONSUMER

    def __init__(self, settings: Settings, database: str, bootstrap_servers: str) -> None:
        """Connect at the first assignment."""
        self.settings = settings
        self.prefix = settings.kafka.topic_prefix
        self.topics: tuple[str, ...] = (self.prefix + METER_READINGS, self.prefix + METER_EVENTS)
        self.database = database
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{int(time.time())}"
        self.publisher = Publisher(bootstrap_servers)
        self._outbox = Outbox(CONSUMER, self.publisher, self.prefix)
        self._desk = Outbox(DESK, self.publisher, self.prefix)
        """What people did with alarms."""
        limits = settings.detect
        self.limits = Limits(
            limits.nominal_voltage_v, limits.voltage_low_percent, limits.voltage_high_percent, limits.basic_current_a,
            limits.stuck_wh,
        )  # fmt: skip
        self._conn: psycopg.Connection | None = None
        self._registry: Registry | None = None
        self._registry_checked = 0.0
        self._states: dict[int, Detectors] = {}
        self._conditions: dict[int, list[Condition]] = {}
        """What values said since the last commit, by partition."""
        self._alarmed: dict[int, np.ndarray] = {}
        """Which meters have an active silence alarm, by partition."""
        self._at: dict[int, int] = {}
        """Next offset of meter.readings that memory stands at; the database may be behind it."""
        self._committed: dict[int, int] = {}
        self._checkpoint_at: dict[int, float] = {}
        self._progress: dict[tuple[str, int], tuple[int, int]] = {}

    def connection(self) -> psycopg.Connection:
        """Return the one connection of this worker, opened anew after an error."""
        if self._conn is None or self._conn.closed or self._conn.broken:
            options = "-c statement_timeout=60000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=30000"
            self._conn = psycopg.connect(
                self.database, autocommit=True, options=options, application_name=f"detect {self.worker}"
            )
        return self._conn

    def registry(self, meter_no_max: int = 0) -> Registry:
        """Return the master data, looked at again each second and when a meter is not in it yet."""
        stale = time.monotonic() - self._registry_checked > REGISTRY_CHECK_S
        if self._registry is None:
            self._registry = load_registry(self.connection())
        elif stale or meter_no_max >= self._registry.meters.size:
            self._registry = refresh_registry(self.connection(), self._registry)
        else:
            return self._registry
        self._registry_checked = time.monotonic()
        return self._registry

    # -- assignment ----------------------------------------------------------------------------------------------

    def next_offsets(self, assigned: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return where each partition goes on, with its state loaded."""
        offsets = {}
        self._at.clear()
        self._progress.clear()
        for topic, partition in sorted(assigned):
            plain = topic.removeprefix(self.prefix)
            with self.connection().transaction():
                row = lock_offset(self.connection(), CONSUMER, plain, partition)
                self._outbox.load(self.connection(), partition)
                if plain == METER_READINGS:
                    self._load(partition, row.next_offset)
            offsets[topic, partition] = row.next_offset
        return offsets

    def _load(self, partition: int, next_offset: int) -> None:
        conn = self.connection()
        size = self.registry().meters.size
        row = conn.execute(
            "select state, next_offset from detect_state where topic = %s and partition = %s",
            (METER_READINGS, partition),
        ).fetchone()
        if row is not None and row[1] != next_offset:
            raise GapError(f"state of the detectors stands at {row[1]}, its offset at {next_offset}")
        self._states[partition] = Detectors.from_bytes(row[0], size) if row else Detectors.empty(size)
        self._conditions[partition] = []
        self._alarmed[partition] = np.zeros(self._states[partition].size, np.bool_)
        numbers = (self.registry().meter_no_of(subject) for subject, _ in fetch_active(conn, SILENT))
        self._alarmed[partition][[number for number in numbers if number is not None]] = True
        self._at[partition] = self._committed[partition] = next_offset
        self._checkpoint_at[partition] = time.monotonic()

    # -- batches -------------------------------------------------------------------------------------------------

    def commit(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Take records of one partition. 1. Publish what waits. 2. Commit what changed. 3. Publish it."""
        self._outbox.publish(partition)  # Step 1.
        try:
            if topic == self.prefix + METER_EVENTS:  # Step 2.
                self._commit_events(partition, records)
            else:
                self._take_readings(partition, records)
        except psycopg.Error:
            self._at.pop(partition, None)  # whether it was committed is not known: load again
            raise
        self._outbox.publish(partition)  # Step 3.

    def _take_readings(self, partition: int, records: Sequence[Record]) -> None:
        if partition not in self._at:
            self._reload(partition)
        if records[0].offset > self._at[partition]:
            raise GapError(f"expected offset {self._at[partition]}, got {records[0].offset}")
        state = self._states[partition]
        for record in records:
            if record.offset < self._at[partition]:
                continue
            if record.offset != self._at[partition]:
                raise GapError(f"expected offset {self._at[partition]}, got {record.offset}")
            self._take_frame(state, partition, record)
            self._at[partition] = record.offset + 1
        silent = state.silent(self.registry().meters.interval_s, self.settings.detect.silent_intervals)
        changed = np.flatnonzero(silent != self._alarmed[partition][: len(silent)])
        waited_s = time.monotonic() - self._checkpoint_at[partition]
        every_s = (
            min(TICK_S, self.settings.detect.checkpoint_s) if partition == 0 else self.settings.detect.checkpoint_s
        )
        if len(changed) or self._conditions[partition] or waited_s >= every_s:
            self._commit_state(partition, changed, silent)

    def _reload(self, partition: int) -> None:
        """Load after a database error: memory goes back to what is committed, and Kafka is read again from there."""
        with self.connection().transaction():
            row = lock_offset(self.connection(), CONSUMER, METER_READINGS, partition)
            self._load(partition, row.next_offset)
            self._outbox.load(self.connection(), partition)

    def _take_frame(self, state: Detectors, partition: int, record: Record) -> None:
        batch = batch_from_records([record], partition)
        if batch.bad:
            return  # settlement keeps it as a dead letter
        numbers = batch.columns["meter_no"]
        if not len(numbers):
            if batch.watermark_us:
                state.silence.tick(batch.watermark_us)
            return
        self._grow(partition, int(numbers.max()))
        state.silence.hear(numbers)
        state.gateways.hear(numbers, batch.gateway_id.combine_chunks())
        meters = self.registry().meters
        for row, number, flag, holds in take(state.electrical, batch.columns, self.limits):
            at = _instant(min(int(batch.columns[name][row]) for name in ("read_at", "received_at")))
            said = said_of(batch.columns, row, flag, self.limits) if holds else ("it holds no longer", None, None)
            self._conditions[partition].append(
                Condition(meters.meter_id[number], KIND_OF[flag], holds, at, said[0], said[1], said[2])
            )

    def _grow(self, partition: int, number_max: int) -> None:
        if number_max < self._states[partition].size:
            return
        size = max(self.registry(number_max).meters.size, number_max + 1)
        self._states[partition].grow(size)
        more = size - len(self._alarmed[partition])
        self._alarmed[partition] = np.concatenate([self._alarmed[partition], np.zeros(more, np.bool_)])

    def _commit_state(self, partition: int, changed: np.ndarray, silent: np.ndarray) -> None:
        """Commit state, alarms, outbox and offset in one transaction."""
        conn, state, next_offset = self.connection(), self._states[partition], self._at[partition]
        published = self._outbox.published(partition)
        with conn.transaction():
            row = lock_offset(conn, CONSUMER, METER_READINGS, partition)
            if row.next_offset != self._committed[partition]:
                raise GapError(f"another owner moved {partition} to {row.next_offset}")
            at = _instant(state.silence.watermark_us)
            changes = apply_conditions(conn, self._conditions[partition])
            intervals = self.settings.detect.silent_intervals
            missing = state.silent(self.registry().meters.interval_s, max(1, intervals - 1))
            now = Silent(silent, changed, missing, intervals, at)
            changes += silence_changes(conn, partition, state, self.registry(), now)
            if partition == 0 and state.silence.watermark_us:
                changes += tick(conn, at, {"tamper": self.settings.detect.tamper_clear_s})
            conn.execute(
                "insert into detect_state (topic, partition, next_offset, state) values (%s, %s, %s, %b)"
                " on conflict (topic, partition) do update set next_offset = excluded.next_offset, state = excluded.state",
                (METER_READINGS, partition, next_offset, state.to_bytes()),
            )
            items = [Outgoing(GRID_ALARMS, change.to_json()) for change in changes]
            key = (CONSUMER, METER_READINGS, partition)
            ids = write_outbox(conn, key, next_offset, items, published)
            advance(
                conn,
                key,
                next_offset=next_offset,
                worker=self.worker,
                counts=OffsetCounts(),
                watermark_us=state.silence.watermark_us,
                checkpoint_offset=next_offset,
            )
        self._alarmed[partition][changed] = silent[changed]
        self._conditions[partition] = []
        self._committed[partition] = next_offset
        self._progress[self.topics[0], partition] = next_offset, state.silence.watermark_us
        self._checkpoint_at[partition] = time.monotonic()
        self._outbox.committed(partition, next_offset, ids, items, len(published))
        if partition == 0:
            self._show_active()
            self._publish_desk()

    def _publish_desk(self) -> None:
        """Publish what people did with alarms: committed where they did it, and published by whoever has the clock."""
        conn = self.connection()
        self._desk.load(conn, 0)
        self._desk.publish(0)
        conn.execute("delete from outbox where outbox_id = any(%s)", (self._desk.published(0),))

    def _show_active(self) -> None:
        for kind, count in self.connection().execute(
            "select k, (select count(*) from alarm where kind = k and cleared_at is null) from unnest(%s::text[]) k",
            (list(KINDS),),
        ):
            ALARMS_ACTIVE.labels(kind).set(count)

    # -- events --------------------------------------------------------------------------------------------------

    def _commit_events(self, partition: int, records: Sequence[Record]) -> None:
        """Keep events and change alarms; an event that is there already changes nothing."""
        conn = self.connection()
        published = self._outbox.published(partition)
        key = (CONSUMER, METER_EVENTS, partition)
        with conn.transaction():
            row = lock_offset(conn, CONSUMER, METER_EVENTS, partition)
            todo = [record for record in records if record.offset >= row.next_offset]
            if not todo:
                return
            if [record.offset for record in todo] != list(range(row.next_offset, row.next_offset + len(todo))):
                raise GapError(f"expected offset {row.next_offset}, got {todo[0].offset}")
            changes = [change for record in todo for change in self._take_events(record)]
            items = [Outgoing(GRID_ALARMS, change.to_json()) for change in changes]
            next_offset = todo[-1].offset + 1
            ids = write_outbox(conn, key, next_offset, items, published)
            advance(conn, key, next_offset=next_offset, worker=self.worker, counts=OffsetCounts())
        self._progress[self.topics[1], partition] = next_offset, 0
        self._outbox.committed(partition, next_offset, ids, items, len(published))

    def _take_events(self, record: Record) -> list[AlarmChange]:
        try:
            rows = decode_events(record.value).to_pylist()
        except FrameError as error:
            self._keep_bad_frame(record, str(error))
            return []
        return [change for row in rows for change in self._take_event(row)]

    def _keep_bad_frame(self, record: Record, why: str) -> None:
        write_dead_letters(self.connection(), CONSUMER, [bad_frame_letter(record, why, now_us())])

    def _take_event(self, row: dict[str, object]) -> list[AlarmChange]:
        conn = self.connection()
        at = _instant(int(row["at"]))  # type: ignore[call-overload]
        inserted = conn.execute(
            "insert into meter_event (meter_no, boot_id, seq, at, code, detail, raw_partition, raw_offset, raw_index,"
            " received_at) values (%(meter_no)s, %(boot_id)s, %(seq)s, %(moment)s, %(code)s, %(detail)s, %(raw_partition)s,"
            " %(raw_offset)s, %(raw_index)s, to_timestamp(0) + %(received_at)s * interval '1 microsecond')"
            " on conflict do nothing",
            {**row, "moment": at},
        ).rowcount
        meaning = meaning_of(str(row["code"])) if inserted else None
        if meaning is None or self._is_before_installation(int(row["meter_no"]), at):  # type: ignore[call-overload]
            return []
        kind, raises = meaning
        detail = f"event {row['code']}" + (f": {row['detail']}" if row["detail"] else "")
        return apply_conditions(conn, [Condition(str(row["meter_id"]), kind, raises, at, detail)])

    def _is_before_installation(self, meter_no: int, at: dt.datetime) -> bool:
        """Return whether an event is dated before its meter was installed: kept, and no alarm."""
        row = self.connection().execute("select installed_on from meter where meter_no = %s", (meter_no,)).fetchone()
        return row is not None and row[0] is not None and at.date() < row[0]

    def progress(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Return next offset and watermark of each partition."""
        return dict(self._progress)

    def close(self) -> None:
        """Give back the connection."""
        if self._conn is not None:
            self._conn.close()


def _instant(at_us: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=at_us)


def run(settings: Settings, database: str, bootstrap_servers: str, name: str = CONSUMER) -> None:
    """Run one detect worker until it is told to stop."""
    handler = DetectHandler(settings, database, bootstrap_servers)
    consumer.run(
        settings,
        bootstrap_servers,
        handler,
        batch_max=settings.validate_.batch_frames_max,
        batch_wait_s=settings.validate_.batch_wait_s,
        name=name,
    )
