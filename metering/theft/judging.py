"""Weeks judged one after the other against the trusted past of their meter.

The past guards itself: a week that looks tampered with does not become a past, and of the first weeks the one that fits the
others worst is left out when it fits badly. The past of a week is the latest trusted weeks before it.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metering.theft import features
from metering.theft.features import Columns, Floats
from metering.theft.learning import (
    EARLY_WEEKS,
    FIRST_KIND,
    FOLDS,
    HONEST,
    METERS_MAX,
    NAMES,
    PAST_WEEKS,
    Models,
    Opinion,
    Samples,
    learned,
    matrix_of,
    samples_of,
)

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

COVERED_MIN = 0.5
"""Share of a week's intervals that must be there for it to be judged or trusted."""
MEAN_MIN_WH = 0.5
"""A meter that counts less per interval over its whole past has no habit to depart from."""
QUARANTINE = 0.9
"""Share of honest early weeks that look less changed than a week may that becomes a past."""
ODD_EARLY = 0.97
"""Share of honest early weeks that look less changed than an early week that is left out of the past."""
LATE_EARLY = 0.95
"""The same for the third and fourth week against the first two."""
NEUTRAL = -4.0
"""What is said of a week that cannot be judged: less changed than nearly all honest ones."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """What is said of each meter-week."""

    opinion: Opinion
    """Shape (meters, weeks); NEUTRAL where not judged."""
    judged: Mask
    """Shape (meters, weeks)."""
    early: Opinion
    """Of the honest early weeks, each against the others of its meter, shape (learning meters, EARLY_WEEKS)."""
    level: Floats
    """Log of energy against the trusted past, the peers' change taken off, shape (meters, weeks)."""
    trusted: Mask
    """Weeks that are a past for later ones, shape (meters, weeks)."""


def judged(energy: Floats, covered: Floats, step_wh: Floats, made: Floats, seed: int) -> Judged | None:
    """Return what is said of every week from the fourth on; None where there are too few weeks to learn from.

    Args:
        energy: Shape (meters, weeks, 7, slots), Wh, nothing missing, nothing negative.
        covered: Share of each week that was really there, shape (meters, weeks).
        step_wh: Resolution of each meter, Wh.
        made: Weeks of made homes to learn from as well where meters are few, shape (homes, EARLY_WEEKS, 7, slots).
        seed: Of the generator of chance; the same input and seed give the same output.
    """
    if energy.shape[1] < EARLY_WEEKS:
        return None
    chance = np.random.default_rng(seed)
    step_wh = np.maximum(step_wh, features.STEP_MIN_WH)
    energy = features.stepped(energy, step_wh)
    there = covered >= COVERED_MIN
    able = there[:, :EARLY_WEEKS].all(1) & (energy[:, :EARLY_WEEKS].mean((1, 2, 3)) > MEAN_MIN_WH)
    teachers = np.flatnonzero(able)
    if len(teachers) > METERS_MAX:
        teachers = teachers[np.linspace(0, len(teachers) - 1, METERS_MAX).astype(int)]
    lessons = np.concatenate([energy[teachers, :EARLY_WEEKS], made])
    if len(lessons) < 2 * FOLDS:
        return None
    lesson_fold = np.concatenate([teachers % FOLDS, np.arange(len(made)) % FOLDS])
    lesson_step = np.concatenate([step_wh[teachers], np.full(len(made), float(features.STEP_MIN_WH))])
    samples = samples_of(lessons, lesson_step, chance, lesson_fold)
    models = learned(samples, seed)
    return _Sequence(energy, there, models, _said_of_early(samples, models, len(lessons))).run()


def _said_of_early(samples: Samples, models: Models, lessons: int) -> Opinion:
    """Return what is said of the honest early weeks, which come week by week among the samples."""
    plain = samples.label == HONEST
    said = models.opinion(samples.matrix[plain], samples.fold[plain])

    def by_meter(values: Floats) -> Floats:
        return np.moveaxis(values.reshape(EARLY_WEEKS, lessons, *values.shape[1:]), 0, 1)

    return Opinion(by_meter(said.changed), by_meter(said.theft), by_meter(said.kinds))


class _Sequence:
    """The state of judging: which weeks of each meter are trusted."""

    def __init__(self, energy: Floats, there: Mask, models: Models, early: Opinion) -> None:
        self.energy, self.there, self.models, self.early = energy, there, models, early
        meters, weeks = energy.shape[:2]
        flat = features.described(energy.reshape(meters * weeks, *energy.shape[2:]))
        self.known: Columns = {name: value.reshape(meters, weeks) for name, value in flat.items()}
        self.trusted = there & (np.cumsum(there, axis=1) <= EARLY_WEEKS)  # each meter's own first weeks
        self.quarantine = float(np.quantile(early.changed, QUARANTINE))
        self.peers: dict[int, dict[str, Floats]] = {}
        self.late = float(np.quantile(early.changed, LATE_EARLY))
        self.changed = np.full((meters, weeks), NEUTRAL)
        self.theft = np.zeros((meters, weeks))
        self.kinds = np.zeros((meters, weeks, FIRST_KIND + len(NAMES)))
        self.kinds[..., HONEST] = 1.0
        self.level = np.zeros((meters, weeks))
        self.judged = np.zeros((meters, weeks), np.bool_)

    def run(self) -> Judged:
        """Judge every week and return what is said."""
        self._leave_out_odd_early_weeks(self._leave_out_late_early_weeks())
        for week in range(PAST_WEEKS, self.energy.shape[1]):
            self._judge(week)
        return Judged(Opinion(self.changed, self.theft, self.kinds), self.judged, self.early, self.level, self.trusted)

    def _leave_out_late_early_weeks(self) -> Ints:
        """Take out the third and fourth week where they look tampered with against the first two; return the other meters."""
        rows = np.flatnonzero(self.there[:, :EARLY_WEEKS].all(1))
        calm = np.ones(len(rows), np.bool_)
        if not len(rows):
            return rows
        for week in (2, 3):
            said = self._opinion(rows, np.tile([0, 1], (len(rows), 1)), week)[0]
            tampered = (said.changed > self.late) & (said.theft > 0)
            self.trusted[rows[tampered], week] = False
            calm &= ~tampered
        return rows[calm]

    def _leave_out_odd_early_weeks(self, rows: Ints) -> None:
        """Take out of each meter's first weeks the one that fits the others worst, where it fits badly."""
        if not len(rows):
            return
        changed = np.zeros((len(rows), EARLY_WEEKS))
        for week in range(EARLY_WEEKS):
            rest = [k for k in range(EARLY_WEEKS) if k != week]
            changed[:, week] = self._opinion(rows, np.tile(rest, (len(rows), 1)), week)[0].changed
        worst = changed.argmax(1)
        odd = changed.max(1) > np.quantile(self.early.changed, ODD_EARLY)
        self.trusted[rows[odd], worst[odd]] = False

    def _opinion(self, rows: Ints, before: Ints, week: int) -> tuple[Opinion, Floats]:
        """Return what is said of one week of some meters against the weeks before it, shape (rows, PAST_WEEKS)."""
        picked = {name: value[rows[:, None], before] for name, value in self.known.items()}
        past = features.worked_up(self.energy[rows[:, None], before], picked)
        known = {name: value[rows, week] for name, value in self.known.items()}
        change = {name: known[name] - past.mean[name] for name in features.LEVELS}
        if before.shape[1] == PAST_WEEKS or week not in self.peers:  # those with fewer trusted weeks are no fair sample
            self.peers[week] = {name: np.full(1, np.median(value)) for name, value in change.items()}
        peers = self.peers[week]
        matrix = matrix_of(self.energy[rows, week], past, peers, known)
        return self.models.opinion(matrix, rows % FOLDS), change["lmean"] - peers["lmean"]

    def _judge(self, week: int) -> None:
        trusted = self.trusted[:, :week]
        count = np.minimum(trusted.sum(1), PAST_WEEKS)
        able = self.there[:, week] & (self.there[:, :week].sum(1) >= PAST_WEEKS)
        for weeks in (PAST_WEEKS, 2):  # two trusted weeks tell less than three, but more than three of which one is not
            self._judge_some(np.flatnonzero(able & (count == weeks)), week, weeks)

    def _judge_some(self, rows: Ints, week: int, weeks: int) -> None:
        """Judge one week of meters that have so many trusted weeks before it."""
        if not len(rows):
            return
        before = np.stack([np.flatnonzero(self.trusted[row, :week])[-weeks:] for row in rows])
        said, level = self._opinion(rows, before, week)
        self.changed[rows, week], self.theft[rows, week], self.kinds[rows, week] = said.changed, said.theft, said.kinds
        self.level[rows, week] = level
        self.judged[rows, week] = True
        self.trusted[rows, week] = said.changed < self.quarantine
