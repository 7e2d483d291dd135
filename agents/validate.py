"""The validate agent: messages as received become frames of readings and events; what is refused becomes a dead letter."""

import dataclasses
import json
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa

from agents import consumer
from agents.consumer import Record
from agents.publisher import Publisher
from metering.fact import Columns
from metering.receipt import extend_receipt
from metering.validation import refusals
from monitoring.clock import now_us
from schemas.frame import (
    ELECTRICAL,
    EVENTS_SCHEMA,
    READINGS_SCHEMA,
    RECEIPTS_SCHEMA,
    FrameError,
    decode_raw,
    encode_frame,
    watermark_of,
)
from schemas.ids import is_meter_id, partition_of
from schemas.message import (
    SEQ_MAX,
    Event,
    GatewayReading,
    Reading,
    Refusal,
    decode_message,
    element_bytes,
    instant_us,
    refusal_of,
)
from schemas.reject import RejectCode
from schemas.settings import Settings, ValidateSettings
from schemas.topic import METER_EVENTS, METER_RAW, METER_READINGS, METER_RECEIPTS, Source, source_of
from storage.offset import OffsetCounts, advance, fetch_next_offsets, lock_offset, skip_replays
from storage.raw_record import ELEMENTS_PER_MESSAGE
from storage.registry import Registry, load_registry, refresh_registry
from storage.state import pending_from_text, text_from_pending

CONSUMER = "validate"
REGISTRY_CHECK_S = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Lineage:
    """Where an element came from."""

    partition: int
    offset: int
    index: int
    mqtt_topic: str
    received_at: int


@dataclasses.dataclass(slots=True)
class Taken:
    """A decoded reading or event with its meter and lineage."""

    meter_no: int
    item: Any
    at_us: int
    gateway_id: str | None
    lineage: Lineage
    payload: bytes
    """Of the whole message."""


@dataclasses.dataclass
class Validated:
    """What a batch of raw frames came to."""

    readings: list[Taken] = dataclasses.field(default_factory=list)
    events: list[Taken] = dataclasses.field(default_factory=list)
    refused: list[tuple[Lineage, Refusal, int | None, str | None]] = dataclasses.field(default_factory=list)
    """Lineage, refusal, number of the meter if it is known, gateway."""
    watermark_us: int = 0
    messages: int = 0


class Validator:
    """Decodes and identifies; pure but for the registry that it is given."""

    def __init__(self, registry: Registry, refresh: Any) -> None:
        """Take master data, and a function that looks for newer ones before a meter is called unknown."""
        self.registry = registry
        self._refresh = refresh

    def meter_no_of(self, meter_id: str) -> int | None:
        """Return a meter's number, looking again when it is unknown."""
        number = self.registry.number_of.get(meter_id)
        if number is None:
            self.registry = self._refresh(self.registry)
            number = self.registry.number_of.get(meter_id)
        return number

    def take_record(self, out: Validated, record: Record) -> None:
        """Add the messages of one raw frame to the outcome."""
        try:
            frame = decode_raw(record.value)
        except FrameError as error:
            lineage = Lineage(record.partition, record.offset, -1, "", now_us())
            refusal = Refusal(RejectCode.BAD_FRAME, str(error)[:300], 0, record.value)
            out.refused.append((lineage, refusal, None, None))
            return
        out.watermark_us = max(out.watermark_us, watermark_of(frame) or 0)
        columns = (frame.column(name).to_pylist() for name in ("mqtt_topic", "payload", "received_at"))
        for place, (topic, payload, received_at) in enumerate(zip(*columns, strict=True)):
            base = place * ELEMENTS_PER_MESSAGE
            lineage = Lineage(record.partition, record.offset, base, topic, received_at)
            self._take_message(out, lineage, payload)
        out.messages += frame.num_rows

    def _take_message(self, out: Validated, lineage: Lineage, payload: bytes) -> None:
        source = source_of(lineage.mqtt_topic)
        if source is None:
            detail = f"{lineage.mqtt_topic[:200]!r} is no topic of meters or gateways"
            out.refused.append((lineage, Refusal(RejectCode.UNKNOWN_TOPIC, detail, 0, payload), None, None))
            return
        is_event = source.kind == "events"
        is_gateway = source.owner == "gateways"
        kind = Event if is_event else GatewayReading if is_gateway else Reading
        good, refused = decode_message(kind, payload)
        own = None if is_gateway else self.meter_no_of(source.owner_id)
        for refusal in refused:
            self._refuse(out, lineage, refusal, source)
        for element, item in good:
            self._take_element(out, lineage, payload, source, (element, item, own))

    def _take_element(
        self,
        out: Validated,
        lineage: Lineage,
        payload: bytes,
        source: Source,
        taken: tuple[int, Any, int | None],
    ) -> None:
        element, item, own = taken
        at_us = instant_us(item.read_at if source.kind == "readings" else item.at)
        number = own
        fault = None
        if source.owner == "gateways":
            if not is_meter_id(item.meter_id):
                fault = RejectCode.BAD_METER_ID, f"{item.meter_id[:80]!r}"
            else:
                number = self.meter_no_of(item.meter_id)
        elif item.meter_id is not None and item.meter_id != source.owner_id:
            fault = RejectCode.METER_MISMATCH, f"topic of {source.owner_id}, payload of {item.meter_id[:80]!r}"
        if fault is None and number is None:
            fault = RejectCode.UNKNOWN_METER, f"{item.meter_id or source.owner_id} is not in the master data"
        if fault is None and at_us is None:
            fault = RejectCode.IMPOSSIBLE_TIME, "beyond what a clock can show"
        if fault is None and item.seq > SEQ_MAX:
            fault = RejectCode.WRONG_TYPE, "Expected `seq` below 2^64"
        if fault is not None:
            refusal = refusal_of(*fault, element, element_bytes(payload, element))
            self._refuse(out, lineage, refusal, source)
            return
        assert number is not None
        assert at_us is not None
        gateway_id = source.owner_id if source.owner == "gateways" else None
        place = dataclasses.replace(lineage, index=lineage.index + element)
        out_list = out.readings if source.kind == "readings" else out.events
        out_list.append(Taken(number, item, at_us, gateway_id, place, payload))

    def _refuse(self, out: Validated, lineage: Lineage, refusal: Refusal, source: Source) -> None:
        gateway_id = source.owner_id if source.owner == "gateways" else None
        meter_id = refusal.meter_id if gateway_id else source.owner_id
        if source.kind == "events":
            refusal = dataclasses.replace(refusal, seq=None)  # events count on their own, and have no receipts
        if refusal.code is RejectCode.METER_MISMATCH:
            meter_id = source.owner_id
        number = self.registry.number_of.get(meter_id) if meter_id else None
        place = dataclasses.replace(lineage, index=lineage.index + refusal.element)
        out.refused.append((place, dataclasses.replace(refusal, meter_id=meter_id), number, gateway_id))


def reading_columns(taken: Sequence[Taken]) -> Columns:
    """Return decoded readings as columns, nulls as -1 or NaN."""
    items = [one.item for one in taken]

    def whole(name: str) -> np.ndarray:
        return np.array([-1 if (v := getattr(item, name)) is None else v for item in items], np.int64)

    def real(values: list[Any]) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.array([np.nan if v is None else v for v in values], np.float64).astype(np.float32)

    columns: Columns = {
        "meter_no": np.array([one.meter_no for one in taken], np.int64),
        "read_at": np.array([one.at_us for one in taken], np.int64),
        "received_at": np.array([one.lineage.received_at for one in taken], np.int64),
        "seq": np.array([item.seq for item in items], np.uint64),
        "boot_id": np.array([item.boot_id for item in items], np.int64),
        "power_w": real([item.power_w for item in items]),
        "frequency_hz": real([item.frequency_hz for item in items]),
    }
    for name in ("import_wh", "export_wh", "import_varh", "export_varh", "interval_s"):
        columns[name] = whole(name)
    for name, prefix in (("voltage_v", "voltage_v"), ("current_a", "current_a")):
        phases = [_phases(getattr(item, name)) for item in items]
        for phase in range(3):
            columns[f"{prefix}{phase + 1}"] = real([values[phase] for values in phases])
    for name, field in (("raw_partition", "partition"), ("raw_offset", "offset"), ("raw_index", "index")):
        columns[name] = np.array([getattr(one.lineage, field) for one in taken], np.int64)
    return columns


def _phases(value: float | list[float] | None) -> Sequence[float | None]:
    if value is None:
        return (None, None, None)
    values = value if isinstance(value, list) else [value]
    return (*values, *((None,) * (3 - len(values))))


def readings_frame(columns: Columns, gateway_ids: Sequence[str | None]) -> pa.RecordBatch:
    """Return columns as a batch of READINGS_SCHEMA."""
    arrays = []
    for field in READINGS_SCHEMA:
        if field.name == "gateway_id":
            arrays.append(pa.array(gateway_ids, pa.string()))
            continue
        values = columns[field.name]
        mask = np.isnan(values) if field.name in ELECTRICAL else values == -1 if field.nullable else None
        arrays.append(pa.array(values, field.type, mask=mask))
    return pa.RecordBatch.from_arrays(arrays, schema=READINGS_SCHEMA)


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
        self._partition_of: dict[int, int] = {}

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
            self._validator.registry = self._refresh(self._validator.registry)
        return self._validator

    def _refresh(self, registry: Registry) -> Registry:
        """Look for newer master data, at most once a second: unknown meters may be many."""
        if time.monotonic() - self._checked < REGISTRY_CHECK_S:
            return registry
        self._checked = time.monotonic()
        return refresh_registry(self.connection(), registry)

    def next_offsets(self, assigned: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return where each partition goes on."""
        plain = {(METER_RAW, partition) for _, partition in assigned}
        rows = fetch_next_offsets(self.connection(), CONSUMER, plain)
        return {(topic, partition): rows[METER_RAW, partition] for topic, partition in assigned}

    def commit(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Validate records of one partition.

        1. Produce frames, and wait until Kafka has them. 2. Commit dead letters, receipts of unknown meters and the
        offset in one transaction. 3. Publish those receipts. A crash between 1 and 2 produces the frames again:
        settlement takes the readings for the duplicates that they are.
        """
        del topic
        row = None
        with self.connection().transaction():
            row = lock_offset(self.connection(), CONSUMER, METER_RAW, partition)
            todo = skip_replays(row, records)
            if not todo:
                return
            out = Validated()
            validator = self.validator()
            for record in todo:
                validator.take_record(out, record)
            frames, counts = self._frames(out, partition)
            for frame_topic, target, payload in frames:
                self.publisher.produce(self.prefix + frame_topic, target, payload)
            self.publisher.flush()  # Step 1.
            self._write_dead_letters(out)  # Step 2.
            receipts = self._receipt_unknown(out)
            advance(
                self.connection(),
                (CONSUMER, METER_RAW, partition),
                next_offset=todo[-1].offset + 1,
                worker=self.worker,
                counts=counts,
                watermark_us=out.watermark_us,
            )
        if receipts is not None:  # Step 3.
            self.publisher.produce(self.prefix + METER_RECEIPTS, partition, receipts)
            self.publisher.flush()

    def _frames(self, out: Validated, partition: int) -> tuple[list[tuple[str, int, bytes]], OffsetCounts]:
        """Return topic, partition and bytes of what goes on, and the counts; refusals of columns are added to `out`."""
        columns = reading_columns(out.readings) if out.readings else None
        refused_columns = 0
        if columns is not None:
            codes = refusals(
                columns,
                self.validator().registry.meters.modulus_wh[columns["meter_no"]],
                self.limits.future_max_s,
                self.limits.past_max_days,
            )
            for row in np.flatnonzero(codes).tolist():
                self._refuse_row(out, out.readings[row], RejectCode(int(codes[row])))
            refused_columns = int(np.count_nonzero(codes))
            keep = np.flatnonzero(codes == 0)
            columns = {name: values[keep] for name, values in columns.items()}
            columns["status"] = columns["refusal"] = np.zeros(len(keep), np.int64)
            gateways = [out.readings[row].gateway_id for row in keep.tolist()]
        frames = []
        batches: dict[int, list[pa.RecordBatch]] = {partition: []}
        if columns is not None and len(columns["meter_no"]):
            for target, rows in self._by_partition(columns["meter_no"]).items():
                part = {name: values[rows] for name, values in columns.items()}
                batch = readings_frame(part, [gateways[row] for row in rows.tolist()])
                batches.setdefault(target, []).append(batch)
        for target, batch in self._ride_along(out):
            batches.setdefault(target, []).append(batch)
        for target, parts in batches.items():
            table = pa.Table.from_batches(parts, READINGS_SCHEMA).combine_chunks()
            whole = table.to_batches()[0] if table.num_rows else _EMPTY_READINGS
            watermark_us = out.watermark_us if target == partition else None
            frames.append((METER_READINGS, target, encode_frame(whole, watermark_us)))
        frames += self._event_frames(out)
        readings = len(out.readings) - refused_columns
        refused = len(out.refused)
        return frames, OffsetCounts(readings + refused, readings, 0, 0, refused, 0)

    def _refuse_row(self, out: Validated, taken: Taken, code: RejectCode) -> None:
        element = taken.lineage.index % ELEMENTS_PER_MESSAGE
        raw = element_bytes(taken.payload, element)
        item = taken.item
        detail = (
            f"read at {item.read_at}, received at {taken.lineage.received_at / 1e6:.0f}"
            if code is RejectCode.IMPOSSIBLE_TIME
            else "a register or measure is beyond what this meter can show"
        )
        meter_id = self.validator().registry.meters.meter_id[taken.meter_no]
        refusal = Refusal(code, detail, element, raw, item.seq, item.boot_id, meter_id)
        out.refused.append((taken.lineage, refusal, taken.meter_no, taken.gateway_id))

    def _target(self, meter_no: int) -> int:
        if meter_no not in self._partition_of:
            meter_id = self.validator().registry.meters.meter_id[meter_no]
            self._partition_of[meter_no] = partition_of(meter_id, self.settings.kafka.partitions)
        return self._partition_of[meter_no]

    def _by_partition(self, meter_no: np.ndarray) -> dict[int, np.ndarray]:
        numbers, place = np.unique(meter_no, return_inverse=True)
        targets = np.array([self._target(number) for number in numbers.tolist()])[place]
        return {target: np.flatnonzero(targets == target) for target in np.unique(targets).tolist()}

    def _ride_along(self, out: Validated) -> list[tuple[int, pa.RecordBatch]]:
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
        return [(target, pa.RecordBatch.from_pylist(rows, schema=READINGS_SCHEMA)) for target, rows in parts.items()]

    def _event_frames(self, out: Validated) -> list[tuple[str, int, bytes]]:
        parts: dict[int, list[dict[str, Any]]] = {}
        ids = self.validator().registry.meters.meter_id
        for taken in out.events:
            event: Event = taken.item
            detail = event.detail if isinstance(event.detail, str) else json.dumps(event.detail)
            row = {
                "meter_no": taken.meter_no,
                "meter_id": ids[taken.meter_no],
                "seq": event.seq,
                "boot_id": event.boot_id,
                "at": taken.at_us,
                "code": event.code,
                "detail": "" if event.detail is None else detail[:1000],
                "raw_partition": taken.lineage.partition,
                "raw_offset": taken.lineage.offset,
                "raw_index": taken.lineage.index,
                "received_at": taken.lineage.received_at,
            }
            parts.setdefault(self._target(taken.meter_no), []).append(row)
        return [
            (METER_EVENTS, target, encode_frame(pa.RecordBatch.from_pylist(rows, schema=EVENTS_SCHEMA)))
            for target, rows in parts.items()
        ]

    def _write_dead_letters(self, out: Validated) -> None:
        if not out.refused:
            return
        rows = [
            (
                refusal.code.word,
                refusal.detail.replace("\0", ""),
                lineage.mqtt_topic.replace("\0", ""),
                (refusal.meter_id or "").replace("\0", "") or None,
                refusal.boot_id,
                refusal.seq,
                refusal.payload,
                lineage.partition,
                lineage.offset,
                lineage.index,
                lineage.received_at / 1e6,
            )
            for lineage, refusal, *_ in out.refused
        ]
        with self.connection().cursor() as cursor:
            cursor.executemany(
                "insert into dead_letter (stage, code, detail, mqtt_topic, meter_id, boot_id, seq, payload,"
                " raw_partition, raw_offset, raw_index, received_at) values ('validate', %s, %s, %s, %s, %s, %s, %s,"
                " %s, %s, %s, to_timestamp(%s)) on conflict do nothing",
                rows,
            )

    def _receipt_unknown(self, out: Validated) -> bytes | None:
        """Keep and return the receipts of meters that are not in the master data."""
        groups: dict[str, list[tuple[Lineage, Refusal, str | None]]] = {}
        for lineage, refusal, number, gateway_id in out.refused:
            known = refusal.meter_id is not None and is_meter_id(refusal.meter_id)
            if number is None and known and refusal.seq is not None:
                assert refusal.meter_id is not None
                groups.setdefault(refusal.meter_id, []).append((lineage, refusal, gateway_id))
        rows = [self._receipt_one(meter_id, items) for meter_id, items in sorted(groups.items())]
        if not rows:
            return None
        return encode_frame(pa.RecordBatch.from_pylist(rows, schema=RECEIPTS_SCHEMA))

    def _receipt_one(self, meter_id: str, items: list[tuple[Lineage, Refusal, str | None]]) -> dict[str, Any]:
        conn = self.connection()
        boot_id = max(refusal.boot_id for _, refusal, _ in items)
        seqs = [refusal.seq for _, refusal, _ in items if refusal.boot_id == boot_id and refusal.seq is not None]
        row = conn.execute(
            "select boot_id, seq, seq_pending from unknown_meter_receipt where meter_id = %s for update",
            (meter_id,),
        ).fetchone()
        same = row is not None and row[0] == boot_id
        covered, pending = (int(row[1]), pending_from_text(row[2]) or ()) if same and row else (min(seqs) - 1, ())
        covered, waiting = extend_receipt(covered, pending, seqs)
        read_at = max(lineage.received_at for lineage, *_ in items)
        conn.execute(
            "insert into unknown_meter_receipt (meter_id, boot_id, seq, seq_pending, read_at) values (%s, %s, %s, %s, %s)"
            " on conflict (meter_id) do update set boot_id = excluded.boot_id, seq = excluded.seq,"
            " seq_pending = excluded.seq_pending, read_at = excluded.read_at",
            (meter_id, boot_id, covered, text_from_pending(waiting), read_at),
        )
        return {
            "meter_id": meter_id,
            "gateway_id": items[-1][2],
            "boot_id": boot_id,
            "seq": covered,
            "read_at": read_at,
        }

    def close(self) -> None:
        """Give back the connection."""
        if self._conn is not None:
            self._conn.close()


_EMPTY_READINGS = pa.RecordBatch.from_pylist([], schema=READINGS_SCHEMA)


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
