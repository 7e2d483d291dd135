"""From Kafka records of meter.readings to the columns that settlement takes."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agents.consumer import Record
from metering.fact import Columns
from schemas.frame import ELECTRICAL, READINGS_SCHEMA, FrameError, decode_readings, watermark_of
from schemas.reject import RejectCode
from storage.dead_letter import DeadLetter

_PLAIN = [field.name for field in READINGS_SCHEMA if field.name not in (*ELECTRICAL, "gateway_id", "seq")]


@dataclasses.dataclass
class ReadingBatch:
    """Readings of several frames in the order of arrival."""

    columns: Columns
    gateway_id: pa.ChunkedArray
    watermark_us: int
    bad: list[tuple[Record, str]]
    """Records that are not frames, and why."""


def batch_from_records(records: Sequence[Record], partition: int) -> ReadingBatch:
    """Return the readings of records of one partition; heartbeats have none."""
    frames: list[pa.RecordBatch] = []
    offsets: list[int] = []
    bad: list[tuple[Record, str]] = []
    watermark_us = 0
    for record in records:
        try:
            frame = decode_readings(record.value)
        except FrameError as error:
            bad.append((record, str(error)))
            continue
        watermark_us = max(watermark_us, watermark_of(frame) or 0)
        frames.append(frame.replace_schema_metadata(None))
        offsets.append(record.offset)
    table = pa.Table.from_batches(frames, READINGS_SCHEMA)
    columns: Columns = {name: _integers(table[name]) for name in _PLAIN}
    columns |= {name: _floats(table[name]) for name in ELECTRICAL}
    columns["seq"] = table["seq"].to_numpy()
    sizes = [frame.num_rows for frame in frames]
    columns["frame_offset"] = np.repeat(np.array(offsets, np.int64), sizes)
    columns["frame_partition"] = np.full(table.num_rows, partition, np.int64)
    return ReadingBatch(columns, table["gateway_id"], watermark_us, bad)


def bad_frame_letter(record: Record, why: str, now_us: int) -> DeadLetter:
    """Return the dead letter of a record that is not a frame."""
    raw = record.partition, record.offset, -1
    return DeadLetter(RejectCode.BAD_FRAME, why, "", None, None, None, record.value, raw, now_us)


def _integers(column: pa.ChunkedArray) -> np.ndarray:
    if column.null_count:
        column = pc.fill_null(column, -1)
    return column.to_numpy().astype(np.int64, copy=False)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    if column.null_count == len(column):
        return np.full(len(column), np.nan, np.float32)
    if column.null_count:
        column = pc.fill_null(column, float("nan"))
    return column.to_numpy()
