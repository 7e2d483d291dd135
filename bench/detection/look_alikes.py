"""Honest changes of a home for the evaluation: written apart from those the detector learns from, with other parameters.

Each takes days of a meter and of another one, shape (n, 96), Wh, and returns the same shape.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Chance = np.random.Generator


def new_tenant(_days: Floats, other: Floats, _chance: Chance) -> Floats:
    return other.copy()


def empty_home(days: Floats, _other: Floats, chance: Chance) -> Floats:
    """Standby and a refrigerator."""
    cycle = (np.arange(days.size) % int(chance.integers(4, 8)) < 2) * chance.uniform(10, 25)
    quiet = np.quantile(days, 0.1) + cycle + chance.normal(0, 2, days.size)
    return np.round(np.maximum(quiet, 0)).reshape(days.shape)


def solar(days: Floats, _other: Floats, chance: Chance) -> Floats:
    hour = np.arange(96) / 4
    bell = np.clip(np.sin((hour - 7.5) / 9.5 * np.pi), 0, None) ** 1.3 * ((hour > 7.5) & (hour < 17))
    peak_kw = chance.uniform(2, 10)
    clear = chance.uniform(0.15, 0.9, (len(days), 1)) * chance.uniform(0.6, 1, days.shape)
    return np.maximum(days - bell * clear * peak_kw * 150, 0)


def heat_pump(days: Floats, _other: Floats, chance: Chance) -> Floats:
    on, off = int(chance.integers(2, 5)), int(chance.integers(2, 8))
    running = (np.arange(days.size) % (on + off) < on).reshape(days.shape)
    return days + running * chance.uniform(1500, 3000) / 4


def electric_car(days: Floats, _other: Floats, chance: Chance) -> Floats:
    out = days.ravel().copy()
    for day in range(len(days)):
        if chance.random() < 0.6:
            first = day * 96 + int(chance.integers(68, 92))
            out[first : first + int(chance.integers(6, 20))] += chance.choice([3700, 7400, 11000]) / 4
    return out.reshape(days.shape)


def efficient(days: Floats, _other: Floats, chance: Chance) -> Floats:
    floor = np.quantile(days, 0.15)
    return np.where(days > floor, floor + chance.uniform(0.7, 0.9) * (days - floor), days)


def clock_hour(days: Floats, _other: Floats, chance: Chance) -> Floats:
    return np.roll(days.ravel(), int(4 * chance.choice([-1, 1]))).reshape(days.shape)


LOOK_ALIKES = {
    "new tenant": new_tenant,
    "empty home": empty_home,
    "solar": solar,
    "heat pump": heat_pump,
    "electric car": electric_car,
    "efficient": efficient,
    "clock 1 h off": clock_hour,
}
NAMED = {
    "new tenant": "changed_use",
    "empty home": "empty_home",
    "solar": "new_solar",
    "heat pump": "new_heating",
    "electric car": "new_electric_car",
    "efficient": "efficient_use",
    "clock 1 h off": "clock_off",
}
"""The kind under which each is to be reported."""
