"""Receipts: what settlement made durable, told to the meters as retained MQTT messages.

1. Take receipts frames from Kafka. 2. Publish the newest of each meter, and wait for the broker's acknowledgements.
3. Only then commit the offsets in Kafka. Published again after a crash, a receipt says the same or more.
"""

import datetime as dt
import threading
import time
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaException

from connectors.mqtt import MqttLink
from monitoring.log import get_logger
from monitoring.metrics import MESSAGES
from schemas.addresses import Addresses
from schemas.frame import FLAG_RETAINED, FrameError, decode_receipts
from schemas.message import Receipt
from schemas.settings import Settings
from schemas.topic import METER_RECEIPTS, MQTT_ROOT, receipts_topic

FRAMES_MAX = 2000
CHUNK = 500
IN_FLIGHT_MAX = 2000
ACK_TIMEOUT_S = 20.0
GATEWAY_METERS_MAX = 2_000_000
SEED_WAIT_S = 1.0

log = get_logger("connectors.receipts")


class _Link(MqttLink):
    """Publishes receipts; at first it reads back the maps of the gateways that are retained."""

    def __init__(self, settings: Settings, url: str) -> None:
        filters = [f"{MQTT_ROOT}/gateways/+/receipts"]
        super().__init__(url, f"{settings.mqtt.client_id}-receipts", settings.mqtt, filters=filters, clean=True)
        self.maps: dict[str, dict[str, Receipt]] = {}
        self.waiting: set[int] = set()
        self._decoder = msgspec.json.Decoder(dict[str, Receipt])

    def closed(self) -> None:
        self.waiting.clear()

    def acknowledged(self, mid: int) -> None:
        self.waiting.discard(mid)

    def received(self, topic: bytes, payload: bytes, mid: int, flags: int, received_at_us: int) -> None:
        """Add what is retained of a gateway to what we know: late, too, or its quiet meters would lose their receipts."""
        del received_at_us
        if mid:
            self.send_acknowledgements([mid])
        if not flags & FLAG_RETAINED:
            return  # our own, as we publish them
        try:
            found = self._decoder.decode(payload)
        except msgspec.MsgspecError:
            return
        gateway_id = topic.decode(errors="replace").split("/")[3]
        self.maps[gateway_id] = {**found, **self.maps.get(gateway_id, {})}


class ReceiptsThread(threading.Thread):
    """Carries receipts from Kafka to MQTT."""

    def __init__(self, settings: Settings, addresses: Addresses) -> None:
        """Prepare; `start` runs it."""
        super().__init__(name="receipts", daemon=True)
        self._settings = settings
        self._consumer = Consumer(
            {
                "bootstrap.servers": addresses.kafka,
                "group.id": f"{settings.kafka.topic_prefix}gridtally-receipts",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 10_000,
            }
        )
        self._link = _Link(settings, addresses.mqtt)
        self._halt = threading.Event()
        self._failure: BaseException | None = None
        self._mid = 0
        self._published = MESSAGES.labels("receipts", "published")

    def raise_failure(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._failure is not None:
            raise RuntimeError("the receipts thread failed") from self._failure

    def stop(self) -> None:
        """End the thread and close its connections."""
        self._halt.set()
        if self.is_alive():
            self.join(3)

    def run(self) -> None:
        """Work until told to stop."""
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  # told to the main thread
            self._failure = error

    def _work(self) -> None:
        self._consumer.subscribe([self._settings.kafka.topic_prefix + METER_RECEIPTS])
        self._seed()
        while not self._halt.is_set():
            frames = self._take()  # Step 1.
            if frames:
                newest = newest_receipts(frames)
                while not self._publish(newest):  # Step 2.
                    if self._halt.is_set():
                        return
                self._commit()  # Step 3.
        self._consumer.close()
        self._link.shut()

    def _commit(self) -> None:
        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as error:
            log.warning("receipts_commit_failed", error=str(error))  # they will be published again

    def _seed(self) -> None:
        deadline = None
        while not self._halt.is_set() and (deadline is None or time.monotonic() < deadline):
            self._link.poll(0.05)
            if self._link.is_open and deadline is None:
                deadline = time.monotonic() + SEED_WAIT_S

    def _take(self) -> list[bytes]:
        """Return frames of about one coalescing period."""
        deadline = time.monotonic() + self._settings.bridge.receipts_wait_s
        frames: list[bytes] = []
        while (left_s := deadline - time.monotonic()) > 0 and len(frames) < FRAMES_MAX and not self._halt.is_set():
            self._link.poll(0)
            messages = self._consumer.consume(FRAMES_MAX - len(frames), min(left_s, 0.2))
            frames += [value for message in messages if not message.error() and (value := message.value())]
        return frames

    def _publish(self, newest: dict[str, tuple[str | None, Receipt]]) -> bool:
        """Publish receipts; False when the connection broke, and all of it is to be done again."""
        while not self._link.is_open:
            if self._halt.is_set():
                return False
            self._link.poll(0.1)
        messages = self._messages(newest)
        epoch = self._link.epoch
        for start in range(0, len(messages), CHUNK):
            if not self._wait(epoch, IN_FLIGHT_MAX - CHUNK):
                return False
            chunk = []
            for topic, payload in messages[start : start + CHUNK]:
                self._mid = self._mid % 65535 + 1
                self._link.waiting.add(self._mid)
                chunk.append((self._mid, topic, payload, True))
            self._link.send_messages(chunk)
        if not self._wait(epoch, 0):
            return False
        self._published.inc(len(messages))
        return True

    def _wait(self, epoch: int, waiting_max: int) -> bool:
        deadline = time.monotonic() + ACK_TIMEOUT_S
        while len(self._link.waiting) > waiting_max:
            self._link.poll(0.02)
            if self._link.epoch != epoch or not self._link.is_open:
                return False
            if time.monotonic() > deadline:
                self._link.drop_connection("receipts were not acknowledged")
                return False
        return self._link.epoch == epoch and self._link.is_open

    def _messages(self, newest: dict[str, tuple[str | None, Receipt]]) -> list[tuple[bytes, bytes]]:
        out = []
        changed: set[str] = set()
        for meter_id, (gateway_id, receipt) in newest.items():
            out.append((receipts_topic("meters", meter_id).encode(), msgspec.json.encode(receipt)))
            if gateway_id is not None:
                if sum(map(len, self._link.maps.values())) >= GATEWAY_METERS_MAX:
                    self._link.maps.clear()  # gateways then resend, and are receipted anew
                self._link.maps.setdefault(gateway_id, {})[meter_id] = receipt
                changed.add(gateway_id)
        for gateway_id in sorted(changed):
            payload = msgspec.json.encode(self._link.maps[gateway_id])
            out.append((receipts_topic("gateways", gateway_id).encode(), payload))
        return out


def newest_receipts(frames: list[bytes]) -> dict[str, tuple[str | None, Receipt]]:
    """Return gateway and newest receipt of each meter; a later frame of a partition says more than an earlier one."""
    newest: dict[str, tuple[str | None, Receipt]] = {}
    for data in frames:
        try:
            rows: list[dict[str, Any]] = decode_receipts(data).to_pylist()
        except FrameError as error:
            log.error("receipts_frame_bad", error=str(error))
            continue
        for row in rows:
            receipt = Receipt(row["boot_id"], row["seq"], rfc3339(row["read_at"]), row["first_seq"])
            newest[row["meter_id"]] = row["gateway_id"], receipt
    return newest


def rfc3339(at_us: int) -> str:
    """Return an instant as RFC 3339 text in UTC.

    Example:
        >>> rfc3339(0)
        '1970-01-01T00:00:00+00:00'
    """
    if at_us < 0:
        return ""
    seconds, micros = divmod(at_us, 1_000_000)
    return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=micros).isoformat()
