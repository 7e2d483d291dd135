"""Damaged frames into the codec: refused, or every value readable; never anything else, and never a crash of Arrow."""

import dataclasses
import random

import pyarrow as pa

from schemas.frame import RAW_SCHEMA, READINGS_SCHEMA, FrameError, decode_frame, encode_frame, encode_raw, watermark_of


@dataclasses.dataclass
class Tally:
    """What came of the frames."""

    refused: int = 0
    usable: int = 0


def run(seed: int, count: int) -> Tally:
    """Decode `count` damaged frames; anything but a FrameError is raised."""
    draw, tally = random.Random(seed), Tally()
    good = _good_frames()
    for _ in range(count):
        schema, data = draw.choice(good)
        try:
            frame = decode_frame(_damage(draw, data), schema)
        except FrameError:
            tally.refused += 1
            continue
        watermark_of(frame)
        for column in frame.columns:
            column.to_pylist()
        tally.usable += 1
    return tally


def _good_frames() -> list[tuple[pa.Schema, bytes]]:
    topic = "gridtally/v1/meters/é/readings"
    raw = [encode_raw([topic] * n, [b"{}"] * n, [1] * n, [0] * n, 1_795_507_200_000_000) for n in (0, 3, 40)]
    row = {field.name: None if field.nullable else 1 for field in READINGS_SCHEMA} | {"gateway_id": "g"}
    readings = [encode_frame(pa.RecordBatch.from_pylist([row] * n, READINGS_SCHEMA)) for n in (1, 40)]
    return [(RAW_SCHEMA, data) for data in raw] + [(READINGS_SCHEMA, data) for data in readings]


def _damage(draw: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 20))):
        place = draw.randrange(len(damaged))
        how = draw.random()
        if how < 0.6:
            damaged[place] = draw.randrange(256)
        elif how < 0.8:
            damaged[place : place + 4] = draw.randbytes(4)
        elif how < 0.9:
            damaged[place:place] = damaged[place : place + 16]
        else:
            damaged = damaged[: max(place, 1)]
    return bytes(damaged)
