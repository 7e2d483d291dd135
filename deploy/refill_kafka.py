"""Fill a Kafka that lost its records up to where the database stands: docs/deployment.md, "Kafka lost records".

The offsets of the database say what was done, and what lies below them counts as a replay. A new Kafka begins at 0, so its
first records would be taken for old ones: no reading would be lost (meters send again what has no receipt), but none would
be receipted either, and events would be. Empty records up to the database's offsets put that right. Run it with our
processes stopped, after `gridtally migrate`; run again, it does nothing.
"""

import sys
from collections.abc import Iterator

import psycopg
import pyarrow as pa
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from schemas.addresses import resolve_addresses
from schemas.frame import EVENTS_SCHEMA, READINGS_SCHEMA, encode_frame, encode_raw
from schemas.settings import load_settings
from schemas.topic import METER_EVENTS, METER_RAW, METER_READINGS

TIMEOUT_S = 30.0
FLUSH_RECORDS = 50_000


def _empty_frame(topic: str) -> bytes:
    """Return a frame without rows, for consumers that are behind others and will read it."""
    if topic == METER_RAW:
        return encode_raw([], [], [], [], 0)
    schema = {METER_READINGS: READINGS_SCHEMA, METER_EVENTS: EVENTS_SCHEMA}[topic]
    return encode_frame(pa.RecordBatch.from_pylist([], schema=schema))


def fetch_spans(dsn: str) -> list[tuple[str, int, int, int]]:
    """Return topic, partition, and the lowest and highest next offset of its consumers."""
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            "select topic, partition, min(next_offset), max(next_offset) from stream_offset group by 1, 2 order by 1, 2"
        ).fetchall()


def fill(producer: Producer, ends: Iterator[tuple[str, int, int, int, int]], prefix: str) -> int:
    """Produce what is missing of each partition; return how many records."""
    count = 0
    for topic, partition, end, lowest, highest in ends:
        empty = _empty_frame(topic)
        for offset in range(end, highest):
            producer.produce(prefix + topic, empty if offset >= lowest else b"", partition=partition)
            count += 1
            if count % FLUSH_RECORDS == 0:
                producer.flush(TIMEOUT_S)
        if end < highest:
            print(f"{prefix}{topic}/{partition}: {end} to {highest}")  # noqa: T201
    if producer.flush(TIMEOUT_S):
        raise KafkaException("not everything was delivered: run it again")
    return count


def main() -> int:
    """Fill every partition that the database is ahead of."""
    settings = load_settings().settings
    addresses = resolve_addresses(settings, ("kafka", "database"))
    prefix = settings.kafka.topic_prefix
    config = {"bootstrap.servers": addresses.kafka}
    consumer = Consumer({**config, "group.id": "gridtally-refill", "enable.auto.commit": False})

    def ends() -> Iterator[tuple[str, int, int, int, int]]:
        for topic, partition, lowest, highest in fetch_spans(addresses.database):
            place = TopicPartition(prefix + topic, partition)
            _, end = consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
            yield topic, partition, end, lowest, highest

    try:
        count = fill(Producer({**config, "enable.idempotence": True, "acks": "all"}), ends(), prefix)
    finally:
        consumer.close()
    print(f"filled {count} records")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
