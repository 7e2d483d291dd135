"""What an offer compares: whole cycles of the past, at the prices of one day."""

import datetime as dt

import pytest

from metering.contract import Contract, ContractTariff
from metering.offer import edges_of, past_span, present_tariff, tariff_as_of

DAY = dt.date
VERSION = {"rest": "day", "prices": {"day": "0.50"}}
DOCUMENT = {
    "tariff_id": "t",
    "name": "t",
    "source": "a test",
    "currency": "CNY",
    "zone": "Asia/Shanghai",
    "versions": [
        {**VERSION, "valid_from": "2026-01-01", "valid_to": "2027-01-01", "holidays": ["2026-10-01"]},
        {**VERSION, "valid_from": "2027-01-01", "holidays": ["2027-10-01"], "prices": {"day": "0.70"}},
    ],
}


def contract(start_on: dt.date, billing_day: int = 1) -> Contract:
    tariffs = (ContractTariff(start_on, "t"), ContractTariff(DAY(2026, 6, 1), "u"))
    return Contract(1, "k", 1, 1, start_on, None, billing_day, tariffs)


@pytest.mark.parametrize(
    ("day", "price"), [(DAY(2026, 12, 31), "0.50"), (DAY(2027, 1, 1), "0.70"), (DAY(2020, 1, 1), "0.50")]
)
def test_a_tariff_as_of_a_day_has_that_days_prices_and_every_holiday(day: dt.date, price: str) -> None:
    tariff = tariff_as_of(DOCUMENT, day)
    (version,) = tariff.versions
    assert {str(value) for value in version.prices_per_kwh.values()} == {price}
    assert list(version.document.holidays) == [DAY(2026, 10, 1), DAY(2027, 10, 1)]
    assert DOCUMENT["versions"][0]["valid_to"] == "2027-01-01", "the document is left as it is"  # type: ignore[index]


@pytest.mark.parametrize(
    ("start_on", "billing_day", "span"),
    [
        (DAY(2020, 1, 1), 1, (DAY(2025, 11, 1), DAY(2026, 11, 1))),
        (DAY(2020, 1, 1), 15, (DAY(2025, 10, 15), DAY(2026, 10, 15))),
        (DAY(2026, 9, 20), 1, (DAY(2026, 9, 20), DAY(2026, 11, 1))),
        (DAY(2026, 11, 3), 1, (DAY(2026, 11, 3), DAY(2026, 11, 10))),
        (DAY(2026, 12, 1), 1, (DAY(2026, 12, 1), DAY(2026, 12, 1))),
    ],
    ids=["a year", "from the 15th", "less", "no whole cycle", "not begun"],
)
def test_the_past_is_twelve_whole_cycles_or_what_the_contract_has(
    start_on: dt.date, billing_day: int, span: tuple[dt.date, dt.date]
) -> None:
    assert past_span(contract(start_on, billing_day), DAY(2026, 11, 10)) == span


def test_cycles_begin_at_the_first_day_and_at_each_billing_day() -> None:
    assert edges_of(contract(DAY(2026, 1, 1), 15), DAY(2026, 9, 20), DAY(2026, 11, 15)) == [
        DAY(2026, 9, 20), DAY(2026, 10, 15), DAY(2026, 11, 15)
    ]  # fmt: skip


def test_the_present_tariff_is_that_of_the_day_or_the_first() -> None:
    days = {DAY(2025, 1, 1): "t", DAY(2026, 5, 31): "t", DAY(2026, 6, 1): "u"}
    assert {day: present_tariff(contract(DAY(2026, 1, 1)), day).tariff_id for day in days} == days
