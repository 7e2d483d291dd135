"""The messages that meters and gateways send (contract v1), and their decoding.

Whatever the bytes, decoding gives readings and refusals, never an exception; one bad element of an array does not spoil
its neighbours.
"""

import dataclasses
import datetime as dt
import functools
import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from schemas.ids import is_meter_id
from schemas.reject import RejectCode

PAYLOAD_BYTES_MAX = 64 * 1024
ELEMENTS_MAX = 1000
SEQ_MAX = 2**64 - 1
REGISTER_MAX = 2**62
HAND_BOOT_ID = 2**32 - 1
"""No meter counts its boots that far: readings entered by hand are numbered in it, and have no receipts."""
EPOCH_S_MAX = 4_102_444_800
"""2100-01-01."""
DETAIL_MAX = 300
EVENT_DETAIL_MAX = 1000
JSON_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

Counter = Annotated[int, Meta(ge=0, le=REGISTER_MAX)]
Seq = Annotated[int, Meta(ge=0, extra_json_schema={"maximum": SEQ_MAX})]
"""The decoder bounds no integer beyond 63 bits: the validator refuses what is above SEQ_MAX."""
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
    code: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$(?!\n)")]
    boot_id: BootId = 0
    detail: Any = None
    """Any JSON; kept as text."""
    meter_id: str | None = None

    def __post_init__(self) -> None:
        """Make the detail a text that the database can hold; one that is nested too deep to write is refused here."""
        if self.detail is not None:
            text = self.detail if isinstance(self.detail, str) else json.dumps(self.detail)
            self.detail = text.replace("\0", "\ufffd")[:EVENT_DETAIL_MAX]


class Receipt(msgspec.Struct):
    """Which readings of a boot are durable: all from `first_seq` to `seq`.

    `first_seq` is the first that was ever heard of the boot; what a meter made before it may have been lost on the way, and is
    to be sent again.
    """

    boot_id: BootId
    seq: Seq
    read_at: str
    first_seq: Seq = 0


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
_raw_one = msgspec.json.Decoder(msgspec.Raw)
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
    raws, why = _split(payload) if is_array else ([payload], "")
    if why:
        return [], [refusal_of(RejectCode.BAD_JSON, why, 0, payload)]
    if not raws or len(raws) > ELEMENTS_MAX:
        return [], [_bad_count(len(raws), payload)]
    good: list[tuple[int, Any]] = []
    refused: list[Refusal] = []
    decoder = _one_or_more[kind][0]
    for element, raw in enumerate(raws):
        try:
            good.append((element, decoder.decode(raw)))
        except _FAULTS as error:
            refused.append(refusal_of(*_why(error, raw), element, raw))
    return good, refused


def _why(error: Exception, raw: bytes) -> tuple[RejectCode, str]:
    try:
        _raw_one.decode(raw)
    except _FAULTS as fault:
        return RejectCode.BAD_JSON, str(fault)[:DETAIL_MAX]
    return RejectCode.WRONG_TYPE, str(error)[:DETAIL_MAX]


@functools.lru_cache(maxsize=4)  # the bytes of each of a thousand refused elements are asked for one by one
def _split(payload: bytes) -> tuple[list[bytes], str]:
    """Return the elements of an array and "", or what is wrong with the array as a whole.

    An element that is no JSON (a NaN, half a surrogate pair) is split off as well, as long as quotes and brackets match:
    a gateway's array must not be lost for one meter in it.
    """
    try:
        return [bytes(raw) for raw in _raw_list.decode(payload)], ""
    except _FAULTS as error:
        why = str(error)[:DETAIL_MAX]
    body = payload.strip(b" \t\r\n")
    depth, start, raws = 0, 1, []
    for token in _TOKEN.finditer(body):
        sign, at = token[0], token.start()
        if depth == 1 and (sign == b"," or at == len(body) - 1):
            raws.append(body[start:at].strip(b" \t\r\n"))
            start = at + 1
        depth += (sign in b"[{") - (sign in b"]}")
        if depth <= 0 and at != len(body) - 1:
            return [], why
    return (raws, "") if depth == 0 and start == len(body) and all(raws) else ([], why)


_TOKEN = re.compile(rb'[][{},]|"(?:[^"\\]|\\.)*"?', re.DOTALL)


def refusal_of(code: RejectCode, detail: str, element: int, raw: bytes) -> Refusal:
    """Return a refusal with what can still be read of the element: its sequence number, boot and meter."""
    try:
        head = _head.decode(raw)
    except _FAULTS:
        head = _lenient_head(raw)
    seq = head.seq if _is_whole(head.seq, SEQ_MAX) else None
    boot_id = head.boot_id if _is_whole(head.boot_id, 2**32 - 1) else 0
    meter_id = head.meter_id if isinstance(head.meter_id, str) else None
    return Refusal(code, detail, element, raw, seq, boot_id, meter_id)


def _lenient_head(raw: bytes) -> _Head:
    """Return the head of what is almost JSON: Python's own decoder takes NaN, Infinity and half surrogate pairs."""
    try:
        found = json.loads(raw)
    except _FAULTS:
        return _Head()
    if not isinstance(found, dict):
        return _Head()
    meter_id = found.get("meter_id")
    named = isinstance(meter_id, str) and is_meter_id(meter_id)  # any other text could not be written
    return _Head(found.get("seq"), found.get("boot_id", 0), meter_id if named else None)


def _is_whole(value: Any, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= high


def element_bytes(payload: bytes, element: int) -> bytes:
    """Return the bytes of one element of a payload that has been decoded before.

    Where the elements cannot be told apart, the whole payload: what nests as deep as the decoder goes is decoded in one
    place and refused a few calls deeper.
    """
    if payload.lstrip(b" \t\r\n")[:1] != b"[":
        return payload
    raws, why = _split(payload)
    return payload if why or element >= len(raws) else raws[element]


def instant_us(value: dt.datetime | float) -> int | None:
    """Return an instant as epoch µs, or None before 1970 and after 2099: no meter's clock is right there.

    Example:
        >>> instant_us(dt.datetime(2026, 11, 24, 8, tzinfo=dt.UTC)) == instant_us(1795507200)
        True
    """
    if isinstance(value, dt.datetime):
        delta = value - _EPOCH
        at_us = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
        return at_us if 0 <= at_us <= EPOCH_S_MAX * 1_000_000 else None
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
    return {name: {"$schema": JSON_SCHEMA_DIALECT, **msgspec.json.schema(kind)} for name, kind in kinds.items()}


def schema_text(schema: Any) -> str:
    """Return a schema as it is kept in ``docs/schemas``."""
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    """Write the schemas into a directory, one file each; called by `make docs`."""
    if len(arguments) != 1:
        print("usage: python -m schemas.message DIRECTORY", file=sys.stderr)  # noqa: T201  # it is a command here
        return 2
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for name, schema in json_schemas().items():
        (directory / f"{name}.json").write_text(schema_text(schema), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
