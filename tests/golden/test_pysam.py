"""Our bills against NREL PySAM's, component by component and month by month, before any rounding.

PySAM is an oracle, not a dependency: it is taken from where it is installed, or from the folder that PYSAM_PATH names
(a site-packages folder of another environment with `pip install nrel-pysam`).

Differences of meaning, each met by how the cases are made, not hidden by a tolerance:
- 365 days only, Jan 1 is a Monday, no clock changes, no holidays, calendar months: the cases are of 2018 in a fixed offset.
- Its tiers are filled in order of time under net billing (option 2) and shared over the periods under net metering
  (option 0): each case is run in both, against `--tiers sequential` and `proportional`.
- A finite bound of its last tier breaks it (option 2) or stops billing (option 0): it gets 1e38; our last tier is open.
- Its demand window is the step of the load; ours is 15 min, which is the interval where intervals are longer.
- "kWh daily" bounds are pooled over the month in both (bound x days of the month).
- It rounds nowhere: amounts are compared unrounded.
- It ignores demandratchetpercentage, demandwindow and demandreactivepowercharge; the load has no reactive energy, so the last
  makes no line here either.
- At the true-up it lists what is left of kWh credits apart from the month's bill; ours is a line of the bill of the true-up
  month, which is why that one month of net metering is not compared. Money left from the true-up month itself is paid out.
- Its annual minimum is not compared: it tops up December by a year that its reports do not split.
"""

import calendar
import datetime as dt
import json
import os
import random
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.urdb import document_from_urdb, parse_urdb
from metering.bill import Bill, sum_of
from metering.calendar import US
from metering.rating import rate
from metering.tariff import parse_tariff
from metering.usage import Load
from tests.golden.made_load import SHARED

if os.environ.get("PYSAM_PATH"):
    sys.path.append(os.environ["PYSAM_PATH"])
oracle = pytest.importorskip(
    "PySAM.Utilityrate5", reason="PySAM is not installed: pip install nrel-pysam, or set PYSAM_PATH"
)

ZONE = "Etc/GMT+8"
START_S = int(dt.datetime(2018, 1, 1, 8, tzinfo=dt.UTC).timestamp())
EDGES = [*(dt.date(2018, month, 1) for month in range(1, 13)), dt.date(2019, 1, 1)]
RANDOM_TARIFFS = 200
SEED = 20261124
COMPONENTS = {
    "energy": "charge_wo_sys_ec_ym",
    "flat-demand": "charge_wo_sys_dc_fixed_ym",
    "tou-demand": "charge_wo_sys_dc_tou_ym",
    "fixed": "charge_wo_sys_fixed_ym",
    "minimum": "charge_wo_sys_minimum_ym",
}
OPTION = {"sequential": 2, "proportional": 0}
UNITS = {"kWh": 0, "kWh/kW": 1, "kWh daily": 2, "kWh/kW daily": 3}


def make_load(seed: int, interval_s: int = 3600, scale: int = 1) -> Load:
    """Return a year with a shape of the day and chance, whole Wh."""
    chance = random.Random(seed)
    steps = 8760 * 3600 // interval_s
    hours = np.arange(steps) * interval_s // 3600
    shape = np.array([chance.randint(200, 2000) for _ in range(24)])[hours % 24]
    noise = np.array([chance.randint(50, 150) for _ in range(steps)])
    energy_wh = shape * noise * scale * interval_s // 360_000
    return Load((START_S + np.arange(steps) * interval_s) * US, interval_s, {"import_wh": energy_wh})


def oracle_bill(urdb: Any, load: Load, tiers: str) -> Any:
    """Return PySAM's model of a URDB rate; its outputs live as long as it does."""
    model = oracle.new()
    steps = len(load.start_us)
    model.Lifetime.analysis_period = 1
    model.Lifetime.system_use_lifetime_output = 0
    model.Lifetime.inflation_rate = 0
    model.SystemOutput.gen = [0.0] * steps
    model.SystemOutput.degradation = [0]
    model.Load.load = (load.registers["import_wh"] * (3.6 / load.interval_s)).tolist()
    rates = model.ElectricityRates
    rates.rate_escalation = [0]
    rates.ur_metering_option = OPTION[tiers]
    monthly = {"$/month": 1, "$/day": 365 / 12, "$/year": 1 / 12}
    rates.ur_monthly_fixed_charge = (
        float(urdb.get("fixedchargefirstmeter", 0)) * monthly[urdb.get("fixedchargeunits", "$/month")]
    )
    rates.ur_monthly_min_charge = float(urdb.get("mincharge", 0))
    rates.ur_annual_min_charge = 0

    def matrix(structure: Any, *, with_unit: bool) -> list[list[float]]:
        rows = []
        for period, tiers_ in enumerate(structure, start=1):
            for tier, row in enumerate(tiers_, start=1):
                upto = 1e38 if tier == len(tiers_) else float(row["max"])
                price = float(row.get("rate", 0)) + float(row.get("adj", 0))
                unit = [UNITS[row.get("unit", "kWh")]] if with_unit else []
                rows.append([period, tier, upto, *unit, price, *([0] if with_unit else [])])
        return rows

    def schedule(rows: Any) -> list[list[int]]:
        return [[code + 1 for code in row] for row in rows]

    rates.ur_ec_sched_weekday = schedule(urdb["energyweekdayschedule"])
    rates.ur_ec_sched_weekend = schedule(urdb["energyweekendschedule"])
    rates.ur_ec_tou_mat = matrix(urdb["energyratestructure"], with_unit=True)
    flat, tou = urdb.get("flatdemandstructure"), urdb.get("demandratestructure")
    rates.ur_dc_enable = 1 if flat or tou else 0
    if flat or tou:
        nothing = [[0] * 24 for _ in range(12)]
        rates.ur_dc_sched_weekday = schedule(urdb.get("demandweekdayschedule", nothing))
        rates.ur_dc_sched_weekend = schedule(urdb.get("demandweekendschedule", nothing))
        rates.ur_dc_tou_mat = matrix(tou or [[{"rate": 0}]], with_unit=False)
        months = urdb.get("flatdemandmonths", [0] * 12)
        rates.ur_dc_flat_mat = [
            [
                month,
                tier,
                1e38 if tier == len(rows) else float(row["max"]),
                float(row.get("rate", 0)) + float(row.get("adj", 0)),
            ]
            for month in range(12)
            for rows in [(flat or [[{"rate": 0}]])[months[month]]]
            for tier, row in enumerate(rows, start=1)
        ]
    model.execute(0)
    return model


def component(bill: Bill, name: str) -> Decimal:
    if name == "tou-demand":
        return sum((line.amount_unrounded for line in bill.lines if line.id.startswith("tou-demand")), Decimal(0))
    return sum_of(bill.lines, [name])


def assert_equal(urdb: Any, load: Load, tiers: str) -> int:
    """Compare all components of all months; return how many numbers were equal."""
    exact = parse_urdb(json.dumps(urdb))
    bills = rate(parse_tariff(document_from_urdb(exact, ZONE, tiers)), load, EDGES)
    expected = oracle_bill(urdb, load, tiers)
    count = 0
    for name, output in [*COMPONENTS.items(), ("total", "utility_bill_wo_sys_ym")]:
        theirs = getattr(expected.Outputs, output)[1]
        for month, bill in enumerate(bills):
            ours = bill.total_unrounded if name == "total" else component(bill, name)
            if name == "fixed" and urdb.get("fixedchargeunits") == "$/day":
                # PySAM bills 365/12 days in every month; we bill the days of the month. Compared by the day.
                continue
            assert abs(float(ours) - theirs[month]) < 1e-6, (name, month + 1, str(ours), theirs[month])
            count += 1
    return count


RATES = sorted((SHARED / "urdb").glob("*.json"))


@pytest.mark.parametrize("path", RATES, ids=lambda path: path.stem)
@pytest.mark.parametrize("tiers", OPTION)
def test_urdb_rates_equal_the_oracle(path: Path, tiers: str) -> None:
    urdb = json.loads(json.dumps(parse_urdb(path.read_text("utf-8")), default=float))
    scale = 300  # customers of these rates are large
    assert assert_equal(urdb, make_load(7, 3600, scale), tiers) == 72


def test_the_nine_rates_are_there() -> None:
    if not SHARED.exists():
        pytest.skip(f"the URDB rates are not there: {SHARED}")
    assert len(RATES) == 9


def random_rate(seed: int) -> Any:
    """Return a random URDB rate: time of use × tiers × flat and time-of-use demand."""
    chance = random.Random(seed)

    def price(high: float, digits: int = 5) -> float:
        return round(chance.uniform(0, high), digits)

    periods = chance.randint(1, 5)
    tiers = chance.choice([1, 1, 2, 3])
    unit = chance.choice(["kWh", "kWh", "kWh daily", "kWh/kW"])
    high = {"kWh": 900, "kWh daily": 30, "kWh/kW": 300}[unit]
    bounds = sorted(chance.sample(range(high // 20, high), tiers - 1))
    energy = [
        [
            {
                "rate": price(0.5),
                "adj": price(0.05),
                "unit": unit,
                **({"max": bounds[tier]} if tier < tiers - 1 else {}),
            }
            for tier in range(tiers)
        ]
        for _ in range(periods)
    ]

    def schedules(count: int) -> tuple[Any, Any]:
        kinds = [[[chance.randrange(count) for _ in range(4)] for _ in range(2)] for _ in range(chance.randint(1, 3))]
        chosen = sorted(chance.randrange(len(kinds)) for _ in range(12))
        cuts = sorted(chance.sample(range(1, 24), 3))
        rows: tuple[Any, Any] = ([], [])
        for month in range(12):
            for part in (0, 1):
                codes = kinds[chosen[month]][part]
                rows[part].append([codes[sum(hour >= cut for cut in cuts)] for hour in range(24)])
        return rows

    weekday, weekend = schedules(periods)
    urdb: dict[str, Any] = {
        "label": f"random{seed}",
        "energyratestructure": energy,
        "energyweekdayschedule": weekday,
        "energyweekendschedule": weekend,
        "fixedchargefirstmeter": price(40, 2),
        "fixedchargeunits": chance.choice(["$/month", "$/year"]),
    }
    if chance.random() < 0.8:
        count = chance.randint(1, 3)
        demand_weekday, demand_weekend = schedules(count)
        levels = chance.choice([1, 2])
        bound = round(chance.uniform(0.3, 2.5), 1)
        urdb |= {
            "demandratestructure": [
                [{"rate": price(20, 2), **({"max": bound} if level < levels - 1 else {})} for level in range(levels)]
                for _ in range(count)
            ],
            "demandweekdayschedule": demand_weekday,
            "demandweekendschedule": demand_weekend,
        }
    if chance.random() < 0.8:
        levels = chance.choice([1, 2])
        urdb |= {
            "flatdemandstructure": [
                [
                    {"rate": price(15, 2), "adj": price(2, 2), **({"max": 1.5} if level < levels - 1 else {})}
                    for level in range(levels)
                ]
                for _ in range(2)
            ],
            "flatdemandmonths": [chance.randrange(2) for _ in range(12)],
        }
    if chance.random() < 0.4:
        urdb |= {"mincharge": price(300, 2), "minchargeunits": "$/month"}
    return urdb


def test_random_tariffs_equal_the_oracle_in_both_orders_of_tiers() -> None:
    hourly, quarterly = make_load(1), make_load(2, 900)
    count = 0
    for number in range(RANDOM_TARIFFS):
        urdb = random_rate(SEED + number)
        load = quarterly if number % 10 == 0 else hourly
        for tiers in OPTION:
            try:
                count += assert_equal(urdb, load, tiers)
            except AssertionError as error:
                raise AssertionError(f"random_rate({SEED + number}), {tiers}: {error}") from error
    assert count == RANDOM_TARIFFS * 2 * 72


def test_a_fixed_charge_a_day_is_of_the_days_of_the_month_here_and_of_a_twelfth_of_the_year_there() -> None:
    urdb = random_rate(SEED) | {"fixedchargefirstmeter": 1.2, "fixedchargeunits": "$/day"}
    urdb.pop("mincharge", None)
    bills = rate(parse_tariff(document_from_urdb(parse_urdb(json.dumps(urdb)), ZONE)), make_load(1), EDGES)
    ours = [sum_of(bill.lines, ["fixed"]) for bill in bills]
    assert ours == [Decimal("1.2") * calendar.monthrange(2018, month)[1] for month in range(1, 13)]
    model = oracle_bill(urdb, make_load(1), "sequential")
    theirs = model.Outputs.charge_wo_sys_fixed_ym[1]
    assert abs(float(sum(ours)) - sum(theirs)) < 1e-6


EXPORT_MODES = {
    0: {"mode": "nem_kwh"},
    1: {"mode": "nem_money"},
    2: {"mode": "net_billing"},
    3: {"mode": "net_billing_carry", "pays_out": True},
    4: {"mode": "buy_all"},
}


@pytest.mark.parametrize("option", EXPORT_MODES, ids=lambda option: EXPORT_MODES[option]["mode"])
@pytest.mark.parametrize("seed", range(5))
def test_export_in_five_modes_equals_the_oracle(option: int, seed: int) -> None:
    """A surplus in summer, a need in winter; load and generation by chance, two periods with prices to buy and to sell."""
    chance = random.Random(seed)
    used_wh = make_load(seed).registers["import_wh"]
    hours = np.arange(8760)
    sun = (hours % 24 >= 7) & (hours % 24 <= 18)
    made_wh = (
        np.array([chance.randint(0, 4000) for _ in hours]) * sun * (10 + hours // 24 * (365 - hours // 24) // 500) // 76
    )
    buy, sell = ([round(chance.uniform(low, high), 4) for _ in range(2)] for low, high in ((0.1, 0.4), (0.02, 0.1)))
    weekday = [[1 if 16 <= hour < 21 else 0 for hour in range(24)]] * 12
    urdb = {
        "energyratestructure": [[{"rate": price}] for price in buy],
        "energyweekdayschedule": weekday,
        "energyweekendschedule": [[0] * 24] * 12,
        "fixedchargefirstmeter": 10,
    }
    document = document_from_urdb(parse_urdb(json.dumps(urdb)), ZONE, "proportional")
    export: dict[str, Any] = {**EXPORT_MODES[option]}
    if option:
        export["prices"] = {f"e{place}": str(price) for place, price in enumerate(sell)}
    document["versions"][0]["export"] = export
    net = used_wh - made_wh
    drawn, fed = (used_wh, made_wh) if option == 4 else (np.maximum(net, 0), np.maximum(-net, 0))
    load = Load((START_S + hours * 3600) * US, 3600, {"import_wh": drawn, "export_wh": fed})
    ours = [bill.total_unrounded for bill in rate(parse_tariff(document), load, EDGES)]
    model = oracle_bill(urdb, Load(load.start_us, 3600, {"import_wh": used_wh}), "sequential")
    model.SystemOutput.gen = (made_wh / 1000).tolist()
    rates = model.ElectricityRates
    rates.ur_metering_option = option
    rates.ur_nm_credit_month = 11
    rates.ur_nm_credit_rollover = 0
    rates.ur_nm_yearend_sell_rate = 0
    rates.ur_ec_tou_mat = [[place + 1, 1, 1e38, 0, buy[place], sell[place]] for place in range(2)]
    model.execute(0)
    theirs = model.Outputs.utility_bill_w_sys_ym[1]
    months = 11 if option == 0 else 12
    differences = [abs(float(bill) - their) for bill, their in zip(ours[:months], theirs[:months], strict=True)]
    assert max(differences) < 1e-6, (ours, theirs)
