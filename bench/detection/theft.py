"""(a) and (c): attacks, honest changes and honest meters through the detector, and two baselines for the attacks."""

import dataclasses
import sys
import time
from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from bench.detection.attacks import ATTACKS
from bench.detection.look_alikes import LOOK_ALIKES, NAMED
from bench.detection.swiss import ONSET, WEEKS, Scene, Town, scene
from metering.theft import features
from metering.theft.learning import matrix_of, peers_change
from metering.theft.scan import Finding, scanned

Floats = NDArray[np.float64]
FALSE_POSITIVES = 0.05
SOON_WEEKS = 2
JUDGED_WEEKS = WEEKS - 3


@dataclasses.dataclass
class Tally:
    """Scores and alarms by what was injected; "" is honest."""

    scores: dict[str, list[float]] = dataclasses.field(default_factory=lambda: defaultdict(list))
    meters: Counter[str] = dataclasses.field(default_factory=Counter)
    theft_soon: Counter[str] = dataclasses.field(default_factory=Counter)
    theft_ever: Counter[str] = dataclasses.field(default_factory=Counter)
    named: Counter[str] = dataclasses.field(default_factory=Counter)
    honest_theft: int = 0
    honest_alarms: int = 0

    def add(self, made: Scene, found: Finding) -> None:
        """Count one scan."""
        for row, label in enumerate(made.label):
            self.meters[label] += 1
            self.scores[label] += list(found.score[row, ONSET:])
            mine = [alarm for alarm in found.alarms if alarm.subject == row]
            theft = [alarm.raised_after for alarm in mine if alarm.kind.startswith("theft_")]
            if not label:
                self.honest_theft += len(theft)
                self.honest_alarms += len(mine)
            self.theft_soon[label] += any(ONSET <= week < ONSET + SOON_WEEKS for week in theft)
            self.theft_ever[label] += any(week >= ONSET for week in theft)
            self.named[label] += any(a.kind == NAMED.get(label) and a.raised_after >= ONSET for a in mine)

    def burden(self) -> tuple[float, float]:
        """Return theft alarms and all alarms on honest meters, per 1,000 meter-days judged."""
        days = max(self.meters[""], 1) * JUDGED_WEEKS * 7 / 1000
        return self.honest_theft / days, self.honest_alarms / days


def area(honest: Floats, other: Floats) -> float:
    """Return the area under the ROC curve."""
    order = np.sort(honest)
    below, upto = np.searchsorted(order, other, "left"), np.searchsorted(order, other, "right")
    return float((below + upto).mean() / 2 / len(honest))


def told(scores: dict[str, list[float]]) -> tuple[list[float], list[float], float]:
    """Return recall at 5 % false positives and AUC of each attack, and the AUC over all."""
    honest = np.array(scores[""])
    cut = np.quantile(honest, 1 - FALSE_POSITIVES)
    found = [np.array(scores[name]) for name in ATTACKS]
    return (
        [float((one > cut).mean()) for one in found],
        [area(honest, one) for one in found],
        area(honest, np.concatenate(found)),
    )


def run(town: Town, names: list[str], share: float, seeds: list[int], onset: int = ONSET) -> Tally:
    """Return the tally of scans with other meters changed in each."""
    tally = Tally()
    for seed in seeds:
        made = scene(town, names, share, seed, onset)
        began = time.process_time()
        tally.add(made, scanned(town.weeks(made.energy)))
        print(
            f"seed {seed}: {len(town.names)} meters in {time.process_time() - began:.0f} CPU s",
            file=sys.stderr,
            flush=True,
        )
    return tally


def row(name: str, values: list[float], digits: int = 2) -> str:
    return f"| {name} | " + " | ".join(f"{value:.{digits}f}" for value in values) + " |"


def attacks(town: Town, other: Town, seeds: list[int], onset: int = ONSET, share: float = 0.5) -> None:
    """Print (a): the detector against a plain drop rule and gradient boosting that was trained on the attacks."""
    tally = run(town, list(ATTACKS), share, seeds, onset)
    recall, each, overall = told(tally.scores)
    print(f"\nmeters: {dict(tally.meters)}; seeds {seeds}; injected from week {onset + 1}")
    print("| recall at 5 % | " + " | ".join(ATTACKS) + " | AUC |\n|" + "---|" * 8)
    print(row("detector", [*recall, overall], 3))
    rivals = {}
    if onset == ONSET:
        rivals = {"drop": _drop(town, seeds), "boosting, trained on the attacks": _trained(town, other, seeds)}
    for name, scores in rivals.items():
        theirs, _, area_all = told(scores)
        print(row(name, [*theirs, area_all], 3))
    print(row("AUC of the detector", [*each, overall], 3))
    for words, counts in (("alarm within two weeks", tally.theft_soon), ("alarm within three weeks", tally.theft_ever)):
        print(row(words, [counts[name] / tally.meters[name] for name in ATTACKS]))
    theft, alarms = tally.burden()
    print(f"honest meters beside them: {theft:.2f} theft alarms, {alarms:.2f} alarms of meters per 1,000 meter-days")


def look_alikes(town: Town, seeds: list[int]) -> None:
    """Print what is made of honest changes."""
    tally = run(town, list(LOOK_ALIKES), 0.5, seeds)
    print(f"\nmeters: {dict(tally.meters)}; seeds {seeds}")
    print("| | " + " | ".join(LOOK_ALIKES) + " |\n|" + "---|" * 8)
    for words, counts in (
        ("raised as theft within two weeks", tally.theft_soon),
        ("raised as theft within three weeks", tally.theft_ever),
        ("named as what it is", tally.named),
    ):
        print(row(words, [counts[name] / tally.meters[name] for name in LOOK_ALIKES]))
    print("honest meters beside them: {:.2f} theft alarms, {:.2f} alarms per 1,000 meter-days".format(*tally.burden()))


def honest(town: Town) -> None:
    """Print (c)."""
    tally = run(town, [], 0.0, [0])
    theft, alarms = tally.burden()
    print(f"\n{len(town.names)} honest meters: {theft:.2f} theft alarms, {alarms:.2f} alarms per 1,000 meter-days")


# -- baselines -----------------------------------------------------------------------------------------------------


def _drop(town: Town, seeds: list[int]) -> dict[str, list[float]]:
    """Return how much less a week is than the mean of all weeks before it."""
    scores: dict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        made = scene(town, list(ATTACKS), 0.5, seed)
        mean = np.log(made.energy.mean((2, 3)) + features.EPS_WH)
        for week in range(ONSET, WEEKS):
            fall = mean[:, :week].mean(1) - mean[:, week]
            for label, value in zip(made.label, fall, strict=True):
                scores[label].append(float(value))
    return scores


def _rows(town: Town, made: Scene) -> tuple[Floats, list[str]]:
    """Return the detector's features of weeks 5 to 7 against all weeks before."""
    energy = features.stepped(made.energy, np.maximum(town.step_wh, features.STEP_MIN_WH))
    matrices, labels = [], []
    for week in range(ONSET, WEEKS):
        past = features.worked_up(energy[:, :week])
        known = features.described(energy[:, week])
        matrices.append(matrix_of(energy[:, week], past, peers_change(known, past), known))
        labels += made.label
    return np.concatenate(matrices), labels


def _trained(town: Town, other: Town, seeds: list[int]) -> dict[str, list[float]]:
    """Return what boosting says that saw the same attacks on other meters."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    scores: dict[str, list[float]] = defaultdict(list)
    lessons = [_rows(other, scene(other, list(ATTACKS), 0.7, 1000 + seed)) for seed in seeds[:2]]
    matrix = np.concatenate([rows for rows, _ in lessons])
    label = np.array([bool(name) for _, names in lessons for name in names])
    model = HistGradientBoostingClassifier(
        max_iter=200, learning_rate=0.06, max_leaf_nodes=8, max_features=0.2, max_bins=63, random_state=0
    ).fit(matrix, label)
    for seed in seeds:
        rows, names = _rows(town, scene(town, list(ATTACKS), 0.5, seed))
        for name, value in zip(names, model.decision_function(rows), strict=True):
            scores[name].append(float(value))
    return scores
