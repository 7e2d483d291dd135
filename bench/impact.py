"""A tariff tried on a county: 10,000 accounts × a year of quarter-hours, from sub-totals of days to the report.

The sub-totals are made by COPY, without readings and facts behind them: shapes of the 334 Swiss meters, their 49 days again and
again, each account at a level of its own. What is measured is the command as a user runs it, by its own clock.
"""

import datetime as dt
import functools
import json
import os
import re
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import yaml

from bench.projection import read_meters
from bench.rig import ROOT, Place, Rig
from gridtally.tariff_cli import parse_document
from storage.usage_day import EPOCH_DAY, QUARTERS_A_DAY, Sums, write_sums

ACCOUNTS = 10_000
YEAR = 2026
FIRST = dt.date(YEAR - 1, 12, 31)
"""UTC day in which the local year begins."""
DAYS = 366
CHUNK = 500
SEED = 4
FILLERS = 3


def proposal() -> dict[str, Any]:
    """Return county-residential with dearer peaks, cheaper other hours and a demand charge."""
    document = parse_document(ROOT / "tariffs" / "county-residential.yaml")
    document["tariff_id"] = "proposed"
    version = document["versions"][0]
    version["prices"] = {"peak": "1.12", "flat": "0.52", "valley": "0.18"}
    version["demand"] = [{"id": "demand", "window_min": 15, "prices": "3"}]
    return document


def fill(dsn: str, accounts: int = ACCOUNTS) -> float:
    """Make contracts and sub-totals of days; return how long the sub-totals took, s."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into service_point select n, 'p-' || n from generate_series(1, %s) n on conflict do nothing",
            (accounts,),
        )
        conn.execute(
            "insert into customer (customer_id, name) select 'c-' || n, 'Customer ' || n from generate_series(1, %s) n",
            (accounts,),
        )
        conn.execute(
            "insert into account (account_id, customer_no, currency, class) select 'a-' || n, n, 'CNY',"
            " case when n %% 10 = 0 then 'business' else 'residential' end from generate_series(1, %s) n",
            (accounts,),
        )
        conn.execute(
            "insert into contract (contract_id, account_no, service_point_no, start_on) select 'k-' || n, n,"
            " a.service_point_no, '2025-01-01' from generate_series(1, %s) n join meter_assignment a on a.meter_no = n",
            (accounts,),
        )
        conn.execute(
            "insert into contract_tariff (contract_no, start_on, tariff_id, entered_by)"
            " select contract_no, '2025-01-01', 'county-residential', 'bench' from contract"
        )
    began = time.monotonic()
    lows = range(0, accounts, CHUNK)
    with ProcessPoolExecutor(FILLERS) as pool:
        for high in pool.map(_fill_part, [(dsn, low, min(low + CHUNK, accounts)) for low in lows]):
            print(f"  sub-totals of {high:,} accounts", file=sys.stderr, flush=True)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("analyze")
    return time.monotonic() - began


def _fill_part(part: tuple[str, int, int]) -> int:
    dsn, low, high = part
    wh = _shapes()
    first = (FIRST - EPOCH_DAY).days
    numbers = np.arange(low, high)
    level = np.exp(np.random.default_rng(SEED).normal(0, 0.4, high))[low:]
    shapes = np.rint(wh[numbers % len(wh)] * level[:, None, None]).astype(np.int64)
    year = shapes[:, np.arange(DAYS) % wh.shape[1]].reshape(-1, QUARTERS_A_DAY)
    nothing = np.zeros_like(year)
    sums = Sums(
        np.repeat(numbers + 1, DAYS),
        np.tile(first + np.arange(DAYS), len(numbers)),
        {"import_wh": year, "export_wh": nothing, "estimated_wh": nothing, "covered_s": nothing + 900},
        np.zeros(len(year), np.bool_),
        np.zeros(len(year), np.int64),
    )
    with psycopg.connect(dsn) as conn:
        write_sums(conn, sums, 1)
    return high


@functools.cache
def _shapes() -> np.ndarray:
    _, wh = read_meters()
    return wh[wh.sum(axis=(1, 2)) > 0]


def run_command(place: Place, directory: Path, workers: int = 2) -> dict[str, Any]:
    """Run `gridtally tariff impact` and return what it took and what it said."""
    tariff, page = directory / "proposed.yaml", directory / "impact.html"
    tariff.write_text(yaml.safe_dump(proposal()), "utf-8")
    words = [sys.executable, "-m", "gridtally", "tariff", "impact", str(tariff), "--over", f"{YEAR}-01..{YEAR}-12"]
    words += ["--json", "--html", str(page), "--workers", str(workers)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    load, began = os.getloadavg()[0], time.monotonic()
    done = subprocess.run(words, cwd=ROOT, env=place.environment, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr[-2000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = json.loads(done.stdout)
    one = shown["tariffs"][0]
    return {
        "accounts": one["accounts"],
        "took_s": round(took, 1),
        "processor_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "progress_lines": len(re.findall(r"contracts rated", done.stderr)),
        "total": one["total"],
        "winners": one["winners"],
        "losers": one["losers"],
    }


def run_once(rig: Rig, accounts: int = ACCOUNTS) -> dict[str, Any]:
    """Make the county and measure."""
    place = rig.place(accounts)
    filled_s = fill(place.dsn, accounts)
    found = run_command(place, rig.data_dir)
    page = os.environ.get("BENCH_KEEP_PAGE")
    if page:
        Path(page).write_text((rig.data_dir / "impact.html").read_text("utf-8"), "utf-8")
    rig.drop(place)
    return {"made_s": round(filled_s, 1), **found}
