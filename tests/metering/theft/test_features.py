"""Weeks on the local clock, and features of a week against its past."""

import datetime as dt
import zoneinfo

import numpy as np
import pytest

from metering.theft import features
from metering.theft.made_home import made_homes
from metering.theft.weeks import WeeksError, filled, laid_out

ZURICH = zoneinfo.ZoneInfo("Europe/Zurich")
MONDAY_S = 1_774_220_400  # Monday 2026-03-23 00:00 in Zurich; the week ends with 23 hours on Sunday


def starts(count: int, interval_s: int, first_s: int = MONDAY_S) -> np.ndarray:
    return first_s + interval_s * np.arange(count)


def one_meter(energy_wh: np.ndarray, interval_s: int = 900) -> object:
    return laid_out(["m"], np.zeros(len(energy_wh), np.int64), starts(len(energy_wh), interval_s), energy_wh, ZURICH)


def test_week_of_the_spring_clock_change_has_one_hour_less_and_keeps_habits_at_their_hour() -> None:
    local = [dt.datetime.fromtimestamp(int(at), ZURICH) for at in starts(7 * 96 - 4, 900)]
    weeks = one_meter(np.array([at.hour * 100 for at in local], np.int64))
    assert weeks.monday == [dt.date(2026, 3, 23)]
    sunday = weeks.energy[0, 0, 6].reshape(24, 4)
    assert np.isnan(sunday[2]).all()
    assert (sunday[[0, 1, 3, 12, 23], 0] == [0, 100, 300, 1200, 2300]).all()
    assert [at.isoformat() for at in weeks.bounds(0)] == ["2026-03-23T00:00:00+01:00", "2026-03-30T00:00:00+02:00"]


def test_hour_that_comes_twice_in_autumn_is_averaged() -> None:
    first_s = int(dt.datetime(2026, 10, 19, tzinfo=ZURICH).timestamp())
    at = first_s + 3600 * np.arange(169)
    energy_wh = np.full(169, 100, np.int64)
    energy_wh[6 * 24 + 2], energy_wh[6 * 24 + 3] = 100, 300
    weeks = laid_out(["m"], np.zeros(169, np.int64), at, energy_wh, ZURICH)
    assert weeks.energy.shape == (1, 1, 7, 24)
    assert weeks.energy[0, 0, 6, 2] == 200


@pytest.mark.parametrize("interval_s", [900, 1800, 3600])
def test_weeks_hold_intervals_of_15_30_and_60_minutes(interval_s: int) -> None:
    count = 3 * 86_400 // interval_s
    weeks = one_meter(np.full(count, 7, np.int64), interval_s)
    assert weeks.interval_s == interval_s
    assert np.nansum(weeks.energy) == 7 * count


def test_meter_of_another_interval_takes_the_grid_of_the_others_and_keeps_its_energy() -> None:
    quarter, hour = starts(96, 900), starts(24, 3600)
    meter = np.repeat([0, 1, 2], [96, 96, 24])
    weeks = laid_out(
        ["a", "b", "c"], meter, np.concatenate([quarter, quarter, hour]), np.full(len(meter), 40, np.int64), ZURICH
    )
    assert weeks.interval_s == 900
    assert np.nansum(weeks.energy[2]) == 24 * 40


def test_meter_with_intervals_of_ten_minutes_is_refused_by_name() -> None:
    with pytest.raises(WeeksError, match=r"meter m: .*15, 30 or 60 min"):
        one_meter(np.ones(100, np.int64), 600)


def test_of_two_values_for_one_interval_the_larger_counts_whatever_the_order() -> None:
    at = np.concatenate([starts(96, 900), starts(1, 900)])
    energy_wh = np.concatenate([np.full(96, 10), [50]]).astype(np.int64)
    for order in (slice(None), slice(None, None, -1)):
        weeks = laid_out(["m"], np.zeros(97, np.int64), at[order], energy_wh[order], ZURICH)
        assert weeks.duplicates == 1
        assert weeks.energy[0, 0, 0, 0] == 50


def test_gap_takes_the_mean_of_its_slot_in_other_weeks() -> None:
    energy_wh = np.tile(np.arange(24, dtype=np.int64) * 10, 21)
    kept = np.ones(len(energy_wh), np.bool_)
    kept[30:40] = False
    at = starts(len(energy_wh), 3600, int(dt.datetime(2026, 5, 4, tzinfo=ZURICH).timestamp()))[kept]
    weeks = laid_out(["m"], np.zeros(len(at), np.int64), at, energy_wh[kept], ZURICH)
    assert filled(weeks)[0].ravel().tolist() == energy_wh.tolist()


def test_register_of_ten_watt_hours_loses_no_energy_but_the_last_step() -> None:
    chance = np.random.default_rng(1)
    true = chance.uniform(0, 30, (3, 7, 96))
    shown = features.stepped(true, np.full(3, 10.0))
    assert (shown % 10 == 0).all()
    lost = true.sum((1, 2)) - shown.sum((1, 2))
    assert ((lost >= 0) & (lost < 10)).all()


def test_longest_run_counts_the_longest_of_several() -> None:
    mask = np.array([[1, 1, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]], np.bool_)
    assert features.longest(mask).tolist() == [3, 0, 7]


@pytest.mark.parametrize("slots", [24, 48, 96])
def test_features_are_finite_for_homes_and_for_flat_and_empty_weeks(slots: int) -> None:
    homes = made_homes(4, 4, slots, np.random.default_rng(3))
    homes[1], homes[2] = 0, 50
    past = features.worked_up(homes[:, :3])
    found = features.changes(homes[:, 3], past, {})
    assert len(found) > 150
    assert not [name for name, value in found.items() if not np.isfinite(value).all()]


def test_week_equal_to_its_past_shows_no_change_of_any_descriptor() -> None:
    home = made_homes(2, 1, 96, np.random.default_rng(4))
    past = features.worked_up(np.repeat(home, 3, axis=1))
    found = features.changes(home[:, 0], past, {})
    assert max(float(np.abs(value).max()) for name, value in found.items() if name.startswith("d_")) < 1e-9


def test_week_at_half_its_energy_shows_the_logarithm_of_half() -> None:
    home = made_homes(3, 1, 96, np.random.default_rng(5)) + 200
    past = features.worked_up(np.repeat(home, 3, axis=1))
    found = features.changes(home[:, 0] / 2, past, {})
    assert found["d_lmean"] == pytest.approx(np.log(0.5), abs=0.02)
    assert found["p_pc"] == pytest.approx(1, abs=1e-6)
