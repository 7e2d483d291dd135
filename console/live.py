"""Live figures: one thread reads the published topics and renders once a second for all, two read the database.

What Kafka says goes on while the database is away, and the other way round; each figure carries the age of its source.
"""

import collections
import contextlib
import datetime as dt
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from console.board import HEARD_GRACE_S, HEARD_INTERVALS, Board, Facts, Snapshot
from console.figure import epoch_ms
from console.load_curve import LoadCurve
from console.pipeline import STAGE_TOPICS, settled_until, stage_rows
from monitoring.clock import now, now_us
from monitoring.log import get_logger
from schemas.addresses import Addresses
from schemas.frame import FrameError, decode_charges
from schemas.settings import Settings
from schemas.topic import GRID_ALARMS, GRID_LIVE, METER_CHARGES
from storage.alarm import count_alarms, fetch_open_alarms
from storage.charge import fetch_running_charge
from storage.dead_letter import count_dead_letters, fetch_dead_letters
from storage.query import fetch_newest_powers, fetch_overview, fetch_progress
from storage.registry import Registry, load_registry, refresh_registry

SNAPSHOT_S = 1.0
FACTS_EVERY_S = 2.0
LETTERS_EVERY_S = 5.0
RETRY_S, RETRY_MAX_S = 1.0, 10.0
KAFKA_TIMEOUT_S = 2.0
POSITION_TIMEOUT_S = 1.0
RECORDS_MAX = 2000
ALARMS_SHOWN = 50
LETTERS_SHOWN = 6
CHARGES_READ_MAX = 40
"""Running charges read from the database in one turn, for meters on the top list that have not been heard yet."""
STATEMENT_TIMEOUT_MS = 8_000
CURVE_TIMEOUT_MS = 60_000
STALE_AFTER_S = 20.0
HEARTBEATS_STALE = 4

log = get_logger("console.live")


class LiveFeed:
    """Holds what the live page shows: `snapshot` is the newest rendering."""

    def __init__(self, settings: Settings, addresses: Addresses) -> None:
        """Prepare; `start` begins to read."""
        self._settings = settings
        self._addresses = addresses
        self.stale_after_s = max(STALE_AFTER_S, HEARTBEATS_STALE * settings.bridge.heartbeat_s)
        self.board = Board(self.stale_after_s)
        self.curve = LoadCurve()
        self.snapshot: Snapshot = self.board.snapshot(now_us())
        self.letters: tuple[list[tuple[str, str, int]], list[dict[str, Any]]] = [], []
        """Stage, code and number of the new dead letters; the newest ones."""
        self.on_snapshot: Callable[[], None] = lambda: None
        self.is_ready = False
        self._registry: Registry | None = None
        self._positions = self._begun = 0
        """How often listening began at the topics' ends; how often the newest powers were read after it."""
        self._halt = threading.Event()
        self._look = threading.Event()
        """Set when the database should be read at once: an alarm changed."""
        self._threads = [
            threading.Thread(target=self._repeat, args=(name, work), name=name, daemon=True)
            for name, work in (("listen", self._listen), ("facts", self._read_facts), ("curve", self._read_curve))
        ]

    def start(self) -> None:
        """Begin to read."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads."""
        self._halt.set()
        self._look.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(3)

    def _repeat(self, name: str, work: Callable[[], None]) -> None:
        """Do a thread's work until told to stop; what goes wrong is logged and tried again, ever more slowly."""
        wait_s = RETRY_S
        while not self._halt.is_set():
            began = time.monotonic()
            try:
                work()
            except Exception as error:  # noqa: BLE001  # the page must come back by itself
                if time.monotonic() - began > RETRY_MAX_S:
                    wait_s = RETRY_S
                log.warning("live_feed_failed", part=name, error=f"{type(error).__name__}: {error}"[:300])
                self._halt.wait(wait_s)
                wait_s = min(wait_s * 2, RETRY_MAX_S)

    # -- Kafka ---------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._addresses.kafka,
                "group.id": "gridtally-console",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        is_positioned = False
        try:
            rendered = 0.0
            while not self._halt.is_set():
                is_positioned = is_positioned or self._position(consumer)
                for message in consumer.consume(RECORDS_MAX, 0.1) if is_positioned else ():
                    topic, value = message.topic(), message.value()
                    if not message.error() and topic and value:
                        self._take(topic.removeprefix(self._settings.kafka.topic_prefix), value)
                now = time.monotonic()
                if now - rendered >= SNAPSHOT_S:
                    rendered = now
                    self.snapshot = self.board.snapshot(now_us())
                    self.on_snapshot()
        finally:
            consumer.close()

    def _position(self, consumer: Consumer) -> bool:
        """Begin at the ends that the topics have now; False while Kafka does not answer.

        Charges are published after their commit: what the database is asked from now on and what is heard from here on
        leave nothing out between them.
        """
        places = [
            TopicPartition(self._settings.kafka.topic_prefix + topic, partition)
            for topic in (GRID_LIVE, METER_CHARGES, GRID_ALARMS)
            for partition in range(self._settings.kafka.partitions)
        ]
        try:
            for place in places:
                place.offset = consumer.get_watermark_offsets(place, timeout=POSITION_TIMEOUT_S)[1]
            consumer.assign(places)
        except KafkaException:
            return False
        self._positions += 1
        self._look.set()
        return True

    def _take(self, topic: str, value: bytes) -> None:
        try:
            if topic == GRID_LIVE:
                self.board.take_batch(json.loads(value), now_us())
            elif topic == METER_CHARGES:
                self.board.take_charges(decode_charges(value))
            else:
                self._look.set()
        except (FrameError, ValueError, KeyError, TypeError) as error:
            log.error("published_record_bad", topic=topic, error=str(error)[:300])

    # -- the database --------------------------------------------------------------------------------------------

    def _connect(self, timeout_ms: int) -> psycopg.Connection:
        options = f"-c statement_timeout={timeout_ms} -c default_transaction_read_only=on"
        return psycopg.connect(
            self._addresses.database,
            autocommit=True,
            options=options,
            connect_timeout=5,
            application_name="console live",
        )

    def _read_facts(self) -> None:
        admin = AdminClient({"bootstrap.servers": self._addresses.kafka})
        with self._connect(STATEMENT_TIMEOUT_MS) as conn:
            while not self._halt.is_set():
                self._take_registry(conn)
                self.board.set_facts(self._facts(conn, self._ends(admin)))
                self._begin(conn)
                self.is_ready = True
                self._look.wait(FACTS_EVERY_S)
                self._look.clear()

    def _take_registry(self, conn: psycopg.Connection) -> None:
        kept = self._registry
        registry = load_registry(conn) if kept is None else refresh_registry(conn, kept)
        if registry is not kept:
            self._registry = registry
            self.board.set_registry(registry)

    def _begin(self, conn: psycopg.Connection) -> None:
        """Take the newest power of each meter from the database, each time after listening began anew.

        So a restarted console is not blank, and lacks nothing that was published while it was away.
        """
        positions = self._positions
        if self._begun == positions:
            return
        assert self._registry is not None
        interval_s = int(self._registry.meters.interval_s.max(initial=0))
        span = dt.timedelta(seconds=HEARD_INTERVALS * interval_s + HEARD_GRACE_S + self.stale_after_s)
        as_of = self.board.as_of_us() or now_us()
        since = dt.datetime.fromtimestamp(as_of / 1e6, dt.UTC) - span
        self.board.set_powers(fetch_newest_powers(conn, since))
        self._begun = positions

    def _facts(self, conn: psycopg.Connection, ends: dict[str, dict[int, int]] | None) -> Facts:
        overview, progress = fetch_overview(conn), fetch_progress(conn)
        behind_after_s = self.stale_after_s + self._settings.detect.checkpoint_s
        return Facts(
            at_us=now_us(),
            alarms=fetch_open_alarms(conn, ALARMS_SHOWN),
            alarm_counts=count_alarms(conn),
            stages=stage_rows(progress, ends, behind_after_s),
            settled_us=settled_until(progress),
            **overview,
        )

    def _ends(self, admin: AdminClient) -> dict[str, dict[int, int]] | None:
        """Return the end of each partition of the stages' topics, or None when Kafka does not answer."""
        prefix = self._settings.kafka.topic_prefix
        wanted = {
            TopicPartition(prefix + topic, partition): OffsetSpec.latest()
            for topic in set(STAGE_TOPICS.values())
            for partition in range(self._settings.kafka.partitions)
        }
        ends: dict[str, dict[int, int]] = collections.defaultdict(dict)
        try:
            for place, future in admin.list_offsets(wanted, request_timeout=KAFKA_TIMEOUT_S).items():
                topic = place.topic.removeprefix(prefix)
                ends[topic][place.partition] = future.result(KAFKA_TIMEOUT_S).offset
        except (KafkaException, TimeoutError):
            return None
        return ends

    def _read_charges(self, conn: psycopg.Connection) -> None:
        """Read the charges of meters on the top list that sent nothing since the console began."""
        for meter_id in self.board.uncharged(CHARGES_READ_MAX):
            with contextlib.suppress(LookupError):
                charge = fetch_running_charge(conn, meter_id, self._registry)
                if charge is not None:
                    self.board.set_charge(meter_id, charge.total_unrounded, charge.currency)

    def _read_curve(self) -> None:
        """Keep the load curve, the dead letters and charges not heard yet: slow queries, so not beside the alarms."""
        with self._connect(CURVE_TIMEOUT_MS) as conn:
            while not self._halt.is_set():
                self.letters = count_dead_letters(conn), fetch_dead_letters(conn, limit=LETTERS_SHOWN)
                self._read_charges(conn)
                self.curve.refresh(conn, now())
                self.board.curve_end_ms = epoch_ms(self.curve.end) if self.curve.end else None
                self._halt.wait(LETTERS_EVERY_S)
