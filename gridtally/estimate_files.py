"""The files of `gridtally estimate` beside the readings: readings of registers, and columns of one meter on its grid."""

import csv
import gzip
import re
import zoneinfo
from pathlib import Path

import numpy as np

from gridtally.detect_files import DetectFileError, Readings, instant_s
from metering.estimation.load import CELLS_MAX, INTERVALS_S, EstimateError, Load, load_of

REGISTERS_HEADER = ["meter_id", "at", "register_wh"]
FILLED_HEADER = ["meter_id", "start", "energy_wh", "quality"]
REGISTER_ROWS_MAX = 10_000_000
REGISTER_MAX_WH = 10**15
_WHOLE = re.compile(r"[0-9]{1,16}")


def read_registers(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Return (epoch s, Wh) of the cumulative register by meter, of a CSV file, plain or gzip.

    Raises:
        DetectFileError: With the line.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    lines: dict[tuple[str, int], tuple[int, int]] = {}
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            if header != REGISTERS_HEADER:
                raise DetectFileError(
                    f"{path}: line 1: the header must be {','.join(REGISTERS_HEADER)}, it is {','.join(header)[:80]}"
                )
            for row in rows:
                if not row:
                    continue
                line = rows.line_num
                if len(lines) >= REGISTER_ROWS_MAX:
                    raise DetectFileError(f"{path}: more than {REGISTER_ROWS_MAX} rows; split it by meters")
                meter, at_s, wh = _register(path, line, row)
                before = lines.setdefault((meter, at_s), (line, wh))
                if before[1] != wh:
                    raise DetectFileError(
                        f"{path}: line {line}: {meter} has {wh} Wh, but {before[1]} Wh at the same instant in line {before[0]}"
                    )
                if before[0] == line:
                    found.setdefault(meter, []).append((at_s, wh))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DetectFileError(f"{path}: {error}") from error
    return found


def _register(path: Path, line: int, row: list[str]) -> tuple[str, int, int]:
    if len(row) != len(REGISTERS_HEADER) or not row[0].strip():
        raise DetectFileError(f"{path}: line {line}: expected {','.join(REGISTERS_HEADER)}")
    meter, at, wh = (cell.strip() for cell in row)
    at_s = instant_s(at)
    if at_s < 0:
        raise DetectFileError(
            f"{path}: line {line}, column at: {at[:40]!r} is not an instant with an offset, like 2026-03-01T00:15:00+01:00, "
            "nor epoch seconds"
        )
    if not _WHOLE.fullmatch(wh) or int(wh) > REGISTER_MAX_WH:
        raise DetectFileError(
            f"{path}: line {line}, column register_wh: {wh[:40]!r} is not a whole number of Wh, 0 to {REGISTER_MAX_WH}"
        )
    return meter, at_s, int(wh)


def load_of_meter(rows: Readings, mine: slice, name: str, zone: zoneinfo.ZoneInfo) -> tuple[Load, int]:
    """Return one meter on its grid, and how many of its rows repeat a start: of two values the larger counts.

    Args:
        rows: Sorted by meter and start.
        mine: The rows of the meter.
        name: Of the meter.
        zone: Of its local days.

    Raises:
        EstimateError: Its starts are on no grid of 15, 30 or 60 min.
    """
    start_s, energy_wh = rows.start_s[mine], rows.energy_wh[mine]
    apart = np.diff(start_s)
    least = int(apart[apart > 0].min()) if (apart > 0).any() else 0
    interval_s = next((one for one in reversed(INTERVALS_S) if least and least % one == 0), 0)
    off = np.flatnonzero(start_s % interval_s) if interval_s else np.arange(1)
    if not interval_s or len(off):
        raise EstimateError(
            f"meter {name}: starts are {least} s apart at least, and {start_s[off[0]]} is on no grid of 15, 30 or 60 min"
            if least
            else f"meter {name}: a single interval says nothing of its length"
        )
    cells = (start_s - start_s[0]) // interval_s
    count = int(cells[-1]) + 1
    if count > CELLS_MAX:
        raise EstimateError(f"meter {name}: {count} intervals from its first to its last; at most {CELLS_MAX}")
    energy, valid = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    energy[cells], valid[cells] = energy_wh, True  # sorted by energy too: the larger is the last
    return load_of(int(start_s[0]), interval_s, energy, valid, zone), len(cells) - int(valid.sum())
