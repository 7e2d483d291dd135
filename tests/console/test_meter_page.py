"""What a meter's page works out: how sure the figures are, and what each bar says."""

import datetime as dt
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from console.explain import _windows
from console.meter_page import coverage, largest_line, local_midnight, mean_power_w, power_bars, time_of_use
from console.words import words_of
from metering.calendar import compile_timeline
from metering.tariff import parse_tariff
from schemas.quality import Quality
from storage.charge import ChargeLine, ChargeSoFar

ZONE = ZoneInfo("Asia/Shanghai")
START = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
EN = words_of("en")
TARIFF = Path(__file__).parent.parent.parent / "tariffs" / "county-residential.yaml"


def row(low: int, high: int, wh: int = 100, quality: int = 0, **more: Any) -> dict[str, Any]:
    start, end = START + MINUTE * low, START + MINUTE * high
    base = {"start_at": start, "end_at": end, "covered_s": (high - low) * 60.0, "energy_wh": wh, "export_energy_wh": 0}
    return base | {"quality": quality, "intervals": 1} | more


def test_a_reading_that_is_not_late_yet_is_not_missing() -> None:
    found = coverage([row(0, 100)], START, START + 120 * MINUTE, 900)
    assert (found["share"], found["missing"]) == ("100.0", "")


def test_a_meter_that_stopped_lacks_the_time_since() -> None:
    found = coverage([row(0, 60)], START, START + 120 * MINUTE, 900)
    assert (found["share"], found["missing"]) == ("50.0", "1 h")


def test_long_and_suspect_intervals_are_not_actual() -> None:
    rows = [row(0, 30), row(30, 60, quality=Quality.LONG), row(60, 120, quality=Quality.HIGH | Quality.LATE)]
    found = coverage(rows, START, START + 120 * MINUTE, 900)
    assert found == {"share": "25.0", "intervals": 3, "long": 1, "high": 1, "missing": ""}


def test_nothing_read_is_all_missing() -> None:
    assert coverage([], START, START + 120 * MINUTE, 900) == {
        "share": "0.0", "intervals": 0, "long": 0, "high": 0, "missing": "2 h",
    }  # fmt: skip


def test_an_interval_that_began_before_counts_only_from_the_start_on() -> None:
    assert coverage([row(-60, 60)], START, START + 60 * MINUTE, 900)["share"] == "100.0"


def test_a_bar_is_the_mean_power_of_the_time_that_was_measured() -> None:
    (bar,) = power_bars(row(0, 15, 250, covered_s=450.0), ZONE, EN)
    assert bar.value == 2.0
    assert "of it missing 7 min" in bar.title
    assert bar.title.startswith("11-22 08:00–08:15 0.250 kWh")


@pytest.mark.parametrize(
    ("quality", "form"),
    [
        (0, "actual"), (Quality.LATE, "actual"), (Quality.LONG, "averaged"), (Quality.HIGH | Quality.LONG, "suspect"),
    ],
)  # fmt: skip
def test_a_bar_has_the_form_of_the_worst_that_is_known_of_it(quality: int, form: str) -> None:
    assert power_bars(row(0, 15, quality=quality), ZONE, EN)[0].quality == form


def test_a_meter_that_feeds_in_has_a_bar_below_zero() -> None:
    used, fed = power_bars(row(0, 60, 100, export_energy_wh=900), ZONE, EN)
    assert (used.value, fed.value, fed.quality) == (0.1, -0.9, "exported")
    assert mean_power_w(row(0, 60, 100, export_energy_wh=900)) == -800


def test_the_strip_covers_the_time_with_the_tariffs_periods_on_its_clock() -> None:
    tariff = parse_tariff(yaml.safe_load(TARIFF.read_text("utf-8")))
    line = compile_timeline(tariff, dt.date(2026, 11, 1), dt.date(2026, 11, 30))
    spans = time_of_use(tariff, line, (START, START + dt.timedelta(days=1)), EN)  # from 08:00 local
    assert [(f"{span.start.astimezone(ZONE):%H:%M}", span.label) for span in spans] == [
        ("08:00", "flat"), ("10:00", "peak"), ("12:00", "flat"), ("14:00", "peak"), ("19:00", "flat"), ("00:00", "valley"),
    ]  # fmt: skip
    assert [span.end for span in spans[:-1]] == [span.start for span in spans[1:]]
    assert spans[-1].end == START + dt.timedelta(days=1)


def test_a_period_says_when_it_holds() -> None:
    version = parse_tariff(yaml.safe_load(TARIFF.read_text("utf-8"))).versions[0]
    assert _windows(version, "winter", "peak", EN) == ["10:00–12:00, 14:00–19:00"]
    assert _windows(version, "winter", "flat", EN) == ["all other times"]


def test_local_days_begin_at_local_midnight_also_when_the_clock_changes() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    now = dt.datetime(2026, 3, 30, 12, tzinfo=dt.UTC)
    days = [local_midnight(now, berlin, day) for day in (-2, -1, 0, 1)]
    assert [(high - low).total_seconds() / 3600 for low, high in itertools.pairwise(days)] == [24, 23, 24]


def test_what_is_explained_first_is_the_line_that_costs_most() -> None:
    amounts = [Decimal(value) for value in ("1.5", "9.25", "-3")]
    lines = [ChargeLine("x", "energy", Decimal(0), Decimal(0), amount, amount) for amount in amounts]
    charge = ChargeSoFar("m", "s", "t", "CNY", START, START, START, 0, lines, Decimal(0), Decimal(0))
    assert largest_line(charge) == 1
    assert largest_line(None) == 0
