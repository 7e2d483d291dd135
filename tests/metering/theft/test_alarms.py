"""From opinions to alarms: budget, what is told as theft, when it begins and ends."""

import numpy as np
import pytest

from metering.theft import alarms
from metering.theft.alarms import meter_alarms, scores, spells, threshold, together
from metering.theft.judging import NEUTRAL, Judged
from metering.theft.learning import FIRST_KIND, HONEST, NAMES, TAMPERED, Opinion

KINDS = FIRST_KIND + len(NAMES)


def opinion(changed: np.ndarray, theft: float | np.ndarray = 2.0, kind: int = TAMPERED) -> Opinion:
    kinds = np.zeros((*changed.shape, KINDS))
    kinds[..., HONEST] = 1.0
    kinds[changed > 0] = 0.0
    kinds[changed > 0, kind] = 1.0
    return Opinion(changed, np.broadcast_to(theft, changed.shape).astype(float), kinds)


def judged(said: Opinion, early: Opinion) -> Judged:
    yes = np.ones(said.changed.shape, np.bool_)
    return Judged(said, yes, early, np.full(said.changed.shape, -0.5), yes)


def quiet(meters: int = 200) -> Opinion:
    return opinion(np.random.default_rng(31).normal(-3, 0.5, (meters, 4)))


def test_threshold_lets_no_more_honest_meters_through_than_the_budget() -> None:
    early = opinion(np.random.default_rng(32).normal(0, 2, (20_000, 4)))
    for budget in (0.5, 1.0, 5.0):
        cut = threshold(early, budget)
        raised = (together(early).changed[:, 1:].max(1) > cut).sum()
        assert raised <= budget * 20 * 21
        assert raised >= 0.4 * budget * 20 * 21


def test_larger_budget_never_has_a_higher_threshold() -> None:
    early = opinion(np.random.default_rng(33).normal(0, 2, (500, 4)))
    cuts = [threshold(early, budget) for budget in (0.2, 1, 3, 10, 40)]
    assert cuts == sorted(cuts, reverse=True)


def test_honest_changes_that_would_not_be_told_as_theft_do_not_raise_the_threshold() -> None:
    changed = quiet().changed
    changed[:20, 1:] = 8.0
    assert threshold(opinion(changed, theft=-3.0), 1.0) == pytest.approx(threshold(quiet(), 1.0), abs=0.5)
    assert threshold(opinion(changed, theft=3.0), 1.0) > threshold(quiet(), 1.0) + 2


def test_unchanged_meters_raise_nothing() -> None:
    assert meter_alarms(judged(quiet(), quiet()), together(quiet()), 1.0) == []


def test_tampered_meter_is_raised_once_and_stands() -> None:
    changed = np.full((3, 7), -3.0)
    changed[1, 4:] = 6.0
    said = opinion(changed)
    found = meter_alarms(judged(said, quiet()), together(said), 1.0)
    assert [(a.subject, a.kind, a.raised_after, a.cleared_after) for a in found] == [(1, "theft_suspected", 4, None)]
    assert "-39 %" in found[0].detail


def test_alarm_is_over_when_the_evidence_is_gone() -> None:
    changed = np.full((1, 9), -3.0)
    changed[0, 4:6] = 6.0
    said = opinion(changed)
    found = meter_alarms(judged(said, quiet()), together(said), 1.0)
    assert [(a.raised_after, a.cleared_after) for a in found] == [(4, 7)]


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_honest_change_is_named_and_not_raised_as_theft(number: int) -> None:
    changed = np.full((1, 7), -3.0)
    changed[0, 4:] = 6.0
    said = opinion(changed, theft=-3.0, kind=FIRST_KIND + number)
    found = meter_alarms(judged(said, quiet()), together(said), 1.0)
    assert [a.kind for a in found] == [NAMES[number]]


def test_odds_just_below_the_limit_are_no_theft_and_at_it_they_are() -> None:
    changed = np.full((1, 7), -3.0)
    changed[0, 4:] = 6.0
    for odds, kind in ((alarms.THEFT_ODDS_MIN, True), (alarms.THEFT_ODDS_MIN - 0.01, False)):
        said = opinion(changed, theft=odds, kind=FIRST_KIND)
        found = meter_alarms(judged(said, quiet()), together(said), 1.0)
        assert any(a.kind.startswith("theft_") for a in found) is kind


def test_score_of_a_week_leans_on_its_more_suspect_neighbour() -> None:
    changed = np.array([[NEUTRAL, 0.0, 4.0, 0.0, 0.0]])
    assert scores(opinion(changed)).tolist() == [[-2.0, 2.0, 2.0, 2.0, 0.0]]


def test_spells_begin_where_raised_and_end_where_nothing_goes_on() -> None:
    raised = np.array([0, 1, 0, 0, 1, 0, 0], np.bool_)
    going = np.array([1, 1, 1, 0, 1, 1, 1], np.bool_)
    found = spells(3, "x", raised, going, list("abcdefg"))
    assert [(a.raised_after, a.cleared_after, a.detail) for a in found] == [(1, 3, "b"), (4, None, "e")]
