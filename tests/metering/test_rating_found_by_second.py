"""What the second rater found wrong in the first one: each case was red before."""

from datetime import date as day
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from metering.bill import sum_of
from metering.calendar import US
from metering.rating import rate
from metering.tariff import parse_tariff
from metering.terms import RatingError
from metering.usage import Load
from tests.golden.made_load import starts_of

START, CHANGE, END = day(2026, 6, 20), "2026-07-05", day(2026, 7, 20)


def bill_of(*versions: dict[str, Any], surge_wh: int = 0, zone: str = "Europe/Berlin", fed_wh: Any = None) -> Any:
    rows = [{"valid_from": "2026-01-01", "rest": "day", "prices": "0.10", **version} for version in versions]
    tariff = parse_tariff({"tariff_id": "t", "currency": "EUR", "zone": zone, "versions": rows})
    starts = starts_of(tariff, START, END)
    import_wh = np.full(len(starts), 250, np.int64)
    import_wh[0] += surge_wh
    registers = {"import_wh": import_wh}
    if fed_wh is not None:
        registers["export_wh"] = fed_wh(starts)
    return rate(tariff, Load(starts * US, 900, registers), [START, END])[0]


def test_a_kwh_that_two_components_price_is_one_kwh_of_the_mean_price() -> None:
    """50 of 720 kWh at 0.10 and 0.20: 50 x 0.30 off, and not 50 x 0.15."""
    second = {"energy": [{"id": "grid", "prices": "0.20"}], "discounts": [{"id": "free", "kwh_free": 50}]}
    assert sum_of(bill_of(second).lines, ["discount"]) == Decimal(-15)


def test_a_discount_sees_the_discount_before_it() -> None:
    discounts = [{"id": "off", "amount": "10"}, {"id": "half", "percent": "50", "base": ["energy", "discount"]}]
    assert sum_of(bill_of({"discounts": discounts}).lines, ["discount"]) == -10 - Decimal(31)


def test_tiers_begun_anew_are_bounded_by_all_days_of_their_version() -> None:
    """Thirty days of two seasons: 10 kWh a day are 300 kWh, not the 110 of the first season's days."""
    seasons = [{"name": "summer", "from": "04-01", "to": "06-30"}, {"name": "winter", "from": "07-01", "to": "03-31"}]
    rule = {"unit": "kWh_per_day", "on_change": "reset"}
    tiers = [{"up_to_kwh": 10, "adder": "0"}, {"adder": "1"}]
    bill = bill_of({"seasons": seasons, "tiers": tiers, "tier_rule": rule})
    assert sum_of(bill.lines, ["energy"]) == 72 + 420


def test_tiers_of_each_period_go_on_where_that_period_was() -> None:
    """Two periods of 12 hours: each drew 180 kWh before the change, and has 20 of 200 left."""
    windows = {"windows": [{"period": "peak", "from": "08:00", "to": "20:00"}]}
    rule = {"allocation": "sequential", "pooled": "per_period"}
    tiers = {"tiers": [{"up_to_kwh": 200, "prices": "0"}, {"prices": "1"}], "tier_rule": rule}
    bill = bill_of({**windows, "prices": "0"}, {**windows, **tiers, "valid_from": CHANGE, "prices": "0"})
    assert sum_of(bill.lines, ["energy"]) == 2 * (180 - 20)


def test_one_charge_on_change_last_is_for_all_days_whatever_the_others_are() -> None:
    """1 kW at 10 for the whole month, and the other at 2 and 20 for half of it each."""

    def charges(last: str, side: str) -> list[dict[str, Any]]:
        return [
            {"id": "last", "prices": last, "per": "cycle", "on_change": "last"},
            {"id": "side", "prices": side, "per": "cycle"},
        ]

    bill = bill_of({"demand": charges("1", "2")}, {"valid_from": CHANGE, "demand": charges("10", "20")})
    assert sum_of(bill.lines, ["demand"]) == 10 + 11


def test_tiers_by_kw_do_not_ask_charges_of_another_version() -> None:
    """A charge of a later version has a window of a day; the tiers here are by 15 min."""
    tiers = {"tiers": [{"up_to_kwh": 1, "adder": "0"}, {"adder": "1"}], "tier_rule": {"unit": "kWh_per_kW"}}
    later = {"valid_from": "2027-01-01", "demand": {"window_min": 1440, "prices": "1"}}
    rows = [bill_of(tiers, surge_wh=250).total, bill_of(tiers, later, surge_wh=250).total]
    assert rows[0] == rows[1] == Decimal("72.03") + Decimal("718.25")  # 2 kW at most: 2 of 720.25 kWh are in the first


def test_hours_of_netting_are_of_the_schedules_clock() -> None:
    """In India the hour begins at half past of UTC: what is fed in from 12:00 to 13:00 is set off in that one hour."""
    export = {"export": {"mode": "net_billing", "netting": "hour", "prices": "0.05"}}

    def fed_wh(starts: Any) -> Any:
        minute = (starts + 5 * 3600 + 1800) // 60 % 1440
        return np.where((minute >= 720) & (minute < 780), 900, 0)

    # 30 days: 3.6 kWh fed in, 1 kWh drawn in that hour.
    bill = bill_of(export, zone="Asia/Kolkata", fed_wh=fed_wh)
    assert sum_of(bill.lines, ["export"]) == -30 * Decimal("2.6") * Decimal("0.05")
    assert sum_of(bill.lines, ["energy"]) == 72 - 3


def test_energy_fed_in_before_a_version_with_other_seasons_has_the_price_of_its_own_version() -> None:
    """15 days of summer at 0.05, which the last version does not name, and 15 of its own at 0.08; 24 kWh a day."""
    old = [{"name": "summer", "from": "04-01", "to": "09-30"}, {"name": "winter", "from": "10-01", "to": "03-31"}]
    new = [{"name": "wet", "from": "06-01", "to": "10-31"}, {"name": "dry", "from": "11-01", "to": "05-31"}]
    before = {"mode": "buy_all", "prices": {"summer": {"day": "0.05"}, "winter": {"day": "0.06"}}}
    after = {"mode": "buy_all", "prices": {"wet": {"day": "0.08"}, "dry": {"day": "0.09"}}}
    versions = ({"seasons": old, "export": before}, {"seasons": new, "export": after, "valid_from": CHANGE})
    bill = bill_of(*versions, fed_wh=lambda starts: np.full(len(starts), 250, np.int64))
    assert sum_of(bill.lines, ["export"]) == -15 * 24 * (Decimal("0.05") + Decimal("0.08"))
    # A version that has no export at all has no price for its days, and that is said.
    with pytest.raises(RatingError, match="no price for summer day of the version of 2026-01-01"):
        bill_of({"seasons": old}, versions[1], fed_wh=lambda starts: np.full(len(starts), 250, np.int64))
