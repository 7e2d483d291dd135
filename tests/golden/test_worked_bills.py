"""Bills worked by hand (worked_bills.json of the shared data), to the cent."""

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from metering.bill import Bill, History, line_amount, sum_of
from metering.calendar import US
from metering.pricing.indexed import Series
from metering.rating import rate
from metering.tariff import Tariff, parse_tariff
from metering.usage import Inputs, Load
from tests.golden.made_load import SHARED, document_of, example, load_by_period, spread, starts_of

CASES_FILE = SHARED / "worked_bills.json"
if not CASES_FILE.exists():
    pytest.skip(f"the worked answers are not there: {CASES_FILE}", allow_module_level=True)
CASES = json.loads(CASES_FILE.read_text("utf-8"))
day = dt.date


def answer(name: str) -> Any:
    return CASES[name]["answer"]


def bill_of(tariff: Tariff, load: Load, edges: list[dt.date], **more: Any) -> Bill:
    inputs = Inputs(**{name: more.pop(name) for name in list(more) if name != "history"})
    return rate(tariff, load, edges, inputs, more.get("history", History()))[0]


def amount(tariff: Tariff, bill: Bill, *names: str) -> Decimal:
    """Return the rounded sum of lines."""
    return tariff.round_money(sum_of(bill.lines, names))


def test_f1_guangzhou_summer_month() -> None:
    tariff = example("cn-guangzhou-residential")
    load = load_by_period(tariff, day(2026, 7, 1), day(2026, 8, 1), {"peak": 200, "flat": 300, "valley": 200})
    assert rate(tariff, load, [day(2026, 7, 1), day(2026, 8, 1)])[0].total == Decimal(answer("F1"))


def test_f2_zhejiang_month_crosses_a_bound_of_the_year() -> None:
    tariff = example("cn-zhejiang-residential")
    load = load_by_period(tariff, day(2026, 10, 1), day(2026, 11, 1), {"peak": 200, "valley": 150})
    history = History(year=2026, year_wh=2_700_000)
    bill = bill_of(tariff, load, [day(2026, 10, 1), day(2026, 11, 1)], history=history)
    assert bill.total == Decimal(answer("F2"))


def test_f2_the_energy_of_earlier_cycles_of_the_load_counts_as_well() -> None:
    tariff = example("cn-zhejiang-residential")
    before = load_by_period(tariff, day(2026, 1, 1), day(2026, 10, 1), {"peak": 1700, "valley": 1000})
    month = load_by_period(tariff, day(2026, 10, 1), day(2026, 11, 1), {"peak": 200, "valley": 150})
    load = Load(
        np.concatenate([before.start_us, month.start_us]),
        900,
        {"import_wh": np.concatenate([before.registers["import_wh"], month.registers["import_wh"]])},
    )
    assert rate(tariff, load, [day(2026, 1, 1), day(2026, 10, 1), day(2026, 11, 1)])[1].total == Decimal(answer("F2"))


def test_f3_shanghai_two_part() -> None:
    tariff = example("cn-shanghai-two-part")
    assert tariff.warnings == ()  # the listed prices are what their parts give
    kwh = {"peak": 40_000, "flat": 50_000, "valley": 30_000}
    load = load_by_period(tariff, day(2026, 6, 1), day(2026, 7, 1), kwh, Decimal(400))
    assert rate(tariff, load, [day(2026, 6, 1), day(2026, 7, 1)])[0].total == Decimal(answer("F3"))


def test_f4_hubei_with_power_factor() -> None:
    tariff = example("cn-hubei-110kv-two-part")
    assert tariff.warnings == ()
    kwh = {"sharp": 60_000, "peak": 180_000, "flat": 240_000, "valley": 240_000}
    active = load_by_period(tariff, day(2026, 1, 1), day(2026, 2, 1), kwh, Decimal(1500))
    varh = spread(430_000_000, len(active.start_us))
    load = Load(active.start_us, 900, {**active.registers, "import_varh": varh - 1000, "export_varh": varh * 0 + 1000})
    bill = rate(tariff, load, [day(2026, 1, 1), day(2026, 2, 1)])[0]
    got = {
        "energy": amount(tariff, bill, "energy"),
        "demand": amount(tariff, bill, "demand"),
        "pf_adjustment": amount(tariff, bill, "reactive"),
        "total": bill.total,
    }
    assert got == {name: Decimal(text) for name, text in answer("F4").items()}
    assert next(line.label for line in bill.lines if line.kind == "reactive") == "power factor 0.86"


@pytest.mark.parametrize("case", CASES["F5"]["answer"])
def test_f5_contract_demand(case: str) -> None:
    _, contract_kw, _, peak_kw = case.split()
    tariff = parse_tariff(
        {
            "tariff_id": "cn-huizhou",
            "currency": "CNY",
            "zone": "Asia/Shanghai",
            "terms": {"capacity_kva": 3200},
            "versions": [
                {
                    "valid_from": "2026-02-01",
                    "rest": "flat",
                    "prices": "0",
                    "demand": {
                        "basis": "contract",
                        "prices": "36.1",
                        "contract": {"tolerance": "1.05", "floor_share": "0.40", "over": [{"multiplier": "2"}]},
                    },
                }
            ],
        }
    )
    load = load_by_period(tariff, day(2026, 2, 1), day(2026, 3, 1), {"flat": 20_000}, Decimal(peak_kw))
    bill = bill_of(tariff, load, [day(2026, 2, 1), day(2026, 3, 1)], terms={"contract_kw": Decimal(contract_kw)})
    assert bill.total == Decimal(answer("F5")[case])


@pytest.mark.parametrize("peak_kw", [20, 23])
def test_f6_taipower_three_stage_with_contract(peak_kw: int) -> None:
    tariff = example("tw-low-voltage-three-stage")
    kwh = {"peak": 1000, "semi_peak": 1500, "off_peak": 2000, "saturday_semi_peak": 300}
    load = load_by_period(tariff, day(2026, 7, 1), day(2026, 8, 1), kwh, Decimal(peak_kw))
    bill = bill_of(tariff, load, [day(2026, 7, 1), day(2026, 8, 1)], terms={"contract_kw": Decimal(20)})
    penalty = amount(tariff, bill, "demand")
    assert penalty == (Decimal(answer("F6")["over-contract penalty at 23 kW"]) if peak_kw == 23 else 0)
    assert bill.total - penalty == Decimal(answer("F6")["within contract"])


def test_f7_unit_cost_is_rounded_once() -> None:
    tariff = example("uk-flat")
    starts = starts_of(tariff, day(2024, 5, 1), day(2024, 5, 2), 1800)
    load = Load(starts * US, 1800, {"import_wh": spread(3932, 48)})
    bill = rate(tariff, load, [day(2024, 5, 1), day(2024, 5, 2)])[0]
    assert amount(tariff, bill, "energy") == Decimal(answer("F7")["unit cost rounded once"])


def test_f7_standing_charge_changes_at_local_midnight() -> None:
    tariff = example("uk-flat")
    starts = starts_of(tariff, day(2024, 3, 30), day(2024, 4, 3), 1800)
    load = Load(starts * US, 1800, {"import_wh": np.zeros(len(starts), np.int64)})
    bill = rate(tariff, load, [day(2024, 3, 30), day(2024, 4, 3)])[0]
    assert bill.total == Decimal(answer("F7")["standing 4 days"])


@pytest.mark.parametrize("case", CASES["F8"]["answer"])
def test_f8_economy_7_on_days_of_23_and_25_hours(case: str) -> None:
    date, _, _, clock, _ = case.split()
    document = document_of("uk-economy-7")
    document["clocks"] = {"schedule": "zone" if clock == "local" else "utc"}
    tariff = parse_tariff(document)
    start_on = day.fromisoformat(date)
    starts = starts_of(tariff, start_on, start_on + dt.timedelta(days=1), 1800)
    load = Load(starts * US, 1800, {"import_wh": np.full(len(starts), 500)})
    bill = rate(tariff, load, [start_on, start_on + dt.timedelta(days=1)])[0]
    got = {line.label: Decimal(line.quantity.numerator) / line.quantity.denominator for line in bill.lines}
    _, night, _, day_kwh, _ = answer("F8")[case].split()
    assert got == {"night": Decimal(night), "day": Decimal(day_kwh)}


def half_hourly() -> tuple[Tariff, Load, dict[str, Any]]:
    tariff = example("uk-half-hourly")
    start_on = day(2026, 5, 4)
    starts = starts_of(tariff, start_on, start_on + dt.timedelta(days=1), 1800)
    import_wh, prices = np.zeros(48, np.int64), [Decimal(0)] * 48
    for kwh, hour, pence in CASES["F9"]["case"]:
        import_wh[hour * 2], prices[hour * 2] = int(Decimal(kwh) * 1000), Decimal(pence) / 100
    return tariff, Load(starts * US, 1800, {"import_wh": import_wh}), {"wholesale": Series(starts, prices)}


def test_f9_half_hourly_price_with_cap_and_negative_prices() -> None:
    tariff, load, indices = half_hourly()
    bill = bill_of(tariff, load, [day(2026, 5, 4), day(2026, 5, 5)], indices=indices)
    assert sum_of(bill.lines, ["energy"]) * 100 == Decimal(answer("F9")["pence exc VAT"])
    assert bill.total == Decimal(answer("F9")["GBP inc VAT"])


@pytest.mark.parametrize("floor_on", ["month", "mean"])
def test_f10_flanders_rolling_mean_of_monthly_peaks(floor_on: str) -> None:
    document = document_of("be-flanders-capacity")
    document["versions"][0]["demand"][0]["average"]["floor_on"] = floor_on
    tariff = parse_tariff(document)
    edges = [day(2026, 1, 1), day(2026, 2, 1), day(2026, 3, 1), day(2026, 4, 1)]
    starts = starts_of(tariff, edges[0], edges[-1])
    import_wh = np.zeros(len(starts), np.int64)
    for month, peak_w in enumerate([4400, 1600, 3600]):
        import_wh[np.searchsorted(starts, starts_of(tariff, edges[month], edges[month + 1])[1000])] = peak_w // 4
    bills = rate(tariff, Load(starts * US, 900, {"import_wh": import_wh}), edges)
    got = [str(sum_of(bill.lines, ["demand"]).quantize(Decimal("0.0001"))) for bill in bills]
    key = "floor on each month (supplier text)" if floor_on == "month" else "floor on the mean (energy-cost 0.8.5)"
    assert got == answer("F10")[key]


def test_f14_australia_contains_gst() -> None:
    tariff = example("au-origin-ergon")
    load = load_by_period(tariff, day(2026, 10, 1), day(2026, 11, 1), {"peak": 200, "shoulder": 250, "off_peak": 350})
    bill = rate(tariff, load, [day(2026, 10, 1), day(2026, 11, 1)])[0]
    assert bill.total == Decimal(answer("F14")["total"])
    tax = bill.lines[-1]
    assert tax.included == Decimal(answer("F14")["gst contained"])
    assert line_amount(tariff, tax) == 0


def test_every_worked_answer_has_a_test_here() -> None:
    names = {name.split("_")[1].upper() for name in globals() if name.startswith("test_f")}
    assert names == set(CASES)
