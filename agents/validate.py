"""The validate agent: messages as received become frames of readings and events; what is refused becomes a dead letter."""

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray

from agents import consumer
from agents.consumer import Record, split_by_bytes
from agents.decoding import Taken, Validated, Validator
from agents.publisher import Publisher
from agents.reading_columns import readings_frame
from agents.unknown_meter import receipts_of_unknown
from metering.fact import concatenate
from metering.validation import refusals, refuse_impossible_time
from monitoring.metrics import BATCH_READINGS, DEAD_LETTERS, READINGS
from schemas.frame import EVENTS_SCHEMA, READINGS_SCHEMA, encode_frame
from schemas.ids import partition_of
from schemas.message import EVENT_DETAIL_MAX, Event, Refusal, element_bytes
from schemas.reject import RejectCode
from schemas.settings import Settings, ValidateSettings
from schemas.topic import METER_EVENTS, METER_RAW, METER_READINGS, METER_RECEIPTS
from storage.dead_letter import DeadLetter, write_dead_letters
from storage.offset import OffsetCounts, advance, fetch_next_offsets, lock_offset, skip_replays
from storage.raw_record import ELEMENTS_PER_MESSAGE
from storage.registry import Registry, load_registry, refresh_registry

CONSUMER = "validate"
REGISTRY_CHECK_S = 1.0
TRANSACTION_BYTES_MAX = 4 * 1024 * 1024
"""Of raw frames: were it all refused elements of ten bytes, some 400,000 dead letters, 600 MB of memory for half a minute."""
FRAME_ROWS_MAX = 10_000
"""A row has about 130 bytes before compression: a frame stays below 2 MiB, Kafka's limit for us is 8."""

Frames = list[tuple[str, int, bytes]]
"""Topic, partition and bytes of each."""


class ValidateHandler:
    """Validates batches of one partition of meter.raw at a time."""

    consumer = CONSUMER

    def __init__(self, settings: Settings, database: str, bootstrap_servers: str) -> None:
        """Connect at the first assignment."""
        self.settings = settings
        self.limits: ValidateSettings = settings.validate_
        self.prefix = settings.kafka.topic_prefix
        self.topics: tuple[str, ...] = (self.prefix + METER_RAW,)
        self.database = database
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{int(time.time())}"
        self.publisher = Publisher(bootstrap_servers)
        self._conn: psycopg.Connection | None = None
        self._validator: Validator | None = None
        self._checked = 0.0
        self._looked = False
        """Whether this batch has asked for newer master data."""
        self._partition_of = np.zeros(0, np.int64)
        self._progress: dict[tuple[str, int], tuple[int, int]] = {}

    def connection(self) -> psycopg.Connection:
        """Return the one connection of this worker, opened anew after an error."""
        if self._conn is None or self._conn.closed or self._conn.broken:
            self._conn = psycopg.connect(
                self.database,
                autocommit=True,
                options="-c statement_timeout=30000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=60000",
                application_name=f"validate {self.worker}",
            )
        return self._conn

    def validator(self) -> Validator:
        """Return the validator, its master data looked at again each second."""
        if self._validator is None:
            self._validator = Validator(load_registry(self.connection()), self._refresh)
        elif time.monotonic() - self._checked > REGISTRY_CHECK_S:
            self._looked = False
            self._validator.registry = self._refresh(self._validator.registry)
        return self._validator

    def _refresh(self, registry: Registry) -> Registry:
        """Look for newer master data, at most once a batch: unknown meters may be many, and one may just have been imported."""
        if self._looked:
            return registry
        self._looked = True
        self._checked = time.monotonic()
        return refresh_registry(self.connection(), registry)

    def next_offsets(self, assigned: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return where each partition goes on."""
        plain = {(METER_RAW, partition) for _, partition in assigned}
        rows = fetch_next_offsets(self.connection(), CONSUMER, plain)
        self._progress.clear()
        return {(topic, partition): rows[METER_RAW, partition] for topic, partition in assigned}

    def commit(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Validate records of one partition.

        1. Produce frames, and wait until Kafka has them. 2. Commit dead letters, receipts of unknown meters and the
        offset in one transaction. 3. Publish those receipts. A crash between 1 and 2 produces the frames again:
        settlement takes the readings for the duplicates that they are.
        """
        for part in split_by_bytes(records, TRANSACTION_BYTES_MAX):
            self._commit(topic, partition, part)

    def _commit(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        with self.connection().transaction():
            row = lock_offset(self.connection(), CONSUMER, METER_RAW, partition)
            todo = skip_replays(row, records)
            if not todo:
                return
            self._looked = False
            out = Validated()
            validator = self.validator()
            for record in todo:
                validator.take_record(out, record)
            frames, counts = self._frames(out, partition)
            for frame_topic, target, payload in frames:
                self.publisher.produce(self.prefix + frame_topic, target, payload)
            self.publisher.flush()  # Step 1.
            write_dead_letters(
                self.connection(), CONSUMER, [letter_of(*refused[:2]) for refused in out.refused]
            )  # Step 2.
            receipts = receipts_of_unknown(self.connection(), out.refused)
            next_offset = todo[-1].offset + 1
            advance(
                self.connection(),
                (CONSUMER, METER_RAW, partition),
                next_offset=next_offset,
                worker=self.worker,
                counts=counts,
                watermark_us=out.watermark_us,
            )
        self._progress[topic, partition] = next_offset, max(out.watermark_us, row.watermark_us)
        show_outcomes(out, counts)
        if receipts is not None:  # Step 3.
            self.publisher.produce(self.prefix + METER_RECEIPTS, partition, receipts)
            self.publisher.flush()

    def _frames(self, out: Validated, partition: int) -> tuple[Frames, OffsetCounts]:
        """Return what goes on, and the counts; refusals of columns are added to `out`."""
        batches: dict[int, list[pa.RecordBatch]] = {partition: []}
        accepted = 0
        if out.parts:
            columns = concatenate([part.columns() for part in out.parts])
            gateway_ids = [name for part in out.parts for name in part.gateway_ids]
            keep = self._refuse_columns(out, columns)
            accepted = len(keep)
            columns["status"] = columns["refusal"] = np.zeros(len(columns["meter_no"]), np.int64)
            for target, rows in self._by_partition(columns["meter_no"], keep).items():
                for low in range(0, len(rows), FRAME_ROWS_MAX):
                    chosen = rows[low : low + FRAME_ROWS_MAX]
                    part = {name: values[chosen] for name, values in columns.items()}
                    batch = readings_frame(part, [gateway_ids[row] for row in chosen.tolist()])
                    batches.setdefault(target, []).append(batch)
        self._refuse_events(out)
        for target, batch in self._ride_along(out):
            batches.setdefault(target, []).append(batch)
        frames: Frames = []
        for target, parts in batches.items():
            *earlier, last = _joined(parts)
            frames += [(METER_READINGS, target, encode_frame(part)) for part in earlier]
            watermark_us = out.watermark_us if target == partition else None
            frames.append((METER_READINGS, target, encode_frame(last, watermark_us)))
        frames += self._event_frames(out)
        refused = len(out.refused)
        return frames, OffsetCounts(accepted + refused, accepted, 0, 0, refused, 0)

    def _refuse_columns(self, out: Validated, columns: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
        """Refuse what the checks over columns refuse, and return the rows that go on."""
        meters = self.validator().registry.meters
        modulus_wh = meters.modulus_wh[columns["meter_no"]]
        codes = refusals(columns, modulus_wh, self.limits.future_max_s, self.limits.past_max_days)
        if not codes.any():
            return np.arange(len(codes))
        ends = np.cumsum([len(part) for part in out.parts])
        for row in np.flatnonzero(codes).tolist():
            place = int(np.searchsorted(ends, row, side="right"))
            part = out.parts[place]
            taken = part.taken(row - int(ends[place]) + len(part))
            refusal = refusal_of_row(taken, RejectCode(int(codes[row])), meters.meter_id[taken.meter_no])
            out.refused.append((taken.lineage, refusal, taken.meter_no, taken.gateway_id))
        return np.flatnonzero(codes == 0)

    def _refuse_events(self, out: Validated) -> None:
        """Refuse events dated ahead of their reception or long before it: an alarm dated in the future would never end."""
        if not out.events:
            return
        at_us = np.array([taken.at_us for taken in out.events], np.int64)
        received_at = np.array([taken.lineage.received_at for taken in out.events], np.int64)
        refused = refuse_impossible_time(at_us, received_at, self.limits.future_max_s, self.limits.past_max_days)
        for place in np.flatnonzero(refused).tolist():
            taken = out.events[place]
            element = taken.lineage.index % ELEMENTS_PER_MESSAGE
            detail = f"at {taken.item.at}, received at {taken.lineage.received_at / 1e6:.0f}"
            meter_id = self.validator().registry.meters.meter_id[taken.meter_no]
            raw = element_bytes(taken.payload, element)
            refusal = Refusal(RejectCode.IMPOSSIBLE_TIME, detail, element, raw, None, taken.item.boot_id, meter_id)
            out.refused.append((taken.lineage, refusal, taken.meter_no, None))
        out.events = [taken for taken, bad in zip(out.events, refused.tolist(), strict=True) if not bad]

    def _targets(self, meter_no: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the partition of each meter; computed once a meter, for a meter's number never changes."""
        size = self.validator().registry.meters.size
        if len(self._partition_of) < size:
            more = np.full(size - len(self._partition_of), -1, np.int64)
            self._partition_of = np.concatenate([self._partition_of, more])
        ids, count = self.validator().registry.meters.meter_id, self.settings.kafka.partitions
        for number in np.unique(meter_no[self._partition_of[meter_no] < 0]).tolist():
            self._partition_of[number] = partition_of(ids[number], count)
        return self._partition_of[meter_no]

    def _by_partition(self, meter_no: NDArray[np.int64], rows: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
        targets = self._targets(meter_no[rows])
        return {target: rows[targets == target] for target in np.unique(targets).tolist()}

    def _target(self, meter_no: int) -> int:
        return int(self._targets(np.array([meter_no]))[0])

    def _ride_along(self, out: Validated) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Return refused readings of known meters as rows that only carry their sequence number to the receipt."""
        parts: dict[int, list[dict[str, Any]]] = {}
        for lineage, refusal, number, gateway_id in out.refused:
            if number is None or refusal.seq is None:
                continue
            row: dict[str, Any] = {field.name: None if field.nullable else 0 for field in READINGS_SCHEMA}
            row |= {
                "meter_no": number,
                "seq": refusal.seq,
                "boot_id": refusal.boot_id,
                "read_at": lineage.received_at,
                "refusal": int(refusal.code),
                "gateway_id": gateway_id,
                "raw_partition": lineage.partition,
                "raw_offset": lineage.offset,
                "raw_index": lineage.index,
                "received_at": lineage.received_at,
            }
            parts.setdefault(self._target(number), []).append(row)
        for target, rows in parts.items():
            for low in range(0, len(rows), FRAME_ROWS_MAX):
                yield target, pa.RecordBatch.from_pylist(rows[low : low + FRAME_ROWS_MAX], schema=READINGS_SCHEMA)

    def _event_frames(self, out: Validated) -> Frames:
        parts: dict[int, list[dict[str, Any]]] = {}
        ids = self.validator().registry.meters.meter_id
        for taken in out.events:
            parts.setdefault(self._target(taken.meter_no), []).append(event_row(taken, ids[taken.meter_no]))
        return [
            (METER_EVENTS, target, encode_frame(pa.RecordBatch.from_pylist(rows, schema=EVENTS_SCHEMA)))
            for target, events in parts.items()
            for rows in (
                events[low : low + FRAME_ROWS_MAX // 10] for low in range(0, len(events), FRAME_ROWS_MAX // 10)
            )
        ]

    def progress(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Return next offset and watermark of each partition."""
        return dict(self._progress)

    def close(self) -> None:
        """Give back the connection."""
        if self._conn is not None:
            self._conn.close()


_EMPTY_READINGS = pa.RecordBatch.from_pylist([], schema=READINGS_SCHEMA)


def _joined(parts: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Return batches joined while they are small together; a heartbeat when there is nothing."""
    if sum(part.num_rows for part in parts) > FRAME_ROWS_MAX:
        return parts
    table = pa.Table.from_batches(parts, READINGS_SCHEMA).combine_chunks()
    return table.to_batches() if table.num_rows else [_EMPTY_READINGS]


def event_row(taken: Taken, meter_id: str) -> dict[str, Any]:
    """Return an event as a row of EVENTS_SCHEMA."""
    event: Event = taken.item
    detail = event.detail if isinstance(event.detail, str) else json.dumps(event.detail)
    return {
        "meter_no": taken.meter_no,
        "meter_id": meter_id,
        "seq": event.seq,
        "boot_id": event.boot_id,
        "at": taken.at_us,
        "code": event.code,
        "detail": "" if event.detail is None else detail[:EVENT_DETAIL_MAX],
        "raw_partition": taken.lineage.partition,
        "raw_offset": taken.lineage.offset,
        "raw_index": taken.lineage.index,
        "received_at": taken.lineage.received_at,
    }


def refusal_of_row(taken: Taken, code: RejectCode, meter_id: str) -> Refusal:
    """Return the refusal of a reading that the checks over columns refused."""
    element = taken.lineage.index % ELEMENTS_PER_MESSAGE
    item = taken.item
    detail = (
        f"read at {item.read_at}, received at {taken.lineage.received_at / 1e6:.0f}"
        if code is RejectCode.IMPOSSIBLE_TIME
        else "a register or measure is beyond what this meter can show"
    )
    return Refusal(code, detail, element, element_bytes(taken.payload, element), item.seq, item.boot_id, meter_id)


def letter_of(lineage: Any, refusal: Refusal) -> DeadLetter:
    """Return a refusal as it is kept."""
    return DeadLetter(
        refusal.code,
        refusal.detail,
        lineage.mqtt_topic,
        refusal.meter_id,
        refusal.boot_id,
        refusal.seq,
        refusal.payload,
        (lineage.partition, lineage.offset, lineage.index),
        lineage.received_at,
    )


def show_outcomes(out: Validated, counts: OffsetCounts) -> None:
    """Count the outcomes of a committed batch for the metrics."""
    READINGS.labels(CONSUMER, "accepted").inc(counts.accepted)
    READINGS.labels(CONSUMER, "rejected").inc(counts.refused)
    READINGS.labels(CONSUMER, "event").inc(len(out.events))
    for _, refusal, *_ in out.refused:
        DEAD_LETTERS.labels(CONSUMER, refusal.code.word).inc()
    BATCH_READINGS.labels(CONSUMER).observe(counts.readings)


def run(settings: Settings, database: str, bootstrap_servers: str, name: str = CONSUMER) -> None:
    """Run one validate worker until it is told to stop."""
    handler = ValidateHandler(settings, database, bootstrap_servers)
    consumer.run(
        settings,
        bootstrap_servers,
        handler,
        batch_max=settings.validate_.batch_frames_max,
        batch_wait_s=settings.validate_.batch_wait_s,
        name=name,
    )
