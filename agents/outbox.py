"""Publishes what a transaction left in the outbox, in order per partition, at least once."""

from collections.abc import Sequence

import psycopg

from agents.publisher import Publisher
from storage.settlement import OutboxItem, fetch_outbox


class Outbox:
    """What one consumer committed and has yet to publish, by partition.

    Rows are deleted with the next batch after they were published: a crash between makes them come again, with the same
    ids.
    """

    def __init__(self, consumer: str, publisher: Publisher, prefix: str) -> None:
        """Begin with nothing; `load` fetches what a former owner left."""
        self._consumer = consumer
        self._publisher = publisher
        self._prefix = prefix
        self._waiting: dict[int, list[tuple[int, int, str, bytes]]] = {}
        self._published: dict[int, list[int]] = {}

    def load(self, conn: psycopg.Connection, partition: int) -> None:
        """Fetch what a former owner committed and may not have published."""
        self._waiting[partition] = fetch_outbox(conn, self._consumer, partition)
        self._published[partition] = []

    def forget(self, partition: int) -> None:
        """Let a partition go."""
        self._waiting.pop(partition, None)
        self._published.pop(partition, None)

    def published(self, partition: int) -> list[int]:
        """Return the ids of rows that can be deleted."""
        return self._published.get(partition, [])

    def committed(
        self, partition: int, next_offset: int, ids: Sequence[int], items: Sequence[OutboxItem], deleted: int
    ) -> None:
        """Take over what a transaction wrote; it deleted the first `deleted` published rows."""
        self._published[partition] = self._published.get(partition, [])[deleted:]
        rows = [(number, next_offset, item.topic, item.payload) for number, item in zip(ids, items, strict=True)]
        self._waiting.setdefault(partition, []).extend(rows)

    def publish(self, partition: int) -> None:
        """Publish what waits; PublishError leaves it waiting."""
        waiting = self._waiting.get(partition, [])
        if not waiting:
            return
        for _, next_offset, topic, payload in waiting:
            headers = {"id": f"{self._consumer}-{partition}-{next_offset}".encode()}
            self._publisher.produce(self._prefix + topic, partition, payload, headers)
        self._publisher.flush()
        self._published.setdefault(partition, []).extend(number for number, *_ in waiting)
        self._waiting[partition] = []
