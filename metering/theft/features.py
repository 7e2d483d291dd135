"""What a week of a meter looks like (descriptors), and how it compares with weeks before it (likeness).

All input is Wh per interval in whole weeks, shape (n, 7, slots), Monday first. Nothing here knows any attack. Floats are
for scores only. docs/detection.md lists every feature.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Columns = dict[str, Floats]

EPS_WH = 5.0
"""Keeps logarithms finite: half a step of a 10 Wh register."""
DAY_WH = 500.0
"""The same for the sum of a day: a home's standby of 20 W."""
STEP_MIN_WH = 10
QUANTILES = (2, 5, 10, 25, 50, 75, 90, 95, 99, 100)
BANDS = {"s24": (1, 8), "s12": (8, 29), "s4": (29, 85), "s2": (85, 169), "s1": (169, 337)}
"""Of the spectrum, in cycles a week: longer than a day, 6 to 24 h, 2 to 6 h, 1 to 2 h, under 1 h."""
LEVELS = (
    "lmean",
    "floor",
    "minhour",
    "mind",
    "maxd",
    *(f"blk{n}" for n in range(6)),
    *(f"lq{q}" for q in QUANTILES[1:8]),
)
"""Descriptors of how much is used: weather and season move them for everybody, so the peers' median is taken off."""
SPREADS = ("lmean", "floor", "rough", "cv", "lq50", "slotr2", "ac1", "ac4", "ac96", "ldiff")
"""Descriptors whose scatter over the past is a feature of its own."""
HABITS = ("lmean", "cv", "rough", "zero", "ac1", "eq", "slotr2", "floor")
"""Descriptors whose mean over the past is a feature of its own: what kind of meter this is."""
ARROWS = ("irr1", "irr2", "irr4", "irl1", "irl2", "irl4")
"""Descriptors that change their sign when time runs backwards: below 0 in `t_` where a week runs against its past."""
LEVEL_LIKENESS = ("shift", "hmed", "hmax", "hmin", "dmax", "dmed", "dmin", "qmax", "qmin")


def stepped(weeks_wh: Floats, step_wh: Floats) -> Floats:
    """Return energy as a register of some resolution shows it, the remainder carried on.

    Args:
        weeks_wh: Shape (n, ...), Wh.
        step_wh: Shape (n,), Wh: the resolution of each.
    """
    flat = weeks_wh.reshape(len(weeks_wh), -1)
    register = np.floor(np.cumsum(flat, axis=1) / step_wh[:, None] + 1e-9) * step_wh[:, None]
    return np.diff(register, axis=1, prepend=0).reshape(weeks_wh.shape)


def correlation(one: Floats, other: Floats) -> Floats:
    """Return the correlation along the last axis; 0 where one side is constant."""
    one = one - one.mean(-1, keepdims=True)
    other = other - other.mean(-1, keepdims=True)
    return (one * other).sum(-1) / (np.sqrt((one * one).sum(-1) * (other * other).sum(-1)) + 1e-6)


def longest(mask: NDArray[np.bool_]) -> Floats:
    """Return the longest run of True in each row."""
    count = np.cumsum(mask, axis=1)
    return (count - np.maximum.accumulate(np.where(mask, 0, count), axis=1)).max(axis=1).astype(float)


def described(weeks_wh: Floats) -> Columns:
    """Return the descriptors of weeks, each of shape (n,)."""
    n, _, slots = weeks_wh.shape
    x = weeks_wh.reshape(n, -1)
    logs = np.log(x + EPS_WH)
    step = np.abs(np.diff(x, axis=1))
    mean = np.log(x.mean(1) + EPS_WH)
    out = {"lmean": mean}
    for part in (_levels, _days):
        out |= part(weeks_wh)
    out["cv"] = np.log(x.std(1) + EPS_WH) - mean
    out["ldiff"] = np.log(step.mean(1) + 1)
    out["rough"] = out["ldiff"] - mean
    out["peaky"] = out["lq99"] - mean
    out["lxsd"] = logs.std(1)
    out |= _steps(x, step) | _rhythm(x, logs, slots)
    return out


def _levels(weeks_wh: Floats) -> Columns:
    n, _, slots = weeks_wh.shape
    quantiles = np.log(np.quantile(weeks_wh.reshape(n, -1), np.array(QUANTILES) / 100, axis=1) + EPS_WH)
    out = {f"lq{q}": value for q, value in zip(QUANTILES, quantiles, strict=True)}
    out["floor"] = np.log(np.median(np.quantile(weeks_wh, 0.1, axis=2), axis=1) + EPS_WH)
    blocks = weeks_wh.reshape(n, 7, 6, slots // 6).mean((1, 3))
    out |= {f"blk{k}": np.log(blocks[:, k] + EPS_WH) for k in range(6)}
    hours = np.log(weeks_wh.reshape(n, 7, 24, slots // 24).mean((1, 3)) + EPS_WH)
    return out | {"minhour": hours.min(1), "hourspread": hours.std(1)}


def _days(weeks_wh: Floats) -> Columns:
    day = weeks_wh.sum(2)
    return {
        "daycv": np.log(day.std(1) / (day.mean(1) + 100) + 0.02),
        "wend": np.log(day[:, 5:].mean(1) + DAY_WH) - np.log(day[:, :5].mean(1) + DAY_WH),
        "mind": np.log(day.min(1) + DAY_WH),
        "maxd": np.log(day.max(1) + DAY_WH),
    }


def _steps(x: Floats, step: Floats) -> Columns:
    out = {
        f"ld{q}": np.log(value + EPS_WH)
        for q, value in zip((50, 75, 90, 99), np.quantile(step, [0.5, 0.75, 0.9, 0.99], axis=1), strict=True)
    }
    near = step <= STEP_MIN_WH
    return out | {
        "zero": (x == 0).mean(1),
        "eq": near.mean(1),
        "zrun": np.log1p(longest(x == 0)),
        "erun": np.log1p(longest(near)),
    }


def _rhythm(x: Floats, logs: Floats, slots: int) -> Columns:
    out = {f"ac{k}": correlation(logs[:, :-k], logs[:, k:]) for k in (1, 2, 4, 8)}
    out["ac96"] = correlation(logs[:, :-slots], logs[:, slots:])
    out["acr1"] = correlation(x[:, :-1], x[:, 1:])
    out["acr96"] = correlation(x[:, :-slots], x[:, slots:])
    for k in (1, 2, 4):  # what rises fast and falls slowly is another way round when time is
        rise = x[:, k:] - x[:, :-k]
        out[f"irr{k}"] = np.cbrt((rise**3).mean(1)) / (np.sqrt((rise**2).mean(1)) + 1)
        rise = logs[:, k:] - logs[:, :-k]
        out[f"irl{k}"] = np.cbrt((rise**3).mean(1)) / (np.sqrt((rise**2).mean(1)) + 0.01)
    power = np.abs(np.fft.rfft(logs - logs.mean(1, keepdims=True), axis=1)) ** 2
    total = power[:, 1:].sum(1) + 1e-3
    out |= {name: np.log(power[:, low:high].sum(1) / total + 0.003) for name, (low, high) in BANDS.items()}
    daily = logs.reshape(len(x), 7, slots)
    out["slotr2"] = daily.mean(1).var(1) / (logs.var(1) + 0.01)
    wave = np.fft.rfft(daily.mean(1), axis=1) / slots
    for k in (1, 2):
        out[f"c{k}"], out[f"s{k}_"] = wave[:, k].real, wave[:, k].imag
    edges = np.log(np.geomspace(10, 4000, 13))
    share = np.stack([(logs < edge).mean(1) for edge in edges], 1)
    share = np.diff(np.concatenate([np.zeros((len(x), 1)), share, np.ones((len(x), 1))], 1), axis=1)
    return out | {"ent": -(share * np.log(share + 1e-9)).sum(1)}


# -- likeness with weeks before ------------------------------------------------------------------------------------

_PART = np.linspace(0.01, 0.99, 50)


@dataclasses.dataclass(frozen=True)
class Outline:
    """What likeness needs to know of some past weeks of each meter; the first axis of each is the meter."""

    profile: Floats
    log_profile: Floats
    log_week: Floats
    edges: Floats
    by_hour: Floats
    overall: Floats
    log_parts: Floats
    step_parts: Floats
    high_share: Floats
    log_days: Floats

    def take(self, rows: NDArray[np.int64]) -> "Outline":
        """Return the outline of some of the meters."""
        return Outline(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


def _binned(weeks: Floats, edges: Floats) -> NDArray[np.int8]:
    """Return the bin of each cell, shape (n, ..., 24, slots a hour)."""
    n, slots = len(weeks), weeks.shape[-1]
    wide = edges.reshape(n, *(1,) * (weeks.ndim - 1), -1)
    bins = sum((weeks > wide[..., k]).astype(np.int8) for k in range(wide.shape[-1]))
    return np.asarray(bins).reshape(n, -1, 24, slots // 24)


def _counts(bins: NDArray[np.int8]) -> Floats:
    """Return how often each of 6 bins is in each hour, shape (n, 24, 6)."""
    return np.stack([(bins == k).sum((1, 3)) for k in range(6)], -1).astype(float)


def _high(weeks: Floats) -> Floats:
    n, slots = len(weeks), weeks.shape[-1]
    above = weeks > np.quantile(weeks.reshape(n, -1), 0.85, axis=1).reshape(n, *(1,) * (weeks.ndim - 1))
    return above.reshape(n, -1, slots).mean(1).reshape(n, 24, -1).mean(2)


def _step_parts(weeks: Floats) -> Floats:
    flat = weeks.reshape(len(weeks), -1)
    return np.quantile(np.log(np.abs(np.diff(flat, axis=1)) + EPS_WH), _PART, axis=1).T


def outlined(past_wh: Floats) -> Outline:
    """Return the outline of past weeks, shape (n, weeks, 7, slots)."""
    n = len(past_wh)
    flat, logs = past_wh.reshape(n, -1), np.log(past_wh + EPS_WH)
    edges = np.quantile(flat, [0.1, 0.25, 0.5, 0.75, 0.9], axis=1).T
    counts = _counts(_binned(past_wh, edges)) + 0.5
    return Outline(
        profile=past_wh.mean((1, 2)),
        log_profile=logs.mean((1, 2)),
        log_week=logs.mean(1),
        edges=edges,
        by_hour=counts / counts.sum(-1, keepdims=True),
        overall=counts.sum(1) / counts.sum((1, 2))[:, None],
        log_parts=np.quantile(logs.reshape(n, -1), _PART, axis=1).T,
        step_parts=_step_parts(past_wh),
        high_share=_high(past_wh),
        log_days=np.log(past_wh.sum(3) + DAY_WH).reshape(n, -1),
    )


def likeness(week_wh: Floats, past: Outline) -> Columns:
    """Return how like its past a week is, each of shape (n,)."""
    out: Columns = {}
    for part in (_profile_likeness, _habit_likeness, _level_likeness):
        out |= part(week_wh, past)
    return out


def _hourly(profile: Floats) -> Floats:
    return profile.reshape(len(profile), 24, -1).mean(2)


def _profile_likeness(week_wh: Floats, past: Outline) -> Columns:
    n, _, slots = week_wh.shape
    logs = np.log(week_wh + EPS_WH)
    mine, log_mine = week_wh.mean(1), logs.mean(1)
    left = logs - past.log_profile[:, None]
    centred = [
        (one - one.mean(1, keepdims=True)) / (one.std(1, keepdims=True) + 0.05) for one in (log_mine, past.log_profile)
    ]
    fit = np.fft.irfft(np.fft.rfft(centred[0]) * np.conj(np.fft.rfft(centred[1])), slots, axis=1) / slots
    best = fit.argmax(1)
    back = np.fft.irfft(np.fft.rfft(centred[0]) * np.fft.rfft(centred[1]), slots, axis=1) / slots
    near = [*range(max(1, slots // 48) + 1), *range(-max(1, slots // 48), 0)]
    return {
        "pc": correlation(mine, past.profile),
        "plc": correlation(log_mine, past.log_profile),
        "phc": correlation(_hourly(mine), _hourly(past.profile)),
        "phl": correlation(np.log(_hourly(mine) + EPS_WH), np.log(_hourly(past.profile) + EPS_WH)),
        "phi": correlation(_high(week_wh), past.high_share),
        "l1": np.abs(
            mine / (mine.sum(1, keepdims=True) + 100) - past.profile / (past.profile.sum(1, keepdims=True) + 100)
        ).sum(1),
        "wk": correlation(logs.reshape(n, -1), past.log_week.reshape(n, -1)),
        "wkd": np.mean([correlation(logs[:, day], past.log_week[:, day]) for day in range(7)], axis=0),
        "resr2": 1 - left.reshape(n, -1).var(1) / (logs.reshape(n, -1).var(1) + 0.01),
        "align": fit[:, near].max(1) - fit.max(1),
        "lag": np.minimum(best, slots - best) / (slots / 2),
        "back": back.max(1) - fit.max(1),
    }


def _habit_likeness(week_wh: Floats, past: Outline) -> Columns:
    n = len(week_wh)
    counts = _counts(_binned(week_wh, past.edges))
    told = np.log(past.by_hour / past.overall[:, None])
    parts = _step_parts(week_wh) - past.step_parts
    return {
        "slotll": (counts * told).sum((1, 2)) / week_wh[0].size,
        "margll": (counts.sum(1) * np.log(past.overall)).sum(1) / week_wh[0].size,
        "dw1": np.abs(parts).mean(1),
        "dshift": parts[:, 25:].mean(1),
        "dqmax": parts[:, 20:].max(1),
        "dlow": parts[:, :25].mean(1) if n else parts.sum(1),
    }


def _level_likeness(week_wh: Floats, past: Outline) -> Columns:
    n = len(week_wh)
    parts = np.quantile(np.log(week_wh + EPS_WH).reshape(n, -1), _PART, axis=1).T - past.log_parts
    middle = np.median(parts, axis=1)
    hours = np.sort(_hourly(np.log(week_wh + EPS_WH).mean(1) - past.log_profile), axis=1)
    days = np.log(week_wh.sum(2) + DAY_WH)
    change = np.sort(days - past.log_days.mean(1, keepdims=True), axis=1)
    return {
        "w1": np.abs(parts).mean(1),
        "w1c": np.abs(parts - middle[:, None]).mean(1),
        "shift": middle,
        "qmax": np.quantile(parts, 0.9, axis=1),
        "qmin": np.quantile(parts, 0.1, axis=1),
        "hmax": hours[:, -3],
        "hmed": hours[:, 12],
        "hmin": hours[:, 2],
        "hsd": hours.std(1),
        "dmax": change[:, -1],
        "dmed": change[:, 3],
        "dmin": change[:, 0],
        "below": (days < past.log_days.min(1, keepdims=True) - 0.02).mean(1),
    }


# -- a week against its past ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Past:
    """Trusted weeks of meters, worked up once for all weeks that are compared with them."""

    outline: Outline
    mean: Columns
    spread: Columns
    like_mean: Columns
    like_low: Columns
    like_high: Columns

    def take(self, rows: NDArray[np.int64]) -> "Past":
        """Return the pasts of some of the meters."""

        def some(columns: Columns) -> Columns:
            return {name: values[rows] for name, values in columns.items()}

        rest = (self.mean, self.spread, self.like_mean, self.like_low, self.like_high)
        return Past(self.outline.take(rows), *map(some, rest))


def _over(columns: Columns, n: int, fold: Callable[[Floats], Floats]) -> Columns:
    return {name: fold(values.reshape(n, -1)) for name, values in columns.items()}


def worked_up(past_wh: Floats, known: Columns | None = None) -> Past:
    """Return the past of meters.

    Args:
        past_wh: Shape (n, weeks, 7, slots), two weeks or more.
        known: The descriptors of these weeks where they are there already, each of shape (n, weeks).
    """
    n, weeks = past_wh.shape[:2]
    each = known or described(past_wh.reshape(n * weeks, *past_wh.shape[2:]))
    without = [likeness(past_wh[:, k], outlined(np.delete(past_wh, k, axis=1))) for k in range(weeks)]
    alike = {name: np.stack([one[name] for one in without], 1) for name in without[0]}
    return Past(
        outline=outlined(past_wh),
        mean=_over(each, n, lambda v: v.mean(1)),
        spread=_over({name: each[name] for name in SPREADS}, n, lambda v: v.std(1, ddof=1)),
        like_mean=_over(alike, n, lambda v: v.mean(1)),
        like_low=_over(alike, n, lambda v: v.min(1)),
        like_high=_over(alike, n, lambda v: v.max(1)),
    )


def changes(week_wh: Floats, past: Past, peers: dict[str, Floats], known: Columns | None = None) -> Columns:
    """Return the features of weeks against their pasts.

    Args:
        week_wh: Shape (n, 7, slots), Wh, stepped.
        past: Of the same meters.
        peers: The peers' median change of each of LEVELS in that week, shape (n,); may be empty.
        known: The descriptors of these weeks where they are there already.
    """
    now, like = known or described(week_wh), likeness(week_wh, past.outline)
    out = {f"d_{name}": value - past.mean[name] - peers.get(name, 0.0) for name, value in now.items()}
    out |= {f"sd_{name}": past.spread[name] for name in SPREADS}
    out |= {f"h_{name}": past.mean[name] for name in HABITS}
    out |= {f"t_{name}": np.abs(now[name] + past.mean[name]) - np.abs(out[f"d_{name}"]) for name in ARROWS}
    for name, raw in like.items():
        value = raw - peers.get("lmean", 0.0) if name in LEVEL_LIKENESS else raw
        out[f"p_{name}"] = value
        out[f"pd_{name}"] = value - past.like_mean[name]
        out[f"px_{name}"] = np.minimum(value - past.like_low[name], past.like_high[name] - value)
    return out
