"""Properties of rating, and each kind of charge by small numbers."""

import copy
import dataclasses
import datetime as dt
import random
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.bill import Bill, History, line_amount, sum_of
from metering.calendar import US, compile_segments, compile_timeline, local_midnight_s, segment_of
from metering.cycle_shape import Shapes
from metering.pricing.indexed import Series
from metering.rating import rate, rate_cycle
from metering.running import charge_columns, charge_lines, pricing_of
from metering.tariff import Tariff, parse_tariff
from metering.terms import RatingError
from metering.usage import Inputs, Load, measure

day = dt.date
JULY, AUGUST, SEPTEMBER = day(2026, 7, 1), day(2026, 8, 1), day(2026, 9, 1)
VERSION: Mapping[str, Any] = {
    "valid_from": "2026-01-01",
    "windows": [
        {"period": "peak", "from": "08:00", "to": "20:00", "day_types": ["workday"]},
        {"period": "shoulder", "from": "08:00", "to": "20:00"},
    ],
    "rest": "night",
    "prices": {"peak": "0.40", "shoulder": "0.25", "night": "0.10"},
}


def tariff_of(zone: str = "Europe/Berlin", top: Mapping[str, Any] | None = None, **version: Any) -> Tariff:
    document: dict[str, Any] = {"tariff_id": "t", "currency": "EUR", "zone": zone, **(top or {})}
    document["versions"] = [copy.deepcopy({**VERSION, **version})]
    return parse_tariff(document)


def load_of(tariff: Tariff, start_on: dt.date, end_on: dt.date, seed: int = 1, step_s: int = 900, **more: Any) -> Load:
    starts = np.arange(local_midnight_s(tariff, start_on), local_midnight_s(tariff, end_on), step_s)
    chance = random.Random(seed)
    import_wh = np.array([chance.randint(0, 900) for _ in starts], np.int64)
    return Load(
        starts * US, step_s, {"import_wh": import_wh, **{name: np.asarray(make(starts)) for name, make in more.items()}}
    )


def constant(tariff: Tariff, start_on: dt.date, end_on: dt.date, **wh: int) -> Load:
    starts = np.arange(local_midnight_s(tariff, start_on), local_midnight_s(tariff, end_on), 900)
    return Load(starts * US, 900, {name: np.full(len(starts), value) for name, value in wh.items()})


def one(tariff: Tariff, load: Load, *edges: dt.date, history: History = History(), **inputs: Any) -> Bill:  # noqa: B008
    return rate(tariff, load, edges or (JULY, AUGUST), Inputs(**inputs), history)[0]


def amount(bill: Bill, *names: str) -> Decimal:
    return sum_of(bill.lines, names)


SEQUENTIAL = {
    "tiers": [
        {"up_to_kwh": 300, "adder": "0"},
        {"up_to_kwh": 700, "prices": {"peak": "0.5", "shoulder": "0.3", "night": "0.2"}},
        {"adder": "0.4"},
    ],
    "tier_rule": {"allocation": "sequential"},
}
LADDER = {"tiers": [{"up_to_kwh": 300, "adder": "0"}, {"up_to_kwh": 700, "adder": "0.05"}, {"adder": "0.30"}]}
EVERYTHING = SEQUENTIAL | {
    "demand": [
        {"id": "flat", "prices": "5"},
        {"id": "tou", "scope": "period", "prices": {"peak": "7", "shoulder": "1", "night": "0"}},
    ],
    "fixed_charge": {"amount": "9.99", "per": "month"},
    "surcharges": [{"id": "levy", "per": "kWh", "amount": "0.0123"}, {"id": "city", "per": "percent", "amount": "2.5"}],
    "discounts": [{"id": "loyal", "percent": "1.5"}],
    "minimum": {"amount": "20"},
    "taxes": [{"id": "vat", "rate": "0.19"}],
}


@pytest.mark.parametrize("rounding", [{}, {"line": {"step": "0.01"}}], ids=["total", "line"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_lines_sum_to_the_bill(rounding: Any, seed: int) -> None:
    tariff = tariff_of(top={"rounding": rounding}, **EVERYTHING)
    bill = one(tariff, load_of(tariff, JULY, AUGUST, seed))
    assert sum((line.amount_unrounded for line in bill.lines), Decimal(0)) == bill.total_unrounded
    if rounding:
        assert sum((line_amount(tariff, line) for line in bill.lines), Decimal(0)) == bill.total
    else:
        assert bill.total == tariff.round_money(bill.total_unrounded)
    assert len({line.id for line in bill.lines}) == len(bill.lines)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_streaming_in_any_order_equals_the_batch_to_the_last_digit(seed: int) -> None:
    """Sub-totals by segment of the calendar are all that sequential tiers need: they add up in any order of arrival."""
    tariff = tariff_of(**SEQUENTIAL)
    load = load_of(tariff, JULY, AUGUST, seed)
    [(cycle, usage)] = measure(tariff, load, [JULY, AUGUST], Inputs())
    segments = compile_segments(tariff, JULY, AUGUST, edges_s=[local_midnight_s(tariff, JULY)])
    place = segment_of(segments, load.start_us)
    totals = np.zeros(len(segments.bucket), np.int64)
    order = np.random.default_rng(seed).permutation(len(place))
    for batch in np.array_split(order, 7):
        np.add.at(totals, place[batch], load.registers["import_wh"][batch])
    streamed, _ = rate_cycle(tariff, cycle, dataclasses.replace(usage, import_wh=totals))
    assert streamed == one(tariff, load)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_splitting_an_interval_changes_nothing(seed: int) -> None:
    tariff = tariff_of(**SEQUENTIAL)
    hourly = load_of(tariff, JULY, AUGUST, seed, 3600)
    parts = np.stack([np.arange(1, 5) * wh // 4 - np.arange(4) * wh // 4 for wh in hourly.registers["import_wh"]])
    starts = (hourly.start_us[:, np.newaxis] + np.arange(4) * 900 * US).reshape(-1)
    quarters = Load(starts, 900, {"import_wh": parts.reshape(-1)})
    assert one(tariff, quarters).lines == one(tariff, hourly).lines


@pytest.mark.parametrize("allocation", ["additive", "sequential", "proportional"])
@given(wh=st.integers(0, 900_000), more_wh=st.integers(1, 4000))
@settings(max_examples=40)
def test_tiers_are_monotone_and_continuous(allocation: str, wh: int, more_wh: int) -> None:
    tariff = tariff_of(**LADDER, tier_rule={"allocation": allocation})
    starts = np.array([local_midnight_s(tariff, JULY)]) * US
    low, high = (
        one(tariff, Load(starts, 3600, {"import_wh": np.array([amount])})).total_unrounded
        for amount in (wh, wh + more_wh)
    )
    assert 0 < high - low <= Decimal(more_wh) / 1000 * Decimal("0.4")  # night at 0.10, at most 0.30 more


@pytest.mark.parametrize("allocation", ["sequential", "proportional"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_a_ladder_of_equal_adders_costs_the_same_however_it_is_filled(allocation: str, seed: int) -> None:
    additive = tariff_of(**LADDER)
    load = load_of(additive, JULY, AUGUST, seed)
    other = tariff_of(**LADDER, tier_rule={"allocation": allocation})
    assert abs(one(other, load).total_unrounded - one(additive, load).total_unrounded) < Decimal("1e-10")


@pytest.mark.parametrize(("date", "quarters"), [("2026-03-29", 92), ("2026-03-30", 96), ("2026-10-25", 100)])
def test_all_quarter_hours_of_a_day_of_23_24_or_25_hours_are_priced_once(date: str, quarters: int) -> None:
    tariff = tariff_of()
    start_on, end_on = day.fromisoformat(date), day.fromisoformat(date) + dt.timedelta(days=1)
    bill = one(tariff, constant(tariff, start_on, end_on, import_wh=1000), start_on, end_on)
    assert sum((line.quantity for line in bill.lines), Fraction(0)) == quarters
    assert len(constant(tariff, start_on, end_on, import_wh=1).start_us) == quarters


@given(wh=st.lists(st.integers(0, 900_000), min_size=3, max_size=3), as_of=st.integers(0, 31))
@settings(max_examples=40)
def test_the_running_charge_at_the_end_of_the_cycle_is_the_bill(wh: list[int], as_of: int) -> None:
    tariff = tariff_of(**LADDER, fixed_charge={"amount": "0.27", "per": "day"})
    line = compile_timeline(tariff, JULY, AUGUST)
    pricing = pricing_of(Shapes(tariff, line), 0)
    assert pricing is not None
    periods = {label: slot for slot, label in enumerate(pricing.labels)}
    starts = np.array(
        [local_midnight_s(tariff, JULY) + hour * 3600 for hour in (1, 9, 81)]
    )  # night, Wednesday, Saturday
    order = [periods[name] for name in ("night", "peak", "shoulder")]
    quantities = np.zeros(16, np.int64)
    quantities[order] = wh
    bill = one(tariff, Load(starts * US, 3600, {"import_wh": np.array(wh)}))
    end_us = local_midnight_s(tariff, AUGUST) * US
    columns = charge_columns(pricing, quantities[np.newaxis], end_us)
    assert Decimal(int(columns[0])).scaleb(-pricing.amount_scale) == bill.total_unrounded
    now_us = (local_midnight_s(tariff, JULY) + as_of * 86_400) * US
    lines = charge_lines(pricing, quantities.tolist(), now_us)
    so_far = Decimal(int(charge_columns(pricing, quantities[np.newaxis], now_us)[0])).scaleb(-pricing.amount_scale)
    assert sum_of(lines) == so_far == bill.total_unrounded - max(30 - as_of, 0) * Decimal("0.27")


def test_what_whole_numbers_cannot_carry_is_charged_from_the_ledger() -> None:
    def is_live(**parts: Any) -> bool:
        tariff = tariff_of(**{**LADDER, **parts})
        return Shapes(tariff, compile_timeline(tariff, JULY, AUGUST)).of(0) is not None

    assert is_live()
    assert is_live(demand={"prices": "1"}, taxes=[{"id": "vat", "rate": "0.2"}])
    assert is_live(tier_rule={"allocation": "sequential"})
    assert not is_live(tier_rule={"per": "year"})
    assert not is_live(demand={"prices": "1", "method": "sliding"})
    assert not is_live(demand={"prices": "1", "ratchet": {"percent": "80"}})
    assert not is_live(reactive={"mode": "cn_table"})
    assert not is_live(export={"mode": "buy_all", "prices": "0.1"})


def test_a_published_day_flag_reprices_its_day_only() -> None:
    windows = [{"period": "sharp", "from": "11:00", "to": "12:00", "day_types": ["heat"]}, *VERSION["windows"]]
    tariff = tariff_of(flags=["heat"], windows=windows, prices=VERSION["prices"] | {"sharp": "1.00"})
    load = constant(tariff, JULY, AUGUST, import_wh=250)
    before, after = one(tariff, load), one(tariff, load, flags={"heat": frozenset({day(2026, 7, 8)})})
    assert after.total_unrounded - before.total_unrounded == Decimal("0.60")  # one kWh of a Wednesday's peak


def test_holidays_and_named_days_have_their_own_windows() -> None:
    windows = [{"period": "deep", "from": "00:00", "to": "24:00", "day_types": ["festival"]}, *VERSION["windows"]]
    tariff = tariff_of(
        holidays=["2026-07-01"],
        days={"festival": ["2026-07-02"]},
        windows=windows,
        prices=VERSION["prices"] | {"deep": "0.01"},
    )
    got = {}
    for number in (1, 2, 3):
        start_on, end_on = day(2026, 7, number), day(2026, 7, number + 1)
        bill = one(tariff, constant(tariff, start_on, end_on, import_wh=250), start_on, end_on)
        got[number] = {line.label: int(line.quantity) for line in bill.lines if line.quantity}
    assert got == {1: {"night": 12, "shoulder": 12}, 2: {"deep": 24}, 3: {"night": 12, "peak": 12}}


@pytest.mark.parametrize(
    ("prorate", "per", "expected"),
    [("none", "month", "31"), ("calendar", "month", "31"), ("thirty", "month", "32.033333333333"),
     ("annual", "month", "31.594520547945"), ("annual", "year", "2.632876712329"), ("calendar", "year", "2.632876712329")],
)  # fmt: skip
def test_fixed_charges_are_prorated_as_the_tariff_says(prorate: str, per: str, expected: str) -> None:
    tariff = tariff_of(prices="0", fixed_charge={"amount": "31", "per": per, "prorate": prorate})
    assert one(tariff, constant(tariff, JULY, AUGUST, import_wh=0)).total_unrounded == Decimal(expected)


def test_a_charge_by_the_contract_needs_its_term() -> None:
    tariff = tariff_of(prices="0", fixed_charge={"amount": "2", "per": "month", "times": "contract_kw"})
    load = constant(tariff, JULY, AUGUST, import_wh=0)
    assert one(tariff, load, terms={"contract_kw": Decimal("7.5")}).total == 15
    with pytest.raises(RatingError, match="contract_kw"):
        one(tariff, load)


@pytest.mark.parametrize("on_change", ["carry", "reset"])
def test_a_new_version_inside_a_cycle_carries_or_resets_the_tiers(on_change: str) -> None:
    versions = [
        {"valid_from": date, "rest": "all", "prices": price, "fixed_charge": {"amount": price, "per": "day"},
         "tiers": [{"up_to_kwh": 300, "adder": "0"}, {"adder": "1"}], "tier_rule": {"on_change": on_change}}
        for date, price in (("2026-01-01", "0.1"), ("2026-07-11", "0.2"))
    ]  # fmt: skip
    tariff = parse_tariff({"tariff_id": "t", "currency": "EUR", "zone": "Europe/Berlin", "versions": versions})
    bill = one(tariff, constant(tariff, JULY, AUGUST, import_wh=250))
    by_tier = [line.quantity for line in bill.lines if line.tier == 2]
    assert sum(by_tier) == (31 * 24 - 300 if on_change == "carry" else 504 - 300)
    energy = [(line.quantity, line.price) for line in bill.lines if line.bucket is not None]
    assert energy == [(240, Decimal("0.1")), (504, Decimal("0.2"))]
    assert [line.quantity for line in bill.lines if line.kind == "fixed"] == [10, 21]


def test_annual_tiers_of_a_new_customer_follow_the_months_in_service() -> None:
    tariff = tariff_of(rest="all", windows=[], prices="0",
                       tiers=[{"up_to_kwh": 1200, "adder": "0"}, {"adder": "1"}],
                       tier_rule={"per": "year", "prorate": "months"})  # fmt: skip
    load = constant(tariff, JULY, AUGUST, import_wh=250)
    assert one(tariff, load).total == 0
    assert one(tariff, load, history=History(service_since=day(2026, 7, 1))).total == 744 - 600


def with_peak(tariff: Tariff, *peaks: tuple[dt.datetime, int]) -> Load:
    load = constant(tariff, JULY, AUGUST, import_wh=100)
    for at, wh in peaks:
        load.registers["import_wh"][np.searchsorted(load.start_us, int(at.timestamp()) * US)] = wh
    return load


def at(number: int, hour: int, minute: int = 0) -> dt.datetime:
    return dt.datetime(2026, 7, number, hour, minute, tzinfo=dt.timezone(dt.timedelta(hours=2)))


@pytest.mark.parametrize(
    ("charge", "billed"),
    [
        ({}, "8"),
        ({"window_min": 30}, "4.2"),  # 100 + 2000 Wh in the half hour from ten
        ({"window_min": 30, "method": "sliding"}, "7"),
        ({"scope": "coincident", "window_min": 60}, "3.7"),  # 100 + 2000 + 1500 + 100 Wh in the hour from ten
        ({"min_kw": 9}, "9"),
        ({"average": {"top_n": 2, "distinct_days": True}}, "6"),
        ({"average": {"top_n": 2, "distinct_days": False}}, "7"),
        ({"ratchet": {"percent": "80", "months": 11}}, "16"),
        ({"ratchet": {"percent": "80", "months": 1}}, "8"),
        ({"ratchet": {"percent": "80", "of_months": [5]}}, "16"),
        ({"average": {"rolling_months": 3, "floor_kw": 5, "floor_on": "month"}}, "11"),
    ],
    ids=str,
)
def test_billed_demand_follows_the_basis_of_the_charge(charge: Any, billed: str) -> None:
    tariff = tariff_of(prices="0", demand={"prices": "1", **charge})
    load = with_peak(tariff, (at(7, 10, 15), 2000), (at(7, 10, 30), 1500), (at(8, 12), 1000))
    load.registers["import_wh"][0] = 800
    history = History(peaks_kw=(("demand", day(2026, 5, 1), Fraction(20)), ("demand", day(2026, 6, 1), Fraction(4))))
    bill = one(
        tariff, load, history=history, system_peaks_s=(int(at(7, 10, 40).timestamp()), int(at(8, 12, 5).timestamp()))
    )
    assert amount(bill, "demand") == Decimal(billed)


def test_demand_by_period_looks_at_windows_that_begin_in_it() -> None:
    tariff = tariff_of(prices="0", demand={"scope": "period", "prices": {"peak": "10", "shoulder": "1", "night": "0"}})
    bill = one(tariff, with_peak(tariff, (at(7, 10), 2000), (at(5, 10), 1000), (at(7, 3), 9000)))
    assert {line.id: line.quantity for line in bill.lines if line.kind == "demand"} == {
        "demand-peak": 8,
        "demand-shoulder": 4,
    }


def test_demand_in_kva_and_tiers_and_by_day() -> None:
    tariff = tariff_of(
        prices="0", demand={"quantity": "kVA", "per": "day", "tiers": [{"up_to_kw": 3, "prices": "1"}, {"prices": "2"}]}
    )
    load = constant(tariff, JULY, AUGUST, import_wh=750, import_varh=1000)
    assert amount(one(tariff, load), "demand") == 31 * (3 * 1 + 2 * 2)
    with pytest.raises(RatingError, match="import_varh"):
        one(tariff, constant(tariff, JULY, AUGUST, import_wh=750))


def test_capacity_basis_and_discount_for_much_energy_per_kva() -> None:
    demand = {"basis": "capacity", "prices": "10", "discount": {"kwh_per_kva_min": 260, "factor": "0.90"}}
    tariff = tariff_of(prices="0", demand=demand, top={"terms": {"capacity_kva": 2}})
    assert amount(one(tariff, constant(tariff, JULY, AUGUST, import_wh=250)), "demand") == 18
    assert amount(one(tariff, constant(tariff, JULY, AUGUST, import_wh=100)), "demand") == 20


@pytest.mark.parametrize(
    ("reactive", "expected"),
    [
        ({"mode": "ratio", "ratio": "0.5", "price": "0.01"}, "1.86"),  # 558 - 744 x 0.5 kvarh
        ({"mode": "kvarh", "price": "0.01"}, "5.58"),
        ({"mode": "kvar", "ratio": "0.6197", "price": "1"}, "0.1283"),  # 0.748 kvar - 61.97 % of 1 kW
        ({"mode": "table", "table": [{"from": "0.85", "percent": "0"}, {"from": "0", "percent": "5"}]}, "3.72"),
        ({"mode": "ramp", "ramp": {"base": "0.85", "percent": "1"}}, "3.72"),
        ({"mode": "cn_table", "standard": "0.85", "less_per_kwh": "0.05"}, "0.9300"),  # 2.5 % of 74.4 - 37.2
    ],
    ids=lambda value: value["mode"] if isinstance(value, dict) else "",
)
def test_reactive_energy_and_power_factor_of_0_80(reactive: Any, expected: str) -> None:
    tariff = tariff_of(prices="0.10", windows=[], rest="all", reactive=reactive)
    load = constant(tariff, JULY, AUGUST, import_wh=250, import_varh=150, export_varh=0)
    load = Load(
        load.start_us,
        900,
        {
            **load.registers,
            "import_varh": np.full(len(load.start_us), 187),
            "export_varh": (np.arange(len(load.start_us)) % 2),
        },
    )
    assert amount(one(tariff, load), "reactive") == Decimal(expected)


def test_energy_in_kvah_is_exact_by_interval() -> None:
    tariff = tariff_of(prices=None, energy=[{"id": "apparent", "unit": "kVAh", "prices": "1"}])
    load = constant(tariff, JULY, AUGUST, import_wh=300, import_varh=400)
    assert one(tariff, load).total == 31 * 48


def test_a_second_register_has_prices_of_its_own() -> None:
    tariff = tariff_of(prices="0", energy=[{"id": "water", "register": "controlled", "prices": "0.5"}])
    assert one(tariff, constant(tariff, JULY, AUGUST, import_wh=0, controlled_wh=1000)).total == Decimal("1488.00")
    with pytest.raises(RatingError, match="controlled_wh"):
        one(tariff, constant(tariff, JULY, AUGUST, import_wh=0))


def sunny(tariff: Tariff, start_on: dt.date = JULY, end_on: dt.date = AUGUST, export_wh: int = 300) -> Load:
    """Return 400 Wh drawn in one quarter and so much fed in in the next."""
    starts = np.arange(local_midnight_s(tariff, start_on), local_midnight_s(tariff, end_on), 900)
    even = np.arange(len(starts)) % 2 == 0
    return Load(starts * US, 900, {"import_wh": even * np.int64(400), "export_wh": ~even * np.int64(export_wh)})


@pytest.mark.parametrize(
    ("export", "drawn", "fed"),
    [
        ({"mode": "buy_all", "prices": "0.05"}, "595.2", "446.4"),
        ({"mode": "net_billing", "prices": "0.05"}, "595.2", "446.4"),
        ({"mode": "net_billing", "netting": "hour", "prices": "0.05"}, "148.8", "0"),
        ({"mode": "net_billing", "netting": "bill", "prices": "0.05"}, "148.8", "0"),
        ({"mode": "nem_kwh"}, "148.8", "0"),
        ({"mode": "nem_money"}, "148.8", "0"),
    ],
    ids=str,
)
def test_what_is_netted_depends_on_mode_and_netting_period(export: Any, drawn: str, fed: str) -> None:
    tariff = tariff_of(prices="0.20", windows=[], rest="all", export=export)
    bill = one(tariff, sunny(tariff))
    assert amount(bill, "energy") == Decimal(drawn) * Decimal("0.20")
    assert amount(bill, "export") == -Decimal(fed) * Decimal("0.05")


EDGES = [day(2026, 10, 1), day(2026, 11, 1), day(2026, 12, 1), day(2027, 1, 1), day(2027, 2, 1)]


def surplus_then_need(tariff: Tariff) -> Load:
    load = sunny(tariff, EDGES[0], EDGES[-1], 600)
    late = load.start_us >= local_midnight_s(tariff, EDGES[1]) * US
    load.registers["export_wh"][late] = 0
    return load


def test_net_metering_carries_kwh_and_trues_up() -> None:
    tariff = tariff_of(prices="0.20", windows=[], rest="all", export={"mode": "nem_kwh", "year_end_price": "0.03"})
    load = surplus_then_need(tariff)
    bills = rate(tariff, load, EDGES)
    surplus = Decimal("0.2") * 745 * 2  # kWh: October has 745 hours
    need = Decimal("0.4") * 720 * 2
    assert bills[0].total == 0
    assert bills[1].total_unrounded == (need - surplus) * Decimal("0.20")
    load.registers["import_wh"][load.start_us >= local_midnight_s(tariff, EDGES[1]) * US] = 0
    bills = rate(tariff, load, EDGES)
    assert bills[2].total_unrounded == -surplus * Decimal("0.03")  # December ends the year of credits
    assert bills[3].total == 0


@pytest.mark.parametrize("mode", ["nem_money", "net_billing_carry"])
def test_credits_in_money_are_used_later_and_never_paid_before_the_true_up(mode: str) -> None:
    export = {"mode": mode, "prices": "0.20", "pays_out": True, "netting": "bill"}
    tariff = tariff_of(prices="0.20", windows=[], rest="all", export=export)
    load = surplus_then_need(tariff)
    bills = rate(tariff, load, EDGES)
    credit = Decimal("0.2") * 745 * 2 * Decimal("0.20")
    assert bills[0].total == 0
    assert bills[1].total_unrounded == Decimal("0.4") * 720 * 2 * Decimal("0.20") - credit
    load.registers["import_wh"][load.start_us >= local_midnight_s(tariff, EDGES[1]) * US] = 0
    assert [bill.total_unrounded for bill in rate(tariff, load, EDGES)] == [0, 0, -credit, 0]


def test_export_may_be_paid_by_an_index() -> None:
    index = {"name": "spot", "interval_min": 60, "multiply": "0.9"}
    tariff = tariff_of(prices="0", export={"mode": "buy_all", "index": index})
    load = sunny(tariff)
    hours = np.arange(local_midnight_s(tariff, JULY), local_midnight_s(tariff, AUGUST), 3600)
    series = Series(hours, [Decimal("-0.01") if place % 2 else Decimal("0.05") for place in range(len(hours))])
    assert amount(one(tariff, load, indices={"spot": series}), "export") == -Decimal("0.6") * 372 * Decimal(
        "0.9"
    ) * Decimal("0.04")
    with pytest.raises(RatingError, match="no price at 2026-07-01T01:15"):
        one(tariff, load, indices={"spot": Series(hours[:1], series.price[:1])})
    with pytest.raises(RatingError, match="'spot' is needed"):
        one(tariff, load)


def test_prices_finer_than_the_load_are_taken_by_time() -> None:
    tariff = tariff_of(prices=None, energy=[{"id": "spot", "index": {"name": "spot", "interval_min": 15}}])
    start = local_midnight_s(tariff, JULY)
    series = Series(start + np.arange(4) * 900, [Decimal(number) for number in (1, 2, 3, 10)])
    bill = one(tariff, Load(np.array([start]) * US, 3600, {"import_wh": np.array([1000])}), indices={"spot": series})
    assert bill.total == 4


def test_minimum_surcharges_discounts_and_taxes_follow_each_other() -> None:
    tariff = tariff_of(
        prices="0.10", windows=[], rest="all",
        surcharges=[{"id": "levy", "per": "kWh", "bands": [{"up_to_kwh": 500, "amount": "0"}, {"amount": "0.05"}]},
                    {"id": "street", "per": "day", "amount": "0.1"},
                    {"id": "city", "per": "percent", "amount": "10", "base": ["energy", "levy"]}],
        discounts=[{"id": "free", "kwh_free": 44}, {"id": "paperless", "amount": "1"}],
        minimum={"amount": "100"},
        taxes=[{"id": "vat", "rate": "0.20", "exempt": ["street"]}, {"id": "gst", "rate": "0.10", "inclusive": True}],
    )  # fmt: skip
    bill = one(tariff, constant(tariff, JULY, AUGUST, import_wh=250))
    got = {line.id: line.amount_unrounded for line in bill.lines}
    assert got == {
        "energy-all": Decimal("74.4"), "levy": Decimal("12.2"), "street": Decimal("3.1"), "city": Decimal("8.66"),
        "free": Decimal("-4.4"), "paperless": Decimal(-1), "minimum": Decimal("7.04"),
        "vat": Decimal("19.38"), "gst": Decimal(0),
    }  # fmt: skip
    assert bill.total == Decimal("119.38")


def test_an_annual_minimum_is_settled_with_the_last_cycle_of_the_year() -> None:
    tariff = tariff_of(
        prices="0", windows=[], rest="all", fixed_charge={"amount": "10"}, minimum={"amount": "100", "per": "year"}
    )
    totals = [bill.total for bill in rate(tariff, constant(tariff, EDGES[0], EDGES[-1], import_wh=0), EDGES)]
    assert totals == [10, 10, 80, 10]


@pytest.mark.parametrize(
    ("rounding", "total"),
    [({}, "0.75"), ({"total": {"step": "1"}}, "1"), ({"total": {"step": "0.1", "mode": "down"}}, "0.70"),
     ({"quantity": {"step": "0.01"}}, "0.72"), ({"quantity": {"step": "0.1", "mode": "up", "of": "line"}}, "1.20")],
    ids=str,
)  # fmt: skip
def test_every_rounding_rule(rounding: Any, total: str) -> None:
    tariff = tariff_of(prices="6", windows=[], rest="all", top={"rounding": rounding})
    start = local_midnight_s(tariff, JULY) + np.arange(1) * 900
    bill = one(tariff, Load(start * US, 900, {"import_wh": np.array([125])}))
    assert bill.total == Decimal(total)


def test_an_interval_over_a_boundary_is_split_by_time() -> None:
    tariff = tariff_of(windows=[{"period": "peak", "from": "08:30", "to": "20:00"}], prices={"peak": "1", "night": "0"})
    start = np.array([local_midnight_s(tariff, JULY) + 8 * 3600]) * US
    assert one(tariff, Load(start, 3600, {"import_wh": np.array([1001])})).total_unrounded == Decimal("0.501")


def test_prorated_bounds_that_are_no_whole_wh_are_exact() -> None:
    ladder = {"tiers": [{"up_to_kwh": 100, "adder": "0"}, {"adder": "0.10"}]}
    rule = {"prorate": "thirty"}
    additive = tariff_of(prices="0", **ladder, tier_rule=rule)
    sequential = tariff_of(prices="0", **ladder, tier_rule=rule | {"allocation": "sequential"})
    load = constant(additive, JULY, AUGUST, import_wh=250)
    bills = [one(tariff, load).total_unrounded for tariff in (additive, sequential)]
    exact = (744 - Decimal(100) * 31 / 30) * Decimal("0.10")
    assert all(abs(bill - exact) < Decimal("1e-11") for bill in bills)


def test_the_hour_that_comes_twice_has_two_demand_windows() -> None:
    tariff = tariff_of(prices="0", demand={"window_min": 60, "prices": "1"})
    start_on, end_on = day(2026, 10, 25), day(2026, 10, 26)
    assert one(tariff, constant(tariff, start_on, end_on, import_wh=100), start_on, end_on).total == Decimal("0.40")


def test_a_day_of_a_leap_year_is_a_366th_of_it() -> None:
    tariff = tariff_of(prices="0", fixed_charge={"amount": "366", "per": "year", "prorate": "calendar"})
    start_on, end_on = day(2028, 2, 1), day(2028, 3, 1)
    assert one(tariff, constant(tariff, start_on, end_on, import_wh=0), start_on, end_on).total == 29


def test_a_credit_is_set_off_in_its_cycle_first_and_only_the_rest_is_carried() -> None:
    windows = [{"period": "noon", "from": "12:00", "to": "13:00"}]
    export = {"mode": "nem_money", "prices": {"noon": "0.20", "rest": "0.05"}}
    tariff = tariff_of(windows=windows, rest="rest", prices="0.10", export=export)
    starts = np.array([local_midnight_s(tariff, JULY), local_midnight_s(tariff, JULY) + 43_200]) * US
    later = np.array([local_midnight_s(tariff, AUGUST)]) * US
    load = Load(
        np.concatenate([starts, later]),
        3600,
        {"import_wh": np.array([10_000, 0, 50_000]), "export_wh": np.array([0, 20_000, 0])},
    )
    july, august = rate(tariff, load, [JULY, AUGUST, SEPTEMBER])
    assert (july.total, august.total) == (0, 5 - 3)  # 10 x 0.10 drawn, 20 x 0.20 fed in: 3 are carried


@given(wh=st.lists(st.integers(0, 500_000), min_size=2, max_size=2))
@settings(max_examples=40)
@pytest.mark.parametrize("on_change", ["carry", "reset"])
def test_the_running_charge_over_a_change_of_version_is_the_bill(on_change: str, wh: list[int]) -> None:
    versions = [
        {"valid_from": date, "rest": "all", "prices": price, "tier_rule": {"on_change": on_change},
         "tiers": [{"up_to_kwh": 300, "adder": "0"}, {"adder": adder}]}
        for date, price, adder in (("2026-01-01", "0.1", "1"), ("2026-07-11", "0.2", "3"))
    ]  # fmt: skip
    tariff = parse_tariff({"tariff_id": "t", "currency": "EUR", "zone": "Europe/Berlin", "versions": versions})
    pricing = pricing_of(Shapes(tariff, compile_timeline(tariff, JULY, AUGUST)), 0)
    assert pricing is not None
    quantities = np.zeros((1, 16), np.int64)
    quantities[0, :2] = wh
    columns = charge_columns(pricing, quantities, local_midnight_s(tariff, AUGUST) * US)
    starts = np.array([local_midnight_s(tariff, JULY), local_midnight_s(tariff, day(2026, 7, 20))]) * US
    bill = one(tariff, Load(starts, 3600, {"import_wh": np.array(wh)}))
    assert Decimal(int(columns[0])).scaleb(-pricing.amount_scale) == bill.total_unrounded
    assert sum_of(charge_lines(pricing, quantities[0].tolist(), 0)) == bill.total_unrounded
