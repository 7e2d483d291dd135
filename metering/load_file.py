"""Loads and price series as CSV text."""

import csv
import datetime as dt
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

import numpy as np

from metering.calendar import US
from metering.pricing.indexed import Series
from metering.usage import REGISTERS, Load

ROWS_MAX = 3_000_000
FAULTS_MAX = 50
INTERVALS_MIN = (5, 60)


class LoadError(ValueError):
    """A file cannot be rated; `faults` lists ``line N, column: fault``."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def read_load(lines: Iterable[str]) -> Load:
    """Return the load of a CSV file.

    Args:
        lines: Of a file with a header: ``start`` (RFC 3339 with offset), ``import_wh``, and of REGISTERS what there is.
            Rows in any order; intervals of one length, which is the smallest distance of two starts.

    Raises:
        LoadError: With the faults of the file, at most FAULTS_MAX.
    """
    rows = csv.reader(lines)
    header = [name.strip().removeprefix("\ufeff") for name in next(rows, [])]
    faults = [f"line 1, {name}: column is missing" for name in ("start", "import_wh") if name not in header]
    known = {"start", *REGISTERS}
    faults += [
        f"line 1, {name}: unknown; known are start, {', '.join(REGISTERS)}" for name in header if name not in known
    ]
    if faults:
        raise LoadError(faults)
    columns = {name: header.index(name) for name in header}
    starts, values = _read_rows(rows, columns, faults)
    if not starts and not faults:
        faults.append("line 2: there is no interval")
    if faults:
        raise LoadError(faults[:FAULTS_MAX])
    return _sorted_load(np.array(starts, np.int64), {name: np.array(wh, np.int64) for name, wh in values.items()})


def _read_rows(
    rows: Iterable[list[str]], columns: dict[str, int], faults: list[str]
) -> tuple[list[int], dict[str, list[int]]]:
    starts: list[int] = []
    names = [name for name in columns if name != "start"]
    values: dict[str, list[int]] = {name: [] for name in names}
    places = [(values[name], name, columns[name]) for name in names]
    start_place = columns["start"]
    for line, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(columns):
            faults.append(f"line {line}: {len(row)} columns, the header has {len(columns)}")
        else:
            starts.append(_start_s(row[start_place], line, faults))
            for column, name, place in places:
                column.append(_whole(row[place], f"line {line}, {name}", faults))
        if len(faults) >= FAULTS_MAX or line > ROWS_MAX:
            faults.append(f"line {line}: no further, there are too many {'faults' if line <= ROWS_MAX else 'lines'}")
            break
    return starts, values


def _start_s(text: str, line: int, faults: list[str]) -> int:
    try:
        at = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        at = None  # type: ignore[assignment]
    if at is None or at.tzinfo is None:
        faults.append(f"line {line}, start: {text!r} is not a time with an offset, such as 2026-01-01T00:00:00+08:00")
        return 0
    if at.second or at.microsecond:
        faults.append(f"line {line}, start: {text!r} is not a whole minute")
    return int(at.timestamp())


def _whole(text: str, place: str, faults: list[str]) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**40:
        faults.append(f"{place}: {text!r} is not a whole number of Wh from 0 to 2^40")
        return 0
    return value


def _sorted_load(start_s: np.ndarray, values: dict[str, np.ndarray]) -> Load:
    order = np.argsort(start_s, kind="stable")
    start_s = start_s[order]
    steps = np.diff(start_s)
    if (steps == 0).any():
        at = dt.datetime.fromtimestamp(int(start_s[:-1][steps == 0][0]), dt.UTC)
        raise LoadError([f"start: {at.isoformat()} is there twice"])
    interval_s = int(steps.min()) if len(steps) else 3600
    low, high = (minutes * 60 for minutes in INTERVALS_MIN)
    if not low <= interval_s <= high:
        raise LoadError([f"start: intervals are {interval_s / 60:g} min; 5 to 60 are allowed"])
    if (steps % interval_s).any():
        at = dt.datetime.fromtimestamp(int(start_s[1:][steps % interval_s != 0][0]), dt.UTC)
        raise LoadError([f"start: {at.isoformat()} breaks the constant interval of {interval_s // 60} min"])
    return Load(start_s * US, interval_s, {name: column[order] for name, column in values.items()})


def read_series(lines: Iterable[str]) -> Series:
    """Return the price series of a CSV file with the columns ``start`` and ``price`` (currency per kWh).

    Raises:
        LoadError: With the faults of the file.
    """
    rows = csv.reader(lines)
    header = [name.strip().removeprefix("\ufeff") for name in next(rows, [])]
    if header[:2] != ["start", "price"]:
        raise LoadError(["line 1: the columns must be start,price"])
    faults: list[str] = []
    found: dict[int, Decimal] = {}
    for line, row in enumerate(rows, start=2):
        if not row:
            continue
        at = _start_s(row[0], line, faults)
        try:
            price = Decimal(row[1].strip())
        except (InvalidOperation, IndexError):
            price = Decimal("NaN")
        if not price.is_finite():
            faults.append(f"line {line}, price: {row[1:2]} is not a decimal")
        if at in found and not faults:
            faults.append(f"line {line}, start: {row[0]!r} is there twice")
        found[at] = price
        if len(faults) >= FAULTS_MAX or line > ROWS_MAX:
            break
    if faults:
        raise LoadError(faults)
    starts = sorted(found)
    return Series(np.array(starts, np.int64), [found[at] for at in starts])
