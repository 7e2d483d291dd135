"""The messages that meters and gateways send (contract v1), and their decoding.

Whatever the bytes, decoding gives readings and refusals, never an exception; one bad element of an array does not spoil
its neighbours.
"""

import dataclasses
import datetime as dt
import json
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from schemas.reject import RejectCode

PAYLOAD_BYTES_MAX = 64 * 1024
ELEMENTS_MAX = 1000
SEQ_MAX = 2**64 - 1
REGISTER_MAX = 2**62
EPOCH_S_MAX = 4_102_444_800
"""2100-01-01: no meter's clock is right beyond it, and µs fit 64 bits."""
DETAIL_MAX = 300

Counter = Annotated[int, Meta(ge=0, le=REGISTER_MAX)]
Seq = Annotated[int, Meta(ge=0)]
BootId = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Instant = Annotated[dt.datetime, Meta(tz=True)] | int | float
Phases = float | Annotated[list[float], Meta(min_length=1, max_length=3)] | None


class Reading(msgspec.Struct, gc=False):
    """One reading of a meter; energies are cumulative registers in Wh and varh."""

    seq: Seq
    read_at: Instant
    import_wh: Counter
    boot_id: BootId = 0
    meter_id: str | None = None
    export_wh: Counter | None = None
    import_varh: Counter | None = None
    export_varh: Counter | None = None
    power_w: float | None = None
    voltage_v: Phases = None
    current_a: Phases = None
    frequency_hz: float | None = None
    interval_s: Annotated[int, Meta(ge=1, le=86400)] | None = None
    status: list[str] = []


class GatewayReading(Reading, gc=False, kw_only=True):
    """A reading as a gateway sends it: it names its meter."""

    meter_id: str


class Event(msgspec.Struct):
    """Something that happened at a meter."""

    seq: Seq
    at: Instant
    code: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9._-]+$")]
    boot_id: BootId = 0
    detail: Any = None
    meter_id: str | None = None


class Receipt(msgspec.Struct):
    """Up to which reading of a boot everything is durable."""

    boot_id: BootId
    seq: Seq
    read_at: str


class _Head(msgspec.Struct):
    """What can be read of an element that is refused."""

    seq: Any = None
    boot_id: Any = 0
    meter_id: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """An element, or a whole message, that is not taken."""

    code: RejectCode
    detail: str
    element: int
    """Place in the array; 0 for a whole message."""
    payload: bytes
    seq: int | None = None
    boot_id: int = 0
    meter_id: str | None = None


_one_or_more = {
    kind: (
        msgspec.json.Decoder(kind),
        msgspec.json.Decoder(list[kind]),  # type: ignore[valid-type]
    )
    for kind in (Reading, GatewayReading, Event)
}
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_head = msgspec.json.Decoder(_Head)
_FAULTS = (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, OverflowError)


def decode_message(
    kind: type[Reading] | type[GatewayReading] | type[Event], payload: bytes
) -> tuple[list[tuple[int, Any]], list[Refusal]]:
    """Return the good elements of a payload with their places, and the refused ones.

    Args:
        kind: What the topic says that the elements are.
        payload: The message as it came: an object, or an array of at most ELEMENTS_MAX.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        detail = f"{len(payload)} bytes, at most {PAYLOAD_BYTES_MAX}"
        return [], [Refusal(RejectCode.OVERSIZE, detail, 0, payload)]
    single, several = _one_or_more[kind]
    is_array = payload.lstrip(b" \t\r\n")[:1] == b"["
    try:
        items = several.decode(payload) if is_array else [single.decode(payload)]
    except _FAULTS:
        return _decode_each(kind, payload, is_array=is_array)
    if not items or len(items) > ELEMENTS_MAX:
        return [], [_bad_count(len(items), payload)]
    return list(enumerate(items)), []


def _bad_count(count: int, payload: bytes) -> Refusal:
    if not count:
        return Refusal(RejectCode.WRONG_TYPE, "the array is empty", 0, payload)
    detail = f"{count} elements, at most {ELEMENTS_MAX}"
    return Refusal(RejectCode.TOO_MANY_ELEMENTS, detail, 0, payload)


def _decode_each(kind: type[Any], payload: bytes, *, is_array: bool) -> tuple[list[tuple[int, Any]], list[Refusal]]:
    try:
        raws = [bytes(raw) for raw in _raw_list.decode(payload)] if is_array else [payload]
        if not is_array:
            msgspec.json.decode(payload)
    except _FAULTS as error:
        return [], [Refusal(RejectCode.BAD_JSON, str(error)[:DETAIL_MAX], 0, payload)]
    if not raws or len(raws) > ELEMENTS_MAX:
        return [], [_bad_count(len(raws), payload)]
    good: list[tuple[int, Any]] = []
    refused: list[Refusal] = []
    decoder = _one_or_more[kind][0]
    for element, raw in enumerate(raws):
        try:
            good.append((element, decoder.decode(raw)))
        except _FAULTS as error:
            refused.append(refusal_of(RejectCode.WRONG_TYPE, str(error)[:DETAIL_MAX], element, raw))
    return good, refused


def refusal_of(code: RejectCode, detail: str, element: int, raw: bytes) -> Refusal:
    """Return a refusal with what can still be read of the element: its sequence number, boot and meter."""
    try:
        head = _head.decode(raw)
    except _FAULTS:
        return Refusal(code, detail, element, raw)
    seq = head.seq if _is_whole(head.seq, SEQ_MAX) else None
    boot_id = head.boot_id if _is_whole(head.boot_id, 2**32 - 1) else 0
    meter_id = head.meter_id if isinstance(head.meter_id, str) else None
    return Refusal(code, detail, element, raw, seq, boot_id, meter_id)


def _is_whole(value: Any, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= high


def element_bytes(payload: bytes, element: int) -> bytes:
    """Return the bytes of one element of a payload that has been decoded before."""
    if payload.lstrip(b" \t\r\n")[:1] != b"[":
        return payload
    return bytes(_raw_list.decode(payload)[element])


def instant_us(value: dt.datetime | float) -> int | None:
    """Return an instant as epoch µs, or None beyond what a clock can show.

    Example:
        >>> instant_us(dt.datetime(2026, 11, 24, 8, tzinfo=dt.UTC)) == instant_us(1795507200)
        True
    """
    if isinstance(value, dt.datetime):
        delta = value - _EPOCH
        return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    if not 0 <= value <= EPOCH_S_MAX:
        return None
    return value * 1_000_000 if isinstance(value, int) else round(value * 1_000_000)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def json_schemas() -> dict[str, Any]:
    """Return the JSON Schema of each message by name, generated from the types above."""

    def one_or_more(kind: Any) -> Any:
        return kind | Annotated[list[kind], Meta(min_length=1, max_length=ELEMENTS_MAX)]

    several = Annotated[list[GatewayReading], Meta(min_length=1, max_length=ELEMENTS_MAX)]
    kinds = {
        "meter_readings": one_or_more(Reading),
        "gateway_readings": several,
        "meter_events": Event,
        "meter_receipt": Receipt,
        "gateway_receipts": dict[str, Receipt],
    }
    return {name: msgspec.json.schema(kind) for name, kind in kinds.items()}


def schema_text(schema: Any) -> str:
    """Return a schema as it is kept in ``docs/schemas``."""
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
