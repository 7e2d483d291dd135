"""Sends dead letters through the path again, as raw messages marked as a replay."""

from collections.abc import Sequence

import psycopg
from confluent_kafka import Producer

from monitoring.clock import now_us
from schemas.frame import FLAG_REPLAY, encode_raw
from schemas.ids import partition_of
from schemas.settings import KafkaSettings
from schemas.topic import METER_RAW
from storage.dead_letter import lock_replayable, mark_replayed

FLUSH_TIMEOUT_S = 30.0
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
BYTES_AT_ONCE = 32 * 1024 * 1024
"""Sent and waited for before more is queued: a dead letter may hold a MiB."""


class DeadLetterReplayError(RuntimeError):
    """Kafka did not take the replayed messages; nothing is marked."""


def replay_dead_letters(
    conn: psycopg.Connection,
    kafka: KafkaSettings,
    bootstrap_servers: str,
    ids: Sequence[int],
    code: str | None,
) -> int:
    """Produce dead letters to meter.raw and mark them; return how many.

    1. Lock them. 2. Produce, and wait until Kafka has them. 3. Mark them. A crash between 2 and 3 replays them twice, and
    settlement takes the second for duplicates.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "acks": "all",
            "message.max.bytes": MESSAGE_BYTES_MAX,
        }
    )
    failures: list[str] = []
    done: list[int] = []
    queued = 0
    with conn.transaction():
        for number, topic, payload in lock_replayable(conn, ids, code):  # Step 1.
            levels = topic.split("/")
            partition = partition_of(levels[3] if len(levels) > 3 else topic, kafka.partitions)
            frame = encode_raw([topic], [payload], [now_us()], [FLAG_REPLAY], now_us())
            producer.produce(
                kafka.topic_prefix + METER_RAW,
                frame,
                partition=partition,
                on_delivery=lambda error, _: failures.append(str(error)) if error else None,
            )
            done.append(number)
            queued += len(payload)
            if queued >= BYTES_AT_ONCE:
                queued = 0
                _flush(producer, failures)
        _flush(producer, failures)  # Step 2.
        mark_replayed(conn, done)  # Step 3.
    return len(done)


def _flush(producer: Producer, failures: list[str]) -> None:
    left = producer.flush(FLUSH_TIMEOUT_S)
    if failures or left:
        raise DeadLetterReplayError(failures[0] if failures else f"{left} messages not delivered")
