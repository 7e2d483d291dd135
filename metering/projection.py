"""The rest of a running cycle: what is expected by quarter-hour, and between what bounds, from the own past. Pure.

Method (docs/projection.md has its errors):

1. Level: half the mean day of the last three weeks, half that of the last days (half-life HALF_LIFE_DAYS), both without the
   weekdays' share. A day of more than CLIP times the usual one counts as that.
2. Weekday: its share of its own week, mean of the last six weeks, drawn towards 1 as by WEEKDAY_PRIOR_DAYS of a day more.
3. Shape of a day: that of a real past day of the same weekday, the newest for the first week ahead, the one before for the
   second, and so on, brought to the expected energy. A mean shape would lose the peaks that demand is charged by.
4. Range: 8 times in 10 between. The logarithm of the remaining energy spreads by the drift of the level, a random walk of
   DRIFT_A_DAY, and by NOISE_SHARE of the own day-to-day noise; nothing is drawn by chance.
5. With less than a week of whole days weekday and shape are the class's; without a whole day the level is too.
"""

import dataclasses
import datetime as dt

import numpy as np
from numpy.typing import NDArray

from metering.calendar import US
from metering.profile import QUARTER_S, QUARTERS_A_DAY
from metering.state import Int64Column
from metering.usage import Load

PAST_DAYS = 42
LEVEL_DAYS = 21
CLIP_DAYS = 28
HALF_LIFE_DAYS = 2.0
CLIP = 3.0
WEEKDAY_PRIOR_DAYS = 0.5
WEEKDAY_MAX = 3.0
OWN_DAYS_MIN = 7
SCALE_MAX = 4.0
"""How far a past day is stretched before the mean shape is taken instead."""
NORMAL_80 = 1.2816
"""Eight in ten of a normal distribution lie within so many standard deviations."""
DRIFT_A_DAY = 0.046
"""Standard deviation of the log of the level after a day; after n days times the root of n."""
NOISE_SHARE = 0.7
CLASS_SPREAD = 0.9
"""Standard deviation of log energy of an account known by its class alone: customers of one class differ that much."""
NEW_SPREAD = 0.4
"""The same after a single own day; it goes down to what OWN_DAYS_MIN days show."""
NOISE_MAX = 1.0
MONDAY_1970 = 3
"""1970-01-01 was a Thursday."""

Column = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Past:
    """Whole local days of some accounts, consecutive up to the day under way; energies are of one register."""

    end_day: int
    """The day under way, counted from 1970-01-01; the last whole one is the day before."""
    energy: NDArray[np.float64]
    """Shape (n, days, 96), Wh by quarter-hours of the local clock."""
    known: NDArray[np.bool_]
    """Shape (n, days), whether the day is covered by readings."""


@dataclasses.dataclass(frozen=True)
class Ahead:
    """Expected energy of the quarter-hours to come, whole Wh, shape (n, quarters)."""

    low_wh: Int64Column
    middle_wh: Int64Column
    high_wh: Int64Column
    own_days: Int64Column
    """Shape (n,), whole days of the own past that it is based on; below OWN_DAYS_MIN the class's shape was used."""


@dataclasses.dataclass(frozen=True)
class _Level:
    day: Column
    """Shape (n,), energy of a day without weekday, Wh."""
    weekday: Column
    """Shape (n, 7), factors with mean 1, Monday first."""
    noise: Column
    """Shape (n,), standard deviation of one day as a share of the level."""


def project(past: Past, day: Int64Column, quarter: Int64Column, class_week: Column | None = None) -> Ahead:
    """Return what is expected in the quarter-hours to come.

    Args:
        past: Whole days before.
        day: Shape (q,), local day of each quarter-hour to come since 1970-01-01, ascending.
        quarter: Shape (q,), 0 to 95 by the local clock; an hour that comes twice has its quarters twice.
        class_week: Shape (7, 96), Wh of an account of the class, Monday first; None is a flat one of unknown level.
    """
    past = Past(past.end_day, np.maximum(past.energy[:, -PAST_DAYS:], 0.0), past.known[:, -PAST_DAYS:])
    accounts = past.energy.shape[0]
    own_days = past.known.sum(axis=1).astype(np.int64)
    if not len(day):
        nothing = np.zeros((accounts, 0), np.int64)
        return Ahead(nothing, nothing, nothing, own_days)
    remaining_days = len(day) / QUARTERS_A_DAY
    week = np.ones((7, QUARTERS_A_DAY)) if class_week is None else np.maximum(class_week, 0.0)
    level = _level_of(past, week, has_class=class_week is not None)
    days, place = np.unique(day, return_inverse=True)
    shape = _shapes(past, days, level, week)
    factor = level.weekday[:, weekday_of(days)] * level.day[:, None]
    middle = (shape * factor[:, :, None])[:, place, quarter]
    spread = np.exp(NORMAL_80 * _spread(level, own_days, remaining_days))[:, None]
    return Ahead(_whole(middle / spread), _whole(middle), _whole(middle * spread), own_days)


def weekday_of(day: Int64Column) -> Int64Column:
    """Return the weekday of days since 1970-01-01, 0 is Monday.

    Example:
        >>> weekday_of(np.array([0, 4])).tolist()  # a Thursday, a Monday
        [3, 0]
    """
    return (day + MONDAY_1970) % 7


def _past_days(past: Past) -> Int64Column:
    count = past.known.shape[1]
    return np.arange(past.end_day - count, past.end_day)


def _level_of(past: Past, week: Column, *, has_class: bool) -> _Level:
    energy = np.where(past.known, past.energy.sum(axis=2), 0.0)
    known = past.known.astype(np.float64)
    own_days = known.sum(axis=1)
    weekdays = weekday_of(_past_days(past))
    class_day = week.sum(axis=1)
    class_factor = class_day / class_day.mean() if class_day.any() else np.ones(7)
    factor = _weekday_factors(energy, known, weekdays)
    factor = np.where((own_days < OWN_DAYS_MIN)[:, None], class_factor, factor)
    plain = energy / np.maximum(factor[:, weekdays], 0.05)
    plain = np.minimum(plain, CLIP * _usual(plain, past.known)[:, None])
    steady = _mean(plain[:, -LEVEL_DAYS:], known[:, -LEVEL_DAYS:])
    age = np.arange(known.shape[1] - 1, -1, -1)
    recent = _mean(plain, known * 0.5 ** (age / HALF_LIFE_DAYS))
    level = (steady + recent) / 2
    level = np.where(own_days > 0, level, class_day.mean() if has_class else 0.0)
    return _Level(level, factor, _noise(plain[:, -CLIP_DAYS:], past.known[:, -CLIP_DAYS:]))


def _mean(values: Column, weight: Column) -> Column:
    """Return weighted means of rows; 0 where nothing has weight."""
    total = weight.sum(axis=1)
    return np.where(total > 0, (values * weight).sum(axis=1) / np.where(total > 0, total, 1.0), 0.0)


def _weekday_factors(energy: Column, known: Column, weekdays: Int64Column) -> Column:
    share = np.ones_like(energy)
    for end in range(energy.shape[1], 0, -7):
        block = slice(max(end - 7, 0), end)
        mean = _mean(energy[:, block], known[:, block])[:, None]
        share[:, block] = np.where(mean > 0, energy[:, block] / np.where(mean > 0, mean, 1.0), 1.0)
    share = np.minimum(share, WEEKDAY_MAX)
    factors = np.ones((energy.shape[0], 7))
    for weekday in range(7):
        here = weekdays == weekday
        count = known[:, here].sum(axis=1)
        factors[:, weekday] = ((share * known)[:, here].sum(axis=1) + WEEKDAY_PRIOR_DAYS) / (count + WEEKDAY_PRIOR_DAYS)
    return factors / factors.mean(axis=1, keepdims=True)


def _usual(values: Column, known: NDArray[np.bool_]) -> Column:
    """Return the median of the known days of the last weeks; the mean where most days are zero."""
    part = np.sort(np.where(known, values, np.inf)[:, -CLIP_DAYS:], axis=1)
    count = known[:, -CLIP_DAYS:].sum(axis=1)
    rows = np.arange(len(part))
    width = max(part.shape[1], 1)
    if part.shape[1] == 0:
        return np.zeros(len(part))
    low = part[rows, np.clip((count - 1) // 2, 0, width - 1)]
    high = part[rows, np.clip(count // 2, 0, width - 1)]
    median = np.where(count > 0, np.where(np.isfinite(high), low / 2 + high / 2, low), 0.0)
    return np.where(median > 0, median, _mean(values, known.astype(np.float64)))


def _noise(plain: Column, known: NDArray[np.bool_]) -> Column:
    """Return the standard deviation of a day as a share of the level, from the steps between days that follow each other."""
    mean = _mean(plain, known.astype(np.float64))
    step = np.diff(plain, axis=1) ** 2
    both = (known[:, 1:] & known[:, :-1]).astype(np.float64)
    variance = _mean(step, both) / 2
    return np.minimum(np.sqrt(variance) / np.where(mean > 0, mean, 1.0), NOISE_MAX)


def _spread(level: _Level, own_days: Int64Column, remaining_days: float) -> Column:
    """Return the standard deviation of the logarithm of the remaining energy.

    DRIFT_A_DAY and NOISE_SHARE were fitted to one half of the meters of swiss15min, see docs/projection.md.
    """
    own = np.sqrt(DRIFT_A_DAY**2 * remaining_days + (NOISE_SHARE * level.noise) ** 2)
    share = np.clip(own_days / OWN_DAYS_MIN, 0.0, 1.0)
    return np.where(own_days > 0, share * own + (1 - share) * NEW_SPREAD, CLASS_SPREAD)


def _shapes(past: Past, days: Int64Column, level: _Level, week: Column) -> Column:
    """Return the share of each quarter-hour in each day to come, shape (n, days, 96), each day summing to 1."""
    total = past.energy.sum(axis=2)
    own = past.known.sum(axis=1) >= OWN_DAYS_MIN
    usable = past.known & own[:, None] & (total > 0)
    mean_shape = (past.energy * usable[:, :, None]).sum(axis=1)
    size = mean_shape.sum(axis=1, keepdims=True)
    past_weekday = weekday_of(_past_days(past))
    rows = np.arange(len(total))
    found = np.empty((len(total), len(days), QUARTERS_A_DAY))
    for index, weekday in enumerate(weekday_of(days).tolist()):
        of_class = week[weekday] / week[weekday].sum() if week[weekday].any() else np.full(QUARTERS_A_DAY, 1 / 96)
        fallback = np.where(size > 0, mean_shape / np.where(size > 0, size, 1.0), of_class)
        chosen = np.flatnonzero(past_weekday == weekday)[::-1]
        if not len(chosen):
            found[:, index] = fallback
            continue
        rank = np.cumsum(usable[:, chosen], axis=1) - 1
        count = usable[:, chosen].sum(axis=1)
        wanted = (index // 7) % np.maximum(count, 1)
        at = chosen[np.argmax((rank == wanted[:, None]) & usable[:, chosen], axis=1)]
        energy = total[rows, at]
        scale = level.day * level.weekday[:, weekday] / np.where(energy > 0, energy, 1.0)
        good = (count > 0) & (scale < SCALE_MAX) & (scale > 1 / SCALE_MAX)
        shape = past.energy[rows, at] / np.where(energy > 0, energy, 1.0)[:, None]
        found[:, index] = np.where(good[:, None], shape, fallback)
    return found


def _whole(energy: Column) -> Int64Column:
    """Return whole Wh whose running sum is that of the energies, rounded down."""
    until = np.floor(np.cumsum(energy, axis=1) + 1e-6).astype(np.int64)
    return np.diff(until, axis=1, prepend=np.zeros((len(until), 1), np.int64))


def local_quarters(at_us: Int64Column, zone: dt.tzinfo) -> tuple[Int64Column, Int64Column]:
    """Return the local day since 1970-01-01 and the quarter-hour of the local clock of each instant.

    Args:
        at_us: Shape (n,), epoch µs.
        zone: Local clock; it changes at whole hours of UTC.
    """
    hours, place = np.unique(at_us // (3600 * US), return_inverse=True)
    shifts = []
    for hour in hours.tolist():
        offset = dt.datetime.fromtimestamp(hour * 3600, zone).utcoffset()
        shifts.append(int(offset.total_seconds()) if offset else 0)
    local_s = at_us // US + np.array(shifts, np.int64)[place]
    return local_s // 86_400, local_s % 86_400 // QUARTER_S


def past_of(load: Load, covered_s: Int64Column, zone: dt.tzinfo, end_day: int, register: str) -> Past:
    """Return the whole days of one account's load.

    Args:
        load: Quarter-hours or finer.
        covered_s: Shape (n,), seconds of each interval that readings cover.
        zone: Local clock.
        end_day: Day under way, since 1970-01-01.
        register: Which.
    """
    day, quarter = local_quarters(load.start_us, zone)
    day = day - (end_day - PAST_DAYS)
    inside = (day >= 0) & (day < PAST_DAYS)
    key = day[inside] * QUARTERS_A_DAY + quarter[inside]
    size = PAST_DAYS * QUARTERS_A_DAY
    energy: Column = np.bincount(key, load.registers[register][inside], size).astype(np.float64)
    covered = np.bincount(key, covered_s[inside], size)
    # a quarter that came twice counts once; one that was skipped has the energy of the hour before
    energy = energy / np.maximum(covered / QUARTER_S, 1.0)
    energy, covered = energy.reshape(-1, QUARTERS_A_DAY), covered.reshape(-1, QUARTERS_A_DAY)
    missing = covered == 0
    known = (missing.sum(axis=1) <= 4) & (covered.clip(0, QUARTER_S).sum(axis=1) >= 0.95 * 82_800)
    before = np.roll(energy, 4, axis=1)
    return Past(end_day, np.where(missing & known[:, None], before, energy)[None], known[None])


def join_load(so_far: Load, start_us: Int64Column, ahead: dict[str, Int64Column]) -> Load:
    """Return a load with quarter-hours to come added to it; where both have a quarter-hour, as the one under way, their sum.

    Args:
        so_far: Quarter-hours or finer.
        start_us: Shape (q,), of the quarter-hours to come, epoch µs.
        ahead: Shape (q,) each, Wh or varh, by register of `so_far`.
    """
    pieces = QUARTER_S // so_far.interval_s
    step = np.arange(pieces) * so_far.interval_s * US
    starts = np.concatenate([so_far.start_us, (start_us[:, None] + step).ravel()])
    found, place = np.unique(starts, return_inverse=True)
    registers = {}
    for name, wh in ahead.items():
        parts = wh[:, None] * np.arange(1, pieces + 1) // pieces - wh[:, None] * np.arange(pieces) // pieces
        total = np.zeros(len(found), np.int64)
        np.add.at(total, place, np.concatenate([so_far.registers[name], parts.ravel()]))
        registers[name] = total
    return Load(found, so_far.interval_s, registers)
