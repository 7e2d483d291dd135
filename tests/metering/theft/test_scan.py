"""The detector over made homes: an obvious bypass, honest homes, a network, and that chance has no part in the answer."""

import datetime as dt
import zoneinfo

import numpy as np
import pytest

from metering.theft.features import stepped
from metering.theft.made_home import made_homes
from metering.theft.scan import Finding, scanned
from metering.theft.weeks import Weeks

HOMES, WEEKS, THIEF, ONSET = 24, 7, 9, 4
MONDAYS = [dt.date(2026, 9, 7) + dt.timedelta(weeks=week) for week in range(WEEKS)]


def weeks_of(energy: np.ndarray, names: list[str] | None = None) -> Weeks:
    names = names or [f"m{number:02d}" for number in range(len(energy))]
    monday = MONDAYS[: energy.shape[1]]
    return Weeks(names, monday, zoneinfo.ZoneInfo("UTC"), energy, np.full(len(names), 10.0), 3600, 0)


def homes() -> np.ndarray:
    energy = made_homes(HOMES, WEEKS, 24, np.random.default_rng(41))
    energy[3] = 0.0
    energy[4] = 30.0
    return energy


def with_thief() -> np.ndarray:
    energy = homes()
    energy[THIEF, ONSET:] = stepped(energy[THIEF : THIEF + 1, ONSET:] * 0.2, np.full(1, 10.0))[0]
    return energy


@pytest.fixture(scope="module")
def found() -> Finding:
    return scanned(weeks_of(with_thief()))


@pytest.fixture(scope="module")
def honest() -> Finding:
    return scanned(weeks_of(homes()))


@pytest.fixture(scope="module")
def balanced() -> Finding:
    names = [f"m{number:02d}" for number in range(HOMES)] + ["t1"]
    load = homes().sum(0)
    energy = np.concatenate([with_thief(), np.round(load + 40 + 2e-6 * load**2)[None]])
    return scanned(weeks_of(energy, names), dict.fromkeys(names[:-1], "t1"))


def test_obvious_bypass_is_raised_as_theft_within_two_weeks(found: Finding) -> None:
    theft = [a for a in found.alarms if a.kind.startswith("theft_")]
    assert (THIEF, "theft_suspected") in [(a.subject, a.kind) for a in theft]
    assert min(a.raised_after for a in theft if a.subject == THIEF) < ONSET + 2


def test_obvious_bypass_has_the_highest_score_of_all_meters(found: Finding) -> None:
    assert (found.score[:, ONSET:].argmax(0) == THIEF).all()


def test_of_few_honest_homes_no_more_than_a_tenth_is_raised_as_theft(honest: Finding) -> None:
    """So few homes cannot set a threshold of their own; bench/detection measures the budget on hundreds."""
    theft = {a.subject for a in honest.alarms if a.kind.startswith("theft_")}
    assert len(theft) <= HOMES / 10


def test_flat_and_empty_meters_raise_nothing(honest: Finding) -> None:
    assert [a for a in honest.alarms if a.subject in (3, 4)] == []


def test_theft_that_begins_in_the_third_week_does_not_become_the_past() -> None:
    energy = homes()
    energy[THIEF, 2:] = stepped(energy[THIEF : THIEF + 1, 2:] * 0.2, np.full(1, 10.0))[0]
    result = scanned(weeks_of(energy))
    assert (result.score[:, ONSET:].argmax(0) == THIEF).all()
    assert (THIEF, "theft_suspected") in [(a.subject, a.kind) for a in result.alarms]


def test_every_meter_week_from_the_fourth_on_has_a_finite_score(honest: Finding) -> None:
    assert honest.first_week == 3
    assert np.isfinite(honest.score).all()
    assert all(honest.reason[row][week] for row in range(HOMES) for week in range(3, WEEKS))


def test_same_input_gives_the_same_scores_and_alarms(found: Finding) -> None:
    again = scanned(weeks_of(with_thief()))
    assert np.array_equal(again.score, found.score)
    assert again.alarms == found.alarms
    assert again.reason == found.reason


def test_with_a_network_scores_begin_with_the_first_week(balanced: Finding) -> None:
    assert balanced.first_week == 0
    assert np.isfinite(balanced.score).all()


def test_observer_raises_the_feeder_and_the_thief_explains_it(balanced: Finding) -> None:
    kinds = {(balanced.subjects[a.subject], a.kind) for a in balanced.alarms}
    assert ("t1", "theft_feeder_residual") in kinds
    assert (f"m{THIEF:02d}", "theft_suspected") in kinds
    assert (balanced.score[:HOMES, ONSET:].argmax(0) == THIEF).all()


def test_theft_from_the_first_week_on_is_ranked_first_by_the_balance() -> None:
    true = made_homes(HOMES, 3, 24, np.random.default_rng(43))
    reported = true.copy()
    reported[THIEF] *= 0.3
    energy = np.concatenate([reported, np.round(true.sum(0) * 1.01)[None]])
    names = [f"m{number:02d}" for number in range(HOMES)] + ["t1"]
    result = scanned(weeks_of(energy, names), dict.fromkeys(names[:-1], "t1"))
    assert (result.score[:HOMES].argmax(0) == THIEF).all()


def test_parent_without_readings_or_members_is_said_and_stops_nothing() -> None:
    energy = homes()[:, :2]
    result = scanned(weeks_of(energy), {"m00": "t1", "m01": "t1", "gone": "t2"})
    kinds = {(result.subjects[a.subject], a.kind) for a in result.alarms}
    assert kinds == {("t1", "network_without_readings"), ("t2", "network_without_members")}


def test_file_of_one_meter_and_one_day_is_scored_without_an_opinion() -> None:
    energy = homes()[:1, :1]
    energy[:, :, 1:] = np.nan
    result = scanned(weeks_of(energy))
    assert result.alarms == []
    assert np.isfinite(result.score).all()


def test_file_that_begins_on_a_saturday_and_a_meter_installed_late_are_judged_all_the_same() -> None:
    energy = np.concatenate([made_homes(HOMES, 1, 24, np.random.default_rng(44)), with_thief()], axis=1)[:, :7]
    energy[:, 0, :5] = np.nan
    energy[1, :2] = np.nan
    result = scanned(weeks_of(energy))
    assert result.score[:, ONSET + 1 :].mean(1).argmax() == THIEF
    assert result.reason[THIEF][3] == "too little data"
    assert result.reason[1][6] != "too little data"


def test_week_that_is_mostly_missing_is_not_judged() -> None:
    energy = with_thief()
    energy[THIEF, 5, :5] = np.nan
    weeks = weeks_of(energy)
    result = scanned(weeks)
    assert result.reason[THIEF][5] == "too little data"
