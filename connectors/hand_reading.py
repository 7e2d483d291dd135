"""Readings that people enter: sent to meter.raw as messages of their meters, so that their lineage is whole."""

import datetime as dt
import json
from collections.abc import Sequence
from typing import Protocol

from confluent_kafka import KafkaException, Producer

from monitoring.clock import now_us
from schemas.frame import FLAG_REPLAY, encode_raw
from schemas.ids import partition_of
from schemas.message import HAND_BOOT_ID
from schemas.settings import KafkaSettings
from schemas.topic import METER_RAW, MQTT_ROOT

FLUSH_TIMEOUT_S = 30.0
AT_ONCE_MAX = 1000


class Entered(Protocol):
    """A reading to be sent."""

    @property
    def meter_id(self) -> str:
        """Return whose register it is."""

    @property
    def at(self) -> dt.datetime:
        """Return when it was read."""

    @property
    def import_wh(self) -> int:
        """Return the register."""

    @property
    def export_wh(self) -> int | None:
        """Return the export register, if it was read."""


class HandReadingError(RuntimeError):
    """Kafka did not take the readings; they can be sent again."""


def payload_of(reading: Entered) -> bytes:
    """Return the message of a reading: the same bytes whenever it is sent, so that it is settled once."""
    at = reading.at.astimezone(dt.UTC)
    message = {
        "boot_id": HAND_BOOT_ID,
        "seq": int(at.timestamp()),
        "read_at": at.isoformat(),
        "import_wh": reading.import_wh,
        "status": ["entered_by_hand"],
    }
    if reading.export_wh is not None:
        message["export_wh"] = reading.export_wh
    return json.dumps(message).encode()


def publish_readings(kafka: KafkaSettings, bootstrap_servers: str, readings: Sequence[Entered]) -> None:
    """Send readings to meter.raw, and wait until Kafka has them; sent twice they are settled once.

    Raises:
        HandReadingError: Kafka did not take all of them.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": int(FLUSH_TIMEOUT_S * 1000),
            "log_level": 0,
        }
    )
    failures: list[str] = []
    for place, reading in enumerate(readings):
        topic = f"{MQTT_ROOT}/meters/{reading.meter_id}/readings"
        received_at = now_us()
        try:
            producer.produce(
                kafka.topic_prefix + METER_RAW,
                encode_raw([topic], [payload_of(reading)], [received_at], [FLAG_REPLAY], received_at),
                partition=partition_of(reading.meter_id, kafka.partitions),
                on_delivery=lambda error, _: failures.append(str(error)) if error else None,
            )
        except (KafkaException, BufferError) as error:
            raise HandReadingError(str(error)) from None
        if place % AT_ONCE_MAX == AT_ONCE_MAX - 1:
            _flush(producer, failures)
    _flush(producer, failures)


def _flush(producer: Producer, failures: list[str]) -> None:
    left = producer.flush(FLUSH_TIMEOUT_S)
    if failures or left:
        raise HandReadingError(failures[0] if failures else f"{left} messages not delivered")
