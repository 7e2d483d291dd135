"""Checks of tariff documents: every fault at once with its place, and what is only warned of."""

# ruff: noqa: E501  # a case a line

import copy
from typing import Any

import pytest

from metering.tariff import TariffError, parse_tariff

GOOD: dict[str, Any] = {
    "tariff_id": "t",
    "currency": "EUR",
    "zone": "Europe/Berlin",
    "versions": [{"valid_from": "2026-01-01", "rest": "day", "prices": {"day": "0.3"}}],
}


def faults_of(top: Any = None, **version: Any) -> list[str]:
    document = copy.deepcopy(GOOD) | (top or {})
    if version:
        document["versions"] = [{**GOOD["versions"][0], **version}]
    try:
        parse_tariff(document)
    except TariffError as error:
        return error.faults
    return []


NIGHT = {"period": "night", "from": "00:00", "to": "06:00"}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            {"rest": None, "windows": [NIGHT, NIGHT | {"from": "06:00", "to": "24:00", "day_types": ["workday"]}]},
            (
                "versions[0].windows: season all_year, 06:00 to 24:00 is in no window on saturday, sunday, holiday,"
                " and there is no `rest`"
            ),
        ),
        ({"windows": [NIGHT]}, "versions[0].prices.night: has no price"),
        ({"prices": {"day": "1", "dusk": "2"}}, "versions[0].prices.dusk: unknown; known are all_year, day"),
        ({"windows": [NIGHT | {"seasons": ["spring"]}], "prices": "1"}, "versions[0].windows[0].seasons: unknown season 'spring'"),
        ({"seasons": [{"name": "day", "from": "01-01", "to": "12-31"}], "prices": "1"}, "versions[0].seasons: 'day' is a season and a period"),
        ({"tiers": [{"up_to_kwh": 100, "adder": "0"}]}, "versions[0].tiers[0].up_to_kwh: the last tier is open, and only the last"),
        (
            {"tiers": [{"up_to_kwh": 100, "adder": "0"}, {"up_to_kwh": 90, "adder": "1"}, {"adder": "2"}]},
            "versions[0].tiers[1].up_to_kwh: must be a number of kWh above the tier before, with at most 3 places",
        ),
        ({"tiers": [{"prices": "1"}]}, "versions[0].tiers[0].prices: need tier_rule.allocation sequential or proportional; additive has adders"),
        ({"prices": None}, "versions[0].prices: has no price: give `prices`, or components in `energy`"),
        ({"energy": [{"id": "x"}]}, "versions[0].energy[0]: needs either prices or index"),
        ({"demand": {"prices": "1", "basis": "contract"}}, "versions[0].demand[0].contract: is missing"),
        ({"demand": {"tiers": [{"up_to_kw": 5, "prices": "1"}]}}, "versions[0].demand[0].tiers[0].up_to_kw: the last tier is open, and only the last"),
        ({"demand": {"scope": "period", "prices": {"noon": "1"}}}, "versions[0].demand[0].prices.day: has no price"),
        ({"reactive": {"mode": "table"}}, "versions[0].reactive[0].table: is missing"),
        ({"export": {"mode": "buy_all"}}, "versions[0].export.prices: is missing: prices or index"),
        ({"surcharges": [{"id": "s", "per": "kWh"}]}, "versions[0].surcharges[0]: needs either amount or bands"),
        ({"discounts": [{"id": "d"}]}, "versions[0].discounts[0]: needs one of kwh_free, percent and amount"),
        ({"taxes": [{"id": "vat", "rate": "0.2", "base": ["engery"]}]}, "versions[0].taxes[0].base: 'engery' is no kind and no id of a line"),
        ({"taxes": [{"id": "a", "rate": "0.2"}, {"id": "a", "rate": "0.1"}]}, "versions[0]: id 'a' is there 2 times"),
        ({"valid_to": "2025-12-01"}, "versions[0].valid_to: must be after valid_from"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_fault_is_named_with_its_place(version: Any, expected: str) -> None:
    assert expected in faults_of(**version)


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("2026-06-15", "versions[0].valid_to: overlaps the next version, which begins on 2026-06-01"),
        ("2026-05-15", "versions[0].valid_to: nothing holds from 2026-05-15 to 2026-06-01"),
        ("2026-06-01", None),
    ],
)
def test_versions_neither_overlap_nor_leave_a_gap(to: str, expected: str | None) -> None:
    first = GOOD["versions"][0]
    faults = faults_of({"versions": [first | {"valid_to": to}, first | {"valid_from": "2026-06-01"}]})
    assert faults == ([expected] if expected else [])


def test_faults_of_all_versions_are_listed_at_once() -> None:
    faults = faults_of(
        {"zone": "Mars/Base", "clocks": {"schedule": "noon"}, "versions": [{}, {"valid_from": 5, "prices": {"x": 1.5}}]}
    )
    places = {fault.split(":")[0] for fault in faults}
    assert {
        "zone",
        "clocks.schedule",
        "versions[0].valid_from",
        "versions[0].windows",
        "versions[1].prices.x",
    } <= places


def test_a_composed_price_that_differs_from_the_listed_one_is_a_warning() -> None:
    composed = {"parts": {"agent": "0.20", "fund": "0.05"}, "floats": ["agent"], "multipliers": {"night": "0.5"}}
    version = {
        **GOOD["versions"][0],
        "windows": [NIGHT],
        "prices": {"day": "0.25", "night": "0.16"},
        "composed": composed,
    }
    warnings = parse_tariff(GOOD | {"versions": [version]}).warnings
    assert warnings == ("versions[0].prices: night is listed as 0.16, its parts give 0.150000",)


def test_a_window_that_never_decides_is_a_warning() -> None:
    version = {**GOOD["versions"][0], "windows": [NIGHT, NIGHT | {"from": "01:00"}], "prices": "1"}
    assert parse_tariff(GOOD | {"versions": [version]}).warnings == (
        "versions[0].windows[1]: never decides, a window before it covers it",
    )
