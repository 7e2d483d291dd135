"""Tariffs, their calendar, and charges."""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from metering.calendar import Timeline, compile_timeline, segment_of, split_energy, split_energy_columns
from metering.cycle_shape import Shapes
from metering.running import CyclePricing, charge_columns, charge_lines, pricing_of
from metering.tariff import Tariff, TariffError, parse_tariff

TARIFFS = Path(__file__).parents[2] / "tariffs"
US = 1_000_000


def load(name: str) -> Tariff:
    return parse_tariff(yaml.safe_load((TARIFFS / f"{name}.yaml").read_text("utf-8")))


RESIDENTIAL = load("county-residential")
LINE = compile_timeline(RESIDENTIAL, dt.date(2026, 1, 1), dt.date(2027, 1, 1))


def instant_us(zone: ZoneInfo, *parts: int, fold: int = 0) -> int:
    return int(dt.datetime(*parts, tzinfo=zone, fold=fold).timestamp()) * US  # type: ignore[misc]


def period_at(tariff: Tariff, line: Timeline, at_us: int) -> str:
    return tariff.buckets[int(line.bucket[segment_of(line, np.array([at_us]))[0]])][2]


def july(line: Timeline) -> CyclePricing:
    start = instant_us(RESIDENTIAL.zone, 2026, 7, 1) // US
    pricing = pricing_of(Shapes(RESIDENTIAL, line), int(np.flatnonzero(line.cycle_start_s == start)[0]))
    assert pricing is not None
    return pricing


def quantities(pricing: CyclePricing, **kwh: int) -> list[int]:
    return [kwh.get(label, 0) * 1000 for label in pricing.labels] + [0] * (16 - len(pricing.labels))


def test_guangzhou_summer_month_costs_what_was_worked_by_hand() -> None:
    """worked_bills.json F1: 200 kWh peak, 300 flat, 200 valley in summer: 482.81."""
    pricing = july(LINE)
    lines = charge_lines(pricing, quantities(pricing, peak=200, flat=300, valley=200), 0)
    assert RESIDENTIAL.round_money(sum((line.amount_unrounded for line in lines), Decimal(0))) == Decimal("482.81")


@given(st.lists(st.integers(0, 900_000), min_size=3, max_size=3))
def test_lines_sum_to_the_charge_of_the_columns(wh: list[int]) -> None:
    pricing = july(LINE)
    row = wh + [0] * 13
    exact = Decimal(int(charge_columns(pricing, np.array([row]), 0)[0])).scaleb(-pricing.amount_scale)
    assert sum((line.amount_unrounded for line in charge_lines(pricing, row, 0)), Decimal(0)) == exact


@given(st.integers(0, 700_000), st.integers(1, 5_000))
def test_more_energy_never_costs_less(wh: int, more_wh: int) -> None:
    rows = np.zeros((2, 16), np.int64)
    rows[:, 0] = wh, wh + more_wh
    low, high = charge_columns(july(LINE), rows, 0).tolist()
    assert high > low


@pytest.mark.parametrize(("kwh", "step"), [(260, "0.05"), (600, "0.30")], ids=["tier 2", "tier 3"])
def test_the_first_wh_of_a_tier_costs_its_adder_more(kwh: int, step: str) -> None:
    pricing = july(LINE)
    rows = np.zeros((3, 16), np.int64)
    rows[:, 0] = kwh * 1000 - 1, kwh * 1000, kwh * 1000 + 1
    amount = charge_columns(pricing, rows, 0)
    before, after = np.diff(amount).tolist()
    previous = "0" if step == "0.05" else "0.05"
    assert Decimal(after - before).scaleb(3 - pricing.amount_scale) == Decimal(step) - Decimal(previous)


def test_periods_follow_the_local_clock() -> None:
    zone = RESIDENTIAL.zone
    clock = {7: "valley", 8: "flat", 10: "peak", 12: "flat", 14: "peak", 18: "peak", 19: "flat"}
    for hour, period in clock.items():
        assert period_at(RESIDENTIAL, LINE, instant_us(zone, 2026, 7, 15, hour)) == period


BERLIN = parse_tariff(
    {
        "tariff_id": "berlin",
        "currency": "EUR",
        "zone": "Europe/Berlin",
        "versions": [
            {
                "valid_from": "2026-01-01",
                "windows": [{"period": "night", "from": "00:00", "to": "02:30"}],
                "rest": "day",
                "prices": {"night": "0.2", "day": "0.3"},
            },
            {"valid_from": "2026-06-15", "rest": "day", "prices": {"day": "0.4"}},
        ],
    }
)
BERLIN_LINE = compile_timeline(BERLIN, dt.date(2026, 1, 1), dt.date(2027, 1, 1))


def test_the_day_without_an_hour_has_no_half_past_two() -> None:
    line = BERLIN_LINE
    start = instant_us(BERLIN.zone, 2026, 3, 29)
    assert period_at(BERLIN, line, start + 7199 * US) == "night"
    assert period_at(BERLIN, line, start + 7200 * US) == "day"  # the clock springs from 02:00 to 03:00


def test_the_hour_that_comes_twice_is_priced_by_the_clock_both_times() -> None:
    tariff = parse_tariff(
        {
            "tariff_id": "t",
            "currency": "EUR",
            "zone": "Europe/Berlin",
            "versions": [
                {
                    "valid_from": "2026-01-01",
                    "windows": [{"period": "night", "from": "00:00", "to": "02:30"}],
                    "rest": "day",
                    "prices": {"night": "0.2", "day": "0.3"},
                }
            ],
        }
    )
    line = compile_timeline(tariff, dt.date(2026, 10, 1), dt.date(2026, 11, 1))
    start = instant_us(tariff.zone, 2026, 10, 25)
    got = [period_at(tariff, line, start + minute * 60 * US) for minute in (149, 150, 179, 180, 209, 210)]
    assert got == ["night", "day", "day", "night", "night", "day"]


def test_a_new_version_begins_at_local_midnight_inside_a_cycle() -> None:
    midnight = instant_us(BERLIN.zone, 2026, 6, 15)
    versions = BERLIN_LINE.version[segment_of(BERLIN_LINE, np.array([midnight - 1, midnight]))]
    assert versions.tolist() == [0, 1]


@given(st.integers(0, 300 * 86_400), st.integers(0, 40 * 86_400), st.integers(-(10**7), 10**7))
def test_pieces_sum_to_the_whole_and_a_reversal_is_the_exact_opposite(start: int, length: int, wh: int) -> None:
    begin = (int(LINE.start_s[0]) + start) * US
    end = begin + length * US
    pieces = split_energy(LINE, begin, end, wh)
    assert sum(energy for _, energy in pieces) == wh
    assert split_energy(LINE, begin, end, -wh) == [(segment, -energy) for segment, energy in pieces]
    columns = split_energy_columns(LINE, np.array([begin]), np.array([end]), np.array([wh]))
    assert list(zip(*(column.tolist() for column in columns[1:]), strict=True)) == pieces


def test_all_faults_of_a_document_are_named_with_their_places() -> None:
    document = {
        "tariff_id": "x",
        "currency": "EUR",
        "zone": "Mars/Base",
        "colour": 1,
        "versions": [
            {
                "valid_from": "soon",
                "rest": "day",
                "windows": [{"period": "night", "from": "22:00", "to": "06:00"}],
                "prices": {"day": 0.3},
                "tiers": [{"up_to_kwh": 100, "adder": "0"}],
            }
        ],
    }
    with pytest.raises(TariffError) as caught:
        parse_tariff(document)
    places = [fault.split(":")[0] for fault in caught.value.faults]
    assert sorted(places) == sorted(
        [
            "tariff.colour",
            "zone",
            "versions[0].valid_from",
            "versions[0].windows[0]",
            "versions[0].prices.day",
            "versions[0].prices.night",
            "versions[0].tiers[0].up_to_kwh",
        ]
    )
