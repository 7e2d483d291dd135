"""The balance of a transformer: technical loss, missing energy, and whose pattern explains it."""

import numpy as np
import pytest

from metering.theft.made_home import made_homes
from metering.theft.residual import balanced, fitted_loss, told, weighed

MEMBERS, WEEKS = 12, 6


@pytest.fixture
def true() -> np.ndarray:
    return made_homes(MEMBERS, WEEKS, 24, np.random.default_rng(21))


def into(true: np.ndarray) -> np.ndarray:
    load = true.sum(0)
    return load + 30 + 4e-6 * load**2


def expected(reported: np.ndarray) -> np.ndarray:
    out = np.full_like(reported, np.nan)
    out[:, 3:] = reported[:, :3].mean(1, keepdims=True)
    return out


def test_loss_of_constant_and_square_is_fitted() -> None:
    load = np.linspace(1000, 9000, 200)
    a, b = fitted_loss(load, 25 + 3e-6 * load**2)
    assert a == pytest.approx(25, rel=1e-6)
    assert b == pytest.approx(3e-6, rel=1e-6)


def test_loss_is_never_negative_and_never_above_a_tenth_of_the_energy() -> None:
    load = np.linspace(1000, 9000, 200)
    assert min(fitted_loss(load, -0.05 * load)) >= 0
    a, b = fitted_loss(load, 0.4 * load)
    assert (a + b * load**2).sum() <= 0.1000001 * load.sum()


def test_honest_group_has_no_week_in_which_energy_is_missing(true: np.ndarray) -> None:
    balance = balanced(into(true), true, expected(true))
    assert not balance.short.any()
    assert not balance.negative.any()
    assert np.abs(balance.missing).max() < 0.01


def test_restless_observer_needs_more_to_be_missing(true: np.ndarray) -> None:
    days = np.random.default_rng(22).normal(1, 0.05, (WEEKS, 7, 1))
    reported = true.copy()
    reported[5, 4:] *= 0.7
    assert balanced(into(true), reported, expected(reported)).short[4:].all()
    assert not balanced(into(true) * days, reported, expected(reported)).short.any()


def test_thief_is_the_one_whose_pattern_explains_what_is_missing(true: np.ndarray) -> None:
    reported = true.copy()
    reported[5, 4:] *= 0.3
    balance = balanced(into(true), reported, expected(reported))
    assert balance.short.tolist() == [False] * 4 + [True] * 2
    assert (balance.explained[:, 4:].argmax(0) == 5).all()
    stolen = (true - reported)[5, 4].sum()
    assert balance.missing_wh[4] == pytest.approx(stolen, rel=0.1)


def test_thief_without_any_past_is_ranked_by_its_own_shape(true: np.ndarray) -> None:
    reported = true.copy()
    reported[7] *= 0.4
    balance = balanced(into(true), reported, np.full_like(reported, np.nan))
    assert (balance.explained.argmax(0) == 7).all()


def test_member_counted_twice_shows_as_negative_loss(true: np.ndarray) -> None:
    reported = true.copy()
    reported[2, 4:] *= 2
    balance = balanced(into(true), reported, expected(reported))
    assert balance.negative[4:].all()
    assert not balance.short[4:].any()


def test_interval_counts_only_where_nearly_all_members_reported(true: np.ndarray) -> None:
    reported = true.copy()
    reported[0, 5] = np.nan
    balance = balanced(into(true), reported, expected(reported))
    assert np.isnan(balance.missing[5])
    assert np.isfinite(balance.missing[:5]).all()


def test_honest_change_loses_weight_under_a_clean_balance_and_a_thief_gains(true: np.ndarray) -> None:
    reported = true.copy()
    reported[5, 4:] *= 0.3
    balance = balanced(into(true), reported, expected(reported))
    score = weighed(np.zeros((MEMBERS, WEEKS)), balance)
    assert score[5, 4] > 2
    assert score[5, 4] == score[:, 4].max()
    assert (score[:, :3] < 0).all()
    assert told(np.zeros((MEMBERS, WEEKS)), balance)[5, 4] > 2


def test_negative_observer_and_dead_observer_give_no_balance_and_no_error(true: np.ndarray) -> None:
    for odd in (-into(true), np.zeros_like(into(true)), np.full_like(into(true), np.nan)):
        balance = balanced(odd, true, expected(true))
        assert not balance.short.any()
        assert np.isfinite(weighed(np.zeros((MEMBERS, WEEKS)), balance)).all()
