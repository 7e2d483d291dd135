"""Detectors over measured values: the case just inside and just outside each limit, and the state that they keep."""

from typing import Any

import numpy as np
import pytest

from metering.detect.electrical import CLOCK_AHEAD_US, Electrical, Holds, Limits, said_of, take
from schemas.frame import ELECTRICAL

LIMITS = Limits()
T0_US = 1_795_600_000_000_000
MINUTE_US = 60_000_000


def readings(*rows: dict[str, Any]) -> dict[str, Any]:
    """Return columns; a row gives meter_no, minute, import_wh, volts, amperes, power_w, ahead_us."""
    columns: dict[str, Any] = {
        "meter_no": np.array([row.get("meter_no", 1) for row in rows], np.int64),
        "read_at": np.array(
            [T0_US + row.get("minute", 0) * MINUTE_US + row.get("ahead_us", 0) for row in rows], np.int64
        ),
        "received_at": np.array([T0_US + row.get("minute", 0) * MINUTE_US for row in rows], np.int64),
        "import_wh": np.array([row.get("import_wh", 1_001) for row in rows], np.int64),
    }
    columns |= {name: np.full(len(rows), np.nan, np.float32) for name in ELECTRICAL}
    for place, row in enumerate(rows):
        for phase, value in enumerate(row.get("volts", ()), 1):
            columns[f"voltage_v{phase}"][place] = value
        for phase, value in enumerate(row.get("amperes", ()), 1):
            columns[f"current_a{phase}"][place] = value
        columns["power_w"][place] = row.get("power_w", np.nan)
    return columns


def holds(**row: Any) -> Holds:
    state = Electrical.empty(4)
    take(state, readings(row), LIMITS)
    return Holds(int(state.mask[1]))


@pytest.mark.parametrize(
    ("volts", "amperes", "flag", "is_on"),
    [
        ((179.3, 230, 230), (0.25, 1, 1), Holds.LOST_VOLTAGE, True),
        ((179.5, 230, 230), (0.25, 1, 1), Holds.LOST_VOLTAGE, False),
        ((179.3, 230, 230), (0.24, 1, 1), Holds.LOST_VOLTAGE, False),
        ((22.9, 230, 230), (2.1, 1, 1), Holds.CURRENT_WITHOUT_VOLTAGE, True),
        ((22.9, 230, 230), (1.9, 1, 1), Holds.CURRENT_WITHOUT_VOLTAGE, False),
        ((23.1, 230, 230), (2.1, 1, 1), Holds.CURRENT_WITHOUT_VOLTAGE, False),
        ((230, 230, 230), (0.0, 5.0, 5.0), Holds.LOST_CURRENT, True),
        ((230, 230, 230), (0.026, 5.0, 5.0), Holds.LOST_CURRENT, False),
        ((230, 230, 230), (0.0, 4.9, 5.0), Holds.LOST_CURRENT, False),
        ((246.0,), (1,), Holds.VOLTAGE_OUT_OF_RANGE, False),
        ((246.2,), (1,), Holds.VOLTAGE_OUT_OF_RANGE, True),
        ((207.1,), (1,), Holds.VOLTAGE_OUT_OF_RANGE, False),
        ((206.9,), (1,), Holds.VOLTAGE_OUT_OF_RANGE, True),
        ((230, 230, 237.2), (1, 1, 1), Holds.UNBALANCE, True),
        ((230, 230, 236.5), (1, 1, 1), Holds.UNBALANCE, False),
        ((230.0,), (1,), Holds.UNBALANCE, False),
        ((179.3, 230, 230), (0.25, 1, 1), Holds.VOLTAGE_OUT_OF_RANGE, False),  # a lost phase is told as that only
        ((179.3, 230, 230), (0.24, 1, 1), Holds.VOLTAGE_OUT_OF_RANGE, True),
        ((179.3, 230, 230), (0.25, 1, 1), Holds.UNBALANCE, False),
    ],
)
def test_a_condition_holds_from_its_limit_on(
    volts: tuple[float, ...], amperes: tuple[float, ...], flag: Holds, is_on: bool
) -> None:
    assert bool(holds(volts=volts, amperes=amperes) & flag) is is_on


@pytest.mark.parametrize(("ahead_us", "is_on"), [(CLOCK_AHEAD_US, False), (CLOCK_AHEAD_US + 1, True)])
def test_a_clock_is_off_when_it_is_more_than_three_minutes_ahead_and_right_again_when_it_is_not(
    ahead_us: int, is_on: bool
) -> None:
    state = Electrical.empty(4)
    found = take(state, readings({"ahead_us": ahead_us}), LIMITS)
    assert [(number, flag, on) for _, number, flag, on in found] == ([(1, Holds.CLOCK_AHEAD, True)] if is_on else [])
    later = take(state, readings({"minute": 60}), LIMITS)
    assert [(number, flag, on) for _, number, flag, on in later] == ([(1, Holds.CLOCK_AHEAD, False)] if is_on else [])


def still(minutes: int, *, power_w: float = 600.0, import_wh: int = 1_001) -> list[dict[str, Any]]:
    return [{"minute": minute, "power_w": power_w, "import_wh": import_wh} for minute in range(minutes + 1)]


@pytest.mark.parametrize(
    ("rows", "is_on"),
    [
        (still(5, power_w=600.0), False),  # 50 Wh, but five steps
        (still(6, power_w=600.0), True),
        (still(6, power_w=499.0), False),  # 49.9 Wh
        (still(6, power_w=0.0), False),
        (still(60, power_w=1_000.0, import_wh=5_000), False),  # whole kWh: the register may well stand for 1,000 Wh
        (still(121, power_w=1_000.0, import_wh=5_000), True),
        ([*still(5), {"minute": 6, "power_w": 600.0, "import_wh": 1_002}], False),
    ],
)
def test_a_register_is_stuck_when_the_power_it_reports_does_not_arrive_in_it(
    rows: list[dict[str, Any]], is_on: bool
) -> None:
    state = Electrical.empty(4)
    take(state, readings(*rows), LIMITS)
    assert bool(state.mask[1] & Holds.STUCK) is is_on


def test_frames_of_any_size_and_what_comes_twice_or_late_give_the_same_state() -> None:
    rows = [*still(9), *[{**row, "meter_no": 2, "volts": (200.0,)} for row in still(4)]]
    whole = Electrical.empty(4)
    once = [(number, flag, on) for _, number, flag, on in take(whole, readings(*rows), LIMITS)]
    single = Electrical.empty(4)
    apart = [found[1:] for row in rows for found in take(single, readings(row), LIMITS)]
    assert sorted(once) == sorted(apart)
    assert whole.to_bytes() == single.to_bytes()
    assert take(whole, readings(*rows), LIMITS) == [], "twice changes nothing"
    assert whole.to_bytes() == single.to_bytes()


def test_the_state_comes_back_from_its_bytes_and_goes_on_and_damaged_bytes_are_refused() -> None:
    state = Electrical.empty(4)
    take(state, readings(*still(4)), LIMITS)
    again = Electrical.from_bytes(state.to_bytes(), 2)
    again.grow(4)
    later = readings(*still(7)[5:])
    assert take(again, later, LIMITS) == take(state, later, LIMITS) != []
    with pytest.raises(ValueError, match="no state"):
        Electrical.from_bytes(state.to_bytes() + b"x", 4)


def test_people_read_the_value_and_the_limit_it_is_held_against() -> None:
    said = said_of(readings({"volts": (251.0,), "amperes": (1.0,)}), 0, Holds.VOLTAGE_OUT_OF_RANGE, LIMITS)
    assert said == ("251.0 V, limit 246.1 V", 251.0, 246.1)
    assert "stands at 1001 Wh" in said_of(readings({"power_w": 600.0}), 0, Holds.STUCK, LIMITS)[0]


def test_readings_without_values_touch_nothing() -> None:
    state = Electrical.empty(4)
    assert take(state, readings({}, {"meter_no": 2}), LIMITS) == []
    assert not state.read_at.any()
