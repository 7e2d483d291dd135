"""From raw frames to readings as columns, events and refusals.

The usual message (a known topic, JSON as the contract says, a known meter) is decoded by msgspec and becomes columns with its
neighbours, nearly all of it in C. Whatever is not usual is taken one element at a time and finds its outcome there; both
give the same columns, in the order of arrival.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.consumer import Record
from agents.reading_columns import NO_INSTANT, fits_seq, instants_us, item_columns
from metering.fact import Columns
from metering.state import Int64Column
from monitoring.clock import now_us
from schemas.frame import FrameError, decode_raw, watermark_of
from schemas.ids import is_meter_id
from schemas.message import (
    ELEMENTS_MAX,
    PAYLOAD_BYTES_MAX,
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
from schemas.topic import Source, source_of
from storage.raw_record import ELEMENTS_PER_MESSAGE
from storage.registry import Registry

TOPICS_KEPT_MAX = 2_000_000
"""Topics whose meter is remembered; beyond it they are looked up again."""
NOBODY = 0
"""No meter has this number."""

_DECODE: dict[bool, Callable[[bytes], Any]] = {
    False: msgspec.json.Decoder(Reading | list[Reading]).decode,
    True: msgspec.json.Decoder(GatewayReading | list[GatewayReading]).decode,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Lineage:
    """Where an element came from."""

    partition: int
    offset: int
    index: int
    mqtt_topic: str
    received_at: int


@dataclasses.dataclass(frozen=True, slots=True)
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
class RawFrame:
    """The messages of one record of meter.raw."""

    record: Record
    topics: list[str]
    payloads: list[bytes]
    received_at: list[int]

    def lineage(self, index: int) -> Lineage:
        """Return where an element came from; `index` is message place x ELEMENTS_PER_MESSAGE + element."""
        place = index // ELEMENTS_PER_MESSAGE
        return Lineage(self.record.partition, self.record.offset, index, self.topics[place], self.received_at[place])


@dataclasses.dataclass
class Readings:
    """The readings taken from one raw frame, in the order of arrival; all of one length."""

    frame: RawFrame
    items: list[Reading]
    meter_no: Int64Column
    at_us: Int64Column
    gateway_ids: list[str | None]
    index: Int64Column
    """Place in the frame, as in a lineage."""

    def __len__(self) -> int:
        """Return how many readings there are."""
        return len(self.items)

    def taken(self, row: int) -> Taken:
        """Return one reading with its lineage."""
        lineage = self.frame.lineage(int(self.index[row]))
        payload = self.frame.payloads[lineage.index // ELEMENTS_PER_MESSAGE]
        return Taken(
            int(self.meter_no[row]), self.items[row], int(self.at_us[row]), self.gateway_ids[row], lineage, payload
        )

    def columns(self) -> Columns:
        """Return the readings as columns, nulls as -1 or NaN."""
        received_at = np.array(self.frame.received_at, np.int64)
        size = len(self.items)
        return item_columns(self.items) | {
            "meter_no": self.meter_no,
            "read_at": self.at_us,
            "received_at": received_at[self.index // ELEMENTS_PER_MESSAGE],
            "raw_partition": np.full(size, self.frame.record.partition, np.int64),
            "raw_offset": np.full(size, self.frame.record.offset, np.int64),
            "raw_index": self.index,
        }


@dataclasses.dataclass
class Validated:
    """What a batch of raw frames came to."""

    parts: list[Readings] = dataclasses.field(default_factory=list)
    events: list[Taken] = dataclasses.field(default_factory=list)
    refused: list[tuple[Lineage, Refusal, int | None, str | None]] = dataclasses.field(default_factory=list)
    """Lineage, refusal, number of the meter if it is known, gateway."""
    watermark_us: int = 0
    messages: int = 0

    @property
    def readings(self) -> list[Taken]:
        """Return the readings one by one; for people and tests, not for the path."""
        return [part.taken(row) for part in self.parts for row in range(len(part))]


@dataclasses.dataclass(frozen=True, slots=True)
class _Sender:
    """What is known of a topic."""

    source: Source | None
    decode: Callable[[bytes], Any] | None
    """None where the usual way does not lead."""
    own: int
    """The meter of a meter's topic, else NOBODY."""
    gateway_id: str | None


class _Usual:
    """Readings of usual messages, being collected."""

    def __init__(self) -> None:
        self.items: list[Reading] = []
        self.places: list[int] = []
        self.counts: list[int] = []
        self.own: list[int] = []
        self.gateway_ids: list[str | None] = []

    def add(self, place: int, found: Any, sender: _Sender) -> bool:
        """Take what a payload was decoded to; False where it is not usual."""
        if type(found) is list:
            if not 0 < len(found) <= ELEMENTS_MAX:
                return False
            self.items += found
            self.counts.append(len(found))
        else:
            self.items.append(found)
            self.counts.append(1)
        self.places.append(place)
        self.own.append(sender.own)
        self.gateway_ids.append(sender.gateway_id)
        return True


class Validator:
    """Decodes and identifies; pure but for the registry that it is given."""

    def __init__(self, registry: Registry, refresh: Callable[[Registry], Registry]) -> None:
        """Take master data, and a function that looks for newer ones before a meter is called unknown."""
        self._registry = registry
        self._refresh = refresh
        self._senders: dict[str, _Sender] = {}

    @property
    def registry(self) -> Registry:
        """Return the master data in use."""
        return self._registry

    @registry.setter
    def registry(self, registry: Registry) -> None:
        if registry is not self._registry:
            self._senders.clear()
        self._registry = registry

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
            batch = decode_raw(record.value)
        except FrameError as error:
            lineage = Lineage(record.partition, record.offset, -1, "", now_us())
            refusal = Refusal(RejectCode.BAD_FRAME, str(error)[:300], 0, record.value)
            out.refused.append((lineage, refusal, None, None))
            return
        out.watermark_us = max(out.watermark_us, watermark_of(batch) or 0)
        out.messages += batch.num_rows
        columns = (batch.column(name).to_pylist() for name in ("mqtt_topic", "payload", "received_at"))
        frame = RawFrame(record, *columns)
        usual, single = _Usual(), list[Taken]()
        for place in range(batch.num_rows):
            if not self._take_usual(usual, frame, place):
                self._take_message(out, single, frame, place)
        readings = self._identify(out, single, frame, usual)
        if single:
            readings = _merge(readings, single)
        if len(readings):
            out.parts.append(readings)

    # -- the usual way -------------------------------------------------------------------------------------------

    def _sender_of(self, topic: str) -> _Sender:
        source = source_of(topic)
        own, gateway_id, decode = NOBODY, None, None
        if source is not None and source.kind == "readings":
            is_gateway = source.owner == "gateways"
            if is_gateway:
                gateway_id = source.owner_id
            else:
                own = self.registry.number_of.get(source.owner_id, NOBODY)
            decode = _DECODE[is_gateway] if is_gateway or own else None
        sender = _Sender(source, decode, own, gateway_id)
        if len(self._senders) >= TOPICS_KEPT_MAX:
            self._senders.clear()
        if decode is not None or source is None:
            self._senders[topic] = sender  # an unknown meter may be known the next time
        return sender

    def _take_usual(self, usual: _Usual, frame: RawFrame, place: int) -> bool:
        topic, payload = frame.topics[place], frame.payloads[place]
        sender = self._senders.get(topic) or self._sender_of(topic)
        if sender.decode is None or len(payload) > PAYLOAD_BYTES_MAX:
            return False
        try:
            return usual.add(place, sender.decode(payload), sender)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            return False

    def _identify(self, out: Validated, single: list[Taken], frame: RawFrame, usual: _Usual) -> Readings:
        """Find the meters and instants of usual readings as columns; what is not as it should be is taken singly."""
        counts = np.array(usual.counts, np.int64)
        starts = np.cumsum(counts) - counts
        index = np.repeat(np.array(usual.places, np.int64) * ELEMENTS_PER_MESSAGE - starts, counts)
        index += np.arange(len(usual.items))
        own = np.repeat(np.array(usual.own, np.int64), counts)
        gateway_ids = usual.gateway_ids
        if len(usual.items) > len(counts):
            gateway_ids = [name for name, count in zip(gateway_ids, usual.counts, strict=True) for _ in range(count)]
        named = [item.meter_id for item in usual.items]
        if named.count(None) < len(named):
            find = self.registry.number_of.get
            found = np.array([find(name, NOBODY) if name is not None else -1 for name in named], np.int64)
            meter_no = np.where(own == NOBODY, found, own)
            good = (found == meter_no) | (found == -1)
            good &= meter_no > NOBODY
        else:
            meter_no, good = own, own > NOBODY
        at_us = instants_us([item.read_at for item in usual.items])
        good &= at_us != NO_INSTANT
        good &= fits_seq([item.seq for item in usual.items])
        readings = Readings(frame, usual.items, meter_no, at_us, gateway_ids, index)
        if good.all():
            return readings
        for row in np.flatnonzero(~good).tolist():
            place, element = divmod(int(index[row]), ELEMENTS_PER_MESSAGE)
            source = source_of(frame.topics[place])
            assert source is not None
            own_no = int(own[row]) or None
            lineage = frame.lineage(place * ELEMENTS_PER_MESSAGE)
            self._take_element(
                out, single, (lineage, frame.payloads[place], source), (element, usual.items[row], own_no)
            )
        return _rows(readings, np.flatnonzero(good))

    # -- one element at a time -----------------------------------------------------------------------------------

    def _take_message(self, out: Validated, single: list[Taken], frame: RawFrame, place: int) -> None:
        lineage, payload = frame.lineage(place * ELEMENTS_PER_MESSAGE), frame.payloads[place]
        source = source_of(lineage.mqtt_topic)
        if source is None:
            detail = f"{lineage.mqtt_topic[:200]!r} is no topic of meters or gateways"
            out.refused.append((lineage, Refusal(RejectCode.UNKNOWN_TOPIC, detail, 0, payload), None, None))
            return
        is_gateway = source.owner == "gateways"
        kind = Event if source.kind == "events" else GatewayReading if is_gateway else Reading
        good, refused = decode_message(kind, payload)
        own = None if is_gateway else self.meter_no_of(source.owner_id)
        for refusal in refused:
            self._refuse(out, lineage, refusal, source)
        for element, item in good:
            self._take_element(out, single, (lineage, payload, source), (element, item, own))

    def _take_element(
        self,
        out: Validated,
        single: list[Taken],
        message: tuple[Lineage, bytes, Source],
        found: tuple[int, Any, int | None],
    ) -> None:
        lineage, payload, source = message
        element, item, own = found
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
        target = single if source.kind == "readings" else out.events
        target.append(Taken(number, item, at_us, gateway_id, place, payload))

    def _refuse(self, out: Validated, lineage: Lineage, refusal: Refusal, source: Source) -> None:
        gateway_id = source.owner_id if source.owner == "gateways" else None
        meter_id = refusal.meter_id if gateway_id else source.owner_id
        if source.kind == "events":
            refusal = dataclasses.replace(refusal, seq=None)  # events count on their own, and have no receipts
        number = self.registry.number_of.get(meter_id) if meter_id else None
        place = dataclasses.replace(lineage, index=lineage.index + refusal.element)
        out.refused.append((place, dataclasses.replace(refusal, meter_id=meter_id), number, gateway_id))


def _rows(readings: Readings, rows: NDArray[np.int64]) -> Readings:
    """Return some rows, in the order given."""
    places = rows.tolist()
    return Readings(
        readings.frame,
        [readings.items[row] for row in places],
        readings.meter_no[rows],
        readings.at_us[rows],
        [readings.gateway_ids[row] for row in places],
        readings.index[rows],
    )


def _merge(readings: Readings, single: Sequence[Taken]) -> Readings:
    """Return readings taken as columns and singly, in the order of arrival."""
    both = Readings(
        readings.frame,
        [*readings.items, *(taken.item for taken in single)],
        np.concatenate([readings.meter_no, np.array([taken.meter_no for taken in single], np.int64)]),
        np.concatenate([readings.at_us, np.array([taken.at_us for taken in single], np.int64)]),
        [*readings.gateway_ids, *(taken.gateway_id for taken in single)],
        np.concatenate([readings.index, np.array([taken.lineage.index for taken in single], np.int64)]),
    )
    return _rows(both, np.argsort(both.index, kind="stable"))
