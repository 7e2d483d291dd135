"""Proposed tariffs on every account's past: the same bills as the accounts would have had, what they come to, who is missing."""

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import yaml
from typer.testing import CliRunner

from gridtally.cli import app
from gridtally.impact_report import histogram
from metering.contract import Contract, ContractTariff
from metering.impact import AccountImpact, Rated, bins_of, months_between, rate_months, summarize
from metering.rating import rate
from metering.tariff import parse_tariff
from metering.usage import Inputs, Load
from storage.contract import end_contract, set_contract_tariff
from storage.impact import ImpactError, plan_impact, rate_impact
from storage.load import fetch_load
from storage.registry import import_tariff
from storage.usage_day import refresh_usage_days
from tests.storage.made_ledger import US, MadeLedger

MONTHS = [dt.date(2026, month, 1) for month in (5, 6, 7)]
FLAT: dict[str, Any] = {
    "tariff_id": "flat",
    "currency": "CNY",
    "zone": "Asia/Shanghai",
    "versions": [{"valid_from": "2026-01-01", "rest": "day", "prices": {"day": "0.50"}}],
}
NEW: dict[str, Any] = {
    **FLAT,
    "tariff_id": "new",
    "versions": [
        {
            "valid_from": "2026-01-01",
            "windows": [{"period": "peak", "from": "18:00", "to": "21:00"}],
            "rest": "off",
            "prices": {"peak": "1.20", "off": "0.40"},
            "tiers": [{"up_to_kwh": 100, "adder": "0"}, {"adder": "0.10"}],
            "demand": [{"id": "demand", "window_min": 15, "prices": "2"}],
            "fixed_charge": {"amount": "3", "per": "month", "prorate": "calendar"},
        }
    ],
}
USES_WH = {1: 100, 2: 40, 3: 250, 4: 60, 5: 90}


@pytest.fixture
def conn(database: str, tmp_path: Path) -> Iterator[psycopg.Connection]:
    """Make six contracts of two classes over May and June 2026; k-5 is read for a part, k-6 never."""
    with psycopg.connect(database, autocommit=True) as conn:
        for document in (FLAT, NEW):
            path = tmp_path / f"{document['tariff_id']}.yaml"
            path.write_text(yaml.safe_dump(document), "utf-8")
            import_tariff(conn, path)
        conn.execute("insert into customer (customer_id, name) values ('c-1', 'Li')")
        ledger = MadeLedger(conn, interval_s=3600)
        first, last = (int(dt.datetime(2026, month, 1, tzinfo=dt.UTC).timestamp()) - 28_800 for month in (5, 7))
        for number in range(1, 7):
            ledger.add_meter(number, number)
            kind = "business" if number == 3 else "residential"
            conn.execute(
                "insert into account (account_id, customer_no, currency, class) values (%s, 1, 'CNY', %s)",
                (f"a-{number}", kind),
            )
            conn.execute(
                "insert into contract (contract_id, account_no, service_point_no, start_on, billing_day)"
                " values (%s, %s, %s, '2026-01-01', %s)",
                (f"k-{number}", number, number, 1 + number),
            )
            set_contract_tariff(conn, f"k-{number}", "flat", dt.date(2026, 1, 1), {}, "ann")
            for at in range(first, (last if number < 5 else first + 86_400 * 20) + 1, 3600):
                if number < 6:
                    hour = (at - first) // 3600
                    ledger.read(number, at * US, hour * USES_WH[number] + hour // 24 * (hour % 5))
        ledger.flush()
        refresh_usage_days(conn)
        yield conn


def test_every_account_pays_what_rating_its_load_by_itself_gives(conn: psycopg.Connection, database: str) -> None:
    new = parse_tariff(NEW)
    job = plan_impact(conn, [new], MONTHS)
    found = rate_impact(database, job, workers=1)
    assert [row.contract_id for row in found.rows] == ["k-1", "k-2", "k-3", "k-4", "k-5"]
    assert found.without_readings == ("k-6",)
    for row in found.rows:
        low, high = (int(dt.datetime(2026, month, 1, tzinfo=dt.UTC).timestamp()) - 28_800 for month in (5, 7))
        load = fetch_load(conn, int(row.contract_id[2:]), low * US, high * US).load
        for tariff, rated in ((parse_tariff(FLAT), row.current), (new, row.proposed[0])):
            assert list(rated.totals) == [bill.total for bill in rate(tariff, load, MONTHS, Inputs())]
            assert sum(rated.energy_wh.values()) == int(load.registers["import_wh"].sum()) == row.energy_wh
        assert set(row.proposed[0].energy_wh) == {"peak", "off"}
    assert {row.contract_id for row in found.rows if row.covered < Decimal("0.98")} == {"k-5"}


def test_two_processes_give_what_one_gives(conn: psycopg.Connection, database: str) -> None:
    job = plan_impact(conn, [parse_tariff(NEW)], MONTHS)
    seen: list[tuple[int, int]] = []
    assert rate_impact(database, job, workers=2, progress=lambda *at: seen.append(at)) == rate_impact(
        database, job, workers=1
    )
    assert seen[-1] == (6, 6)


def test_a_proposal_may_have_the_name_of_the_tariff_that_it_replaces(conn: psycopg.Connection, database: str) -> None:
    same_name = parse_tariff({**NEW, "tariff_id": "flat"})
    rows = rate_impact(database, plan_impact(conn, [same_name, parse_tariff(NEW)], MONTHS), workers=1).rows
    for row in rows:
        assert row.proposed[0] == row.proposed[1]
        assert set(row.current.energy_wh) == {"day"}


def test_a_contract_of_a_part_of_the_months_pays_for_its_days_and_keeps_its_own_tariffs(
    conn: psycopg.Connection, database: str
) -> None:
    set_contract_tariff(conn, "k-1", "new", dt.date(2026, 5, 21), {}, "ann")
    end_contract(conn, "k-1", dt.date(2026, 6, 11), "ann")
    job = plan_impact(conn, [parse_tariff(FLAT)], MONTHS)
    row = rate_impact(database, job, workers=1).rows[0]
    kwh = Decimal(row.energy_wh) / 1000
    assert sum(row.proposed[0].totals) == pytest.approx(kwh * Decimal("0.5"), abs=Decimal("0.011"))
    assert set(row.current.energy_wh) == {"day", "peak", "off"}
    # `new` holds for 11 of 31 days of May and 10 of 30 of June: its fixed charge of 3 a month by share
    assert row.current.amounts["fixed"] == pytest.approx(3 * (Decimal(11) / 31 + Decimal(10) / 30), abs=Decimal("1e-9"))


def test_a_year_of_tiers_goes_on_over_months_and_over_parts_of_a_contract() -> None:
    document = json.loads(json.dumps(FLAT))
    document["versions"][0] |= {
        "tiers": [{"up_to_kwh": 100, "adder": "0"}, {"prices": "0.90"}],
        "tier_rule": {"allocation": "sequential", "unit": "kWh", "per": "year"},
    }
    tariffs = {"flat": parse_tariff(document)}
    start_us = (int(dt.datetime(2026, 5, 1, tzinfo=dt.UTC).timestamp()) - 28_800) * US
    load = Load(start_us + np.arange(61 * 96) * 900 * US, 900, {"import_wh": np.full(61 * 96, 30)})
    one = ContractTariff(dt.date(2026, 1, 1), "flat")
    whole = Contract(1, "k", 1, 1, dt.date(2026, 1, 1), None, 1, (one,))
    parts = dataclasses.replace(whole, tariffs=(one, ContractTariff(dt.date(2026, 5, 20), "flat", {"x": Decimal(1)})))
    found = [rate_months(contract, tariffs, load, MONTHS, Inputs()) for contract in (whole, parts)]
    # 89.28 kWh in May; of 86.4 in June the first 10.72 are left of the cheap 100
    assert found[0].totals == (Decimal("44.64"), Decimal("73.47"))
    assert found[1].totals == found[0].totals
    assert found[1].energy_wh == found[0].energy_wh


def test_what_a_tariff_needs_and_contracts_do_not_have_is_an_error_that_names_them(
    conn: psycopg.Connection, database: str
) -> None:
    document = json.loads(json.dumps(NEW))
    document["versions"][0]["fixed_charge"] = {"id": "kw", "amount": "5", "per": "month", "times": "contract_kw"}
    tariff = parse_tariff(document)
    set_contract_tariff(conn, "k-1", "flat", dt.date(2026, 2, 1), {"contract_kw": Decimal(4)}, "ann")
    with pytest.raises(
        ImpactError, match=r"needs contract_kw.*of a-2, a-3, a-4, a-5, a-6 do not.*--term contract_kw=20"
    ):
        plan_impact(conn, [tariff], MONTHS)
    job = plan_impact(conn, [tariff], MONTHS, terms={"contract_kw": Decimal(10)})
    rows = rate_impact(database, job, workers=1).rows
    assert [row.proposed[0].amounts["fixed"] for row in rows[:2]] == [Decimal(2 * 4 * 5), Decimal(2 * 10 * 5)]


def test_tariffs_of_another_currency_and_an_empty_class_are_refused(conn: psycopg.Connection) -> None:
    with pytest.raises(ImpactError, match=r"flat is in EUR, a-1, a-2, a-3, a-4, a-5, a-6 not: choose a class"):
        plan_impact(conn, [parse_tariff({**FLAT, "currency": "EUR"})], MONTHS)
    with pytest.raises(ImpactError, match=r"no contract with a tariff from 2026-05-01 to 2026-07-01 in class farm"):
        plan_impact(conn, [parse_tariff(FLAT)], MONTHS, class_name="farm")


def account(name: str, current: str, proposed: str, class_name: str = "home") -> AccountImpact:
    before, after = (
        Rated((Decimal(value),), {"day": 1000}, {"energy": Decimal(value)}) for value in (current, proposed)
    )
    return AccountImpact(name, f"k-{name}", class_name, 1000, Decimal(1), before, (after,))


def test_winners_losers_and_the_hardest_hit_are_told_apart() -> None:
    rows = [account(f"a{number}", "100", f"{100 + number}") for number in range(1, 13)]
    rows += [account("less", "100", "40", "farm"), account("same", "50", "50"), account("nothing", "0", "0")]
    (found,) = summarize(rows, ["new"])
    assert (found.winners, found.losers, found.unchanged) == (1, 12, 2)
    assert [row.account_id for row in found.hardest] == [f"a{number}" for number in range(12, 2, -1)]
    assert found.current == {"farm": (Decimal(100),), "home": (Decimal(1250),)}
    assert found.proposed["home"] == (Decimal(1250 + 78),)
    assert sum(item.accounts for item in found.bins) == 14, "in percent of nothing there is no change"
    assert found.quantiles[50] == 5.0, "half of fourteen do not exceed it"


def test_a_change_lies_in_the_bin_that_begins_with_it() -> None:
    found = {item.low_percent: item.accounts for item in bins_of([-30.0, -2.0, 0.0, 2.0, 30.0, 900.0]) if item.accounts}
    assert found == {-30: 1, -2: 1, 0: 1, 2: 1, 30: 2}


def test_the_picture_colours_who_pays_less_and_who_pays_more() -> None:
    rows = [{"low_percent": item.low_percent, "high_percent": item.high_percent, "accounts": item.accounts}
            for item in bins_of([-90.0, -1.0, 0.5, 1.0, 80.0])]  # fmt: skip
    marks = re.findall(r'fill="var\(--(less|more)\)"><title>([^:]+): (\d+)', histogram(rows))
    assert [mark for mark in marks if mark[2] != "0"] == [
        ("less", "under -30 %", "1"),
        ("less", "-2 .. +0 %", "1"),
        ("more", "+0 .. +2 %", "2"),
        ("more", "+30 % and over", "1"),
    ]


def test_months_are_whole() -> None:
    assert months_between(dt.date(2026, 5, 1), dt.date(2026, 6, 1)) == MONTHS


def test_the_command_prints_a_report_for_people_for_programs_and_as_a_page(
    conn: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    def run(*words: str, code: int = 0) -> Any:
        found = CliRunner().invoke(app, ["tariff", "impact", *words], env={"GRIDTALLY_DATABASE__DSN": database})
        assert found.exit_code == code, found.output
        return found

    page = tmp_path / "impact.html"
    words = (str(tmp_path / "new.yaml"), "--over", "2026-05..2026-06", "--workers", "1")
    shown = json.loads(run(*words, "--json", "--html", str(page)).stdout)
    (one,) = shown["tariffs"]
    assert one["accounts"] == one["winners"] + one["losers"] + one["unchanged"] == 5
    assert Decimal(one["total"]["current"]) == sum(
        Decimal(value) for values in one["revenue"]["current"].values() for value in values
    )
    assert set(one["revenue"]["current"]) == {"business", "residential"}
    assert shown["missing"]["without_readings"] == ["k-6"]
    assert shown["missing"]["partly_read"] == ["k-5"]
    text = run(*words)
    assert "new against the tariff that each contract had, 2026-05 to 2026-06, 5 contracts" in text.stdout
    assert "hit hardest" in text.stdout
    assert "6 of 6 contracts rated" in text.stderr
    html = page.read_text("utf-8")
    assert html.count("<svg") == 2
    assert "k-6" in html
    same = json.loads(run("flat", "--over", "2026-05", "--against", "flat", "--workers", "1", "--json").stdout)
    assert same["tariffs"][0]["unchanged"] == 5
    assert "neither a file nor a tariff" in run("nothing", "--over", "2026-05", code=1).stderr
    assert "expected months" in run("flat", "--over", "2026-13", code=2).stderr
    assert "expected months" in run("flat", "--over", "2026-06..2026-05", code=2).stderr
