"""`python -m bench.estimation`: gaps punched at random into real load; the ladder against a line and against last week.

`--half 0` (even meters) is for choices, `--half 1` (odd meters) reports. The error of a gap is the energy that it has in the
wrong band of the tariff: the sum over peak, flat and valley of |estimate - true|, in Wh for each hour of the gap.
"""

import argparse
import datetime as dt
import zoneinfo

import numpy as np
from numpy.typing import NDArray

from bench.detection.swiss import MONDAY, read_town
from metering.estimation.ladder import CODES, REGISTER, UNIT, Shape, estimate_gap, scaled
from metering.estimation.load import Load, load_of

Ints = NDArray[np.int64]
INTERVAL_S = 900
CLASSES = (
    ("1 to 2 h", 4, 8),
    ("2 to 6 h", 9, 24),
    ("6 to 24 h", 25, 96),
    ("1 to 3 d", 97, 288),
    ("3 to 7 d", 289, 672),
)
"""Name, and the least and most of quarters of an hour."""
FIRST_WEEK = 4
"""Gaps begin in week 5 or later: four weeks lie before them."""
WAYS = ("ladder", "linear", "last week")


def bands(load: Load) -> Ints:
    """Return the band of each cell as in tariffs/county-residential.yaml: 0 valley, 1 flat, 2 peak."""
    hour = load.shown_s % 86_400 // 3600
    return np.where(hour < 8, 0, np.where((hour >= 10) & (hour < 12) | (hour >= 14) & (hour < 19), 2, 1))


def linear(load: Load, cells: Ints) -> list[int]:
    """Return a line from the interval before to the one after."""
    left, right = (int(load.energy_wh[cell]) for cell in (cells[0] - 1, cells[-1] + 1))
    count = len(cells)
    return [UNIT * (left * (count - step) + right * (step + 1)) // (count + 1) for step in range(count)]


def last_week(load: Load, cells: Ints) -> list[int]:
    """Return the same intervals a week before."""
    return [int(wh) * UNIT for wh in load.energy_wh[cells - 672]]


def punched(loads: list[Load], chance: np.random.Generator, gaps: int) -> dict[tuple[str, bool], list[list[float]]]:
    """Return, by class and whether the advance is known, [rung, errors of WAYS] of each gap."""
    found: dict[tuple[str, bool], list[list[float]]] = {}
    band = bands(loads[0])
    for load in loads:
        for name, least, most in CLASSES:
            for _ in range(gaps):
                count = int(chance.integers(least, most + 1))
                first = int(chance.integers(FIRST_WEEK * 672, len(load.energy_wh) - count))
                cells = np.arange(first, first + count)
                true = load.energy_wh[cells]
                gap = (load.start_s + first * INTERVAL_S, load.start_s + (first + count) * INTERVAL_S)
                for advance in (None, int(true.sum())):
                    ladder = estimate_gap(load, gap, advance)
                    others = [
                        scaled([Shape(weight, np.full(count, REGISTER))], advance)[0].energy_wh
                        for weight in (linear(load, cells), last_week(load, cells))
                    ]
                    errors = [
                        float(np.abs(np.bincount(band[cells], wh - true, 3)).sum()) * 4 / count
                        for wh in (ladder.energy_wh, *others)
                    ]
                    found.setdefault((name, advance is not None), []).append([float(ladder.rung[0]), *errors])
    return found


def table(found: dict[tuple[str, bool], list[list[float]]]) -> None:
    """Print mean, median and p90 of each way by class of gap."""
    print(
        "| gap | advance | rung | gaps | " + " | ".join(f"{way}: mean, median, p90" for way in WAYS) + " | least mean |"
    )
    print("|---|---|---|---:|" + "---|" * (len(WAYS) + 1))
    for (name, advance), rows in sorted(
        found.items(), key=lambda item: (item[0][1], [c[0] for c in CLASSES].index(item[0][0]))
    ):
        every = np.array(rows)
        for rung in np.unique(every[:, 0]):
            mine = every[every[:, 0] == rung, 1:]
            figures = [
                f"{mine[:, way].mean():.1f}, {np.median(mine[:, way]):.1f}, {np.quantile(mine[:, way], 0.9):.1f}"
                for way in range(3)
            ]
            best = WAYS[int(mine.mean(0).argmin())]
            print(
                f"| {name} | {'known' if advance else 'no'} | {CODES[int(rung)]} | {len(mine)} | {' | '.join(figures)} | {best} |"
            )


def main() -> None:
    """Run the backtest."""
    parser = argparse.ArgumentParser(prog="python -m bench.estimation", description=__doc__)
    parser.add_argument("--half", type=int, choices=[0, 1], default=1)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--gaps", type=int, default=4, help="Gaps of each class on each meter.")
    chosen = parser.parse_args()
    town = read_town().half(chosen.half)
    start_s = int(dt.datetime.combine(MONDAY, dt.time(), dt.UTC).timestamp())
    loads = []
    for row in town.energy:
        wh = row.reshape(-1).astype(np.int64)
        loads.append(load_of(start_s, INTERVAL_S, wh, np.ones(len(wh), np.bool_), zoneinfo.ZoneInfo("UTC")))
    print(
        f"half {chosen.half}, {len(loads)} meters, seed {chosen.seed}, {chosen.gaps} gaps of each class on each meter",
        flush=True,
    )
    table(punched(loads, np.random.default_rng(chosen.seed), chosen.gaps))


if __name__ == "__main__":
    main()
