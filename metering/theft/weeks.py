"""Interval energy of meters as local weeks: Monday 00:00 to Monday 00:00, by what the local clock shows.

In the week of a clock change a slot that comes twice is averaged and one that does not come is filled, so that a habit keeps
its hour; nothing here is billed. Energy is for likeness and residuals, hence floats.
"""

import dataclasses
import datetime as dt
import zoneinfo

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY_S = 86_400
THURSDAY = 3  # 1970-01-01, counted from Monday
INTERVALS_S = (900, 1800, 3600)
WEEKS_MAX = 530
CELLS_MAX = 400_000_000
STEPS_WH = (1000, 100, 10, 1)
ON_STEP = 0.999
"""Share of cells that must be multiples of a step for it to be the register's resolution."""


class WeeksError(ValueError):
    """Readings cannot be laid out in weeks; the message says of which meter."""


@dataclasses.dataclass(frozen=True)
class Weeks:
    """Energy of meters on one grid of local weeks."""

    meter_ids: list[str]
    """Sorted."""
    monday: list[dt.date]
    """Of each week, consecutive."""
    zone: zoneinfo.ZoneInfo
    energy: Floats
    """Shape (meters, weeks, 7, slots), Wh; NaN where there is no reading; negative where energy was fed in."""
    step_wh: Floats
    """Shape (meters,), Wh: the resolution that the meter shows."""
    interval_s: int
    duplicates: int
    """Rows that repeated a meter and start; of two values the larger was taken."""

    @property
    def covered(self) -> Floats:
        """Return the share of each meter-week that has a reading, shape (meters, weeks)."""
        return np.isfinite(self.energy).mean((2, 3))

    def bounds(self, week: int) -> tuple[dt.datetime, dt.datetime]:
        """Return the local midnights at which a week starts and ends."""
        start = dt.datetime.combine(self.monday[week], dt.time(), self.zone)
        return start, dt.datetime.combine(self.monday[week] + dt.timedelta(days=7), dt.time(), self.zone)


def laid_out(meter_ids: list[str], meter: Ints, start_s: Ints, energy_wh: Ints, zone: zoneinfo.ZoneInfo) -> Weeks:
    """Return readings as weeks.

    Args:
        meter_ids: Names, sorted.
        meter: Index into the names of each reading, shape (n,), n > 0.
        start_s: Start of its interval, epoch s.
        energy_wh: Wh in it; negative is fed in.
        zone: Of the local clock.

    Raises:
        WeeksError: The interval of a meter is not one of INTERVALS_S, or the time spanned is too long.
    """
    order = np.lexsort((energy_wh, start_s, meter))
    meter, start_s, energy_wh = meter[order], start_s[order], energy_wh[order]
    last = np.ones(len(meter), np.bool_)
    last[:-1] = (np.diff(meter) != 0) | (np.diff(start_s) != 0)
    duplicates = int(len(last) - last.sum())
    meter, start_s, energy_wh = meter[last], start_s[last], energy_wh[last]
    interval_s = _intervals_s(meter_ids, meter, start_s)
    common_s = int(np.bincount(interval_s).argmax())
    day, second = _local(start_s, zone)
    first, end = (int(day.min()) + THURSDAY) // 7, (int(day.max()) + THURSDAY) // 7 + 1
    slots = DAY_S // common_s
    shape = (len(meter_ids), end - first, 7, slots)
    if end - first > WEEKS_MAX or np.prod(shape) > CELLS_MAX:
        raise WeeksError(f"{end - first} weeks of {len(meter_ids)} meters are too many: split the file")
    cell = ((meter * shape[1] * 7) + (day + THURSDAY - first * 7)) * slots + second // common_s
    energy = _summed(cell, energy_wh, interval_s[meter], common_s, int(np.prod(shape))).reshape(shape)
    monday = [dt.date(1970, 1, 1) + dt.timedelta(days=7 * week - THURSDAY) for week in range(first, end)]
    return Weeks(meter_ids, monday, zone, energy, _steps_wh(len(meter_ids), meter, energy_wh), common_s, duplicates)


def _intervals_s(meter_ids: list[str], meter: Ints, start_s: Ints) -> Ints:
    """Return the interval of each meter: the most frequent distance of its starts."""
    same = np.diff(meter) == 0
    gaps, of = np.diff(start_s)[same], meter[1:][same]
    found = np.zeros((len(meter_ids), len(INTERVALS_S)), np.int64)
    for k, interval_s in enumerate(INTERVALS_S):
        found[:, k] = np.bincount(of[gaps == interval_s], minlength=len(meter_ids))
    other = np.bincount(of, minlength=len(meter_ids)) - found.sum(1)
    odd = np.flatnonzero(other > found.max(1))
    if len(odd):
        raise WeeksError(
            f"meter {meter_ids[odd[0]]}: its readings are not 15, 30 or 60 min apart; the detector takes no others"
        )
    usual = found.sum(0).argmax()
    return np.array(INTERVALS_S)[np.where(found.any(1), found.argmax(1), usual)]


def _local(start_s: Ints, zone: zoneinfo.ZoneInfo) -> tuple[Ints, Ints]:
    """Return the local day (since 1970-01-01) and the second in it, as the local clock shows them."""
    quarter, place = np.unique(start_s // 900, return_inverse=True)
    offset_s = np.array(
        [
            int(dt.datetime.fromtimestamp(int(at) * 900, zone).utcoffset().total_seconds())  # type: ignore[union-attr]
            for at in quarter
        ],
        np.int64,
    )
    shown = start_s + offset_s[place]
    return shown // DAY_S, shown % DAY_S


def _summed(cell: Ints, energy_wh: Ints, interval_s: Ints, common_s: int, size: int) -> Floats:
    """Return the energy of each cell; a longer interval is spread evenly, a part of a cell stands for the whole."""
    total, weight = np.zeros(size), np.zeros(size)
    for own_s in np.unique(interval_s):
        mine = interval_s == own_s
        share, spread = min(1.0, own_s / common_s), max(1, int(own_s // common_s))
        for k in range(spread):
            place = np.minimum(cell[mine] + k, size - 1)
            total += np.bincount(place, energy_wh[mine] / spread, minlength=size)
            weight += np.bincount(place, minlength=size) * share
    with np.errstate(invalid="ignore"):
        return np.where(weight > 0, total / weight, np.nan)


def _steps_wh(meters: int, meter: Ints, energy_wh: Ints) -> Floats:
    """Return the resolution of each meter: the largest of STEPS_WH that nearly all its cells are multiples of."""
    count = np.maximum(np.bincount(meter, minlength=meters), 1)
    steps = np.ones(meters)
    for step in reversed(STEPS_WH):
        on = np.bincount(meter[energy_wh % step == 0], minlength=meters) / count
        steps[on >= ON_STEP] = step
    return steps


def filled(weeks: Weeks) -> Floats:
    """Return the energy with nothing missing or negative: a gap takes the mean of its slot in the other weeks."""
    energy = np.maximum(weeks.energy, 0)
    gap = ~np.isfinite(energy)
    if not gap.any():
        return energy
    for axes in ((1,), (1, 2)):
        there = np.isfinite(energy)
        count = there.sum(axes, keepdims=True)
        usual = np.where(there, energy, 0).sum(axes, keepdims=True) / np.maximum(count, 1)
        energy = np.where(there | (count == 0), energy, usual)
    return np.nan_to_num(energy)
