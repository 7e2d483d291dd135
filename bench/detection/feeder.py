"""(b): the feeder balance on made groups of Swiss meters, and on the IEEE low-voltage feeder."""

import csv
import gzip
import sys
import zoneinfo
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.detection.attacks import ATTACKS, STEALING
from bench.detection.swiss import MONDAY, ONSET, Town
from metering.theft.features import stepped
from metering.theft.scan import scanned
from metering.theft.weeks import Weeks

Floats = NDArray[np.float64]

LV_FEEDER = Path("../shared/data/lv_feeder")
SIZES = (20, 50)
LOSS = (0.01, 0.03)
"""Constant loss and loss at the highest load, as shares of the mean and of the highest load."""
NOISE = 0.002
UTC = zoneinfo.ZoneInfo("UTC")


def observed(true: Floats, chance: np.random.Generator) -> Floats:
    """Return what an observer counts, Wh: the members' true energy, the loss, the observer's own error."""
    load = true.sum(0)
    loss = LOSS[0] * load.mean() + LOSS[1] * load.max() * (load / load.max()) ** 2
    return (load + loss) * (1 + chance.normal(0, NOISE, load.shape))


def groups(town: Town, seeds: list[int]) -> None:
    """Print ranks, precision and recall over made transformer groups of 20 to 50 meters with 0 to 5 thieves."""
    found: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    for seed in seeds:
        for thieves, figures in _one_scan(town, seed):
            found[thieves].append(figures)
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    words = (
        "rank (median)",
        "precision of the first t",
        "theft alarms: precision",
        "recall",
        "feeder alarm",
        "days to it",
    )
    print("| thieves | groups | " + " | ".join(words) + " |\n|" + "---|" * 8)
    for thieves in sorted(found):
        mean = [np.nanmean(column) if np.isfinite(column).any() else np.nan for column in np.array(found[thieves]).T]
        print(f"| {thieves} | {len(found[thieves])} | " + " | ".join(f"{value:.2f}" for value in mean) + " |")


def _one_scan(town: Town, seed: int) -> list[tuple[int, tuple[float, ...]]]:
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(town.names))
    energy, parent_of, members, thieves = town.energy.copy(), {}, [], []
    while len(order) >= SIZES[0]:
        size = min(int(chance.integers(SIZES[0], SIZES[1] + 1)), len(order))
        members.append(order[:size])
        order = order[size:]
        count = (len(thieves) + seed) % 6
        thieves.append(list(members[-1][:count]))
        parent_of |= {town.names[row]: f"z{len(members):02d}" for row in members[-1]}
    parents = np.stack([observed(town.energy[group], chance) for group in members])
    for row in (row for group in thieves for row in group):
        attack = ATTACKS[str(chance.choice(STEALING))]
        shown = attack(town.energy[row, ONSET:].reshape(-1, 96), chance)
        energy[row, ONSET:] = stepped(shown[None], town.step_wh[row : row + 1])[0].reshape(-1, 7, 96)
    names = [*town.names, *(f"z{number:02d}" for number in range(1, len(members) + 1))]
    steps = np.concatenate([town.step_wh, np.full(len(members), 10.0)])
    weeks = Weeks(names, town.weeks(energy).monday, UTC, np.concatenate([energy, np.round(parents)]), steps, 900, 0)
    result = scanned(weeks, parent_of)
    out = []
    for number, (group, guilty) in enumerate(zip(members, thieves, strict=True)):
        score = result.score[group, ONSET:].mean(1)
        ranked = [int(row) for row in group[np.argsort(-score)]]
        told = {a.subject for a in result.alarms if a.kind == "theft_suspected" and a.subject in set(group.tolist())}
        feeder = [
            a.raised_after
            for a in result.alarms
            if a.kind == "theft_feeder_residual" and a.subject == len(town.names) + number
        ]
        rank = np.median([ranked.index(row) + 1 for row in guilty]) if guilty else np.nan
        first = len(set(ranked[: len(guilty)]) & set(guilty)) / len(guilty) if guilty else np.nan
        precision = len(told & set(guilty)) / len(told) if told else np.nan
        recall = len(told & set(guilty)) / len(guilty) if guilty else np.nan
        soon = [week for week in feeder if week >= ONSET] if guilty else feeder
        days = (soon[0] - ONSET + 1) * 7.0 if soon and guilty else np.nan
        out.append((len(guilty), (rank, first, precision, recall, float(bool(soon)), days)))
    return out


def _lv_day() -> tuple[list[str], Floats, Floats]:
    """Return names, energy of the loads and of the transformer by quarter-hour, shape (loads, 96) and (96,), Wh."""
    with gzip.open(LV_FEEDER / "loads.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["load"] for row in rows})
    place = {name: number for number, name in enumerate(names)}
    energy = np.zeros((len(names), 96))
    for row in rows:
        energy[place[row["load"]], min(int(row["minute"]) // 15, 95)] += float(row["power_w"]) / 60
    into = np.zeros(96)
    with (LV_FEEDER / "transformer.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            into[min(int(row["minute"]) // 15, 95)] += float(row["power_w"]) / 60
    return names, np.round(energy), np.round(into)


def lv_feeder(seeds: list[int]) -> None:
    """Print thieves' ranks on the IEEE feeder: one day, no past, the transformer as observer."""
    names, energy, into = _lv_day()
    ranks: dict[str, list[int]] = defaultdict(list)
    for seed in seeds:
        for attack in STEALING:
            chance = np.random.default_rng([seed, len(ranks)])
            thief = int(chance.integers(len(names)))
            shown = energy.copy()
            shown[thief] = np.floor(ATTACKS[attack](energy[thief : thief + 1], chance)[0])
            week = np.full((len(names) + 1, 1, 7, 96), np.nan)
            week[:-1, 0, 0], week[-1, 0, 0] = shown, into
            weeks = Weeks([*names, "transformer"], [MONDAY], UTC, week, np.ones(len(names) + 1), 900, 0)
            score = scanned(weeks, dict.fromkeys(names, "transformer")).score[:-1, 0]
            ranks[attack].append(int((score > score[thief]).sum()) + 1)
    print("| attack | thief first | among the first 3 | median rank of 55 |\n|" + "---|" * 4)
    for attack, found in ranks.items():
        rank = np.array(found)
        print(f"| {attack} | {(rank == 1).mean():.2f} | {(rank <= 3).mean():.2f} | {np.median(rank):.0f} |")
