"""Frames: what is encoded comes back, and hostile bytes give FrameError and nothing else."""

import struct
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.frame import (
    CHARGES_SCHEMA,
    EVENTS_SCHEMA,
    RAW_SCHEMA,
    READINGS_SCHEMA,
    RECEIPTS_SCHEMA,
    WATERMARK_KEY,
    FrameError,
    decode_frame,
    decode_raw,
    decode_readings,
    encode_frame,
    encode_raw,
    watermark_of,
)

SCHEMAS = {
    "raw": RAW_SCHEMA,
    "readings": READINGS_SCHEMA,
    "events": EVENTS_SCHEMA,
    "charges": CHARGES_SCHEMA,
    "receipts": RECEIPTS_SCHEMA,
}
_WHOLE = {
    pa.int8(): (-(2**7), 2**7 - 1),
    pa.int16(): (-(2**15), 2**15 - 1),
    pa.int32(): (-(2**31), 2**31 - 1),
    pa.int64(): (-(2**63), 2**63 - 1),
    pa.uint32(): (0, 2**32 - 1),
    pa.uint64(): (0, 2**64 - 1),
}
watermarks = st.none() | st.integers(0, 10**18 - 1)


def values_of(field: pa.Field) -> st.SearchStrategy[Any]:
    if field.type in _WHOLE:
        values: st.SearchStrategy[Any] = st.integers(*_WHOLE[field.type])
    elif field.type == pa.float32():
        values = st.floats(width=32, allow_nan=False)
    else:
        values = st.binary(max_size=40) if field.type == pa.binary() else st.text(max_size=40)
    return st.none() | values if field.nullable else values


@st.composite
def frames(draw: st.DrawFn, schema: pa.Schema, rows_max: int = 20) -> pa.RecordBatch:
    """Draw frames on both sides of the compression threshold."""
    row = st.fixed_dictionaries({field.name: values_of(field) for field in schema})
    return pa.RecordBatch.from_pylist(draw(st.lists(row, max_size=4)) * draw(st.integers(1, rows_max)), schema=schema)


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data(), watermark_us=watermarks)
def test_decode_gives_back_what_was_encoded(name: str, data: st.DataObject, watermark_us: int | None) -> None:
    schema = SCHEMAS[name]
    batch = data.draw(frames(schema))
    found = decode_frame(encode_frame(batch, watermark_us), schema)
    assert found.equals(batch)
    assert watermark_of(found) == watermark_us


@given(
    st.lists(
        st.tuples(st.text(max_size=80), st.binary(max_size=200), st.integers(0, 2**60), st.integers(0, 7)), max_size=40
    )
)
def test_raw_messages_come_back_byte_for_byte(messages: list[tuple[str, bytes, int, int]]) -> None:
    columns = [list(column) for column in zip(*messages, strict=True)] or [[], [], [], []]
    frame = decode_raw(encode_raw(*columns, watermark_us=5))  # type: ignore[arg-type]
    assert list(zip(*(column.to_pylist() for column in frame.columns), strict=True)) == messages
    assert watermark_of(frame) == 5


def use(frame: pa.RecordBatch) -> None:
    """Do what the agents do with a frame: read every value and the watermark."""
    watermark_of(frame)
    for field, column in zip(frame.schema, frame.columns, strict=True):
        values = column.to_pylist()
        assert field.nullable or None not in values


def is_refused_or_usable(data: bytes) -> bool:
    """Return whether it is refused by every schema; anything but a FrameError is raised."""
    refused = 0
    for schema in SCHEMAS.values():
        try:
            use(decode_frame(data, schema))
        except FrameError:
            refused += 1
    return refused == len(SCHEMAS)


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xff\xff\xff\xff\x00\x00\x00\x00")
@example(b"\xff\xff\xff\xff\xff\xff\xff\x7f")
@example(b'{"seq": 1}')
def test_random_bytes_are_refused(data: bytes) -> None:
    assert is_refused_or_usable(data)


GOOD = [
    encode_raw(["gridtally/v1/meters/é/readings"] * rows, [b"{}"] * rows, [1] * rows, [0] * rows, 1_795_507_200_000_000)
    for rows in (0, 2, 40)
]
GOOD += [
    encode_frame(pa.RecordBatch.from_pylist([{f.name: None if f.nullable else 1 for f in READINGS_SCHEMA}] * rows, READINGS_SCHEMA))
    for rows in (1, 40)
]  # fmt: skip


@given(data=st.data())
def test_damaged_frames_are_refused_or_still_readable(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(GOOD)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        how = data.draw(st.sampled_from(["set", "word", "cut", "double"]))
        if how == "set":
            damaged[place] = data.draw(st.integers(0, 255))
        elif how == "word":
            damaged[place : place + 4] = data.draw(st.binary(min_size=4, max_size=4))
        elif how == "cut":
            damaged = damaged[: max(place, 1)]
        else:
            damaged[place:place] = damaged[place : place + 16]
    is_refused_or_usable(bytes(damaged))


@pytest.mark.parametrize("size", [0, 1, 8, 100, 400])
def test_cut_off_frames_are_refused(size: int) -> None:
    with pytest.raises(FrameError):
        decode_raw(GOOD[1][:size])


def test_a_frame_of_another_topic_is_refused() -> None:
    with pytest.raises(FrameError, match="unexpected columns"):
        decode_readings(GOOD[1])


def test_a_second_batch_in_a_record_is_refused_not_forgotten() -> None:
    batch = decode_raw(GOOD[1])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, RAW_SCHEMA) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch)
    with pytest.raises(FrameError, match="more than one batch"):
        decode_raw(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("name", ["mqtt_topic", "payload", "received_at", "flags"])
def test_a_null_where_none_may_be_is_refused(name: str) -> None:
    row = {"mqtt_topic": "t", "payload": b"", "received_at": 1, "flags": 0} | {name: None}
    columns = [pa.array([row[field.name]], field.type) for field in RAW_SCHEMA]
    with pytest.raises(FrameError, match="a null where none may be"):
        decode_raw(encode_frame(pa.RecordBatch.from_arrays(columns, schema=RAW_SCHEMA)))


@pytest.mark.parametrize("text", [b"", b"-1", b"1.5", b"x", b"9" * 19, " ٣".encode(), b"1\n"])
def test_a_watermark_that_is_no_instant_is_refused(text: bytes) -> None:
    batch = decode_raw(GOOD[1]).replace_schema_metadata({WATERMARK_KEY: text})
    with pytest.raises(FrameError, match="watermark"):
        decode_raw(encode_frame(batch))


def test_offsets_beyond_the_buffer_are_refused_before_anything_reads_there() -> None:
    good = encode_raw(["t" * 77], [b""], [1], [0], 1)
    at = good.rindex(struct.pack("<2i", 0, 77))
    with pytest.raises(FrameError, match="Offset"):
        decode_raw(good[:at] + struct.pack("<2i", 0, 10**6) + good[at + 8 :])
