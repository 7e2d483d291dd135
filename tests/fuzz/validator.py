"""Hostile messages through decoding and the validator: nothing raises, every element has one outcome, neighbours are whole."""

import collections
import dataclasses
import itertools
import json
from collections.abc import Iterator

import numpy as np

from agents.consumer import Record
from agents.decoding import Validated, Validator
from agents.reading_columns import readings_frame
from metering.fact import concatenate
from metering.pricebook import PriceBook
from metering.validation import refusals
from schemas.frame import decode_readings, encode_frame, encode_raw
from schemas.message import ELEMENTS_MAX, PAYLOAD_BYTES_MAX
from schemas.topic import source_of
from storage.raw_record import ELEMENTS_PER_MESSAGE
from storage.registry import Registry, _meters_from_rows
from tests.fuzz.payloads import METERS, NOW_S, ROOT, Hostile

HOSTILE_PER_FRAME = 200
GOOD_EVERY = 20


class FuzzError(AssertionError):
    """A fault was found; the message holds the seed's place and the bytes."""


@dataclasses.dataclass
class Tally:
    """What came of the messages."""

    messages: int = 0
    good: int = 0
    readings: int = 0
    events: int = 0
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def make_registry() -> Registry:
    """Return master data of the meters that the messages speak of; numbers begin at 1."""
    rows = [(number, meter_id, 10**12, 0, 900) for number, meter_id in enumerate(METERS, 1)]
    return Registry(1, _meters_from_rows(rows), PriceBook([], []), [""], {row[1]: row[0] for row in rows})


def run(seed: int, count: int, validator_class: type[Validator] = Validator) -> Tally:
    """Send `count` hostile messages through a validator, with good ones among them.

    Raises:
        FuzzError: Something raised, an element has no outcome or two, or a good message was not taken as it is.
    """
    validator = validator_class(make_registry(), lambda registry: registry)
    source, seqs, tally = Hostile(seed).messages(), itertools.count(), Tally()
    for offset in range(-(-count // HOSTILE_PER_FRAME)):
        hostile = list(itertools.islice(source, min(HOSTILE_PER_FRAME, count - tally.messages)))
        try:
            _run_frame(validator, offset, hostile, seqs, tally)
        except FuzzError as fault:
            raise FuzzError(f"seed {seed}, frame {offset}: {fault}") from fault.__cause__
        tally.messages += len(hostile)
    return tally


def _run_frame(
    validator: Validator, offset: int, hostile: list[tuple[str, bytes]], seqs: Iterator[int], tally: Tally
) -> None:
    messages, good = _among_good(hostile, seqs)
    topics, payloads = zip(*messages, strict=True)
    size = len(messages)
    value = encode_raw(topics, payloads, [NOW_S * 10**6] * size, [0] * size, NOW_S * 10**6)
    out = Validated()
    try:
        validator.take_record(out, Record("meter.raw", 0, offset, value))
    except BaseException as error:
        raise FuzzError(_culprit(validator, offset, messages)) from error
    _check_outcomes(messages, out)
    _check_good(good, out)
    _check_columns(validator.registry, out)
    tally.good += len(good)
    tally.readings += len(out.readings) - len(good)
    tally.events += len(out.events)
    tally.refused.update(refusal.code.word for _, refusal, *_ in out.refused)


def _among_good(
    hostile: list[tuple[str, bytes]], seqs: Iterator[int]
) -> tuple[list[tuple[str, bytes]], dict[int, tuple[str, int]]]:
    """Return the messages with a good one after every few, and of those meter and sequence number by place."""
    messages: list[tuple[str, bytes]] = []
    good: dict[int, tuple[str, int]] = {}
    for number, message in enumerate(hostile, 1):
        messages.append(message)
        if number % GOOD_EVERY == 0 or number == len(hostile):
            seq = next(seqs)
            meter_id = METERS[seq % len(METERS)]
            good[len(messages)] = meter_id, seq
            payload = json.dumps({"seq": seq, "read_at": NOW_S, "import_wh": seq * 3, "power_w": seq}).encode()
            messages.append((f"{ROOT}/meters/{meter_id}/readings", payload))
    return messages, good


def _culprit(validator: Validator, offset: int, messages: list[tuple[str, bytes]]) -> str:
    """Return the first message that raises on its own."""
    for topic, payload in messages:
        try:
            validator.take_record(Validated(), Record("", 0, offset, encode_raw([topic], [payload], [0], [0], 0)))
        except BaseException:  # noqa: BLE001  # the fault that is looked for
            return f"raised on {topic!r} {payload[:2000]!r}"
    return "raised, but on no message alone"


def _check_outcomes(messages: list[tuple[str, bytes]], out: Validated) -> None:
    """Check that the elements of each message are 0 to k-1, each with one outcome, and k right where it can be known."""
    indexes = [taken.lineage.index for taken in (*out.readings, *out.events)]
    indexes += [lineage.index for lineage, *_ in out.refused]
    places: dict[int, list[int]] = {place: [] for place in range(len(messages))}
    for index in indexes:
        places[index // ELEMENTS_PER_MESSAGE].append(index % ELEMENTS_PER_MESSAGE)
    for place, elements in places.items():
        topic, payload = messages[place]
        expected = _count(topic, payload)
        if sorted(elements) != list(range(len(elements) if expected is None else expected)) or not elements:
            raise FuzzError(f"outcomes {sorted(elements)[:20]}, expected {expected} of {topic!r} {payload[:2000]!r}")
    for lineage, refusal, *_ in out.refused:
        if refusal.payload not in messages[lineage.index // ELEMENTS_PER_MESSAGE][1]:
            raise FuzzError(f"a dead letter with other bytes: {refusal.payload[:2000]!r}")


def _count(topic: str, payload: bytes) -> int | None:
    """Return how many outcomes a message must have, by Python's own JSON; None when that cannot tell."""
    if source_of(topic) is None or len(payload) > PAYLOAD_BYTES_MAX:
        return 1
    try:
        value = json.loads(payload.decode())
    except (ValueError, RecursionError):
        return None
    return len(value) if isinstance(value, list) and 0 < len(value) <= ELEMENTS_MAX else 1


def _check_good(good: dict[int, tuple[str, int]], out: Validated) -> None:
    by_index = {taken.lineage.index: taken for taken in out.readings}
    for place, (meter_id, seq) in good.items():
        taken = by_index.get(place * ELEMENTS_PER_MESSAGE)
        number = METERS.index(meter_id) + 1
        expected = (number, seq, seq * 3, float(seq), NOW_S * 10**6)
        found = taken and (taken.meter_no, taken.item.seq, taken.item.import_wh, taken.item.power_w, taken.at_us)
        if found != expected:
            raise FuzzError(f"a good message gave {found}, not {expected}")


def _check_columns(registry: Registry, out: Validated) -> None:
    """Check that what was taken can be made columns, checked and encoded."""
    columns = concatenate([part.columns() for part in out.parts])
    readings, gateway_ids = out.readings, [name for part in out.parts for name in part.gateway_ids]
    codes = refusals(columns, registry.meters.modulus_wh[columns["meter_no"]], 900, 400)
    keep = np.flatnonzero(codes == 0)
    columns = {name: values[keep] for name, values in columns.items()}
    columns["status"] = columns["refusal"] = np.zeros(len(keep), np.int64)
    gateways = [gateway_ids[row] for row in keep.tolist()]
    frame = decode_readings(encode_frame(readings_frame(columns, gateways)))
    if frame.column("import_wh").to_pylist() != [readings[row].item.import_wh for row in keep.tolist()]:
        raise FuzzError("columns are not what was taken")
