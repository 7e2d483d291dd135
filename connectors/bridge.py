"""The bridge: MQTT messages as received into raw frames on Kafka; acknowledged last (design §3.8).

It parses no money and drops nothing: what cannot be decoded travels on and ends as a dead letter. A message is acknowledged
when Kafka has its frame on all replicas, and only in the connection that it came by. What is not acknowledged comes again.
"""

import functools
import signal
import time
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from connectors.mqtt import MqttLink
from connectors.receipts import ReceiptsThread
from monitoring.clock import now_us
from monitoring.log import get_logger
from monitoring.metrics import BATCHES, CONNECTED, MESSAGES, QUEUE_DEPTH, Health, serve_metrics
from schemas.addresses import Addresses
from schemas.frame import encode_raw
from schemas.ids import partition_of
from schemas.settings import Settings
from schemas.topic import METER_RAW

BATCH_BYTES_MAX = 4 * 1024 * 1024
"""A frame of raw messages stays well under Kafka's 8 MiB."""
PAYLOAD_BYTES_KEPT = 1024 * 1024
"""Of a longer payload (the limit is 64 KiB) the beginning is enough: it ends as an oversize dead letter."""
TOPICS_CACHED_MAX = 1_000_000
QUEUE_KBYTES_MAX = 256 * 1024
POLL_IDLE_S = 0.05
POLL_BUSY_S = 0.005
HEARTBEAT_GRACE_S = 15.0
"""After a connection: what waited in the broker comes first, or meters would look silent."""
DRAIN_TIMEOUT_S = 3.0

log = get_logger("connectors.bridge")


class _Batch:
    """Messages of one partition that wait to become a frame."""

    __slots__ = ("bytes", "flags", "mids", "payloads", "received_at", "since", "topics")

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        self.received_at: list[int] = []
        self.flags: list[int] = []
        self.mids: list[int] = []
        self.bytes = 0
        self.since = time.monotonic()


class Bridge(MqttLink):
    """Takes messages, makes frames of each partition's, acknowledges what Kafka has."""

    def __init__(self, settings: Settings, addresses: Addresses) -> None:
        """Prepare both connections; nothing is sent yet."""
        mqtt = settings.mqtt
        super().__init__(addresses.mqtt, mqtt.client_id, mqtt, filters=mqtt.topic_filters)
        self.settings = settings
        self.partitions = settings.kafka.partitions
        self.topic = settings.kafka.topic_prefix + METER_RAW
        self.window = mqtt.window
        self._producer = Producer(
            {
                "bootstrap.servers": addresses.kafka,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                "message.max.bytes": 8 * 1024 * 1024,
                "message.timeout.ms": 0,  # for ever: the window bounds what waits
                "queue.buffering.max.kbytes": QUEUE_KBYTES_MAX,
            }
        )
        self._batches: dict[int, _Batch] = {}
        self._in_flight: set[int] = set()
        self._done: list[int] = []
        self._places: dict[bytes, tuple[str, int]] = {}
        self._heartbeat_at = 0.0
        self._failed = ""
        self._count = {
            name: MESSAGES.labels("bridge", name) for name in ("received", "repeated", "acknowledged", "failed")
        }
        self._frames = BATCHES.labels("bridge")
        self._depth = QUEUE_DEPTH.labels("bridge_in_flight")
        self._is_connected = CONNECTED.labels("mqtt")

    # -- receiving -----------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """Begin an epoch: nothing received before is acknowledged any more, and all of it comes again."""
        self._in_flight.clear()
        self._done.clear()
        self._batches.clear()
        self._heartbeat_at = time.monotonic() + HEARTBEAT_GRACE_S
        self._is_connected.set(1)

    def closed(self) -> None:
        """Show that no meter can be heard."""
        self._is_connected.set(0)

    def received(self, topic: bytes, payload: bytes, mid: int, flags: int, received_at_us: int) -> None:
        """Add a message to its partition's batch; a repetition of one that is on its way is left out.

        A packet id is free again only after our acknowledgement, so the same id is the same message: NATS repeats what
        was not acknowledged within `ack_wait`, which would grow without bound while Kafka is away.
        """
        if mid in self._in_flight:
            self._count["repeated"].inc()
            return
        if mid:
            self._in_flight.add(mid)
        place = self._places.get(topic) or self._place_of(topic)
        batch = self._batches.get(place[1])
        if batch is None:
            batch = self._batches[place[1]] = _Batch()
        if len(payload) > PAYLOAD_BYTES_KEPT:
            payload = payload[:PAYLOAD_BYTES_KEPT]
        batch.topics.append(place[0])
        batch.payloads.append(payload)
        batch.received_at.append(received_at_us)
        batch.flags.append(flags)
        batch.mids.append(mid)
        batch.bytes += len(payload) + len(topic)
        if len(batch.mids) >= self.settings.bridge.batch_messages_max or batch.bytes >= BATCH_BYTES_MAX:
            self._flush(place[1])

    def _place_of(self, topic: bytes) -> tuple[str, int]:
        """Return a topic as text, and the partition of its fourth level, the meter or gateway."""
        text = topic.decode(errors="replace")
        levels = text.split("/")
        place = text, partition_of(levels[3] if len(levels) > 3 else text, self.partitions)
        if len(self._places) >= TOPICS_CACHED_MAX:
            self._places.clear()
        self._places[topic] = place
        return place

    # -- sending -------------------------------------------------------------------------------------------------

    def _flush(self, partition: int) -> None:
        batch = self._batches.pop(partition)
        frame = encode_raw(batch.topics, batch.payloads, batch.received_at, batch.flags, now_us())
        mids = [mid for mid in batch.mids if mid]
        self._count["received"].inc(len(batch.mids))
        self._produce(partition, frame, functools.partial(self._delivered, self.epoch, mids))
        self._frames.inc()

    def _produce(self, partition: int, frame: bytes, delivered: Any) -> None:
        while True:
            try:
                self._producer.produce(self.topic, frame, partition=partition, on_delivery=delivered)
            except BufferError:  # Kafka is away or slow: we stop reading until it takes some
                self._producer.poll(POLL_IDLE_S)
                self.loop_misc()
            else:
                return

    def _delivered(self, epoch: int, mids: list[int], error: KafkaError | None, _message: Message) -> None:
        """Acknowledge what Kafka has, in the connection that it came by; a failure makes the broker send all again."""
        if error is not None:
            self._count["failed"].inc(len(mids))
            self._failed = str(error)
        elif epoch == self.epoch and self.is_open:
            self._done += mids

    def turn(self) -> None:
        """Read, send what is due, acknowledge what is done; once."""
        busy = bool(self._in_flight or self._batches)
        self.reading = len(self._in_flight) < self.window
        self.poll(POLL_BUSY_S if busy else POLL_IDLE_S)
        self.flush_due()
        self._producer.poll(0)
        if self._failed:
            why, self._failed = self._failed, ""
            self.drop_connection(f"Kafka refused: {why}")
        if self._done and self.is_open:
            done, self._done = self._done, []
            self.send_acknowledgements(done)
            self._in_flight.difference_update(done)
            self._count["acknowledged"].inc(len(done))
        self._depth.set(len(self._in_flight))
        self._beat()

    def flush_due(self, *, everything: bool = False) -> None:
        """Make frames of the batches that waited long enough."""
        now = time.monotonic()
        wait_s = 0.0 if everything else self.settings.bridge.batch_wait_s
        for partition in [p for p, batch in self._batches.items() if now - batch.since >= wait_s]:
            self._flush(partition)

    def _beat(self) -> None:
        """Tell every partition the time while meters can be heard: the detectors' clock."""
        now = time.monotonic()
        if not self.is_open or now < self._heartbeat_at:
            return
        self._heartbeat_at = now + self.settings.bridge.heartbeat_s
        frame = encode_raw([], [], [], [], now_us())
        for partition in range(self.partitions):
            self._produce(partition, frame, lambda *_: None)

    def drain(self) -> None:
        """Send what was taken, acknowledge it, disconnect."""
        self.flush_due(everything=True)
        self._producer.flush(DRAIN_TIMEOUT_S)
        if self.is_open and self._done:
            self.send_acknowledgements(self._done)
        self.shut()


def run(settings: Settings, addresses: Addresses, name: str = "bridge") -> None:
    """Run the bridge until SIGTERM or SIGINT."""
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stop.append(received))
    health: Health = serve_metrics(name, settings.run_dir, settings.metrics)
    bridge = Bridge(settings, addresses)
    receipts = ReceiptsThread(settings, addresses)
    if settings.bridge.receipts:
        receipts.start()
    while not stop:
        bridge.turn()
        health.turned()
        health.ready = bridge.is_open
        receipts.raise_failure()
    bridge.drain()
    receipts.stop()
    log.info("bridge_stopped")
