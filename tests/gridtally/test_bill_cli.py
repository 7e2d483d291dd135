"""The commands about bills, as docs/billing.md has them, on a real database."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from gridtally.cli import app
from tests.storage.made_county import make_county, read_months

Invoke = Callable[..., Any]


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        read_months(make_county(conn, 3), 3)
        yield conn


@pytest.fixture
def invoke(conn: psycopg.Connection, database: str, tmp_path: Path) -> Invoke:
    (tmp_path / "gridtally.toml").write_text(
        f'[database]\ndsn = "{database}"\n[billing]\nworkers = 1\ngrace_h = 0\nchange_percent_max = 1000\n', "utf-8"
    )

    def run(*words: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [*words, "--data-dir", str(tmp_path)])
        assert result.exit_code == code, (words, result.output, result.exception)
        return json.loads(result.stdout) if "--json" in words else result.output

    return run


def test_a_cycle_goes_from_run_to_payment_by_the_commands(invoke: Invoke) -> None:
    told = invoke("bill", "run", "--cycle", "2026-09", "--as", "ann")
    assert "3 of 3 contracts have their bill" in told
    assert "checked           3 bills" in told
    assert "2026-000001 to 2026-000003" in invoke("bill", "issue", "--run", "1", "--as", "ann").replace(_year(), "2026")
    rows = invoke("bill", "list", "--account", "a-1", "--json")
    number = rows[0]["bill_no"]
    assert "energy     peak" in invoke("bill", "show", number)
    shown = invoke("bill", "show", number, "--json")["document"]
    assert (shown["total"], shown["bill_no"]) == (rows[0]["total"], number)
    explained = invoke("bill", "explain", number, "--line", "energy-peak", "--json")
    (line,) = explained["lines"]
    assert line["tariff"]["period"] == "peak"
    assert line["readings"][0]["raw_offset"] == 0
    assert "intervals" in invoke("bill", "explain", number)
    told = invoke("payment", "record", "a-1", "--amount", "50", "--reference", "B1", "--as", "ann")
    assert "payment 1 is recorded" in told
    invoke("payment", "record", "a-1", "--amount", "50", "--reference", "B1", "--as", "ann", code=1)
    assert invoke("statement", "a-1", "--json")["balance"] == str(Decimal(rows[0]["total"]) - 50)
    actions = [row["action"] for row in invoke("audit", number, "--json")]
    assert actions == ["bill.issue"]


def _year() -> str:
    from monitoring.clock import local_today

    return str(local_today("Asia/Shanghai").year)


def test_an_amendment_takes_two_users_by_the_commands(invoke: Invoke) -> None:
    invoke("bill", "run", "--cycle", "2026-09", "--as", "ann")
    invoke("bill", "issue", "--run", "1", "--as", "ann")
    number = f"{_year()}-000001"
    told = invoke("bill", "amend", number, "--amount=-12.50", "--reason", "goodwill", "--as", "ann")
    assert "changes what is owed by -12.50" in told
    invoke("bill", "amend", number, "--amount=-1", "--reason", "mine", "--as", "ben", code=1)
    invoke("bill", "approve", "1", "--as", "ann", code=1)
    assert f"{_year()}-000004" in invoke("bill", "approve", "1", "--as", "ben")
    told = invoke("bill", "rebill", number, "--reason", "asked", "--as", "ben")
    assert "changes what is owed by 0.00" in told
    assert "rejected" in invoke("bill", "reject", "2", "--as", "cat", "--note", "no need")
    assert [row["state"] for row in invoke("bill", "proposals", "--all", "--json")] == ["rejected", "approved"]


def test_drafts_are_released_and_deleted_by_the_commands(invoke: Invoke, conn: psycopg.Connection) -> None:
    conn.execute("update account set currency = 'USD' where account_id = 'a-2'")
    invoke("bill", "run", "--from", "2026-09-01", "--to", "2026-10-01", "--as", "ann", "--json")
    (held,) = invoke("bill", "held", "--json")
    name = f"#{held['bill_id']}"
    assert (held["account_id"], held["reason"]) == ("a-2", "currency")
    invoke("bill", "issue", name, "--as", "ann", code=1)
    assert "is checked" in invoke("bill", "release", name, "--reason", "agreed", "--as", "ann")
    invoke("bill", "delete", name, "--reason", "after all not", "--as", "ann")
    again = invoke("bill", "run", "--resume", "1", "--as", "ann", "--json")
    assert (again["done"], len(invoke("bill", "list", "--json"))) == (3, 3)


def test_a_wrong_option_ends_with_what_to_do(invoke: Invoke, tmp_path: Path) -> None:
    for words in (
        ("bill", "run", "--cycle", "October", "--as", "ann"),
        ("bill", "run", "--from", "2026-10-01", "--as", "ann"),
        ("bill", "run", "--cycle", "2026-10"),
        ("bill", "issue", "--as", "ann"),
        ("bill", "list", "--min", "much"),
    ):
        invoke(*words, code=2)
    for words in (("bill", "show", "2026-999999"), ("bill", "approve", "9", "--as", "ann"), ("statement", "nobody")):
        invoke(*words, code=1)
    file = tmp_path / "bank.csv"
    file.write_text("account,amount,on,reference\na-1,1,2026-10-01,R1\nnobody,1,2026-10-01,R2\n", "utf-8")
    assert "no account 'nobody'" in invoke("payment", "import", str(file), "--as", "ann", code=1)
    file.write_text("account,amount,on,reference\na-1,1,2026-10-01,R1\n", "utf-8")
    assert "would be recorded" in invoke("payment", "import", str(file), "--dry-run", "--as", "ann")
    assert "are recorded" in invoke("payment", "import", str(file), "--as", "ann")


def test_bills_can_be_listed_as_they_stood_then(invoke: Invoke, conn: psycopg.Connection) -> None:
    invoke("bill", "run", "--cycle", "2026-09", "--as", "ann")
    drafts = conn.execute("select clock_timestamp()::text").fetchone()
    assert drafts is not None
    invoke("bill", "issue", "--run", "1", "--as", "ann")
    then = invoke("bill", "list", "--as-known-at", drafts[0].replace(" ", "T"), "--json")
    assert [(row["state"], row["bill_no"]) for row in then] == [("checked", None)] * 3
    assert invoke("bill", "list", "--as-known-at", "2026-01-01T00:00:00Z", "--json") == []
    assert "only" in invoke("bill", "list", "--as-known-at", "2026-01-01T00:00:00Z", "--state", "paid", code=2)
