"""Readings for measurements: registers of many meters that rise, as columns and as frames."""

import dataclasses
import datetime as dt

import numpy as np
import pyarrow as pa

from metering.calendar import compile_timeline
from metering.fact import Columns
from metering.pricebook import FAR_FUTURE_US, Meters, PriceBook
from metering.tariff import parse_tariff
from schemas.frame import ELECTRICAL, READINGS_SCHEMA, encode_frame

START_S = 1_793_491_200
"""2026-11-01T00:00:00Z: everything is dated within the tariff's month."""
STEP_S = 900
MODULUS_WH = 10**12

TARIFF = {
    "tariff_id": "bench",
    "currency": "CNY",
    "zone": "Asia/Shanghai",
    "versions": [
        {
            "valid_from": "2024-01-01",
            "windows": [
                {"period": "valley", "from": "00:00", "to": "08:00"},
                {"period": "peak", "from": "10:00", "to": "12:00"},
                {"period": "peak", "from": "14:00", "to": "19:00"},
            ],
            "rest": "flat",
            "prices": {"peak": "1.02896875", "flat": "0.60886875", "valley": "0.23676875"},
            "tiers": [{"up_to_kwh": 200, "adder": "0"}, {"up_to_kwh": 400, "adder": "0.05"}, {"adder": "0.30"}],
        }
    ],
}


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Meters numbered from 1, each read every STEP_S."""

    size: int
    seed: int = 1

    def rises_wh(self, rounds: int) -> np.ndarray:
        """Return the energy of each meter in each round, shape (rounds, size), Wh; an energy meter's usual 0 to 500."""
        return np.random.default_rng(self.seed).integers(0, 500, (rounds, self.size))


def make_prices() -> PriceBook:
    """Return the one tariff, time of use with tiers, compiled over two years."""
    tariff = parse_tariff(TARIFF)
    return PriceBook([tariff], [compile_timeline(tariff, dt.date(2025, 12, 1), dt.date(2027, 12, 1))])


def make_meters(size: int, prices: PriceBook) -> Meters:
    """Return master data of so many meters under that tariff."""
    rows = size + 1
    return Meters(
        meter_id=["", *(f"b-{number:07d}" for number in range(1, rows))],
        modulus_wh=np.full(rows, MODULUS_WH),
        rated_power_w=np.full(rows, 20_000),
        interval_s=np.full(rows, STEP_S),
        tariff_index=np.zeros(rows, np.int64),
        service_point_no=np.arange(rows),
        start_us=np.zeros(rows, np.int64),
        end_us=np.full(rows, FAR_FUTURE_US),
        irregular=np.zeros(rows, np.bool_),
        epochs={},
    )


def round_columns(meter_no: np.ndarray, import_wh: np.ndarray, number: int, *, electrical: bool = False) -> Columns:
    """Return one reading of each meter as columns of READINGS_SCHEMA, with the lineage of frame 0."""
    size = len(meter_no)
    read_at = (START_S + number * STEP_S) * 1_000_000
    columns: Columns = {
        "meter_no": meter_no.astype(np.int64),
        "seq": np.full(size, number, np.uint64),
        "boot_id": np.zeros(size, np.int64),
        "read_at": np.full(size, read_at, np.int64),
        "import_wh": import_wh.astype(np.int64),
        "export_wh": np.full(size, -1, np.int64),
        "import_varh": np.full(size, -1, np.int64),
        "export_varh": np.full(size, -1, np.int64),
        "interval_s": np.full(size, -1, np.int64),
        "status": np.zeros(size, np.int64),
        "refusal": np.zeros(size, np.int64),
        "raw_partition": np.zeros(size, np.int64),
        "raw_offset": np.zeros(size, np.int64),
        "raw_index": np.arange(size, dtype=np.int64),
        "received_at": np.full(size, read_at + 1_000_000, np.int64),
    }
    columns |= {name: np.full(size, np.nan, np.float32) for name in ELECTRICAL}
    if electrical:
        rng = np.random.default_rng(number)
        for phase in (1, 2, 3):
            columns[f"voltage_v{phase}"] = np.round(230 + rng.normal(0, 2, size), 1).astype(np.float32)
            columns[f"current_a{phase}"] = np.round(rng.gamma(2, 1.5, size), 2).astype(np.float32)
    return columns


def with_lineage(columns: Columns, offset: int, partition: int) -> Columns:
    """Return the columns as settlement takes them."""
    size = len(columns["read_at"])
    return {
        **columns,
        "frame_offset": np.full(size, offset, np.int64),
        "frame_partition": np.full(size, partition, np.int64),
    }


def frame_bytes(columns: Columns, gateway_id: str | None = None) -> bytes:
    """Return a readings frame of columns."""
    arrays = []
    for field in READINGS_SCHEMA:
        if field.name == "gateway_id":
            arrays.append(pa.array([gateway_id] * len(columns["read_at"]), pa.string()))
            continue
        values = columns[field.name]
        mask = np.isnan(values) if field.name in ELECTRICAL else values == -1 if field.nullable else None
        arrays.append(pa.array(values, field.type, mask=mask))
    return encode_frame(pa.RecordBatch.from_arrays(arrays, schema=READINGS_SCHEMA))
