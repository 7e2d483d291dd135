"""Files of interval energy: a row of quarter-hours for each meter, or a row for each interval; gzip or not.

Wide: ``meter,q0000,q0001,…``, Wh per 15 minutes, without dates. Long: ``meter_id,start,energy_wh``, with `start` as RFC 3339
text with an offset or epoch seconds. A cell that is empty is missing; one that is no whole number is an error that names
its line and column.
"""

import csv
import dataclasses
import datetime as dt
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WIDE_INTERVAL_S = 900
WIDE_NAME = "meter"
LONG_HEADER = ["meter_id", "start", "energy_wh"]
CELLS_MAX = 20_000_000
CELL_WH_MAX = 10**11
"""In one interval; no service carries it, and sums of CELLS_MAX of them fit 64 bits."""
CELL_TEXT_MAX = 40
TEXT_BYTES_MAX = 1024**3
GZIP_MAGIC = b"\x1f\x8b"
_DIGITS = frozenset("-0123456789")

Int64Matrix = NDArray[np.int64]
BoolMatrix = NDArray[np.bool_]


class IntervalFileError(ValueError):
    """The file cannot be taken; the message names line and column."""


@dataclasses.dataclass(frozen=True)
class IntervalFile:
    """Energy of meters in consecutive intervals."""

    names: list[str]
    """Of the meters, as the file has them, in its order."""
    interval_s: int
    start_s: int | None
    """Start of the first interval, epoch s; None where the file has no dates."""
    cells_wh: Int64Matrix
    """Shape (meters, intervals), Wh; negative is fed in; 0 where missing."""
    present: BoolMatrix
    """Shape (meters, intervals)."""
    digest: str
    """SHA-256 of the file's bytes."""

    @property
    def days(self) -> float:
        """Return how long the file is, days."""
        return self.cells_wh.shape[1] * self.interval_s / 86_400


def read_interval_file(path: Path) -> IntervalFile:
    """Return the energy in a file of either shape.

    Raises:
        IntervalFileError: It cannot be read, or is not of such a shape; with line and column.
    """
    try:
        data = path.read_bytes()
        raw = gzip.GzipFile(fileobj=io.BytesIO(data)).read(TEXT_BYTES_MAX + 1) if data[:2] == GZIP_MAGIC else data
        text = raw[: TEXT_BYTES_MAX + 1].decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise IntervalFileError(f"{path}: {error}") from error
    if len(raw) > TEXT_BYTES_MAX:
        raise IntervalFileError(f"{path}: more than {TEXT_BYTES_MAX} bytes of text; split it by meters")
    digest = hashlib.sha256(data).hexdigest()
    rows = _rows(path, text)
    _, header = next(rows, (1, []))
    if header == LONG_HEADER:
        return _from_long(path, rows, digest)
    if header[:1] == [WIDE_NAME] and header[1:] == [f"q{number:04d}" for number in range(len(header) - 1)]:
        return _from_wide(path, rows, header, digest)
    raise IntervalFileError(
        f"{path}: line 1: the header must be {','.join(LONG_HEADER)}, or {WIDE_NAME},q0000,q0001,…;"
        f" it is {','.join(header)[:CELL_TEXT_MAX]!r}"
    )


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each line that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise IntervalFileError(f"{path}: line {reader.line_num}: {error}") from error


def _from_wide(path: Path, rows: Iterator[tuple[int, list[str]]], header: list[str], digest: str) -> IntervalFile:
    width = len(header) - 1
    lines: dict[str, int] = {}
    cells: list[NDArray[np.int64]] = []
    present: list[NDArray[np.bool_]] = []
    for line, row in rows:
        name = row[0].strip()
        if len(row) != width + 1:
            raise IntervalFileError(f"{path}: line {line}: {len(row)} columns, the header has {width + 1}")
        if not name or name in lines:
            fault = f"{name} is in line {lines[name]} already" if name else "no name"
            raise IntervalFileError(f"{path}: line {line}, column {WIDE_NAME}: {fault}")
        lines[name] = line
        if len(lines) * width > CELLS_MAX:
            raise IntervalFileError(f"{path}: line {line}: more than {CELLS_MAX} cells")
        energy_wh, there = _cells(path, line, row[1:], header[1:])
        cells.append(energy_wh)
        present.append(there)
    if not cells or not width:
        raise IntervalFileError(f"{path}: no meters" if not cells else f"{path}: no intervals")
    return IntervalFile(list(lines), WIDE_INTERVAL_S, None, np.stack(cells), np.stack(present), digest)


def _cells(path: Path, line: int, texts: list[str], columns: list[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return energy and presence of the cells of one line."""
    if set().union(*texts) <= _DIGITS and all(texts):  # nearly always: no look at single cells
        try:
            values = np.array(list(map(int, texts)))
        except ValueError:
            pass
        else:
            if values.dtype == np.int64 and values.min() >= -CELL_WH_MAX and values.max() <= CELL_WH_MAX:
                return values, np.ones(len(texts), np.bool_)
    found = [_cell(path, line, text, column) for text, column in zip(texts, columns, strict=True)]
    values = np.array([0 if value is None else value for value in found], np.int64)
    return values, np.array([value is not None for value in found])


def _cell(path: Path, line: int, text: str, column: str) -> int | None:
    """Return the Wh of one cell, or None when it is missing."""
    plain = text.strip()
    if not plain:
        return None
    digits = plain.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= len(str(CELL_WH_MAX)) and int(digits) <= CELL_WH_MAX:
        return int(plain)
    raise IntervalFileError(
        f"{path}: line {line}, column {column}: {plain[:CELL_TEXT_MAX]!r} is not a whole number of Wh"
        f" up to {CELL_WH_MAX}"
    )


def _from_long(path: Path, rows: Iterator[tuple[int, list[str]]], digest: str) -> IntervalFile:
    numbers: dict[str, int] = {}
    starts: dict[str, int] = {}
    meter, start_s, energy_wh, there, lines = [], [], [], [], []
    for line, row in rows:
        if len(row) != len(LONG_HEADER):
            raise IntervalFileError(f"{path}: line {line}: {len(row)} columns, the header has {len(LONG_HEADER)}")
        name, start, text = (cell.strip() for cell in row)
        if not name:
            raise IntervalFileError(f"{path}: line {line}, column meter_id: no name")
        if start not in starts:
            starts[start] = _instant_s(path, line, start)
        value = _cell(path, line, text, LONG_HEADER[2])
        meter.append(numbers.setdefault(name, len(numbers)))
        start_s.append(starts[start])
        energy_wh.append(value or 0)
        there.append(value is not None)
        lines.append(line)
        if len(lines) > CELLS_MAX:
            raise IntervalFileError(f"{path}: line {line}: more than {CELLS_MAX} cells")
    if not lines:
        raise IntervalFileError(f"{path}: no meters")
    at = np.array(start_s, np.int64)
    interval_s, first_s = _interval_s(path, at, lines), int(at.min())
    width = (int(at.max()) - first_s) // interval_s + 1
    if width * len(numbers) > CELLS_MAX:
        raise IntervalFileError(f"{path}: {len(numbers)} meters with {width} intervals are more than {CELLS_MAX} cells")
    place = np.array(meter, np.int64) * width + (at - first_s) // interval_s
    _refuse_repeated(path, place, lines)
    cells_wh = np.zeros(len(numbers) * width, np.int64)
    present = np.zeros(len(numbers) * width, np.bool_)
    cells_wh[place] = energy_wh
    present[place] = there
    shape = len(numbers), width
    return IntervalFile(list(numbers), interval_s, first_s, cells_wh.reshape(shape), present.reshape(shape), digest)


def _instant_s(path: Path, line: int, text: str) -> int:
    """Return a start as epoch s."""
    if text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at.microsecond or at.year < 1970:
        raise IntervalFileError(
            f"{path}: line {line}, column start: {text[:CELL_TEXT_MAX]!r} is not an instant with an offset,"
            " like 2026-03-01T00:15:00+01:00, nor epoch seconds"
        )
    return int(at.timestamp())


def _interval_s(path: Path, start_s: NDArray[np.int64], lines: list[int]) -> int:
    """Return the one interval of a long file: the smallest step between its starts, which all others must fit."""
    distinct = np.unique(start_s)
    interval_s = int(np.diff(distinct).min()) if len(distinct) > 1 else WIDE_INTERVAL_S
    if not 1 <= interval_s <= 86_400:
        raise IntervalFileError(f"{path}: intervals of {interval_s} s; 1 s to a day can be")
    off = np.flatnonzero((start_s - distinct[0]) % interval_s)
    if len(off):
        raise IntervalFileError(
            f"{path}: line {lines[int(off[0])]}, column start: not a multiple of {interval_s} s from the first start"
        )
    return interval_s


def _refuse_repeated(path: Path, place: NDArray[np.int64], lines: list[int]) -> None:
    order = np.argsort(place, kind="stable")
    again = np.flatnonzero(place[order][1:] == place[order][:-1])
    if len(again):
        first, second = (lines[int(order[int(again[0]) + step])] for step in (0, 1))
        raise IntervalFileError(f"{path}: line {second}: that meter and start are in line {first} already")
