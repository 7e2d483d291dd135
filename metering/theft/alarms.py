"""From what is said of weeks to scores, reasons and alarms that keep a budget.

A score weighs a week and its neighbour; an alarm looks back only: it could have been raised at the end of its week. What
changed like an honest change is not raised as theft but named as what it is.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metering.theft.features import Floats
from metering.theft.judging import NEUTRAL, Judged
from metering.theft.learning import FIRST_KIND, HONEST, NAMES, Opinion

Ints = NDArray[np.int64]

BUDGET_PER_1000_METER_DAYS = 1.0
"""Theft alarms on honest meters, by default."""
MARGIN = 0.75
"""Share of the budget that early weeks may use: later weeks are further from their past. Chosen on half of the Swiss meters."""
USUAL, USUAL_FALL, USUAL_METERS = 1.3, 1.0, 100
"""Threshold met on the Swiss meters at a budget of 1, how it falls with the budget's logarithm, and as how many meters it
counts: two odd homes among 160 must not decide alone."""
CHANGE_BUDGET = 0.4
"""Alarms of each kind of honest change on meters that did not change, per 1,000 meter-days."""
THEFT_ODDS_MIN = -0.4
"""Log odds of tampering against an honest change below which a change is not raised as theft."""
KIND_SHARE_MIN = 0.35
"""Probability that an honest change needs to be named."""
FLOOR = 0.5
"""No budget makes an alarm of weeks less changed than this."""
HOLD = 1.5
"""Deadband: an alarm ends when the evidence is so much below the threshold."""


@dataclasses.dataclass(frozen=True)
class Alarm:
    """One alarm of a subject and kind, in weeks."""

    subject: int
    """Row of the meter, or of the parent where `kind` is one of a parent."""
    kind: str
    raised_after: int
    """Week at whose end it is raised."""
    cleared_after: int | None
    """Week at whose end it is over; None while it stands."""
    detail: str


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What an alarm rests on, shape (meters, weeks): this week and the one before it together."""

    changed: Floats
    theft: Floats
    kinds: Floats


def together(opinion: Opinion) -> Evidence:
    """Return each week's opinion averaged with that of the week before; before the first, an unchanged week is assumed."""

    def with_before(values: Floats, first: Floats) -> Floats:
        return (values + np.concatenate([first, values[:, :-1]], axis=1)) / 2

    changed, theft, kinds = opinion.changed, opinion.theft, opinion.kinds
    before = np.full_like(changed[:, :1], NEUTRAL)
    return Evidence(with_before(changed, before), with_before(theft, theft[:, :1]), with_before(kinds, kinds[:, :1]))


def scores(opinion: Opinion) -> Floats:
    """Return the score of each meter-week, the mean of its week and the more suspect of the two beside it."""
    changed = opinion.changed
    before = np.concatenate([changed[:, :1], changed[:, :-1]], axis=1)
    after = np.concatenate([changed[:, 1:], changed[:, -1:]], axis=1)
    return (changed + np.maximum(before, after)) / 2


def threshold(early: Opinion, budget: float) -> float:
    """Return the evidence at which a theft alarm is raised, so that honest meters keep a budget.

    Args:
        early: Of honest weeks in a row, shape (meters, weeks).
        budget: Alarms per 1,000 meter-days.
    """
    if not early.changed.size:
        return FLOOR
    weight = together(early)
    worst = np.where(weight.theft >= THEFT_ODDS_MIN, weight.changed, NEUTRAL)[:, 1:].max(axis=1)
    cut = _cut(worst, MARGIN * budget * (early.changed.shape[1] - 1) * 7 / 1000)
    usual = USUAL - USUAL_FALL * float(np.log(budget))
    return max(FLOOR, (len(worst) * cut + USUAL_METERS * usual) / (len(worst) + USUAL_METERS))


def change_thresholds(early: Opinion, budget: float = CHANGE_BUDGET) -> Floats:
    """Return the probability from which each honest change is named, so that unchanged meters keep a budget a kind."""
    if not early.changed.size:
        return np.full(len(NAMES), KIND_SHARE_MIN)
    shares = together(early).kinds[:, 1:, FIRST_KIND:].max(axis=1)
    exceeded = MARGIN * budget * (early.changed.shape[1] - 1) * 7 / 1000
    return np.array([max(KIND_SHARE_MIN, _cut(shares[:, number], exceeded)) for number in range(len(NAMES))])


def _cut(worst: Floats, share: float) -> float:
    """Return the value that so small a share of values exceeds."""
    return float(np.quantile(worst, 1 - min(share, 0.5), method="higher"))


def meter_alarms(judged: Judged, weight: Evidence, budget: float) -> list[Alarm]:
    """Return the alarms of meters, by meter, kind and time."""
    theft_at, change_at = threshold(judged.early, budget), change_thresholds(judged.early)
    kind = weight.kinds[..., FIRST_KIND:].argmax(-1)
    share = weight.kinds[..., FIRST_KIND:].max(-1)
    seen = judged.judged
    theft = seen & (weight.changed >= theft_at) & (weight.theft >= THEFT_ODDS_MIN)
    going = (weight.changed >= theft_at - HOLD) & (weight.theft >= THEFT_ODDS_MIN)
    found = []
    for meter in range(len(seen)):
        found += spells(
            meter, "theft_suspected", theft[meter], theft[meter] | going[meter], _detail(judged, weight, meter)
        )
        honest = seen[meter] & ~theft[meter] & (share[meter] >= change_at[kind[meter]])
        honest |= seen[meter] & (weight.changed[meter] >= theft_at) & ~theft[meter]
        for number in np.unique(kind[meter][honest]):
            mine = honest & (kind[meter] == number)
            found += spells(meter, NAMES[number], mine, mine, _detail(judged, weight, meter))
    return found


def _detail(judged: Judged, weight: Evidence, meter: int) -> list[str]:
    return [
        f"changed {weight.changed[meter, week]:.1f}, theft against honest change {weight.theft[meter, week]:+.1f},"
        f" energy {100 * np.expm1(judged.level[meter, week]):+.0f} % against its own past"
        for week in range(judged.level.shape[1])
    ]


def spells(
    subject: int, kind: str, raised: NDArray[np.bool_], going: NDArray[np.bool_], detail: list[str]
) -> list[Alarm]:
    """Return an alarm for each time that something is raised and until it goes no more."""
    found: list[Alarm] = []
    start: int | None = None
    for week in range(len(raised)):
        if start is None and raised[week]:
            start = week
        elif start is not None and not going[week]:
            found.append(Alarm(subject, kind, start, week, detail[start]))
            start = None
    if start is not None:
        found.append(Alarm(subject, kind, start, None, detail[start]))
    return found


def reason(judged: Judged, meter: int, week: int, weight: Evidence) -> str:
    """Return in words what a score rests on."""
    if not judged.judged[meter, week]:
        return "too little data"
    energy = f"energy {100 * np.expm1(judged.level[meter, week]):+.0f} %"
    kinds = judged.opinion.kinds[meter, week]
    if kinds.argmax() == HONEST or judged.opinion.changed[meter, week] < FLOOR:
        return f"as usual; {energy}"
    if weight.theft[meter, week] >= THEFT_ODDS_MIN:
        return f"looks tampered with; {energy}"
    return f"changed like {NAMES[int(kinds[FIRST_KIND:].argmax())]}; {energy}"
