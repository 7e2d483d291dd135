"""The bill of a contract's cycle: parts by their days, one rounding, the charge so far by the same lines."""

import copy
import datetime as dt
import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from metering.bill import History
from metering.billing import bill_cycle, decode_history, encode_history, interval_s_of, needs_varh, span_us
from metering.contract import Contract, ContractTariff
from metering.rating import rate
from metering.tariff import Tariff, parse_tariff
from metering.terms import RatingError
from metering.usage import Load

OCTOBER = (dt.date(2026, 10, 1), dt.date(2026, 11, 1))
DOCUMENT: dict[str, Any] = {
    "tariff_id": "a",
    "currency": "EUR",
    "zone": "Europe/Brussels",
    "versions": [
        {
            "valid_from": "2024-01-01",
            "windows": [{"period": "peak", "from": "07:00", "to": "22:00"}],
            "rest": "off",
            "prices": {"peak": "0.31", "off": "0.17"},
            "fixed_charge": [{"id": "grid", "amount": "9.30", "per": "month"}],
        }
    ],
}


def tariff_of(**changes: Any) -> Tariff:
    document = copy.deepcopy(DOCUMENT)
    document["versions"][0] |= changes.pop("version", {})
    return parse_tariff(document | changes)


def load_of(days: tuple[dt.date, dt.date], seed: int = 1, interval_s: int = 900) -> Load:
    """Return quarter-hours of some local days and a day on either side."""
    start = dt.datetime.combine(days[0], dt.time(), dt.UTC) - dt.timedelta(days=1)
    count = ((days[1] - days[0]).days + 2) * 86_400 // interval_s
    starts = int(start.timestamp()) * 1_000_000 + np.arange(count) * interval_s * 1_000_000
    return Load(starts, interval_s, {"import_wh": np.random.default_rng(seed).integers(0, 900, count)})


def contract_of(*tariffs: tuple[str, str], **more: Any) -> Contract:
    items = tuple(ContractTariff(dt.date.fromisoformat(day), name) for day, name in tariffs)
    return Contract(1, "k", 1, 1, items[0].start_on, more.get("end_on"), more.get("billing_day", 1), items)


def test_a_cycle_of_one_tariff_is_what_rating_it_alone_gives() -> None:
    tariff = tariff_of()
    load = load_of(OCTOBER)
    found = bill_cycle(contract_of(("2026-01-01", "a")), OCTOBER, {"a": tariff}, load)
    (alone,) = rate(tariff, load, OCTOBER)
    assert (found.total, found.total_unrounded) == (alone.total, alone.total_unrounded)
    assert [row.line.id for row in found.lines] == [line.id for line in alone.lines]
    assert sum(row.line.amount_unrounded for row in found.lines) == found.total_unrounded


def test_parts_of_a_cycle_have_each_their_days_and_the_whole_month_charge_between_them() -> None:
    tariffs = {"a": tariff_of(), "b": tariff_of(tariff_id="b", version={"prices": {"peak": "0.5", "off": "0.5"}})}
    load = load_of(OCTOBER)
    found = bill_cycle(contract_of(("2026-01-01", "a"), ("2026-10-11", "b")), OCTOBER, tariffs, load)
    fixed = [
        (row.line.id, row.days, row.tariff_id, row.line.amount_unrounded)
        for row in found.lines
        if row.line.kind == "fixed"
    ]
    middle = dt.date(2026, 10, 11)
    assert fixed == [
        ("grid", (OCTOBER[0], middle), "a", Decimal(3)),
        ("grid-2", (middle, OCTOBER[1]), "b", Decimal("6.3")),
    ]
    energy = [row for row in found.lines if row.line.kind == "energy"]
    second = [row for row in energy if row.tariff_id == "b"]
    days = (middle, OCTOBER[1])
    (alone,) = rate(tariffs["b"], load, days)
    assert sum(row.line.quantity for row in second) == sum(x.quantity for x in alone.lines if x.kind == "energy")
    assert len({row.line.id for row in found.lines}) == len(found.lines)
    assert sum(row.line.amount_unrounded for row in found.lines) == found.total_unrounded
    assert found.total == found.total_unrounded.quantize(Decimal("0.01"))


def test_splitting_a_contract_between_like_tariffs_costs_what_the_whole_costs() -> None:
    tariffs = {"a": tariff_of(), "b": tariff_of(tariff_id="b")}
    load = load_of(OCTOBER, seed=2)
    whole = bill_cycle(contract_of(("2026-01-01", "a")), OCTOBER, tariffs, load)
    for day in range(2, 31, 7):  # the clocks change on the 25th
        parts = bill_cycle(contract_of(("2026-01-01", "a"), (f"2026-10-{day:02d}", "b")), OCTOBER, tariffs, load)
        assert parts.total_unrounded == whole.total_unrounded


def test_a_ladder_by_the_day_is_as_long_as_the_days_of_its_part() -> None:
    rule = {"tiers": [{"up_to_kwh": "10", "adder": "0"}, {"adder": "0.1"}], "tier_rule": {"unit": "kWh_per_day"}}
    tariffs = {"a": tariff_of(version=rule), "b": tariff_of(tariff_id="b")}
    contract = contract_of(("2026-01-01", "a"), ("2026-10-11", "b"))
    found = bill_cycle(contract, OCTOBER, tariffs, load_of(OCTOBER))
    used = sum(
        row.line.quantity
        for row in found.lines
        if row.tariff_id == "a" and row.line.kind == "energy" and not row.line.tier
    )
    upper = next(row.line.quantity for row in found.lines if row.line.id == "tier-2")
    assert upper == used - 10 * 10


def test_moving_in_and_out_bills_the_days_of_the_contract_only() -> None:
    tariff = tariff_of()
    contract = contract_of(("2026-10-08", "a"), end_on=dt.date(2026, 10, 18))
    found = bill_cycle(contract, OCTOBER, {"a": tariff}, load_of(OCTOBER))
    assert found.days == (dt.date(2026, 10, 8), dt.date(2026, 10, 18))
    assert next(row.line.amount_unrounded for row in found.lines if row.line.kind == "fixed") == Decimal(3)
    low, high = span_us(contract, OCTOBER, {"a": tariff})
    assert high - low == 10 * 86_400_000_000


def test_the_charge_so_far_grows_into_the_bill() -> None:
    charge = {"fixed_charge": [{"id": "grid", "amount": "0.30", "per": "day"}]}
    tariff = tariff_of(version=charge)
    contract, load = contract_of(("2026-01-01", "a")), load_of(OCTOBER)
    whole = bill_cycle(contract, OCTOBER, {"a": tariff}, load)
    assert bill_cycle(contract, OCTOBER, {"a": tariff}, load, until=OCTOBER[1]) == whole
    tenth = bill_cycle(contract, OCTOBER, {"a": tariff}, load, until=dt.date(2026, 10, 11))
    assert whole.total_unrounded - tenth.total_unrounded == 21 * Decimal("0.30")


def test_what_cannot_be_billed_is_refused_with_the_reason() -> None:
    load = load_of(OCTOBER)
    tariffs = {"a": tariff_of(), "b": tariff_of(tariff_id="b", currency="USD")}
    with pytest.raises(RatingError, match="EUR and USD in one cycle"):
        bill_cycle(contract_of(("2026-01-01", "a"), ("2026-10-11", "b")), OCTOBER, tariffs, load)
    with pytest.raises(RatingError, match="no tariff 'c': import it"):
        bill_cycle(contract_of(("2026-01-01", "c")), OCTOBER, tariffs, load)
    with pytest.raises(RatingError, match="no tariff from 2026-10-01"):
        bill_cycle(contract_of(("2026-12-01", "a")), OCTOBER, tariffs, load)


def test_a_load_without_any_interval_is_billed_its_fixed_charges() -> None:
    nothing = Load(np.zeros(0, np.int64), 900, {"import_wh": np.zeros(0, np.int64)})
    demand = {"demand": [{"id": "peak", "prices": "5"}]}
    for version in ({}, demand):
        found = bill_cycle(contract_of(("2026-01-01", "a")), OCTOBER, {"a": tariff_of(version=version)}, nothing)
        assert found.total == Decimal("9.30")


def test_intervals_are_as_fine_as_windows_and_boundaries_need() -> None:
    assert interval_s_of([tariff_of()]) == 900
    assert interval_s_of([tariff_of(version={"windows": [{"period": "peak", "from": "07:10", "to": "22:00"}]})]) == 300
    assert interval_s_of([tariff_of(version={"windows": [{"period": "peak", "from": "07:01", "to": "22:00"}]})]) == 60
    assert not needs_varh([tariff_of()])
    assert needs_varh([tariff_of(version={"demand": [{"id": "peak", "prices": "5", "quantity": "kVA"}]})])


def test_what_a_cycle_leaves_comes_back_from_json_as_it_was() -> None:
    history = History(
        year=2026,
        year_wh=12,
        season="summer",
        season_wh=7,
        year_billed=Decimal("1.230"),
        service_since=dt.date(2026, 2, 1),
        peaks_kw=(("peak", dt.date(2026, 1, 1), Fraction(7, 3)),),
        credit_wh=(("off", Fraction(1, 3)),),
        credit_money=Decimal("-4.5"),
    )
    assert decode_history(json.loads(encode_history(history))) == history
    assert decode_history(json.loads(encode_history(History()))) == decode_history({}) == History()
