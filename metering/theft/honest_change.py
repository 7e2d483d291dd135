"""Honest changes of a home that look like tampering: what a lead must be told apart from.

Each takes days of one meter, shape (7, slots), Wh, the same days of another meter, and the caller's generator of chance; it
returns the same shape. The words of KINDS are the kinds under which a change is reported.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Chance = np.random.Generator
HonestChange = Callable[[Floats, Floats, Chance], Floats]


def _hours(x: Floats) -> Floats:
    """Return the hour of day in the middle of each slot, shape (slots,)."""
    return (np.arange(x.shape[1]) + 0.5) * 24 / x.shape[1]


def _standby(x: Floats) -> float:
    return float(np.quantile(x, 0.08))


def tenant(_x: Floats, other: Floats, _chance: Chance) -> Floats:
    """Other people live there."""
    return other


def empty(x: Floats, _other: Floats, chance: Chance) -> Floats:
    """Nobody is there, for the week or most of it: the standby goes on, and a refrigerator."""
    slots = x.shape[1]
    per_hour = slots / 24
    period = max(2, int(per_hour * chance.uniform(0.5, 2.0)))
    on = (np.arange(x.size) + int(chance.integers(period))) % period < max(1, int(period * chance.uniform(0.2, 0.5)))
    quiet = _standby(x) * chance.uniform(0.6, 1.1) + on * chance.uniform(5, 80) / per_hour
    quiet = quiet * chance.normal(1, 0.05, x.size).clip(0.7, 1.3)
    if chance.random() < 0.5:  # night storage, a boiler: what ran at night goes on
        night = (_hours(x) < 6)[None, :] & (x > 4 * _standby(x) + 20)
        quiet = np.where(night.ravel(), x.ravel(), quiet)
    y = x.copy()
    gone = slice(0, 7) if chance.random() < 0.6 else slice(*sorted(chance.choice(8, 2, replace=False)))
    y[gone] = np.minimum(quiet.reshape(x.shape), np.maximum(x.max(), 1))[gone]
    return y


def solar(x: Floats, _other: Floats, chance: Chance) -> Floats:
    """A photovoltaic plant feeds the home first; the import is clipped at zero."""
    noon, wide = chance.uniform(11.5, 13.5), chance.uniform(2.0, 4.0)
    bell = np.clip(np.cos((_hours(x) - noon) / wide * np.pi / 2), 0, None) * (np.abs(_hours(x) - noon) < wide)
    clear = chance.beta(1.2, 1.2, (7, 1)) * chance.uniform(0.4, 1.0, x.shape)
    power_w = chance.uniform(800, 8000)
    return np.maximum(x - bell * clear * power_w * 24 / x.shape[1], 0)


def heat_pump(x: Floats, _other: Floats, chance: Chance) -> Floats:
    """A heat pump or another heating is added: it cycles day and night, more when it is cold."""
    per_hour = x.shape[1] / 24
    period = max(2, int(per_hour * chance.uniform(0.75, 4.0)))
    duty = chance.uniform(0.2, 0.8) * (1 + 0.3 * np.cos((_hours(x) - 5) / 24 * 2 * np.pi))
    phase = (np.arange(x.size).reshape(x.shape) + int(chance.integers(period))) % period / period
    return x + (phase < duty) * chance.uniform(600, 4500) / per_hour * chance.uniform(0.85, 1.15, x.shape)


def electric_car(x: Floats, _other: Floats, chance: Chance) -> Floats:
    """A car is charged on some evenings or nights."""
    y, slots = x.ravel().copy(), x.shape[1]
    per_hour, power_w = slots / 24, chance.choice([2300, 3700, 7400, 11000])
    start_h = chance.choice([17.0, 18.5, 20.0, 22.0, 23.5])
    for day in range(7):
        if chance.random() < chance.uniform(0.3, 1.0):
            first = int(day * slots + (start_h + chance.normal(0, 0.8)) * per_hour)
            y[first : first + max(1, int(chance.uniform(1, 6) * per_hour))] += power_w / per_hour
    return y.reshape(x.shape)


def efficient(x: Floats, _other: Floats, chance: Chance) -> Floats:
    """Better appliances: what is above the standby falls, and it may fall itself a little."""
    floor = np.quantile(x, chance.uniform(0.08, 0.25))
    return np.where(x > floor, floor + chance.uniform(0.6, 0.92) * (x - floor), x * chance.uniform(0.9, 1.0))


def clock(x: Floats, _other: Floats, chance: Chance) -> Floats:
    """The meter's clock is off by up to an hour and a half."""
    by = max(1, round(chance.uniform(0.5, 1.5) * x.shape[1] / 24))
    return np.roll(x.ravel(), by if chance.random() < 0.5 else -by).reshape(x.shape)


KINDS: dict[str, HonestChange] = {
    "changed_use": tenant,
    "empty_home": empty,
    "new_solar": solar,
    "new_heating": heat_pump,
    "new_electric_car": electric_car,
    "efficient_use": efficient,
    "clock_off": clock,
}
