"""Fetches single raw messages back from meter.raw: for the bytes of a dead letter, and for whoever asks where a figure is from."""

import numpy as np
from confluent_kafka import Consumer, KafkaException, TopicPartition

from metering.state import Int64Column
from schemas.frame import FrameError, decode_raw
from schemas.message import element_bytes
from schemas.topic import METER_RAW

ELEMENTS_PER_MESSAGE = 1024
"""`raw_index` is message index x this + element index; a message has at most 1,000 elements."""
MESSAGES_PER_FRAME = 2**20
"""`raw_place` of a fact is element index x this + message index; the bridge puts at most 10,000 into a frame."""
FETCH_TIMEOUT_S = 2.0
CACHE_RECORDS_MAX = 8


def raw_place_of(raw_index: Int64Column) -> Int64Column:
    """Return `raw_index` with its parts exchanged, as facts keep it; `raw_index_of` is its inverse in the database.

    Args:
        raw_index: Shape (n,), below 2^30.
    """
    message, element = np.divmod(raw_index, ELEMENTS_PER_MESSAGE)
    return element * MESSAGES_PER_FRAME + message


class RawMessages:
    """Reads records of meter.raw by partition and offset. Not for use from two threads at once."""

    def __init__(self, bootstrap_servers: str, topic_prefix: str = "") -> None:
        """Connect at the first use."""
        self._config = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "gridtally-raw-messages",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": 8 * 1024 * 1024,
        }
        self._topic = topic_prefix + METER_RAW
        self._consumer: Consumer | None = None
        self._cache: dict[tuple[int, int], list[tuple[str, bytes]]] = {}

    def fetch(self, partition: int, offset: int, raw_index: int) -> tuple[str, bytes]:
        """Return MQTT topic and bytes of one element; empty ones when Kafka no longer has it."""
        messages = self._messages(partition, offset)
        place, element = divmod(raw_index, ELEMENTS_PER_MESSAGE)
        if place >= len(messages):
            return "", b""
        topic, payload = messages[place]
        return topic, element_bytes(payload, element)

    def _messages(self, partition: int, offset: int) -> list[tuple[str, bytes]]:
        key = (partition, offset)
        if key not in self._cache:
            if len(self._cache) >= CACHE_RECORDS_MAX:
                self._cache.pop(next(iter(self._cache)))
            self._cache[key] = self._read(partition, offset)
        return self._cache[key]

    def _read(self, partition: int, offset: int) -> list[tuple[str, bytes]]:
        try:
            if self._consumer is None:
                self._consumer = Consumer(self._config)
            self._consumer.assign([TopicPartition(self._topic, partition, offset)])
            message = self._consumer.poll(FETCH_TIMEOUT_S)
            value = None if message is None or message.error() else message.value()
            if message is None or value is None or message.offset() != offset:
                return []
            frame = decode_raw(value)
        except (KafkaException, FrameError):
            return []
        return list(zip(frame["mqtt_topic"].to_pylist(), frame["payload"].to_pylist(), strict=True))

    def close(self) -> None:
        """Close the connection."""
        if self._consumer is not None:
            self._consumer.close()
