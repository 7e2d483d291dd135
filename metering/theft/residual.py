"""The residual of a transformer or feeder: what goes in, less what its meters count, less the technical loss.

The loss is modelled from the load, a + b·load², since its current goes with the load at nearly constant voltage. It is fitted
on the days on which the least is missing. A member is suspect by how much of the residual its own pattern explains: its own
reported shape (a share of its current goes round the meter), or what it used to use at that hour and does not report now.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MEMBERS_MIN = 0.98
"""Share of members that must have reported for an interval to count."""
WEEK_MIN = 0.13
"""Share of a week's intervals that must count for it to be balanced: nearly a day."""
COVERED_MIN = 0.5
"""Share of a day's intervals that must count."""
CLEAN_DAYS = 0.3
"""Share of days, those with the least residual, on which the loss is fitted."""
LOSS_MAX = 0.10
"""Technical loss above this share of the energy is not believed (CEER: distribution losses of 2 to 23 % hold theft too)."""
SIGMAS = 3.0
MISSING_MIN = 0.01
"""Share of the energy that must be missing in a week, whatever the noise."""
OBSERVER_ERROR = 0.004
"""Error of an observer of class 0.5 in an interval, as a share of the load."""
STEP_ERROR_WH = 4.0
"""Error that a register of 10 Wh makes in the energy of an interval: 10 Wh times the square root of a sixth."""
CALM, RESTLESS = 1.3, 3.0
"""Scatter of a week's residual, against that of the clean days, that says nothing, and that says something surely."""
EXPLAINED = 6.0
"""Weight in a meter's score of a residual that its pattern explains wholly."""
UNEXPLAINED = 1.5
"""What a meter's score loses where the balance shows nothing missing."""


@dataclasses.dataclass(frozen=True)
class Balance:
    """The balance of one parent with the weeks of its members."""

    missing: Floats
    """Shape (weeks,): residual as a share of the energy that goes in; NaN where not known."""
    missing_wh: Floats
    """Shape (weeks,), Wh over the weeks' known intervals."""
    sigma: Floats
    """Shape (weeks,): scatter of the days' share."""
    unrest: Floats
    """Shape (weeks,): scatter of the residual in the week against that of clean days; 1 is clean."""
    explained: Floats
    """Shape (members, weeks): correlation of the residual with the member's pattern, 0 to 1."""
    loss: tuple[float, float]
    """a in Wh per interval, b in 1/Wh."""

    @property
    def short(self) -> NDArray[np.bool_]:
        """Return the weeks in which energy is missing."""
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(self.missing) > np.maximum(SIGMAS * self.sigma, MISSING_MIN)

    @property
    def negative(self) -> NDArray[np.bool_]:
        """Return the weeks in which the members count more than goes in: a mapping, phase or multiplier is wrong."""
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(self.missing) < -np.maximum(SIGMAS * self.sigma, MISSING_MIN)


def fitted_loss(load: Floats, gap: Floats) -> tuple[float, float]:
    """Return a and b of loss = a + b·load², both at least 0, by least squares.

    Args:
        load: Energy that goes in per interval, shape (n,), Wh.
        gap: What is not counted by the members, shape (n,), Wh.
    """
    if len(load) < 10 or not load.any():
        return 0.0, 0.0
    square = load * load
    scale = float(square.max()) or 1.0
    slope, constant = np.polyfit(square / scale, gap, 1)
    if slope < 0:
        slope, constant = 0.0, float(np.median(gap))
    if constant < 0:
        constant, slope = 0.0, float((gap * square).sum() / (square * square).sum() * scale)
    a, b = max(constant, 0.0), max(slope, 0.0) / scale
    share = (a * len(load) + b * square.sum()) / load.sum()
    if share > LOSS_MAX:
        a, b = a * LOSS_MAX / share, b * LOSS_MAX / share
    return float(a), float(b)


def balanced(into: Floats, members: Floats, expected: Floats) -> Balance:
    """Return the balance of a parent.

    Args:
        into: What the parent counts, shape (weeks, 7, slots), Wh; NaN where not known.
        members: What its members report, shape (members, weeks, 7, slots), Wh; NaN where not known.
        expected: What they used to use at that hour, the same shape; NaN where not known.
    """
    weeks, slots = into.shape[0], into.shape[2]
    there = np.isfinite(members)
    known = np.isfinite(into) & (there.mean(0) >= MEMBERS_MIN)
    out = np.where(there, members, np.nan_to_num(expected)).sum(0)
    gap = np.where(known, into - out, 0.0)
    load = np.where(known, into, 0.0)
    clean = _clean_days(gap, load, known)
    chosen = known & clean[..., None]
    a, b = fitted_loss(load[chosen], gap[chosen])
    rest = np.where(known, gap - a - b * load * load, 0.0)
    total = np.where(known, np.abs(load), 0).sum((1, 2))
    enough = (known.mean((1, 2)) >= WEEK_MIN) & (total > 0)
    share = np.where(enough, rest.sum((1, 2)) / np.maximum(total, 1), np.nan)
    whole = known.mean(2) >= COVERED_MIN
    daily = rest.sum(2)[whole] / np.maximum(load.sum(2)[whole], 1)
    sigma = np.full(weeks, _day_scatter(daily))
    usual = _usual_scatter(rest[chosen], load[chosen], len(members))
    unrest = np.array([rest[w][known[w]].std() / usual if enough[w] else np.nan for w in range(weeks)])
    explained = np.zeros((len(members), weeks))
    for week in np.flatnonzero(enough):
        mask = known[week].ravel()
        explained[:, week] = _explained(
            rest[week].ravel()[mask],
            np.nan_to_num(members[:, week].reshape(len(members), 7 * slots)[:, mask]),
            np.nan_to_num((expected - members)[:, week].reshape(len(members), 7 * slots)[:, mask]),
        )
    return Balance(share, np.where(enough, rest.sum((1, 2)), np.nan), sigma, unrest, explained, (a, b))


def _day_scatter(daily: Floats) -> float:
    """Return the standard deviation that the calmer half of the days shows: theft widens one half, a wrong mapping the other."""
    if len(daily) < 2:
        return 0.0
    low, middle, high = np.quantile(daily, [0.1, 0.5, 0.9])
    return float(min(middle - low, high - middle)) / 1.2816


def _usual_scatter(rest: Floats, load: Floats, members: int) -> float:
    """Return the scatter of a clean residual, Wh: that of the clean days, within reach of what meters of their class make.

    Where somebody steals every day no day is clean, and the days' own scatter alone would hide it.
    """
    if not len(rest):
        return STEP_ERROR_WH
    made = float(np.hypot(OBSERVER_ERROR * load.mean(), STEP_ERROR_WH * np.sqrt(members)))
    return float(np.clip(rest.std(), made, 3 * made))


def _clean_days(gap: Floats, load: Floats, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which days have the least that is not counted, shape (weeks, 7)."""
    whole = known.mean(2) >= COVERED_MIN
    share = np.where(whole, gap.sum(2) / np.maximum(load.sum(2), 1), np.inf)
    if not whole.any():
        return whole
    return whole & (share <= np.quantile(share[whole], CLEAN_DAYS))


def _explained(rest: Floats, reported: Floats, given_up: Floats) -> Floats:
    """Return for each member how well its pattern explains the residual, 0 to 1."""
    centred = rest - rest.mean()
    norm = np.sqrt((centred**2).sum()) + 1e-9

    def aligned(pattern: Floats) -> Floats:
        pattern = pattern - pattern.mean(1, keepdims=True)
        return np.asarray(pattern @ centred / ((np.sqrt((pattern**2).sum(1)) + 1e-9) * norm))

    alone = reported - reported.mean(1, keepdims=True)
    gram = alone @ alone.T
    ridge = gram + np.eye(len(gram)) * max(0.02 * np.trace(gram) / max(len(gram), 1), 1e-9)
    weight = np.clip(np.linalg.solve(ridge, alone @ centred), 0, None)
    share = weight * np.sqrt((alone**2).sum(1)) / norm
    return np.clip(np.maximum(aligned(given_up), share), 0, 1)


def _trouble(balance: Balance) -> Floats:
    """Return how restless each week's residual is: 0 as on clean days, 1 from RESTLESS on; 0 where not known."""
    unrest = np.where(np.isfinite(balance.unrest), np.maximum(balance.unrest, 1e-3), CALM)
    return np.clip(np.log(unrest / CALM) / np.log(RESTLESS / CALM), 0, 1)


def told(theft: Floats, balance: Balance) -> Floats:
    """Return the log odds of theft against an honest change with what the balance says, shape (members, weeks).

    An honest change is counted by the parent too, so it leaves no residual; tampering leaves one that its pattern explains.
    """
    known, trouble = np.isfinite(balance.unrest), _trouble(balance)
    return np.where(known, theft + EXPLAINED * trouble * balance.explained - UNEXPLAINED * (1 - trouble), theft)


def weighed(score: Floats, balance: Balance) -> Floats:
    """Return the scores of the members with what the balance says, shape (members, weeks)."""
    known = np.isfinite(balance.unrest)
    trouble = _trouble(balance)
    with_balance = score + EXPLAINED * trouble * balance.explained - UNEXPLAINED * (1 - trouble)
    return np.where(known, with_balance, score)
