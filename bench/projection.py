"""The projection of running cycles tried on what really came: 334 Swiss meters, 49 days, every 30-day cycle in them.

Figures of the method were chosen on the meters with even numbers; what is reported is of the odd ones. One winter's start is all
that the data holds: the same cold week is in both halves.
"""

import csv
import datetime as dt
import functools
import gzip
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from gridtally.tariff_cli import parse_document
from metering.bill import Bill
from metering.projection import Ahead, Past, project
from metering.rating import NO_INPUTS, rate_cycle
from metering.tariff import Tariff, parse_tariff
from metering.usage import Compiled, Load, measure

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data" / "swiss15min" / "readings_wh.csv.gz"
FIRST_DAY = dt.date(2025, 10, 27)
"""Monday of ISO week 44, as in the data; its year is not published."""
CYCLE_DAYS = 30
STARTS = range(20)
"""First days of the cycles tried: all that lie within the data, so the first ones have no past before the cycle."""
BEFORE_DAYS_MIN = 7
"""Days before a cycle that the baseline "last month" needs; cycles with fewer are no part of it."""
ELAPSED_DAYS = (7, 14, 21)
DEMAND = [{"id": "demand", "window_min": 15, "prices": "20"}]
"""Added to county-residential for the second tariff, CNY a kW."""


def read_meters() -> tuple[np.ndarray, np.ndarray]:
    """Return meter numbers, shape (n,), and energies, shape (n, 49, 96), Wh; negative cells count as 0."""
    with gzip.open(DATA, "rt", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    wh = np.array([[max(int(cell or 0), 0) for cell in row[1:]] for row in rows], np.int64)
    return np.array([int(row[0]) for row in rows]), wh.reshape(len(rows), -1, 96)


@functools.cache
def tariffs() -> dict[str, tuple[Tariff, Compiled]]:
    """Return the tariff with time of use and tiers, and the same with a demand charge; each with its compiled calendar."""
    document = parse_document(ROOT / "tariffs" / "county-residential.yaml")
    plain = parse_tariff(document)
    document["versions"][0]["demand"] = DEMAND
    return {"time of use and tiers": (plain, {}), "and demand": (parse_tariff(document), {})}


def ahead_of(wh: np.ndarray, start: int, elapsed: int, since: int = 0, week: np.ndarray | None = None) -> Ahead:
    """Return the projection of a cycle so many days after its start, from days `since` on."""
    now = start + elapsed
    first = (FIRST_DAY - dt.date(1970, 1, 1)).days
    past = Past(first + now, wh[:, since:now].astype(float), np.ones((len(wh), now - since), np.bool_))
    days = np.repeat(np.arange(now, start + CYCLE_DAYS), 96)
    return project(past, first + days, np.tile(np.arange(96), CYCLE_DAYS - elapsed), week)


def charge(name: str, wh: np.ndarray, start: int) -> Bill:
    """Return the bill of a cycle's quarter-hours from its first on."""
    tariff, compiled = tariffs()[name]
    begin = dt.datetime.combine(FIRST_DAY + dt.timedelta(days=start), dt.time(), tariff.zone)
    at = int(begin.timestamp()) * 1_000_000 + np.arange(len(wh)) * 900_000_000
    edges = [begin.date(), begin.date() + dt.timedelta(days=CYCLE_DAYS)]
    ((cycle, usage),) = measure(tariff, Load(at, 900, {"import_wh": wh}), edges, NO_INPUTS, compiled)
    return rate_cycle(tariff, cycle, usage)[0]


def pro_rata(bill: Bill, elapsed: int) -> Decimal:
    """Return the charge so far carried on in a line; the highest demand stays."""
    return sum(
        (
            line.amount_unrounded if line.kind == "demand" else line.amount_unrounded * CYCLE_DAYS / elapsed
            for line in bill.lines
        ),
        Decimal(0),
    )


def _charges(job: tuple[np.ndarray, int]) -> list[tuple[str, int, list[float]]]:
    """Return tariff, days elapsed and [truth, low, middle, high, pro rata, last month] of one meter's cycle."""
    wh, start = job
    found = []
    aheads = {elapsed: ahead_of(wh[None], start, elapsed) for elapsed in ELAPSED_DAYS}
    has_month = start >= BEFORE_DAYS_MIN
    before = np.resize(wh[: max(start, 1)].ravel(), CYCLE_DAYS * 96)
    for name in tariffs():
        truth = charge(name, wh[start : start + CYCLE_DAYS].ravel(), start).total
        last = charge(name, before, start).total if has_month else Decimal("nan")
        for elapsed, ahead in aheads.items():
            so_far = wh[start : start + elapsed].ravel()
            sides = [
                charge(name, np.concatenate([so_far, rest[0]]), start).total
                for rest in (ahead.low_wh, ahead.middle_wh, ahead.high_wh)
            ]
            line = pro_rata(charge(name, so_far, start), elapsed)
            found.append((name, elapsed, [float(value) for value in (truth, *sides, line, last)]))
    return found


def errors(rows: np.ndarray) -> dict[str, float]:
    """Return errors in percent of [truth, low, middle, high, pro rata, last month], shape (n, 6)."""
    truth, low, middle, high, line, last = rows[rows[:, 0] > 0].T
    found: dict[str, float] = {"cycles": float(len(truth))}
    for name, value in (("", middle), ("pro rata ", line), ("last month ", last)):
        error = 100 * (value / truth - 1)
        found |= {
            f"{name}median %": float(np.nanmedian(np.abs(error))),
            f"{name}90th %": float(np.nanpercentile(np.abs(error), 90)),
            f"{name}bias %": float(np.nanmedian(error)),
        }
    slack = 0.005  # a cent's rounding is no miss
    found["in range %"] = float(100 * np.mean((low - slack <= truth) & (truth <= high + slack)))
    found["range width %"] = float(np.median(100 * (high - low) / truth))
    return {key: round(value, 2) for key, value in found.items()}


def energy_rows(
    wh: np.ndarray, elapsed: int, starts: Any = STARTS, week: np.ndarray | None = None, own_days: int | None = None
) -> np.ndarray:
    """Return [truth, low, middle, high, pro rata, last month] energies of cycles, shape (n, 6), kWh."""
    rows = []
    for start in starts:
        so_far = wh[:, start : start + elapsed].sum(axis=(1, 2))
        since = 0 if own_days is None else start + elapsed - own_days
        ahead = ahead_of(wh, start, elapsed, since, week)
        sides = [so_far + part.sum(axis=1) for part in (ahead.low_wh, ahead.middle_wh, ahead.high_wh)]
        before = wh[:, :start].sum(axis=(1, 2)) * CYCLE_DAYS / (start if start >= BEFORE_DAYS_MIN else np.nan)
        truth = wh[:, start : start + CYCLE_DAYS].sum(axis=(1, 2))
        rows.append(np.stack([truth, *sides, so_far * CYCLE_DAYS / elapsed, before], axis=1))
    return np.concatenate(rows) / 1000


def run(workers: int = 2) -> dict[str, Any]:
    """Return all errors, of the meters that nothing was chosen by."""
    meters, wh = read_meters()
    tuning, wh = wh[meters % 2 == 0], wh[meters % 2 == 1]
    found: dict[str, Any] = {"meters": len(wh), "energy": {}, "charge": {}, "chosen on": {}, "new customer": {}}
    week = tuning.astype(float).reshape(-1, 7, 7, 96).mean(axis=(0, 1))
    for elapsed in ELAPSED_DAYS:
        found["energy"][str(elapsed)] = errors(energy_rows(wh, elapsed))
        found["chosen on"][str(elapsed)] = errors(energy_rows(tuning, elapsed))
    for elapsed in (1, 3, 5):
        found["new customer"][str(elapsed)] = errors(energy_rows(wh, elapsed, STARTS, week, own_days=elapsed))
    jobs = [(one, start) for one in wh for start in STARTS]
    with ProcessPoolExecutor(workers) as pool:
        rated = [row for rows in pool.map(_charges, jobs, chunksize=32) for row in rows]
    for name in tariffs():
        found["charge"][name] = {
            str(elapsed): errors(np.array([row for tariff, at, row in rated if (tariff, at) == (name, elapsed)]))
            for elapsed in ELAPSED_DAYS
        }
    return found


def table(found: dict[str, Any]) -> str:
    """Return the errors as rows of text."""
    parts = {"energy": found["energy"], **found["charge"], "new customer, energy": found["new customer"]}
    names = ("median %", "90th %", "bias %", "in range %", "range width %", "pro rata median %", "pro rata 90th %")
    names += ("last month median %", "last month 90th %")
    lines = [f"{'':32}" + "".join(f"{name:>20}" for name in names)]
    for part, rows in parts.items():
        for elapsed, row in rows.items():
            cells = "".join(f"{row[name]:20.1f}" if name in row else f"{'-':>20}" for name in names)
            lines.append(f"{part + ', ' + elapsed + ' days':32}{cells}")
    return "\n".join(lines)
