"""The load of one meter on an even grid of instants, with what its local clock shows."""

import dataclasses
import datetime as dt

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DAY_S = 86_400
WEEK_S = 7 * DAY_S
INTERVALS_S = (900, 1800, 3600)
CELLS_MAX = 400_000
"""More than eleven years of quarters of an hour."""
ENERGY_MAX_WH = 10**11
THURSDAY = 3  # 1970-01-01, counted from Monday


class EstimateError(ValueError):
    """What was given cannot be estimated from; the message says why."""


@dataclasses.dataclass(frozen=True)
class Load:
    """Interval energy of one meter; only what is valid is ever a source."""

    start_s: int
    """Epoch s of the first interval."""
    interval_s: int
    energy_wh: Ints
    """Shape (cells,), Wh; of no meaning where not valid."""
    valid: Bools
    """Shape (cells,): measured and accepted. Estimates and suspects are not."""
    shown_s: Ints
    """Shape (cells,): what the local clock shows at the start, in s since 1970-01-01 of that clock."""
    first_shown: Ints
    """Sorted distinct `shown_s`."""
    first_cell: Ints
    """The first cell of each of `first_shown`."""

    @property
    def end_s(self) -> int:
        """Return where the last interval ends."""
        return self.start_s + len(self.energy_wh) * self.interval_s

    def slots_of_week(self, cells: Ints) -> Ints:
        """Return the interval of the local week, from Monday 00:00, of each cell."""
        return (self.shown_s[cells] + THURSDAY * DAY_S) % WEEK_S // self.interval_s

    def earlier(self, cells: Ints, weeks: int) -> tuple[Ints, Bools]:
        """Return the cells of the same local weekday and time some weeks before, and which are there and valid.

        An hour that comes twice has the first one as its source; an hour that did not come is no source.
        """
        wanted = self.shown_s[cells] - weeks * WEEK_S
        place = np.searchsorted(self.first_shown, wanted)
        place = np.minimum(place, len(self.first_shown) - 1)
        source = self.first_cell[place]
        return source, (self.first_shown[place] == wanted) & self.valid[source]


def load_of(start_s: int, interval_s: int, energy_wh: Ints, valid: Bools, zone: dt.tzinfo) -> Load:
    """Return a load on its grid.

    Raises:
        EstimateError: The grid or a value is out of bounds.
    """
    if interval_s not in INTERVALS_S:
        raise EstimateError(f"intervals of {interval_s} s; expected one of {', '.join(map(str, INTERVALS_S))}")
    if start_s % interval_s:
        raise EstimateError(f"the first interval starts at {start_s}, not at a multiple of {interval_s} s")
    if len(energy_wh) != len(valid) or not 1 <= len(energy_wh) <= CELLS_MAX:
        raise EstimateError(f"{len(energy_wh)} intervals and {len(valid)} marks; expected as many, 1 to {CELLS_MAX}")
    if (np.abs(energy_wh[valid]) > ENERGY_MAX_WH).any():
        raise EstimateError(f"an interval of more than {ENERGY_MAX_WH} Wh")
    at_s = start_s + np.arange(len(energy_wh), dtype=np.int64) * interval_s
    shown = at_s + _offsets_s(at_s, zone)
    first_shown, first_cell = np.unique(shown, return_index=True)
    return Load(start_s, interval_s, energy_wh, valid, shown, first_shown, first_cell.astype(np.int64))


def _offset_s(at_s: int, zone: dt.tzinfo) -> int:
    offset = dt.datetime.fromtimestamp(at_s, zone).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


def _offsets_s(at_s: Ints, zone: dt.tzinfo) -> Ints:
    """Return the offset of the local clock at each instant; a UTC day with the same at both ends has one."""
    days, place = np.unique(at_s // DAY_S, return_inverse=True)
    low = np.array([_offset_s(int(day) * DAY_S, zone) for day in days], np.int64)
    high = np.array([_offset_s((int(day) + 1) * DAY_S, zone) for day in days], np.int64)
    found = low[place]
    for cell in np.flatnonzero((low != high)[place]):
        found[cell] = _offset_s(int(at_s[cell]), zone)
    return found
