"""Kafka producer of the agents: idempotent, acknowledged by all replicas, with explicit partitions."""

from typing import Any

from confluent_kafka import KafkaError, Message, Producer

FLUSH_TIMEOUT_S = 30.0
QUEUE_MESSAGES_MAX = 100_000
MESSAGE_BYTES_MAX = 8 * 1024 * 1024


class PublishError(RuntimeError):
    """Kafka did not take what was published; retriable."""


class Publisher:
    """Publishes frames and waits for their delivery. Not for use from two threads at once."""

    def __init__(self, bootstrap_servers: str) -> None:
        """Connect lazily to the brokers (``host:port,...``)."""
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 1,
                "message.max.bytes": MESSAGE_BYTES_MAX,
                "queue.buffering.max.messages": QUEUE_MESSAGES_MAX,
                "message.timeout.ms": int(FLUSH_TIMEOUT_S * 1000),
            }
        )
        self._failed: KafkaError | None = None

    def produce(self, topic: str, partition: int, value: bytes, headers: dict[str, Any] | None = None) -> None:
        """Queue one record; delivery is known after `flush`."""
        self._producer.produce(topic, value, partition=partition, headers=headers, on_delivery=self._delivered)
        self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed = error

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Wait until everything queued is delivered.

        Raises:
            PublishError: Something was refused, or is still queued after the time. The caller repeats its batch.
        """
        left = self._producer.flush(timeout_s)
        failed, self._failed = self._failed, None
        if failed is not None or left:
            raise PublishError(f"not delivered: {failed or f'{left} records after {timeout_s} s'}")
