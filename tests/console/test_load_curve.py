"""The load curve: energy of long intervals is spread, never lost and never piled up."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from console.load_curve import STEP, LoadPoint, averaged_bands, spread

START = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
END = START + dt.timedelta(days=1)
MINUTE = dt.timedelta(minutes=1)

spans_st = st.lists(
    st.tuples(st.integers(0, 1400), st.integers(1, 600), st.integers(0, 10**6), st.integers(0, 10**5)), max_size=8
)


@given(spans_st)
def test_spreading_keeps_the_energy_but_for_rounding(rows: list[tuple[int, int, int, int]]) -> None:
    spans = [(START + MINUTE * low, START + MINUTE * min(low + length, 1440), wh, fed) for low, length, wh, fed in rows]
    points = spread({}, spans, START, END)
    slack = 96 * (len(spans) + 1)
    assert abs(sum(point.used_wh for point in points) - sum(span[2] for span in spans)) <= slack
    assert abs(sum(point.fed_wh for point in points) - sum(span[3] for span in spans)) <= slack
    assert [point.start for point in points] == sorted({point.start for point in points})
    assert all(START <= point.start < END for point in points)


def test_an_interval_is_spread_by_how_long_it_lies_in_each_quarter() -> None:
    measured = {START: LoadPoint(START, 100, 0)}
    points = spread(measured, [(START + 10 * MINUTE, START + 30 * MINUTE, 400, 0)], START, END)
    assert [(point.used_wh, point.averaged_wh) for point in points] == [(200, 100), (300, 300)]


def test_only_the_part_within_the_curve_is_drawn() -> None:
    points = spread({}, [(START - 60 * MINUTE, START + 15 * MINUTE, 500, 0)], START, END)
    assert [(point.start, point.used_wh) for point in points] == [(START, 100)]


def test_neighbours_with_spread_energy_are_one_band_with_its_share() -> None:
    points = [LoadPoint(START + STEP * place, 100, 0, averaged) for place, averaged in enumerate((0, 50, 100, 1, 20))]
    assert averaged_bands(points) == [
        (START + STEP, START + 3 * STEP, 0.75),
        (START + 4 * STEP, START + 5 * STEP, 0.2),
    ]


def test_power_is_energy_by_time() -> None:
    assert LoadPoint(START, 250, 50).used_kw == 1.0
    assert LoadPoint(START, 250, 50).fed_kw == 0.2
