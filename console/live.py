"""Live figures: one thread reads the published topics, one snapshot a second is rendered for all who watch."""

import collections
import dataclasses
import datetime as dt
import heapq
import json
import threading
import time
from typing import Any

import psycopg
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from monitoring.clock import now_us
from monitoring.log import get_logger
from schemas.addresses import Addresses
from schemas.frame import FrameError, decode_charges
from schemas.settings import Settings
from schemas.topic import GRID_ALARMS, GRID_LIVE, METER_CHARGES
from storage.alarm import fetch_alarms
from storage.query import fetch_newest_powers, fetch_overview

SNAPSHOT_S = 1.0
WINDOW_S = 60
TOP_METERS = 40
DATABASE_EVERY_S = 5.0
HEARD_INTERVALS = 1.5
RECORDS_MAX = 2000
ALARMS_SHOWN = 50

log = get_logger("console.live")


@dataclasses.dataclass
class _Second:
    readings: int = 0
    charges: int = 0
    delays: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    """p50 ms, max ms, readings of a batch."""


class LiveFeed(threading.Thread):
    """Holds what the live page shows; `snapshot` is the newest rendering, as JSON, with its number."""

    def __init__(self, settings: Settings, addresses: Addresses) -> None:
        """Prepare; `start` runs it."""
        super().__init__(name="live", daemon=True)
        self._settings = settings
        self._addresses = addresses
        self._powers: dict[str, tuple[int, int, int, str, str]] = {}
        """Of each meter: read_at µs, net W, energy Wh of the cycle, amount and currency."""
        self._seconds: collections.deque[tuple[int, _Second]] = collections.deque(maxlen=WINDOW_S + 2)
        self._overview: dict[str, Any] = {"meters": 0, "dead_letters": 0, "readings": 0, "interval_s_max": 900}
        self._alarms: list[dict[str, Any]] = []
        self._database_at = 0.0
        self._newest_batch_us = 0
        self._halt = threading.Event()
        self.snapshot: tuple[int, str] = (0, "{}")
        self.changed = threading.Condition()
        self.is_ready = False

    def stop(self) -> None:
        """End the thread."""
        self._halt.set()
        if self.is_alive():
            self.join(3)

    def run(self) -> None:
        """Read and render until told to stop; what goes wrong is logged and tried again."""
        while not self._halt.is_set():
            try:
                self._work()
            except Exception as error:  # noqa: BLE001  # the page must come back by itself
                log.warning("live_feed_failed", error=f"{type(error).__name__}: {error}")
                self._halt.wait(2)

    def _work(self) -> None:
        with psycopg.connect(self._addresses.database, autocommit=True, connect_timeout=5) as conn:
            self._begin(conn)
            consumer = self._consumer()
            try:
                rendered = 0.0
                while not self._halt.is_set():
                    for message in consumer.consume(RECORDS_MAX, 0.1):
                        topic, value = message.topic(), message.value()
                        if not message.error() and topic and value:
                            self._take(topic.removeprefix(self._settings.kafka.topic_prefix), value)
                    now = time.monotonic()
                    if now - self._database_at > DATABASE_EVERY_S:
                        self._read_database(conn)
                    if now - rendered >= SNAPSHOT_S:
                        rendered = now
                        self._render()
            finally:
                consumer.close()

    def _begin(self, conn: psycopg.Connection) -> None:
        """Take the newest power of each meter from the database, so that a restarted console is not blank."""
        self._read_database(conn)
        span = dt.timedelta(seconds=HEARD_INTERVALS * self._overview["interval_s_max"] + 60)
        since = dt.datetime.fromtimestamp(now_us() / 1e6, dt.UTC) - span
        for meter_id, at, watts in fetch_newest_powers(conn, since):
            self._powers[meter_id] = int(at.timestamp() * 1e6), int(watts), 0, "", ""

    def _consumer(self) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self._addresses.kafka,
                "group.id": "gridtally-console",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        prefix = self._settings.kafka.topic_prefix
        consumer.assign(
            [
                TopicPartition(prefix + topic, partition, OFFSET_END)
                for topic in (GRID_LIVE, METER_CHARGES, GRID_ALARMS)
                for partition in range(self._settings.kafka.partitions)
            ]
        )
        return consumer

    def _read_database(self, conn: psycopg.Connection) -> None:
        self._database_at = time.monotonic()
        self._overview = fetch_overview(conn)
        self._alarms = fetch_alarms(conn, active=True, limit=ALARMS_SHOWN)

    def _second(self) -> _Second:
        now = int(time.time())
        if not self._seconds or self._seconds[-1][0] != now:
            self._seconds.append((now, _Second()))
        return self._seconds[-1][1]

    def _take(self, topic: str, value: bytes) -> None:
        if topic == GRID_LIVE:
            figures = json.loads(value)
            second = self._second()
            second.readings += figures["readings"]
            second.charges += figures["charges"]
            if figures["readings"]:
                second.delays.append((figures["delay_ms_p50"], figures["delay_ms_max"], figures["readings"]))
            self._newest_batch_us = max(self._newest_batch_us, figures["committed_at"])
        elif topic == METER_CHARGES:
            self._take_charges(value)
        else:
            self._database_at = 0.0  # an alarm changed: read the list again at once

    def _take_charges(self, value: bytes) -> None:
        try:
            frame = decode_charges(value)
        except FrameError as error:
            log.error("charges_frame_bad", error=str(error))
            return
        names = ("meter_id", "read_at", "power_w", "cycle_energy_wh", "amount", "amount_scale", "currency")
        for meter_id, at, watts, energy, amount, scale, currency in zip(
            *(frame.column(name).to_pylist() for name in names), strict=True
        ):
            self._powers[meter_id] = at, watts, energy, money_text(amount, scale), currency

    def _render(self) -> None:
        now = now_us()
        limit = now - int(HEARD_INTERVALS * self._overview["interval_s_max"] * 1e6) - 10_000_000
        heard = {meter_id: row for meter_id, row in self._powers.items() if row[0] >= limit}
        recent = [second for at, second in self._seconds if at >= now / 1e6 - WINDOW_S]
        delays = [delay for second in recent for delay in second.delays]
        top = heapq.nlargest(TOP_METERS, heard.items(), key=lambda item: item[1][1])
        number = self.snapshot[0] + 1
        text = json.dumps(
            {
                "id": number,
                "at": now // 1000,
                "load_w": sum(row[1] for row in heard.values() if row[1] > 0) if heard else None,
                "export_w": -sum(row[1] for row in heard.values() if row[1] < 0) if heard else None,
                "heard": len(heard),
                "meters": self._overview["meters"],
                "readings_per_s": _rate(self._seconds, "readings", now),
                "charges_per_s": _rate(self._seconds, "charges", now),
                "delay_p50_ms": _weighted_median(delays),
                "delay_max_ms": max((delay[1] for delay in delays), default=None),
                "newest_ms": self._newest_batch_us // 1000 or None,
                "readings_total": self._overview["readings"],
                "dead_letters": self._overview["dead_letters"],
                "top": [
                    {
                        "id": meter_id,
                        "w": row[1],
                        "at": row[0] // 1000,
                        "wh": row[2],
                        "money": row[3],
                        "currency": row[4],
                    }
                    for meter_id, row in top
                ],
                "alarms": [
                    {
                        "id": alarm["alarm_id"],
                        "state": alarm["state"],
                        "priority": alarm["priority"],
                        "subject": alarm["subject"],
                        "kind": alarm["kind"],
                    }
                    for alarm in self._alarms
                ],
            },
            ensure_ascii=False,
        )
        with self.changed:
            self.snapshot = number, text
            self.is_ready = True
            self.changed.notify_all()


def money_text(amount: int, scale: int) -> str:
    """Return an amount of money as text with two decimals, halves rounded up, from its units of 10^-scale.

    Example:
        >>> money_text(12_345_600, 5), money_text(5, 3), money_text(-5, 0)
        ('123.46', '0.01', '-5.00')
    """
    sign = "-" if amount < 0 else ""
    cents = (abs(amount) * 100 * 2 + 10**scale) // (2 * 10**scale)
    return f"{sign}{cents // 100}.{cents % 100:02d}"


def _rate(seconds: collections.deque[tuple[int, _Second]], name: str, now: int) -> float:
    """Return the mean per second of the last ten whole seconds."""
    end = now // 1_000_000
    total = sum(getattr(second, name) for at, second in seconds if end - 10 <= at < end)
    return round(total / 10, 1)


def _weighted_median(delays: list[tuple[int, int, int]]) -> int | None:
    if not delays:
        return None
    ordered = sorted(delays)
    half = sum(weight for *_, weight in ordered) / 2
    for p50, _, weight in ordered:
        half -= weight
        if half <= 0:
            return p50
    return ordered[-1][0]
