"""Interval energy made into what meters show: cumulative registers, numbered readings. Pure."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from connectors.interval_file import BoolMatrix, Int64Matrix

FROZEN_CELLS = 16
"""The same energy, not 0, in so many intervals one after another (four hours of quarter-hours) is called frozen."""
ZERO_CELLS = 96
"""No energy in so many intervals one after another (a day of quarter-hours) is called a zero run."""


@dataclasses.dataclass(frozen=True)
class Registers:
    """Readings of meters at the borders of intervals; every matrix has shape (meters, intervals + 1).

    Column k is the end of interval k - 1. The first reading of a meter lies at the start of its first interval that is
    not missing, with registers at 0.
    """

    import_wh: Int64Matrix
    export_wh: Int64Matrix
    made: BoolMatrix
    """Whether the meter made a reading there; it makes none at the end of a missing interval."""
    seq: NDArray[np.int32]
    """Number of the newest reading up to there, from 0; -1 before the first."""

    def until(self, borders: int) -> "Registers":
        """Return the readings of the first `borders` columns."""
        return Registers(*(getattr(self, field.name)[:, :borders] for field in dataclasses.fields(self)))


def registers_from_cells(cells_wh: Int64Matrix, present: BoolMatrix) -> Registers:
    """Return the registers that count what the cells say.

    Positive energy advances the import register, negative energy the export register; the other stands still. A missing
    cell makes no reading: the reading after it ends an interval that is longer, with the energy of its own cell.

    Args:
        cells_wh: Shape (meters, intervals), Wh.
        present: Same shape; what the missing cells hold does not matter.
    """
    meters, width = cells_wh.shape
    known = np.where(present, cells_wh, 0)
    import_wh = np.zeros((meters, width + 1), np.int64)
    export_wh = np.zeros((meters, width + 1), np.int64)
    np.cumsum(np.maximum(known, 0), axis=1, out=import_wh[:, 1:])
    np.cumsum(np.maximum(-known, 0), axis=1, out=export_wh[:, 1:])
    made = np.zeros((meters, width + 1), np.bool_)
    made[:, 1:] = present
    read = np.flatnonzero(present.any(axis=1))
    made[read, present[read].argmax(axis=1)] = True
    seq = np.cumsum(made, axis=1, dtype=np.int32) - np.int32(1)
    return Registers(import_wh, export_wh, made, seq)


def odd_words(cells_wh: NDArray[np.int64], present: NDArray[np.bool_]) -> list[str]:
    """Return in words what is odd about the intervals of one meter; nothing for most.

    Args:
        cells_wh: Shape (intervals,), Wh.
        present: Same shape.
    """
    missing = int(np.count_nonzero(~present))
    if missing == len(present):
        return ["no cell at all"]
    words = [f"{missing} missing cells"] if missing else []
    fed_in = int(np.count_nonzero(cells_wh[present] < 0))
    if fed_in:
        words.append(f"{fed_in} negative cells")
    if not cells_wh[present].any():
        return [*words, "all zero"]
    length, value = _runs(cells_wh, present)
    frozen = int(length[value != 0].max(initial=0))
    zero = int(length[value == 0].max(initial=0))
    words += [f"frozen for {frozen} cells"] if frozen >= FROZEN_CELLS else []
    words += [f"zero for {zero} cells"] if zero >= ZERO_CELLS else []
    return words


def _runs(cells_wh: NDArray[np.int64], present: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return length and value of each run of present cells with one value."""
    new = np.ones(len(cells_wh), np.bool_)
    new[1:] = (cells_wh[1:] != cells_wh[:-1]) | (present[1:] != present[:-1])
    first = np.flatnonzero(new)
    length = np.diff(np.append(first, len(cells_wh)))
    kept = present[first]
    return length[kept], cells_wh[first][kept]
