"""The running charge against the bill: time of use x tiers x demand, streamed in any batches and any order of arrival."""

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from metering.bill import Bill
from metering.calendar import US, compile_timeline
from metering.pricebook import FAR_FUTURE_US, Assignment, Assignments, PriceBook
from metering.rating import rate
from metering.running import charge_columns, charge_lines, pricing_of
from metering.settlement import Settled, plan_batch
from metering.tariff import Tariff, parse_tariff
from storage.load import Placement, load_of_facts
from tests.metering.settling import MODULUS_WH, QUARTER_US, Ledger, make_batch, make_meters

ZONE = "Europe/Berlin"
DAYS = {"25 h": dt.date(2026, 10, 24), "23 h": dt.date(2026, 3, 28), "24 h": dt.date(2026, 7, 9)}
STATE = ("last_at", "cycle_start", "cycle_key", "quantities_wh", "window_start", "window_wh", "cycle_export_wh")


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    """Draw a tariff of time of use, tiers of any allocation, and demand of any window."""
    version: dict[str, Any] = {
        "valid_from": "2025-01-01",
        "seasons": [
            {"name": "summer", "from": "04-01", "to": "10-24"},
            {"name": "winter", "from": "10-25", "to": "03-31"},
        ],
        "windows": [
            {"period": "night", "from": "00:00", "to": draw(st.sampled_from(["02:00", "02:30", "07:00"]))},
            {"period": "peak", "from": "17:00", "to": "20:00", "day_types": ["workday"]},
        ],
        "rest": "day",
        "prices": {"night": "0.21", "peak": "0.47", "day": "0.3333"},
    }
    tiers = draw(st.sampled_from(["none", "additive", "sequential", "proportional"]))
    if tiers != "none":
        version["tiers"] = [{"up_to_kwh": 3, "adder": "0"}, {"up_to_kwh": 9, "adder": "0.05"}, {"adder": "0.3"}]
        unit = draw(st.sampled_from(["kWh", "kWh_per_day"]))
        version["tier_rule"] = {"allocation": tiers, "unit": unit}
    scope = draw(st.sampled_from(["none", "anytime", "period"]))
    if scope != "none":
        window = draw(st.sampled_from([15, 30, 60]))
        version["demand"] = {"scope": scope, "window_min": window, "prices": "7.5", "per": "month"}
    if draw(st.booleans()):
        version["taxes"] = [{"id": "vat", "rate": "0.19"}]
    version["fixed_charge"] = {"amount": "0.4", "per": draw(st.sampled_from(["day", "cycle"]))}
    return parse_tariff({"tariff_id": "t", "currency": "EUR", "zone": ZONE, "versions": [version]})


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Draw readings of a meter over two days, with gaps, in order or not, some of them twice."""
    quarters = draw(st.lists(st.integers(0, 230), min_size=2, max_size=60, unique=True).map(sorted))
    steps = draw(st.lists(st.integers(0, 3000), min_size=len(quarters), max_size=len(quarters)))
    values = np.cumsum(steps).tolist()
    readings = [(1, quarter, 1000 + wh) for quarter, wh in zip(quarters, values, strict=True)]
    if draw(st.booleans()):
        return readings
    late = draw(st.lists(st.sampled_from(readings), max_size=3))
    order = draw(st.permutations(readings)) if draw(st.booleans()) else [r for r in readings if r not in late] + late
    return [*order, *draw(st.lists(st.sampled_from(readings), max_size=3))]


def make_prices(tariff: Tariff, billing_day: int = 1) -> PriceBook:
    line = compile_timeline(tariff, dt.date(2026, 1, 1), dt.date(2027, 1, 1), billing_day=billing_day)
    return PriceBook([tariff], [line])


def streamed(
    prices: PriceBook, order: Sequence[tuple[int, int, int]], cuts: Sequence[int], origin_us: int
) -> tuple[Ledger, list[Settled]]:
    ledger = Ledger(prices)
    parts = []
    for low, high in zip([0, *cuts], [*cuts, len(order)], strict=True):
        if low < high:
            parts.append(ledger.settle(make_batch(order[low:high], low, origin_us)))
    return ledger, parts


def origin_of(day: dt.date) -> int:
    """Return 20:00 UTC of a day, epoch µs."""
    return int(dt.datetime.combine(day, dt.time(20), dt.UTC).timestamp()) * US


def bill_of(ledger: Ledger, tariff: Tariff, start_s: int, end_s: int) -> Bill:
    """Return the bill that the facts of a ledger make, by the load that bills are made of."""
    rows = ledger.live(1)
    names = {"start_us": "start_at", "end_us": "end_at"}
    columns = ("meter_no", "epoch", "start_us", "end_us", "quality", "energy_wh", "export_energy_wh", "import_wh",
               "export_wh", "import_varh", "export_varh")  # fmt: skip
    facts = {name: np.array([row[names.get(name, name)] for row in rows], np.int64) for name in columns}
    place = Placement(1, 1, "m1", MODULUS_WH, 0, FAR_FUTURE_US)
    load = load_of_facts([place], facts, start_s * US, end_s * US).load
    days = [dt.datetime.fromtimestamp(at, tariff.zone).date() for at in (start_s, end_s)]
    return rate(tariff, load, days)[0]


@pytest.mark.parametrize("day", DAYS.values(), ids=DAYS)
@given(
    tariff=tariffs(),
    order=arrivals(),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    billing_day=st.sampled_from([1, 25]),
)
@settings(max_examples=100)
def test_the_charge_streamed_in_any_batches_and_order_is_the_bill_to_the_last_digit(
    day: dt.date, tariff: Tariff, order: list[tuple[int, int, int]], cuts: list[int], billing_day: int
) -> None:
    prices, origin_us = make_prices(tariff, billing_day), origin_of(day)
    cuts = sorted({cut for cut in cuts if cut < len(order)})
    ledger, _ = streamed(prices, order, cuts, origin_us)
    one_by_one, _ = streamed(prices, order, range(1, len(order)), origin_us)
    for name in STATE:
        assert np.array_equal(getattr(ledger.states, name)[1], getattr(one_by_one.states, name)[1]), name

    line = prices.timelines[0]
    cycle = int(np.searchsorted(line.cycle_start_s, int(ledger.states.cycle_start[1]) // US))
    start_s, end_s = int(line.cycle_start_s[cycle]), int(line.cycle_end_s[cycle])
    shape = prices.shapes[0].of(cycle)
    document = tariff.versions[0].document
    rows = 3 if document.tier_rule.allocation == "sequential" else 1
    has_room = len(line.cycle_buckets[cycle]) * (rows + len(document.demand)) <= 16
    assert shape is not None or document.demand or not has_room  # a period may begin inside a window
    bill = bill_of(ledger, tariff, start_s, end_s)
    energy_wh = int(ledger.states.take(np.array([1])).cycle_energy_wh()[0])
    assert energy_wh == sum(line.energy_wh for line in bill.lines if line.bucket is not None)
    key = int(ledger.states.cycle_key[1])
    event(f"live {key != 0}, tiers {shape and shape.tiers}, window {shape and shape.window_s}")
    if key == 0:
        in_order = [quarter for _, quarter, _ in order] == sorted({quarter for _, quarter, _ in order})
        is_ordered = shape is not None and (shape.tiers > 1 or shape.window_s > 0)
        assert shape is None or (is_ordered and not in_order)
        return
    assert shape is not None
    assert key == shape.key
    pricing = pricing_of(prices.shapes[0], cycle)
    assert pricing is not None
    quantities = ledger.states.quantities_wh[1]
    lines = charge_lines(pricing, quantities.tolist(), end_s * US)
    assert sorted(map(repr, lines)) == sorted(map(repr, bill.lines))
    if pricing.has_columns:
        amount = charge_columns(pricing, quantities[np.newaxis], end_s * US)[0]
        assert Decimal(int(amount)).scaleb(-pricing.amount_scale) == bill.total_unrounded


FLAT = parse_tariff(
    {
        "tariff_id": "flat",
        "currency": "EUR",
        "zone": ZONE,
        "versions": [{"valid_from": "2025-01-01", "rest": "all", "prices": "0.3"}],
    }
)
NOON_US = origin_of(dt.date(2026, 7, 9))


def exchanged() -> Ledger:
    """Return a ledger whose meter 1 was exchanged for meter 2 at quarter 4, and then went to another service point."""
    prices, ledger_meters = make_prices(FLAT), make_meters()
    at = NOON_US + 4 * QUARTER_US
    rows = [(1, Assignment(1, 0, 0, at)), (1, Assignment(9, 0, at + 8 * QUARTER_US, FAR_FUTURE_US))]
    ledger_meters.assignments = Assignments(rows)
    ledger_meters.several[1] = True
    ledger_meters.start_us[1], ledger_meters.service_point_no[1] = at + 8 * QUARTER_US, 9
    ledger_meters.start_us[2], ledger_meters.service_point_no[2] = at, 1
    return Ledger(prices, ledger_meters)


def test_a_reading_at_the_exchange_closes_the_old_meters_interval_and_opens_the_new_meters() -> None:
    ledger = exchanged()
    ledger.settle(make_batch([(1, 3, 100), (1, 4, 150), (2, 4, 10), (2, 5, 40)], 0, NOON_US))
    assert not ledger.refused
    assert (ledger.energy_wh(1), ledger.energy_wh(2)) == (50, 30)
    ledger.settle(make_batch([(1, 5, 160)], 4, NOON_US))
    assert [code.word for _, code, _ in ledger.refused] == ["no_tariff"]
    meters, at = ledger.meters, NOON_US + 4 * QUARTER_US
    old, gone = meters.assignment_of(1, at - QUARTER_US, at), meters.assignment_of(2, at - QUARTER_US, at)
    assert old is not None
    assert (old.service_point_no, gone) == (1, None)
    assert meters.assignment_of(2, at, at) is not None


def test_a_meter_with_several_assignments_is_settled_as_columns_within_the_newest() -> None:
    ledger = exchanged()
    ledger.settle(make_batch([(1, 3, 100), (1, 4, 150)], 0, NOON_US))
    opening = make_batch([(1, 12, 200), (1, 13, 240)], 2, NOON_US)
    assert plan_batch(opening, ledger.states, ledger.meters).is_slow.tolist() == [True, True]  # it lies across both
    ledger.settle(opening)
    later = make_batch([(1, 14, 300), (1, 15, 310)], 4, NOON_US)
    assert plan_batch(later, ledger.states, ledger.meters).is_slow.tolist() == [False, False]
    ledger.settle(later)
    assert ledger.energy_wh(1) == 210
