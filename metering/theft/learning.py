"""Models that learn on the scanned meters themselves what is usual, what is tampered with and what is an honest change.

No label is needed: the earliest weeks of the meters stand for what is usual, each against the others of its meter; the same
weeks changed by `tampering` and by `honest_change` stand for the rest. The meters are in two folds; each is judged by the
models that learnt on the other fold, so that no model has seen the meter it judges.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier

from metering.theft import features, honest_change, tampering
from metering.theft.features import Columns, Floats, Past

Ints = NDArray[np.int64]
Matrix = NDArray[np.float32]

EARLY_WEEKS = 4
PAST_WEEKS = EARLY_WEEKS - 1
"""Trusted weeks that a week is compared with, the same number as in learning."""
METERS_MAX = 300
"""To learn from: more cost time and bring little."""
COPIES, COPIES_MAX = 4, 8
"""Changed weeks of each sort for each honest one; more where meters are few, so that there is as much to learn from."""
FOLDS = 2
SEEDS = 2
"""Boosted models that are averaged."""
HONEST, TAMPERED, FIRST_KIND = 0, 1, 2
NAMES = tuple(honest_change.KINDS)
KIND_SHARES = np.array([0.34, 0.18, 0.08, 0.07, 0.07, 0.13, 0.13])
"""How often each honest change is shown in learning: those hardest to tell from tampering more often."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Weeks with what they are."""

    matrix: Matrix
    """Shape (n, features)."""
    label: Ints
    """HONEST, TAMPERED, or FIRST_KIND plus the place in NAMES."""
    fold: Ints
    """Of the meter whose week it is."""

    def __add__(self, other: "Samples") -> "Samples":
        pairs = [(getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self)]
        return Samples(*map(np.concatenate, pairs))


@dataclasses.dataclass(frozen=True)
class Opinion:
    """What the models say of weeks, each with the week (or other shape) in front."""

    changed: Floats
    """Log odds that it is not the meter's usual behaviour in the manner of tampering."""
    theft: Floats
    """Log odds that it was tampered with, given that it changed: below 0 an honest change is likelier."""
    kinds: Floats
    """Probability of each label, shape (..., FIRST_KIND + kinds)."""


@dataclasses.dataclass(frozen=True)
class Models:
    """Models of each fold: boosted ones of SEEDS seeds, and a forest for the kinds."""

    changed: list[list[Any]]
    theft: list[list[Any]]
    kinds: list[Any]
    changed_prior: float
    """Log odds of tampered samples among those learnt from; taken off, as if there were as many of each."""
    theft_prior: float

    def opinion(self, matrix: Matrix, fold: Ints) -> Opinion:
        """Return what the models that have not seen these meters say; one row for each row of the matrix."""
        changed, theft = np.zeros(len(matrix)), np.zeros(len(matrix))
        kinds = np.zeros((len(matrix), FIRST_KIND + len(NAMES)))
        for number in range(FOLDS):
            rows = np.flatnonzero(fold == number)
            if len(rows):
                mine = matrix[rows]
                changed[rows] = _mean_odds(self.changed[number], mine) - self.changed_prior
                kinds[np.ix_(rows, self.kinds[number].classes_)] = self.kinds[number].predict_proba(mine)
                both = kinds[rows, TAMPERED] / np.maximum(kinds[rows, TAMPERED:].sum(1), 1e-9)
                boosted = _mean_odds(self.theft[number], mine) - self.theft_prior
                theft[rows] = (boosted + 2 * _odds(both)) / 2
        return Opinion(changed, theft, kinds)


def _mean_odds(models: list[Any], matrix: Matrix) -> Floats:
    return np.asarray(np.mean([_odds(model.predict_proba(matrix)[:, 1]) for model in models], axis=0))


def _odds(share: Floats) -> Floats:
    share = np.clip(share, 1e-4, 1 - 1e-4)
    return np.log(share / (1 - share))


def peers_change(week: Columns, past: Past) -> dict[str, Floats]:
    """Return the median change of each level over the meters: what weather and season did to everybody."""
    return {name: np.full(1, np.median(week[name] - past.mean[name])) for name in features.LEVELS}


def matrix_of(week_wh: Floats, past: Past, peers: dict[str, Floats], known: Columns | None = None) -> Matrix:
    """Return the features of weeks as rows: changes against the past, then the descriptors themselves."""
    now = known or features.described(week_wh)
    columns = [*features.changes(week_wh, past, peers, now).values(), *now.values()]
    return np.nan_to_num(np.stack(columns, axis=1)).astype(np.float32)


def samples_of(energy: Floats, step_wh: Floats, chance: np.random.Generator, fold: Ints) -> Samples:
    """Return the samples that the early weeks of meters give.

    Args:
        energy: Shape (meters, EARLY_WEEKS, 7, slots), Wh, stepped.
        step_wh: Shape (meters,), Wh.
        chance: Generator, seeded by the caller.
        fold: Of each meter, shape (meters,).
    """
    parts = []
    copies = int(np.clip(COPIES * METERS_MAX // len(energy), COPIES, COPIES_MAX))
    for week in range(EARLY_WEEKS):
        past = features.worked_up(np.delete(energy, week, axis=1))
        now = energy[:, week]
        known = features.described(now)
        peers = peers_change(known, past)
        parts.append(_labelled(matrix_of(now, past, peers, known), np.full(len(now), HONEST), fold))
        for _ in range(copies):
            changed = np.stack([tampering.tampered(one, chance) for one in now])
            matrix = matrix_of(features.stepped(changed, step_wh), past, peers)
            parts.append(_labelled(matrix, np.full(len(now), TAMPERED), fold))
            changed, kind = _honestly_changed(now, chance, fold)
            matrix = matrix_of(features.stepped(changed, step_wh), past, peers)
            parts.append(_labelled(matrix, kind + FIRST_KIND, fold))
    out = parts[0]
    for part in parts[1:]:
        out += part
    return out


def _labelled(matrix: Matrix, label: Ints, fold: Ints) -> Samples:
    return Samples(matrix, np.asarray(label, np.int64), fold)


def _honestly_changed(now: Floats, chance: np.random.Generator, of: Ints) -> tuple[Floats, Ints]:
    """Return each week changed in one of NAMES; the other home comes from the same fold, or a model would have seen it."""
    kind = chance.choice(len(NAMES), len(now), p=KIND_SHARES)
    other = np.arange(len(now))
    for fold in range(FOLDS):
        mine = np.flatnonzero(of == fold)
        other[chance.permutation(mine)] = mine
    changes = [honest_change.KINDS[name] for name in NAMES]
    out = [changes[kind[row]](now[row], now[other[row]], chance) for row in range(len(now))]
    return np.stack(out), kind


def learned(samples: Samples, seed: int) -> Models:
    """Return the models of both folds."""
    count = np.bincount(samples.label, minlength=FIRST_KIND)
    models = Models(
        [],
        [],
        [],
        float(np.log(count[TAMPERED] / count[HONEST])),
        float(np.log(count[TAMPERED] / count[FIRST_KIND:].sum())),
    )
    for fold in range(FOLDS):
        other = samples.fold != fold
        label, matrix = samples.label[other], samples.matrix[other]
        plain, odd = label <= TAMPERED, label != HONEST
        models.changed.append(
            [
                _boosted(seed + k, rounds=150, leaves=8).fit(matrix[plain], label[plain] == TAMPERED)
                for k in range(SEEDS)
            ]
        )
        models.theft.append(
            [_boosted(seed + k, rounds=220, leaves=12).fit(matrix[odd], label[odd] == TAMPERED) for k in range(SEEDS)]
        )
        models.kinds.append(_trees(seed).fit(matrix, label))
    return models


def _boosted(seed: int, rounds: int, leaves: int) -> Any:
    return HistGradientBoostingClassifier(
        max_iter=rounds,
        learning_rate=0.08,
        max_leaf_nodes=leaves,
        min_samples_leaf=15,
        l2_regularization=1.0,
        max_features=0.1,
        max_bins=63,
        early_stopping=False,
        random_state=seed,
    )


def _trees(seed: int) -> Any:
    return ExtraTreesClassifier(
        150, min_samples_leaf=2, max_features=0.2, class_weight="balanced", random_state=seed, n_jobs=1
    )
