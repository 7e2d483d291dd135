"""Made homes to learn from where a file has few meters: standby, a refrigerator, cooking, evenings, a boiler at night."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def made_homes(count: int, weeks: int, slots: int, chance: np.random.Generator) -> Floats:
    """Return energy of made homes, shape (count, weeks, 7, slots), Wh, stepped by 10 Wh."""
    energy = (
        np.stack([_home(weeks * 7, slots, chance) for _ in range(count)]) if count else np.zeros((0, weeks * 7, slots))
    )
    register = np.floor(np.cumsum(energy.reshape(count, weeks * 7 * slots), axis=1) / 10) * 10
    return np.diff(register, axis=1, prepend=0).reshape(count, weeks, 7, slots)


def _home(days: int, slots: int, chance: np.random.Generator) -> Floats:
    per_hour = slots / 24
    hour = (np.arange(slots) + 0.5) / per_hour
    power_w = np.full((days, slots), chance.lognormal(4.3, 0.6))
    power_w += (np.sin(np.arange(days * slots) / per_hour * chance.uniform(4, 9)).reshape(days, slots) > 0.3) * 80
    for noon, wide, height_w in ((7, 1.0, 500), (12.3, 1.0, 800), (19.5, 2.2, 900)):
        start = noon + chance.normal(0, 0.8)
        bump = np.exp(-0.5 * ((hour - start) / wide) ** 2) * height_w * chance.lognormal(-0.3, 0.7)
        power_w += bump * chance.gamma(1.5, 0.7, (days, slots)) * chance.gamma(3, 0.33, (days, 1))
    if chance.random() < 0.4:
        first = int(chance.choice([0, 1, 22]) * per_hour)
        length = chance.integers(max(1, int(per_hour)), int(4 * per_hour) + 1, days)
        on = (np.arange(slots) >= first) & (np.arange(slots) < first + length[:, None])
        power_w += on * chance.uniform(1500, 4000)
    for day in range(days):
        for _ in range(int(chance.poisson(1.2))):
            first = int(chance.normal(16, 4) % 24 * per_hour)
            power_w[day, first : first + max(1, int(1.5 * per_hour))] += chance.uniform(300, 2000)
    return power_w / per_hour
