"""The Swiss meters of ../shared/data, with attacks and honest changes injected in the meters' own resolution."""

import dataclasses
import datetime as dt
import gzip
import zoneinfo
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.detection.attacks import ATTACKS
from bench.detection.look_alikes import LOOK_ALIKES
from metering.theft.features import stepped
from metering.theft.weeks import Weeks

Floats = NDArray[np.float64]

FILE = Path("../shared/data/swiss15min/readings_wh.csv.gz")
WEEKS = 7
MONDAY = dt.date(2025, 10, 27)
"""A Monday of ISO week 44; the year of the data is not published."""
ONSET = 4
"""Weeks of clean past: what is injected begins in week 5."""


@dataclasses.dataclass(frozen=True)
class Town:
    """Meters fit for the evaluation."""

    names: list[str]
    energy: Floats
    """Shape (meters, WEEKS, 7, 96), Wh."""
    step_wh: Floats

    def half(self, parity: int) -> "Town":
        """Return every second meter: 0 is for choices, 1 for reports."""
        rows = np.arange(len(self.names)) % 2 == parity
        return Town(
            [name for name, mine in zip(self.names, rows, strict=True) if mine], self.energy[rows], self.step_wh[rows]
        )

    def weeks(self, energy: Floats) -> Weeks:
        """Return energy of these meters as the detector takes it."""
        monday = [MONDAY + dt.timedelta(weeks=week) for week in range(energy.shape[1])]
        return Weeks(self.names, monday, zoneinfo.ZoneInfo("UTC"), energy, self.step_wh, 900, 0)


def read_town() -> Town:
    """Return the meters without those that are empty, negative, very large, or a copy of another."""
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split(",") for line in file][1:]
    cells = np.array([[float(cell or 0) for cell in row[1:]] for row in rows])
    mean = cells.mean(1)
    fit = (cells.min(1) >= 0) & (mean > 5) & (mean < 5000) & ((cells == 0).mean(1) < 0.9)
    first = np.zeros(len(cells), np.bool_)
    first[np.unique(cells, axis=0, return_index=True)[1]] = True
    fit &= first
    names = [f"m{int(row[0]):04d}" if row[0].isdigit() else row[0] for row in rows]
    kept = [row for row in np.argsort(names) if fit[row]]
    step = np.where((cells[kept] % 10 == 0).mean(1) > 0.999, 10.0, 1.0)
    return Town([names[row] for row in kept], cells[kept].reshape(len(kept), WEEKS, 7, 96), step)


@dataclasses.dataclass(frozen=True)
class Scene:
    """A town in which something was injected."""

    energy: Floats
    label: list[str]
    """Of each meter: the name of what was injected, or empty."""


def scene(town: Town, names: list[str], share: float, seed: int, onset: int = ONSET) -> Scene:
    """Return the town with a share of its meters changed from a week on, in turn by each of the names."""
    chance = np.random.default_rng(seed)
    count = len(town.names)
    order, other = chance.permutation(count), chance.permutation(count)
    energy, label = town.energy.copy(), [""] * count
    for place, row in enumerate(order[: round(count * share)]):
        name = names[place % len(names)]
        days = town.energy[row, onset:].reshape(-1, 96)
        if name in ATTACKS:
            shown = ATTACKS[name](days, chance)
        else:
            shown = LOOK_ALIKES[name](days, town.energy[other[row], onset:].reshape(-1, 96), chance)
        energy[row, onset:] = stepped(shown[None], town.step_wh[row : row + 1])[0].reshape(-1, 7, 96)
        label[row] = name
    return Scene(energy, label)
