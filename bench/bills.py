"""(h) Bills of a county: sub-totals folded from the ledger, and a bill run over them, measured apart.

Job: LEDGER accounts with a month of quarter-hours as facts, by `copy_facts`; `refresh_usage_days` folds them. Their sub-totals,
and the facts at both ends of the month for the registers, are then copied under other meter numbers until there are ACCOUNTS
accounts, and two processes bill them all. Tariff: time of use x tiers x a standing charge.
"""

import contextlib
import datetime as dt
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from bench.disk import household_wh
from bench.made import TARIFF
from bench.rig import cpu_s
from metering.bill_check import Bounds
from metering.fact import FACT_COLUMNS, Columns
from schemas.frame import ELECTRICAL
from storage.bill import checked_ids, issue_bills
from storage.bill_make import Rules
from storage.bill_run import Selection, start_run
from storage.bill_workers import work_off
from storage.migrate import migrate
from storage.partition import DailyPartitions
from storage.settlement import copy_facts, days_of
from storage.usage_day import refresh_usage_days

ACCOUNTS = 50_000
LEDGER = 2_500
DAYS = 31
ROUNDS_A_DAY = 96
STEP_US = 900_000_000
START = dt.datetime(2026, 9, 30, 16, tzinfo=dt.UTC)
"""2026-10-01 in Shanghai."""
OCTOBER = (dt.date(2026, 10, 1), dt.date(2026, 11, 1))
NAME = "gridtally_bench_bills"


@contextlib.contextmanager
def database(server: str) -> Iterator[str]:
    """Make a database with our tables for the time of the measurement; give its address."""
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"drop database if exists {NAME} with (force)")
        conn.execute(f"create database {NAME}")
    dsn = server.rsplit("/", 1)[0] + f"/{NAME}"
    try:
        migrate(dsn)
        yield dsn
    finally:
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute(f"drop database {NAME} with (force)")


def run_once(server: str, accounts: int = ACCOUNTS, ledger: int = LEDGER, workers: int = 2) -> dict[str, Any]:
    """Return seconds and rates of refresh, run and issue, with the machine's load before each."""
    with database(server) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        make_contracts(conn, accounts)
        facts = fill(conn, ledger)
        result: dict[str, Any] = {"accounts": accounts, "workers": workers, "facts": facts}
        with measured(conn, result, "refresh"):
            assert refresh_usage_days(conn).facts == facts
        multiply(conn, accounts, ledger)
        run = start_run(conn, OCTOBER, Selection(), "bench")
        rules = Rules(bounds=Bounds(change_percent=100_000))
        now = START + dt.timedelta(days=60)
        with measured(conn, result, "run"):
            done = work_off(dsn, run.bill_run_no, who="bench", rules=rules, now=now, grace_h=0, workers=workers)
        assert (done.done, len(done.problems)) == (accounts, 0)
        ids = checked_ids(conn, run.bill_run_no)
        with measured(conn, result, "issue"):
            issue_bills(conn, ids, who="bench", on=OCTOBER[1], due_days=21)
        check(conn, accounts, ledger)
        result["issued"] = len(ids)
        result["facts_per_s"] = facts / result["refresh_s"]
        result["bills_per_s"] = accounts / result["run_s"]
        return result


@contextlib.contextmanager
def measured(conn: psycopg.Connection[Any], result: dict[str, Any], name: str) -> Iterator[None]:
    """Keep how long something took, the CPU of us, our processes and the database, and the machine's load before it."""
    result[f"{name}_load"] = os.getloadavg()[0]
    before_s, started = spent_s(conn), time.monotonic()
    yield
    result[f"{name}_s"] = time.monotonic() - started
    result[f"{name}_cpu_s"] = spent_s(conn) - before_s


def spent_s(conn: psycopg.Connection[Any]) -> float:
    """Return the CPU seconds of this process, its ended children, and every process that the database server had."""
    ours = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    stat = Path(f"/proc/{conn.info.backend_pid}/stat").read_text("ascii", "replace")
    return ours + cpu_s(int(stat.rpartition(")")[2].split()[1]))


def make_contracts(conn: psycopg.Connection[Any], accounts: int) -> None:
    """Make the tariff, and customers, accounts, service points, meters and contracts numbered alike."""
    conn.execute(
        "insert into tariff (tariff_id, document, document_sha256) values (%s, %s, 'bench')",
        (TARIFF["tariff_id"], json.dumps(with_standing_charge())),
    )
    for query in (
        "insert into meter (meter_no, meter_id) select n, 'b-' || n from generate_series(1, %s) n",
        "insert into service_point (service_point_no, service_point_id) select n, 'p-' || n from generate_series(1, %s) n",
        "insert into meter_assignment select n, n, null, '2026-01-01Z' from generate_series(1, %s) n",
        "insert into customer (customer_id, name) select 'c-' || n, 'Customer ' || n from generate_series(1, %s) n",
        "insert into account (account_id, customer_no, currency) select 'a-' || n, n, 'CNY' from generate_series(1, %s) n",
        (
            "insert into contract (contract_id, account_no, service_point_no, start_on)"
            " select 'k-' || n, n, n, '2026-10-01' from generate_series(1, %s) n"
        ),
        (
            "insert into contract_tariff (contract_no, start_on, tariff_id, entered_by)"
            " select n, '2026-10-01', 'bench', 'bench' from generate_series(1, %s) n"
        ),
    ):
        conn.execute(query, (accounts,))


def with_standing_charge() -> dict[str, Any]:
    """Return the benchmarks' tariff with a charge by days."""
    version = {**TARIFF["versions"][0], "fixed_charge": [{"id": "standing", "amount": "0.40", "per": "day"}]}  # type: ignore[dict-item]
    return {**TARIFF, "versions": [version]}


def fill(conn: psycopg.Connection[Any], meters: int) -> int:
    """Write the month's facts of some meters, a transaction a day; return how many."""
    rounds = DAYS * ROUNDS_A_DAY
    energy = household_wh(meters, rounds)
    start_us = int(START.timestamp()) * 1_000_000
    register = np.zeros(meters, np.int64)
    partitions = DailyPartitions()
    for day in range(DAYS):
        rows = slice(day * ROUNDS_A_DAY, (day + 1) * ROUNDS_A_DAY)
        end_at = start_us + (np.arange(rows.start, rows.stop) + 1) * STEP_US
        import_wh = register + np.cumsum(energy[rows], axis=0)
        columns = _facts(np.tile(np.arange(1, meters + 1), ROUNDS_A_DAY), np.repeat(end_at, meters))
        columns |= {"energy_wh": energy[rows].reshape(-1), "import_wh": import_wh.reshape(-1)}
        columns["frame_offset"] = np.full(len(columns["end_at"]), day, np.int64)
        register = import_wh[-1]
        partitions.ensure(conn, days_of(columns["end_at"]))
        with conn.transaction():
            copy_facts(conn, {name: columns[name] for name in FACT_COLUMNS})
            for one in days_of(columns["end_at"]):
                conn.execute(
                    "insert into ledger_day values (%s, 0, %s) on conflict (day, partition)"
                    " do update set next_offset = excluded.next_offset",
                    (one, day + 1),
                )
    conn.execute(
        "insert into stream_offset (consumer, topic, partition, next_offset) values ('settle', 'r', 0, %s)", (DAYS,)
    )
    conn.execute("analyze fact")
    return meters * rounds


def _facts(meter_no: np.ndarray, end_at: np.ndarray) -> Columns:
    size = len(meter_no)
    columns: Columns = {name: np.zeros(size, np.int64) for name in FACT_COLUMNS}
    columns |= {name: np.full(size, np.nan, np.float32) for name in ELECTRICAL}
    columns |= {name: np.full(size, -1, np.int64) for name in ("export_wh", "import_varh", "export_varh")}
    return columns | {"meter_no": meter_no, "end_at": end_at, "start_at": end_at - STEP_US}


def multiply(conn: psycopg.Connection[Any], accounts: int, ledger: int) -> None:
    """Copy sub-totals, and the facts at both ends of the month, under the numbers of all other meters."""
    edges = [START + dt.timedelta(minutes=15), START + dt.timedelta(days=DAYS)]
    names = ", ".join(
        row[0]
        for row in conn.execute(
            "select attname::text from pg_attribute where attrelid = 'fact'::regclass and attnum > 1 and not attisdropped"
            " order by attnum"
        )
    )
    for shift in range(ledger, accounts, ledger):
        conn.execute(
            "insert into usage_day select meter_no + %s, day, import_wh, export_wh, estimated_wh, covered_s, quality,"
            " refresh_no from usage_day where meter_no <= %s and meter_no + %s <= %s",
            (shift, ledger, shift, accounts),
        )
        conn.execute(
            f"insert into fact (meter_no, {names}) select meter_no + %s, {names} from fact"
            " where end_at = any(%s) and meter_no <= %s and meter_no + %s <= %s",
            (shift, edges, ledger, shift, accounts),
        )
    conn.execute("vacuum analyze usage_day")


def check(conn: psycopg.Connection[Any], accounts: int, ledger: int) -> None:
    """Check that energies are those of the ledger, that copies cost what the original does, and that lines sum."""
    row = conn.execute(
        "select (select count(*) from bill where bill_no is not null and energy_wh > 0),"
        " (select sum(energy_wh) from bill where contract_no <= %(n)s) = (select sum(energy_wh) from fact where meter_no <= %(n)s),"
        " (select count(*) from bill b join bill o on o.contract_no = (b.contract_no - 1) %% %(n)s + 1 where o.total <> b.total),"
        " (select count(*) from (select bill_id, sum(amount_unrounded) s from bill_line group by 1) l join bill using (bill_id)"
        " where s <> total_unrounded)",
        {"n": ledger},
    ).fetchone()
    assert row == (accounts, True, 0, 0), row
