"""Readings as msgspec decodes them, made columns attribute by attribute, and columns made frames."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from metering.fact import Columns
from metering.state import Int64Column
from schemas.frame import ELECTRICAL, READINGS_SCHEMA
from schemas.message import EPOCH_S_MAX, SEQ_MAX, Reading, instant_us

NO_INSTANT = -1


def instants_us(values: Sequence[Any]) -> Int64Column:
    """Return instants as epoch µs, NO_INSTANT for what no clock can show; integers, the usual form, at once."""
    if {*map(type, values)} == {int}:
        try:
            seconds = np.array(values, np.int64)
        except OverflowError:
            pass
        else:
            return np.where((seconds >= 0) & (seconds <= EPOCH_S_MAX), seconds, 0) * 1_000_000 + np.where(
                (seconds >= 0) & (seconds <= EPOCH_S_MAX), 0, NO_INSTANT
            )
    each = (instant_us(value) for value in values)
    return np.array([NO_INSTANT if value is None else value for value in each], np.int64)


def fits_seq(seqs: list[int]) -> NDArray[np.bool_]:
    """Return which numbers fit 64 bits without a sign, shape (n,)."""
    try:
        np.array(seqs, np.uint64)
    except OverflowError:
        return np.array([seq <= SEQ_MAX for seq in seqs], np.bool_)
    return np.ones(len(seqs), np.bool_)


def item_columns(items: Sequence[Reading]) -> Columns:
    """Return what readings say as columns of one length, nulls as -1 or NaN."""
    columns: Columns = {
        "seq": np.array([item.seq for item in items], np.uint64),
        "boot_id": np.array([item.boot_id for item in items], np.int64),
        "import_wh": np.array([item.import_wh for item in items], np.int64),
        "export_wh": _whole([item.export_wh for item in items]),
        "import_varh": _whole([item.import_varh for item in items]),
        "export_varh": _whole([item.export_varh for item in items]),
        "interval_s": _whole([item.interval_s for item in items]),
        "power_w": _real([item.power_w for item in items]),
        "frequency_hz": _real([item.frequency_hz for item in items]),
    }
    columns |= _phase_columns("voltage_v", [item.voltage_v for item in items])
    return columns | _phase_columns("current_a", [item.current_a for item in items])


def _whole(values: list[int | None]) -> Int64Column:
    missing = values.count(None)
    if missing == len(values):
        return np.full(len(values), -1, np.int64)
    return np.array(values if not missing else [-1 if value is None else value for value in values], np.int64)


def _real(values: Iterable[Any]) -> NDArray[np.float32]:
    """Return numbers as float32, None as NaN; what float32 cannot hold is infinite, and refused later."""
    with np.errstate(over="ignore"):
        return np.array(list(values), np.float64).astype(np.float32)


def _phase_columns(name: str, values: list[Any]) -> Columns:
    size = len(values)
    if values.count(None) == size:
        return {f"{name}{phase}": np.full(size, np.nan, np.float32) for phase in (1, 2, 3)}
    if list not in {*map(type, values)}:
        rest = {f"{name}{phase}": np.full(size, np.nan, np.float32) for phase in (2, 3)}
        return {f"{name}1": _real(values), **rest}
    phases = [_phases(value) for value in values]
    return {f"{name}{phase + 1}": _real(each[phase] for each in phases) for phase in range(3)}


def _phases(value: float | list[float] | None) -> Sequence[float | None]:
    values: list[Any] = value if isinstance(value, list) else [value]
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
