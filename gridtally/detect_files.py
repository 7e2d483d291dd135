"""The files of `gridtally detect scan`: readings and network in, scores and alarms out."""

import csv
import dataclasses
import datetime as dt
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

READINGS_HEADER = ["meter_id", "start", "energy_wh"]
NETWORK_HEADER = ["meter_id", "parent_id"]
SCORES_HEADER = ["meter_id", "window_start", "window_end", "score", "reason"]
ALARMS_HEADER = ["subject_id", "kind", "raised_at", "cleared_at", "detail"]
ROWS_MAX = 100_000_000
ENERGY_MAX_WH = 10**11
"""In one interval; no service carries it."""
_ZONED = re.compile(r"(Z|[+-]\d\d:?\d\d)$", re.IGNORECASE)


class DetectFileError(ValueError):
    """A file cannot be taken; the message names the line and what to do."""


@dataclasses.dataclass(frozen=True)
class Readings:
    """Columns of a file of readings."""

    meter_ids: list[str]
    """Sorted."""
    meter: NDArray[np.int64]
    start_s: NDArray[np.int64]
    energy_wh: NDArray[np.int64]
    empty: int
    """Rows without energy: the interval is missing."""


def read_readings(path: Path) -> Readings:
    """Return the readings of a CSV file, plain or gzip, in any order of rows.

    `start` has an offset, or is epoch seconds; `energy_wh` is a whole number, negative where energy was fed in, or empty.

    Raises:
        DetectFileError: With the line.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names, starts, energies, read, empty = [], [], [], 0, 0
    codes: dict[str, int] = {}
    for batch in _batches(path):
        line = read + 2
        read += batch.num_rows
        if read > ROWS_MAX:
            raise DetectFileError(f"{path}: more than {ROWS_MAX} rows; split it by meters")
        name = batch.column(0).dictionary_encode() if batch.num_rows else batch.column(0)
        if batch.num_rows == 0:
            continue
        words = [word.strip() for word in name.dictionary.to_pylist()]
        place = np.array([codes.setdefault(word, len(codes)) for word in words], np.int64)
        index = name.indices.to_numpy(zero_copy_only=False)
        if "" in words:
            _refuse(path, line, np.array([not word for word in words])[index], "meter_id", "there is no name")
        energy_wh, given = _energy(path, line, batch.column(2))
        start_s = _starts(path, line, batch.column(1), pa, pc)
        empty += int((~given).sum())
        names.append(place[index][given])
        starts.append(start_s[given])
        energies.append(energy_wh[given])
    if not names or not sum(map(len, names)):
        raise DetectFileError(f"{path}: there are no readings")
    ordered = sorted(codes)
    rank = np.empty(len(codes), np.int64)
    rank[[codes[name] for name in ordered]] = np.arange(len(ordered))
    return Readings(ordered, rank[np.concatenate(names)], np.concatenate(starts), np.concatenate(energies), empty)


def _batches(path: Path) -> Iterable[Any]:
    """Yield the rows as batches of text columns."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    faults: list[str] = []

    def odd_row(row: Any) -> str:
        faults.append(f"{path}: line {row.number}: {row.actual_columns} columns, the header has {row.expected_columns}")
        return "skip"  # told below: an error from here leaves a thread of the reader behind

    try:
        reader = arrow_csv.open_csv(
            path,
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=8 << 20),
            parse_options=arrow_csv.ParseOptions(invalid_row_handler=odd_row),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(READINGS_HEADER, pa.string()), strings_can_be_null=False
            ),
        )
        header = [name.strip().removeprefix("\ufeff") for name in reader.schema.names]
        if header != READINGS_HEADER:
            raise DetectFileError(
                f"{path}: line 1: the header must be {','.join(READINGS_HEADER)}, it is {','.join(header)[:80]}"
            )
        for batch in reader:
            if faults:
                break
            yield batch
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError, UnicodeDecodeError) as error:
        raise DetectFileError(f"{path}: {str(error).splitlines()[0][:200]}") from error
    if faults:
        raise DetectFileError(faults[0])


def _refuse(path: Path, line: int, wrong: NDArray[np.bool_], column: str, fault: str, texts: Any = None) -> None:
    """Raise for the first row that is wrong."""
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong)[0])
    shown = f"{texts[row].as_py()[:40]!r} " if texts is not None else ""
    raise DetectFileError(f"{path}: line {line + row}, column {column}: {shown}{fault}")


def _energy(path: Path, line: int, column: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return whole Wh, and which are given."""
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(column)
    given = pc.not_equal(text, "")
    whole = pc.match_substring_regex(text, r"^-?[0-9]{1,12}(\.0+)?$")
    wrong = pc.and_(given, pc.invert(whole)).to_numpy(zero_copy_only=False)
    _refuse(path, line, wrong, "energy_wh", "is not a whole number of Wh", column)
    digits = pc.replace_substring_regex(pc.if_else(given, text, "0"), r"\.0+$", "")
    energy_wh = digits.cast("int64").to_numpy(zero_copy_only=False)
    _refuse(path, line, np.abs(energy_wh) > ENERGY_MAX_WH, "energy_wh", f"is more than {ENERGY_MAX_WH} Wh", column)
    return energy_wh, given.to_numpy(zero_copy_only=False)


def _starts(path: Path, line: int, column: Any, pa: Any, pc: Any) -> NDArray[np.int64]:
    """Return starts as epoch s; each text is looked at once."""
    coded = pc.utf8_trim_whitespace(column).dictionary_encode()
    found = np.array([instant_s(text) for text in coded.dictionary.to_pylist()], np.int64)
    index = coded.indices.to_numpy(zero_copy_only=False)
    fault = "is not an instant with an offset, like 2026-03-01T00:15:00+01:00, nor epoch seconds"
    _refuse(path, line, (found < 0)[index], "start", fault, column)
    _refuse(path, line, (found % 900 != 0)[index], "start", "is not at a quarter of an hour", column)
    return found[index]


def instant_s(text: str) -> int:
    """Return epoch s; -1 where it is no instant."""
    if text.isascii() and text.isdigit() and 1 <= len(text) <= 10:
        return int(text)
    if not _ZONED.search(text):
        return -1
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        return -1
    return int(at.timestamp()) if at.tzinfo is not None and not at.microsecond and 1970 <= at.year < 2200 else -1


@dataclasses.dataclass(frozen=True)
class Network:
    """Which meter hangs on which parent."""

    parent_of: dict[str, str]
    two_parents: dict[str, list[str]]
    """Meters of which the file says more than one parent; they are in no balance."""


def read_network(path: Path) -> Network:
    """Return the network of a CSV file; a parent in the first column with an empty second has no parent itself.

    Raises:
        DetectFileError: With the line.
    """
    found: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            if header != NETWORK_HEADER:
                raise DetectFileError(
                    f"{path}: line 1: the header must be {','.join(NETWORK_HEADER)}, it is {','.join(header)[:80]}"
                )
            for row in rows:
                if not row:
                    continue
                if len(row) != 2 or not row[0].strip():
                    raise DetectFileError(f"{path}: line {rows.line_num}: expected meter_id,parent_id")
                meter, parent = row[0].strip(), row[1].strip()
                if meter == parent:
                    raise DetectFileError(f"{path}: line {rows.line_num}: {meter} is its own parent")
                if parent and parent not in found.setdefault(meter, []):
                    found[meter].append(parent)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DetectFileError(f"{path}: {error}") from error
    return Network(
        {meter: parents[0] for meter, parents in found.items() if len(parents) == 1},
        {meter: sorted(parents) for meter, parents in found.items() if len(parents) > 1},
    )


def write_rows(path: Path, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file; it is there whole or not at all.

    Raises:
        DetectFileError: It cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
        part.replace(path)
    except OSError as error:
        raise DetectFileError(f"{path}: {error}") from error
