"""gridtally tariff: check, show, rate, import-urdb, as a user calls them."""

import datetime as dt
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tariffs" / "examples"
URDB = ROOT.parent / "shared" / "data" / "tariffs" / "urdb"


def run(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gridtally.cli import main; main()", "tariff", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a year of quarter-hours in Taiwan."""
    path = tmp_path_factory.mktemp("load") / "year.csv"
    start = dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=8)))
    rows = [f"{(start + dt.timedelta(minutes=15 * n)).isoformat()},{n * 7919 % 600}" for n in range(35_040)]
    path.write_text("start,import_wh\n" + "\n".join(rows) + "\n", "utf-8")
    return path


def test_every_shipped_document_passes_the_check() -> None:
    files = [*sorted((ROOT / "tariffs").glob("*.yaml")), *sorted(EXAMPLES.glob("*.yaml"))]
    done = run("check", *files)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" is good") == len(files)


def test_check_lists_the_faults_of_all_files(tmp_path: Path) -> None:
    bad, worse, good = tmp_path / "bad.yaml", tmp_path / "worse.json", EXAMPLES / "uk-flat.yaml"
    bad.write_text("tariff_id: x\nversions: [{valid_from: soon, rest: day, prices: {day: 0.3}}]\n", "utf-8")
    worse.write_text("{", "utf-8")
    done = run("check", bad, worse, good, tmp_path / "absent.yaml")
    assert done.returncode == 1
    for place in ("currency: is missing", "zone: is missing", "versions[0].valid_from:", "versions[0].prices.day:"):
        assert f"{bad}: {place}" in done.stdout
    assert f"{worse}: not a document" in done.stdout
    assert "uk-flat is good" in done.stdout
    assert "absent.yaml" in done.stdout


def test_show_has_a_picture_of_the_week_as_text_and_svg(tmp_path: Path) -> None:
    done = run("show", EXAMPLES / "tw-low-voltage-three-stage.yaml", "--svg", tmp_path / "week.svg")
    assert done.returncode == 0, done.stderr
    assert "monday     ##################==============++++++++++++====" in done.stdout
    assert "peak  8.12 a kWh" in done.stdout
    svg = (tmp_path / "week.svg").read_text("utf-8")
    assert svg.count("<rect") == 2 * 8 * 48 + 4


def test_rate_prints_the_json_that_the_format_promises(year: Path) -> None:
    done = run("rate", EXAMPLES / "tw-low-voltage-three-stage.yaml", "--load", year, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["currency"] == "TWD"
    assert [cycle["start"] for cycle in answer["cycles"]] == [f"2026-{month:02d}-01" for month in range(1, 13)]
    assert answer["cycles"][-1]["end"] == "2027-01-01"
    kinds = {"energy", "demand", "fixed", "reactive", "export", "minimum", "surcharge", "discount", "tax"}
    from decimal import Decimal

    for cycle in answer["cycles"]:
        for line in cycle["lines"]:
            assert set(line) == {"id", "kind", "quantity", "unit", "price", "amount", "amount_unrounded"}
            assert line["kind"] in kinds
            assert all(isinstance(value, str) for value in line.values())
        unrounded = sum(Decimal(line["amount_unrounded"]) for line in cycle["lines"])
        assert unrounded == Decimal(cycle["total_unrounded"])
    assert sum(Decimal(cycle["total"]) for cycle in answer["cycles"]) == Decimal(answer["total"])


def test_a_year_of_quarter_hours_is_rated_within_a_second_of_work(year: Path) -> None:
    began = time.perf_counter(), sum(_children_cpu_s())
    done = run("rate", EXAMPLES / "us-tou-tier-demand.yaml", "--load", year, "--json")
    assert done.returncode == 0
    worked_s = sum(_children_cpu_s()) - began[1]
    print(f"{worked_s:.2f} s of processor, {time.perf_counter() - began[0]:.2f} s of clock")
    assert worked_s <= 1.0  # of the processor: this machine is shared


def _children_cpu_s() -> tuple[float, float]:
    import os

    times = os.times()
    return times.children_user, times.children_system


def test_cycles_may_be_given_by_dates(year: Path) -> None:
    done = run(
        "rate",
        EXAMPLES / "cn-guangzhou-residential.yaml",
        "--load",
        year,
        "--cycle",
        "2026-03-05,2026-04-04,2026-05-06",
        "--json",
    )
    cycles = json.loads(done.stdout)["cycles"]
    assert [(cycle["start"], cycle["end"]) for cycle in cycles] == [
        ("2026-03-05", "2026-04-04"),
        ("2026-04-04", "2026-05-06"),
    ]
    text = run(
        "rate", EXAMPLES / "cn-guangzhou-residential.yaml", "--load", year, "--cycle", "2026-03-05,2026-04-04"
    ).stdout
    assert f"total of 1 cycle(s): {cycles[0]['total']} CNY" in text


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("", "line 2: there is no interval"),
        ("2026-01-01T00:00:00,5\n", "line 2, start: '2026-01-01T00:00:00' is not a time with an offset"),
        ("2026-01-01T00:00:00Z,5.5\n", "line 2, import_wh: '5.5' is not a whole number"),
        ("2026-01-01T00:00:00Z,-5\n", "line 2, import_wh: '-5' is not a whole number"),
        ("2026-01-01T00:00:00Z,5\n2026-01-01T00:00:00Z,5\n", "start: 2026-01-01T00:00:00+00:00 is there twice"),
        ("2026-01-01T00:00:00Z,5\n2026-01-01T02:00:00Z,5\n", "intervals are 120 min; 5 to 60 are allowed"),
        (
            "2026-01-01T00:00:00Z,5\n2026-01-01T00:15:00Z,5\n2026-01-01T00:35:00Z,5\n",
            "breaks the constant interval of 15 min",
        ),
        ("2026-01-01T00:00:00Z,5,6\n", "line 2: 3 columns, the header has 2"),
    ],
)
def test_a_bad_load_is_refused_with_its_line(tmp_path: Path, rows: str, fault: str) -> None:
    load = tmp_path / "load.csv"
    load.write_text("start,import_wh\n" + rows, "utf-8")
    done = run("rate", EXAMPLES / "uk-flat.yaml", "--load", load)
    assert done.returncode == 1
    assert fault in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("cycle", ["monthly", "2026-01-01", "2026-02-01,2026-01-01", "2026-02-30,2026-03-01"])
def test_bad_cycles_are_wrong_usage(year: Path, cycle: str) -> None:
    done = run("rate", EXAMPLES / "uk-flat.yaml", "--load", year, "--cycle", cycle)
    assert done.returncode == 2
    assert "--cycle" in done.stderr


def test_rate_takes_terms_price_series_and_flags(tmp_path: Path) -> None:
    load, prices = tmp_path / "load.csv", tmp_path / "prices.csv"
    load.write_text("start,import_wh\n2026-05-04T16:00:00+01:00,140\n2026-05-04T16:30:00+01:00,0\n", "utf-8")
    prices.write_text("start,price\n2026-05-04T15:00:00Z,0.11\n", "utf-8")
    done = run("rate", EXAMPLES / "uk-half-hourly.yaml", "--load", load, "--index", f"wholesale={prices}", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cycles"][0]["lines"][0]["amount_unrounded"] == "0.05068"
    missing = run("rate", EXAMPLES / "uk-half-hourly.yaml", "--load", load)
    assert (missing.returncode, missing.stderr) == (1, "gridtally: price series 'wholesale' is needed\n")
    contract = run("rate", EXAMPLES / "tw-low-voltage-ev.yaml", "--load", load, "--term", "contract_kw=7", "--json")
    fixed = [line for line in json.loads(contract.stdout)["cycles"][0]["lines"] if line["id"] == "contract"]
    assert fixed[0]["quantity"] == "7"


@pytest.mark.parametrize(
    "path", sorted(URDB.glob("*.json")) or [None], ids=lambda path: path.stem if path else "absent"
)
def test_urdb_rates_are_imported_checked_and_rated(path: Path | None, tmp_path: Path, year: Path) -> None:
    if path is None:
        pytest.skip(f"the URDB rates are not there: {URDB}")
    out = tmp_path / "rate.yaml"
    done = run("import-urdb", path, "--zone", "America/Los_Angeles", "--tiers", "proportional", "-o", out)
    assert done.returncode == 0, done.stderr
    assert run("check", out).returncode == 0
    document = yaml.safe_load(out.read_text("utf-8"))
    given = json.loads(path.read_text("utf-8"))
    given = given.get("items", [given])[0]
    assert document["eligibility"]["utility"] == given["utility"]
    assert run("rate", out, "--load", year).returncode == 0


RATE: dict[str, Any] = {
    "label": "r",
    "startdate": 1735718400,
    "energyratestructure": [[{"rate": 0.1, "adj": 0.02, "max": 100, "sell": 0.03}, {"rate": 0.2, "max": 500}]],
    "energyweekdayschedule": [[0] * 24] * 12,
    "energyweekendschedule": [[0] * 24] * 12,
    "dgrules": "Net Billing Hourly",
    "fixedchargefirstmeter": 1.5,
    "fixedchargeunits": "$/day",
    "fixedchargeeaaddl": 0.5,
    "mincharge": 10,
    "minchargeunits": "$/month",
    "annualmincharge": 200,
    "fueladjustmentsmonthly": [0.01] * 6 + [0.02] * 6,
    "flatdemandstructure": [[{"rate": 5, "max": 10}, {"rate": 7}]],
    "flatdemandmonths": [0] * 12,
    "flatdemandunit": "hp",
    "lookbackpercent": 0.5,
    "lookbackrange": 6,
    "lookbackmonths": [0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0],
    "demandwindow": 30,
    "demandreactivepowercharge": 0.3,
    "coincidentratestructure": [[{"rate": 2}]],
    "coincidentrateschedule": [[0] * 24] * 12,
    "somethingnew": {"a": [1]},
}


def test_every_field_of_a_rate_is_represented_or_named(tmp_path: Path) -> None:
    rate, out = tmp_path / "rate.json", tmp_path / "out.json"
    rate.write_text(json.dumps(RATE), "utf-8")
    done = run("import-urdb", rate, "-o", out)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text("utf-8"))
    version = document["versions"][0]
    notes = " ".join(document["not_represented"])
    for name in (
        "somethingnew",
        "energyratestructure[0][1].max",
        "sell prices differ",
        "horsepower",
        "coincidentrateschedule",
        "--zone",
    ):
        assert name in notes, name
        assert name in done.stdout
    assert version["valid_from"] == "2025-01-01"
    assert version["prices"] == {"e0": "0.12"}
    assert version["tiers"]["jan_feb_mar_apr_may_jun"] == [
        {"up_to_kwh": 100, "prices": {"e0": "0.12"}},
        {"prices": {"e0": "0.2"}},
    ]
    assert version["export"] == {"mode": "net_billing", "netting": "hour", "prices": {"e0": "0.03"}}
    assert [item["amount"] for item in version["fixed_charge"]] == ["1.5", "0.5"]
    assert [(item["amount"], item["per"]) for item in version["minimum"]] == [("10", "month"), ("200", "year")]
    assert version["surcharges"][0]["amount"] == {"jan_feb_mar_apr_may_jun": "0.01", "jul_aug_sep_oct_nov_dec": "0.02"}
    flat = version["demand"][0]
    assert flat["ratchet"] == {"percent": "50", "months": 6, "of_months": [6, 7, 8, 9]}
    assert (flat["window_min"], flat["tiers"]) == (30, [{"up_to_kw": 10, "prices": "5"}, {"prices": "7"}])
    assert version["reactive"][0]["price"] == "0.3"
    assert version["demand"][1]["scope"] == "coincident"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"energyratestructure": []}, "energyratestructure: is missing"),
        ({"energyweekdayschedule": [[0] * 23] * 12}, "energyweekdayschedule: must be 12 rows of 24 period numbers"),
        ({"energyweekdayschedule": [[1] * 24] * 12}, "period 1 is not in energyratestructure"),
        ({"mincharge": "ten"}, "mincharge: 'ten' is not a number"),
        (
            {"energyratestructure": [[{"rate": 1, "max": 5, "unit": "therm"}, {"rate": 2, "unit": "therm"}]]},
            "unit 'therm' is not known",
        ),
    ],
)
def test_a_broken_rate_is_refused_with_its_place(tmp_path: Path, change: Any, fault: str) -> None:
    rate = tmp_path / "rate.json"
    rate.write_text(json.dumps(RATE | change), "utf-8")
    done = run("import-urdb", rate, "-o", tmp_path / "out.yaml")
    assert done.returncode == 1
    assert fault in done.stderr
    assert not (tmp_path / "out.yaml").exists()
