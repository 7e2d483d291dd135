"""The projection of the rest of a cycle: expected energy by quarter-hour and its range."""

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from metering.projection import (
    CLASS_SPREAD,
    NORMAL_80,
    PAST_DAYS,
    Ahead,
    Past,
    join_load,
    past_of,
    project,
    weekday_of,
)
from metering.usage import Load

TODAY = (dt.date(2026, 3, 2) - dt.date(1970, 1, 1)).days
"""A Monday."""


def past(days: np.ndarray, known: np.ndarray | None = None) -> Past:
    """Return one account's past of days, shape (d, 96)."""
    return Past(TODAY, days[None].astype(float), np.ones((1, len(days)), bool) if known is None else known[None])


def ahead(given: Past, days: int = 14, week: np.ndarray | None = None) -> Ahead:
    day = np.repeat(np.arange(TODAY, TODAY + days), 96)
    return project(given, day, np.tile(np.arange(96), days), week)


def by_day(wh: np.ndarray) -> np.ndarray:
    return wh[0].reshape(-1, 96).sum(axis=1)


def test_a_load_that_repeats_itself_is_projected_as_it_is_but_for_the_prior_of_weekdays() -> None:
    week = np.full((7, 96), 100)
    week[5:] = 50  # a weekend
    found = ahead(past(np.tile(week, (6, 1))))
    assert found.own_days.tolist() == [42]
    assert by_day(found.middle_wh)[:5] == pytest.approx([9600] * 5, rel=0.03)
    assert by_day(found.middle_wh)[5:7] == pytest.approx([4800] * 2, rel=0.08)
    assert by_day(found.middle_wh).sum() == pytest.approx(2 * week.sum(), rel=0.02)


def test_energies_are_whole_and_in_order_and_the_same_each_time() -> None:
    rng = np.random.default_rng(7)
    given = past(rng.gamma(1.0, 200, (42, 96)).round())
    first, second = ahead(given), ahead(given)
    assert first.middle_wh.dtype == np.int64
    assert (first.middle_wh == second.middle_wh).all()
    totals = [int(part.sum()) for part in (first.low_wh, first.middle_wh, first.high_wh)]
    assert totals == sorted(totals)
    assert totals[0] < totals[1] < totals[2]
    assert (first.low_wh >= 0).all()


def test_the_peaks_that_demand_is_charged_by_are_kept() -> None:
    days = np.full((42, 96), 50)
    for number in range(42):
        days[number, (number * 7) % 96] = 2000  # at another quarter-hour each day: a mean shape has no peak
    found = ahead(past(days))
    assert (found.middle_wh[0].reshape(-1, 96).max(axis=1) > 1500).all()


def test_weeks_ahead_take_their_shapes_from_different_past_weeks() -> None:
    days = np.full((42, 96), 10)
    for week in range(6):
        days[7 * week : 7 * week + 7, 90 - week] = 3000  # the newest week peaks at quarter 85, the one before at 86
    peaks = ahead(past(days), 21).middle_wh[0].reshape(-1, 96).argmax(axis=1).tolist()
    assert peaks == [85] * 7 + [86] * 7 + [87] * 7


def test_one_day_of_ten_times_the_usual_does_not_carry_on() -> None:
    days = np.full((42, 96), 100)
    days[-1] = 1000
    assert by_day(ahead(past(days)).middle_wh).mean() < 1.45 * 9600


def test_days_that_are_not_known_count_for_nothing() -> None:
    days, known = np.full((42, 96), 100), np.ones(42, bool)
    days[-5:], known[-5:] = 0, False
    assert by_day(ahead(past(days, known)).middle_wh) == pytest.approx([9600] * 14, abs=2)


def test_a_noisy_past_gives_a_wider_range() -> None:
    rng = np.random.default_rng(3)
    calm = np.full((42, 96), 100)
    noisy = calm * rng.uniform(0.2, 1.8, (42, 1))
    width = [
        np.log(found.high_wh.sum() / found.low_wh.sum()) for found in (ahead(past(calm)), ahead(past(noisy.round())))
    ]
    assert width[1] > 1.3 * width[0]
    assert width[0] == pytest.approx(2 * NORMAL_80 * 0.046 * 14**0.5, abs=0.01)


def test_a_new_customer_has_the_shape_of_the_class_and_the_level_of_the_own_days() -> None:
    week = np.full((7, 96), 10.0)
    week[:, 40] = 500.0
    found = ahead(past(np.full((3, 96), 200)), week=week)
    assert by_day(found.middle_wh) == pytest.approx([19_200] * 14, abs=2)
    assert int(np.argmax(found.middle_wh[0, :96])) == 40
    unknown = ahead(Past(TODAY, np.zeros((1, 5, 96)), np.zeros((1, 5), bool)), week=week)
    assert by_day(unknown.middle_wh) == pytest.approx([week[0].sum()] * 14, abs=2)
    assert np.log(unknown.high_wh.sum() / unknown.low_wh.sum()) == pytest.approx(2 * NORMAL_80 * CLASS_SPREAD, abs=0.01)


def test_without_any_past_and_class_nothing_is_expected_and_a_flat_day_follows_own_days() -> None:
    none = ahead(Past(TODAY, np.zeros((1, 0, 96)), np.zeros((1, 0), bool)))
    assert int(none.high_wh.sum()) == 0
    flat = ahead(past(np.full((2, 96), 30)))
    assert set(flat.middle_wh[0].tolist()) == {30}


def test_accounts_side_by_side_are_projected_as_alone() -> None:
    rng = np.random.default_rng(5)
    energy = rng.gamma(1.0, 200, (4, 42, 96)).round()
    known = rng.random((4, 42)) > 0.3
    known[3, :-3] = False
    together = ahead(Past(TODAY, energy, known))
    for row in range(4):
        alone = ahead(Past(TODAY, energy[row : row + 1], known[row : row + 1]))
        assert (alone.middle_wh[0] == together.middle_wh[row]).all()
        assert (alone.high_wh[0] == together.high_wh[row]).all()


@pytest.mark.parametrize(("day", "quarters"), [("2026-03-29", 92), ("2025-10-26", 100), ("2026-01-05", 96)])
def test_a_local_day_of_23_24_or_25_hours_is_one_whole_day_of_the_past(day: str, quarters: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    first = dt.date.fromisoformat(day)
    start_s = int(dt.datetime.combine(first, dt.time(), zone).timestamp())
    at_s = start_s + np.arange(quarters) * 900
    load = Load(at_s * 1_000_000, 900, {"import_wh": np.full(quarters, 25)})
    end_day = (first - dt.date(1970, 1, 1)).days + 1
    found = past_of(load, np.full(quarters, 900), zone, end_day, "import_wh")
    assert found.known[0].tolist() == [False] * (PAST_DAYS - 1) + [True]
    assert set(found.energy[0, -1].tolist()) == {25.0}
    assert weekday_of(np.array([end_day - 1])).tolist() == [first.weekday()]


def test_a_day_with_two_hours_missing_is_not_a_whole_day() -> None:
    at_s = TODAY * 86_400 - 86_400 + np.arange(88) * 900
    load = Load(at_s * 1_000_000, 900, {"import_wh": np.full(88, 25)})
    found = past_of(load, np.full(88, 900), dt.UTC, TODAY, "import_wh")
    assert not found.known.any()


def test_what_is_to_come_is_added_to_the_load_so_far_in_its_own_intervals_to_the_last_wh() -> None:
    so_far = Load(np.array([0, 300, 600, 900]) * 1_000_000, 300, {"import_wh": np.array([1, 2, 3, 4])})
    found = join_load(so_far, np.array([900, 1800]) * 1_000_000, {"import_wh": np.array([10, 11])})
    assert (found.start_us // 1_000_000).tolist() == [0, 300, 600, 900, 1200, 1500, 1800, 2100, 2400]
    assert found.registers["import_wh"].tolist() == [1, 2, 3, 4 + 3, 3, 4, 3, 4, 4]
    assert int(found.registers["import_wh"].sum()) == 10 + 21
