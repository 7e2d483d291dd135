"""The estimation ladder: each rung inside and outside of its condition, exact sums, and no estimate as a source."""

import datetime as dt
import zoneinfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.estimation.fill import fill
from metering.estimation.ladder import Estimate, Help, estimate_gap
from metering.estimation.load import EstimateError, Load, load_of
from metering.estimation.spread import spread

UTC = zoneinfo.ZoneInfo("UTC")
ZURICH = zoneinfo.ZoneInfo("Europe/Zurich")
MONDAY_S = int(dt.datetime(2026, 9, 28, tzinfo=dt.UTC).timestamp())
DAY, WEEK = 24, 168
HOUR = 3600


def made(weeks: int, *missing: tuple[int, int], zone: dt.tzinfo = UTC) -> Load:
    """Return hours of which each week is 10 Wh more than the one before, and each hour of the week 1 Wh more."""
    hour = np.arange(weeks * WEEK, dtype=np.int64)
    valid = np.ones(len(hour), np.bool_)
    for first, end in missing:
        valid[first:end] = False
    return load_of(MONDAY_S, HOUR, 100 + hour % WEEK + hour // WEEK * 10, valid, zone)


def gap(load: Load, first: int, end: int, advance: int | None = None, known: Help | None = None) -> Estimate:
    edges = load.start_s + first * load.interval_s, load.start_s + end * load.interval_s
    return estimate_gap(load, edges, advance, known or Help())


def at(load: Load, hour: int) -> int:
    return load.start_s + hour * HOUR


# -- the rungs ---------------------------------------------------------------------------------------------------


def test_a_check_meter_is_copied_where_it_is_valid_and_nowhere_else() -> None:
    load = made(5)
    check = np.full(5 * WEEK, 77, np.int64)
    valid = np.ones(5 * WEEK, np.bool_)
    valid[4 * WEEK + 5] = False
    found = gap(load, 4 * WEEK + 3, 4 * WEEK + 7, None, Help(check_wh=check, check_valid=valid))
    assert found.codes == ["E1", "E1", "E4", "E1"]
    assert [found.energy_wh[place] for place in (0, 1, 3)] == [77, 77, 77]


def test_two_hours_are_a_line_and_three_are_not() -> None:
    load = made(1)
    assert gap(load, 10, 12).codes == ["E2", "E2"]
    assert gap(load, 10, 12).energy_wh.tolist() == [110, 111]
    assert gap(load, 10, 13).codes == ["N", "N", "N"]


def test_a_line_with_one_valid_side_is_flat_and_with_none_is_no_line() -> None:
    assert gap(made(1, (9, 10)), 10, 12).energy_wh.tolist() == [112, 112]
    assert gap(made(1, (9, 10), (12, 13)), 10, 12).codes == ["N", "N"]


@pytest.mark.parametrize(("failed", "code"), [(9, "E2"), (10, "N"), (12, "N"), (13, "E2")])
def test_no_line_goes_across_a_power_failure(failed: int, code: str) -> None:
    load = made(1)
    assert gap(load, 10, 12, None, Help(power_failed=[at(load, failed)])).codes == [code] * 2


@pytest.mark.parametrize(("weeks", "code"), [(2, "N"), (3, "E4")])
def test_three_valid_weeks_make_a_mean_and_two_do_not(weeks: int, code: str) -> None:
    assert set(gap(made(weeks + 1), weeks * WEEK, weeks * WEEK + 5).codes) == {code}


def test_the_last_four_weeks_count_and_the_latest_most() -> None:
    found = gap(made(7), 6 * WEEK, 6 * WEEK + 3)  # 4/10 of 150, 3/10 of 140, 2/10 of 130, 1/10 of 120
    assert found.energy_wh.tolist() == [140, 141, 142]


def test_a_week_that_is_not_valid_is_passed_over() -> None:
    found = gap(made(7, (5 * WEEK, 6 * WEEK)), 6 * WEEK, 6 * WEEK + 3)  # 140, 130, 120, 110
    assert found.energy_wh.tolist() == [130, 131, 132]


def test_last_year_is_taken_where_the_last_weeks_are_not_valid() -> None:
    load = made(54, (2 * WEEK, 53 * WEEK))
    assert gap(load, 53 * WEEK, 53 * WEEK + 4).energy_wh.tolist() == [110, 111, 112, 113]
    assert set(gap(load, 53 * WEEK, 53 * WEEK + 4).codes) == {"E5"}
    assert set(gap(made(54, (WEEK, 53 * WEEK)), 53 * WEEK, 53 * WEEK + 4).codes) == {"N"}


def test_a_class_profile_is_the_last_resort_by_local_weekday() -> None:
    profile = np.arange(WEEK, dtype=np.int64)
    found = gap(made(1, zone=ZURICH), 20, 24, None, Help(profile_wh=profile))
    assert found.codes == ["E6"] * 4
    assert found.energy_wh.tolist() == [22, 23, 24, 25]


def test_a_confirmed_outage_is_zero_in_the_intervals_that_it_covers_whole() -> None:
    load = made(5)
    first = 4 * WEEK
    found = gap(load, first, first + 4, None, Help(outages=[(at(load, first + 1), at(load, first + 3) - 1)]))
    assert found.codes == ["E4", "E7", "E4", "E4"]
    assert found.energy_wh[1] == 0


def test_an_advance_lies_over_the_own_shape_and_not_in_an_outage() -> None:
    load = made(2)
    found = gap(load, WEEK, WEEK + 4, 1000, Help(outages=[(at(load, WEEK), at(load, WEEK + 1))]))
    assert found.codes == ["E7", "E3", "E3", "E3"]
    assert found.energy_wh.tolist() == [0, 330, 333, 337]


def test_a_register_that_advanced_disproves_an_outage_of_the_whole_gap() -> None:
    load = made(2)
    out = Help(outages=[(at(load, WEEK), at(load, WEEK + 4))])
    assert gap(load, WEEK, WEEK + 4, 0, out).codes == ["E7"] * 4
    found = gap(load, WEEK, WEEK + 4, 8, out)
    assert (found.codes, found.energy_wh.tolist()) == (["E3"] * 4, [2] * 4)
    assert "advanced in a confirmed outage" in found.note


def test_without_any_source_nothing_is_estimated_and_that_is_said() -> None:
    found = gap(made(1), 10, 20)
    assert set(found.codes) == {"N"}
    assert not found.energy_wh.any()
    assert found.note == "no source for a part of it"


def test_thirty_five_days_are_estimated_and_an_hour_more_is_not() -> None:
    load = made(10)
    assert set(gap(load, 4 * WEEK, 9 * WEEK).codes) == {"E4"}
    found = gap(load, 4 * WEEK, 9 * WEEK + 1, 1000)
    assert set(found.codes) == {"N"}
    assert "35 days" in found.note


@pytest.mark.parametrize("edges", [(0, 0), (5, 4), (-1, 3), (0, WEEK + 1)])
def test_a_gap_outside_of_the_grid_is_refused(edges: tuple[int, int]) -> None:
    with pytest.raises(EstimateError, match="not on the grid"):
        gap(made(1), *edges)


def test_habits_keep_their_local_hour_over_a_clock_change() -> None:
    """Zurich leaves summer time on 25 October 2026, in the fourth week: the local hour is the same, not the UTC hour."""
    hour = np.arange(6 * WEEK, dtype=np.int64)
    load = load_of(MONDAY_S, HOUR, hour, np.ones(len(hour), np.bool_), ZURICH)
    shown = (load.shown_s % 86_400 // HOUR).astype(np.int64)
    habit = load_of(MONDAY_S, HOUR, shown * 100, np.ones(len(hour), np.bool_), ZURICH)
    first = 5 * WEEK
    assert gap(habit, first, first + 48).energy_wh.tolist() == (shown[first : first + 48] * 100).tolist()


def test_the_hours_of_the_day_of_the_change_are_told_by_the_clock_of_that_hour() -> None:
    hours = np.arange(6 * WEEK, dtype=np.int64)
    load = load_of(MONDAY_S, HOUR, hours, np.ones(len(hours), np.bool_), ZURICH)
    change = int(dt.datetime(2026, 10, 25, tzinfo=ZURICH).timestamp() - MONDAY_S) // HOUR
    assert (load.shown_s[change : change + 6] % 86_400 // HOUR).tolist() == [0, 1, 2, 2, 3, 4]


def test_what_the_gap_itself_holds_is_never_looked_at() -> None:
    found = gap(made(7), 4 * WEEK, 6 * WEEK)  # its second week has the four before the gap, not the first of the gap
    assert (found.energy_wh[WEEK:] == found.energy_wh[:WEEK]).all()


# -- registers ---------------------------------------------------------------------------------------------------


def test_gaps_between_two_readings_of_the_register_share_what_the_intervals_do_not_have() -> None:
    load = made(5, (4 * WEEK + 3, 4 * WEEK + 8), (4 * WEEK + 15, 4 * WEEK + 16))
    total = int(load.energy_wh[4 * WEEK : 4 * WEEK + DAY].sum()) + 123
    filled = fill(load, [(at(load, 4 * WEEK + DAY), 5000 + total), (at(load, 4 * WEEK), 5000)])
    assert int(filled.energy_wh[4 * WEEK : 4 * WEEK + DAY].sum()) == total
    assert set(filled.codes) == {"A", "E2", "E3"}


def test_a_register_that_counted_less_than_the_intervals_scales_nothing_and_is_told() -> None:
    load = made(5, (4 * WEEK + 3, 4 * WEEK + 8))
    valid_wh = int(load.energy_wh[4 * WEEK : 4 * WEEK + DAY][load.valid[4 * WEEK : 4 * WEEK + DAY]].sum())
    same = fill(load, [(at(load, 4 * WEEK), 0), (at(load, 4 * WEEK + DAY), valid_wh)])
    assert not same.energy_wh[4 * WEEK + 3 : 4 * WEEK + 8].any()
    less = fill(load, [(at(load, 4 * WEEK), 0), (at(load, 4 * WEEK + DAY), valid_wh - 1)])
    assert set(less.codes) == {"A", "E4"}
    assert "1 Wh less than the intervals" in less.notes[0]


def test_two_values_of_the_register_at_one_instant_are_refused() -> None:
    load = made(1)
    with pytest.raises(EstimateError, match="two values"):
        fill(load, [(at(load, 1), 5), (at(load, 1), 6)])


# -- what always holds -------------------------------------------------------------------------------------------


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_shares_are_exact_and_never_below_zero(total: int, weights: list[int]) -> None:
    shares = spread(total, weights)
    assert sum(shares) == total
    assert min(shares) >= 0


@given(st.integers(-(10**9), 10**9), st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=50))
def test_shares_of_energy_fed_in_are_exact_too(total: int, weights: list[int]) -> None:
    assert sum(spread(total, weights, 7)) == total


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([900, 1800, 3600]), st.sampled_from([UTC, ZURICH]))
def test_what_is_not_valid_is_never_a_source_and_sums_are_the_registers(
    data: st.DataObject, interval_s: int, zone: dt.tzinfo
) -> None:
    chance = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    count = 6 * 7 * 86_400 // interval_s
    energy = chance.integers(0, 5000, count)
    valid = np.ones(count, np.bool_)
    for _ in range(data.draw(st.integers(1, 6))):
        first = int(chance.integers(0, count))
        valid[first : first + int(chance.integers(1, 7 * 86_400 // interval_s))] = False
    day = 86_400 // interval_s
    counted = np.concatenate([[0], np.cumsum(energy)])
    registers = [(MONDAY_S + cell * interval_s, int(counted[cell])) for cell in range(0, count + 1, day)]
    told = registers if data.draw(st.booleans()) else []
    one = fill(load_of(MONDAY_S, interval_s, energy, valid, zone), told)
    other = fill(
        load_of(MONDAY_S, interval_s, np.where(valid, energy, chance.integers(0, 10**9, count)), valid, zone),
        told[::-1],
    )
    assert (one.energy_wh == other.energy_wh).all()
    assert one.codes == other.codes
    assert (one.energy_wh >= 0).all()
    assert (one.energy_wh[valid] == energy[valid]).all()
    if told:
        assert (one.energy_wh.reshape(-1, day).sum(1) == energy.reshape(-1, day).sum(1)).all()
        assert "N" not in one.codes
