"""Ways in which a meter may be made to show less or other than was used: generic and random, to learn from without labels.

None is a published attack formula. Each takes days of one meter, shape (7, slots), Wh, and the caller's generator of chance,
and returns the same shape; none is negative. docs/detection.md says how near each comes to the attacks that are reported.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Chance = np.random.Generator
Change = Callable[[Floats, Chance], Floats]


def _knots(n: int, chance: Chance, low: float, high: float) -> Floats:
    """Return a piecewise linear path of 2 to 12 knots over three weeks, of which n cells are seen."""
    count = int(chance.integers(2, 13))
    inner = np.sort(chance.uniform(0, 3 * n, count - 2))
    at = np.concatenate([[0], inner, [3 * n]])
    first = int(chance.integers(0, 2 * n + 1))
    return np.interp(np.arange(first, first + n), at, chance.uniform(low, high, count))


def _pace(most: int, chance: Chance) -> int:
    """Return a number of intervals from 1 to `most`, short ones as likely as long ones."""
    return int(np.exp(chance.uniform(0, np.log(most))))


def gain(x: Floats, chance: Chance) -> Floats:
    """A share of the current goes round the meter, and the share moves, widely or a little."""
    low, high = 0.15, 1.0
    if chance.random() < 0.5:
        low = chance.uniform(0.15, 0.8)
        high = low + chance.uniform(0.05, 0.2)
    return x * _knots(x.size, chance, low, high).reshape(x.shape)


def offset(x: Floats, chance: Chance) -> Floats:
    """A constant load is fed from before the meter."""
    return np.maximum(x - np.quantile(x, chance.uniform(0.05, 0.7)), 0)


def clip(x: Floats, chance: Chance) -> Floats:
    """What is above some power is not counted."""
    return np.minimum(x, np.quantile(x, chance.uniform(0.2, 0.9)))


def bypass(x: Floats, chance: Chance) -> Floats:
    """Large appliances are partly fed from before the meter; standby is not."""
    floor = np.quantile(x, 0.1)
    return np.where(x > floor, floor + chance.uniform(0, 0.7) * (x - floor), x)


def noise(x: Floats, chance: Chance) -> Floats:
    """The meter counts less by a share that wanders."""
    knot = _pace(40, chance)
    at = np.arange(0, x.size + knot, knot)
    path = np.interp(np.arange(x.size), at, chance.normal(0, 1, len(at)))
    return x * np.exp(chance.uniform(0.2, 0.9) * path.reshape(x.shape) - 0.3)


def outages(x: Floats, chance: Chance) -> Floats:
    """The meter is off for some hours, at unrelated times."""
    y, hour = x.ravel().copy(), x.shape[1] // 24
    for _ in range(int(chance.integers(1, 7))):
        first = int(chance.integers(0, y.size))
        y[first : first + int(chance.integers(hour, 30 * hour + 1))] = 0
    return y.reshape(x.shape)


def freeze(x: Floats, chance: Chance) -> Floats:
    """The meter repeats itself for some hours."""
    y, hour = x.ravel().copy(), x.shape[1] // 24
    for _ in range(int(chance.integers(2, 12))):
        first = int(chance.integers(0, y.size - 1))
        span = slice(first, first + int(chance.integers(hour, 24 * hour + 1)))
        y[span] = y[first] if chance.random() < 0.5 else y[span].mean()
    return y.reshape(x.shape)


def smooth(x: Floats, chance: Chance) -> Floats:
    """Peaks are spread over hours."""
    hour = x.shape[1] // 24
    wide = int(chance.integers(max(2, hour // 2), 12 * hour + 1))
    padded = np.pad(x.ravel(), wide, mode="reflect")
    return np.convolve(padded, np.ones(wide) / wide, "same")[wide:-wide].reshape(x.shape)


def blend(x: Floats, chance: Chance) -> Floats:
    """What is shown leans towards a constant of the day or the week."""
    share = chance.uniform(0.1, 0.7)
    middle = np.median(x, axis=1, keepdims=True) if chance.random() < 0.5 else np.quantile(x, chance.uniform(0.3, 0.8))
    return share * x + (1 - share) * middle


def low_draw(x: Floats, chance: Chance) -> Floats:
    """Some spans are drawn from the meter's own lower values."""
    values = np.sort(x.ravel())[: int(x.size * chance.uniform(0.3, 0.8)) + 1]
    y, hour = x.ravel().copy(), x.shape[1] // 24
    for _ in range(int(chance.integers(3, 14))):
        first = int(chance.integers(0, y.size))
        length = min(int(chance.integers(2 * hour, 24 * hour + 1)), y.size - first)
        y[first : first + length] = chance.choice(values, length)
    return y.reshape(x.shape)


def invented(x: Floats, chance: Chance) -> Floats:
    """Readings made up about a level: no habit of a home is in them."""
    knot = _pace(max(2, x.shape[1] // 4), chance)
    at = np.arange(0, x.size + knot, knot)
    path = np.interp(np.arange(x.size), at, chance.normal(0, 1, len(at)))
    level = x.mean() * chance.uniform(0.2, 1.1) * np.exp(chance.normal(0, 0.15, (len(x), 1)))
    return level * np.exp(chance.uniform(0.05, 0.8) * path.reshape(x.shape))


def shuffle(x: Floats, chance: Chance) -> Floats:
    """Short blocks change places within hours."""
    hour = x.shape[1] // 24
    block = int(chance.choice([max(1, hour // 4), max(1, hour // 2), hour, 2 * hour]))
    window = hour * int(chance.choice([4, 8, 12, 24]))
    y = x.reshape(-1, window // block, block)
    order = np.argsort(chance.random(y.shape[:2]), axis=1)
    return np.take_along_axis(y, order[..., None], axis=1).reshape(x.shape)


def shift(x: Floats, chance: Chance) -> Floats:
    """Use is booked to other hours, 1.5 to 12 h away."""
    hour = x.shape[1] // 24
    by = int(chance.integers(max(2, 3 * hour // 2), 12 * hour + 1))
    return np.roll(x.ravel(), by if chance.random() < 0.5 else -by).reshape(x.shape)


def warp(x: Floats, chance: Chance) -> Floats:
    """The clock runs fast and slow within each day."""
    pieces, slots = 5, x.shape[1]
    pace = np.cumsum(chance.uniform(0.15, 1, pieces))
    at = np.interp(np.arange(slots), np.linspace(0, slots - 1, pieces + 1), np.r_[0, pace / pace[-1]] * (slots - 1))
    return np.stack([np.interp(at, np.arange(slots), day) for day in x])


def swap_parts(x: Floats, chance: Chance) -> Floats:
    """Days and quarters of the day come in another order."""
    days = x[chance.permutation(len(x))]
    return days.reshape(len(x), 4, -1)[:, chance.permutation(4)].reshape(x.shape)


def turned(x: Floats, chance: Chance) -> Floats:
    """Some spans of 3 to 30 hours are shown backwards."""
    y, hour = x.ravel().copy(), x.shape[1] // 24
    for _ in range(int(chance.integers(4, 17))):
        first = int(chance.integers(0, y.size - 3 * hour))
        span = slice(first, first + int(chance.integers(3 * hour, 30 * hour + 1)))
        y[span] = y[span][::-1]
    return y.reshape(x.shape)


LESS: dict[str, Change] = {one.__name__: one for one in (gain, offset, clip, bypass, noise)}
"""Energy is missing."""
OTHER: dict[str, Change] = {
    one.__name__: one
    for one in (outages, freeze, smooth, blend, low_draw, invented, shuffle, shift, warp, swap_parts, turned)
}
"""The shape is not the meter's own."""
FAMILIES = LESS | OTHER
COMPOSED = 0.25
"""Share of samples that are changed twice."""


def tampered(x: Floats, chance: Chance, family: str | None = None, without: tuple[str, ...] = ()) -> Floats:
    """Return days changed by a random way of tampering, or by the one named."""
    names = [name for name in FAMILIES if name not in without]
    y = FAMILIES[family or names[int(chance.integers(len(names)))]](x, chance)
    if chance.random() < COMPOSED:
        y = FAMILIES[names[int(chance.integers(len(names)))]](y, chance)
    return np.maximum(y, 0)
