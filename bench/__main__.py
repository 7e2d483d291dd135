"""`python -m bench [NAME …]`: measures on this machine, prints min/median/max, and writes bench/results/*.json.

Names: core settle path latency restart disk projection bills impact; without any, all. TEST_TIMESCALE_DSN adds TimescaleDB to
settle and disk.
"""

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import bills, core, disk, impact, latency, path, projection, restart, settle, tariff
from bench.rig import Rig, repeats, spread

RESULTS = Path(__file__).parent / "results"
RUNS = 3
TIMESCALE_DSN = os.environ.get("TEST_TIMESCALE_DSN")


def show(title: str, values: list[float], unit: str = "readings/s") -> dict[str, float]:
    """Print and return min, median and max."""
    found = spread(values)
    print(f"{title:58} {found['min']:>12,.0f} {found['median']:>12,.0f} {found['max']:>12,.0f}  {unit}", flush=True)
    return found


def bench_core(_rig: Rig, runs: int) -> dict[str, Any]:
    """(a) The core alone."""
    return {"readings_per_s": show("core: validate + settle, one core", [core.run_once(n) for n in range(runs)])}


def bench_settle(rig: Rig, runs: int) -> dict[str, Any]:
    """(b) Kafka → committed against memory-fed, on each database."""
    servers = {"postgresql": rig.addresses.database}
    if TIMESCALE_DSN:
        servers["timescaledb"] = TIMESCALE_DSN
    else:
        print("no TEST_TIMESCALE_DSN: TimescaleDB is not measured", file=sys.stderr)
    frames, energy_wh = settle.make_frames()
    return {name: _bench_settle(rig, (name, server), (frames, energy_wh), runs) for name, server in servers.items()}


def _bench_settle(rig: Rig, database: tuple[str, str], job: tuple[list[list[bytes]], int], runs: int) -> dict[str, Any]:
    (name, server), (frames, energy_wh) = database, job
    readings = settle.METERS * settle.ROUNDS
    cases: dict[str, tuple[int, dict[str, str]]] = {
        "memory": (0, {}),
        "one worker": (1, {}),
        "two workers": (2, {}),
        "memory, state in every transaction": (0, {"settle.checkpoint_batches": "1"}),
    }
    rates: dict[str, list[float]] = {case: [] for case in cases}
    costs: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
    for _ in repeats(runs):
        for case, (workers, values) in cases.items():
            place = rig.place(settle.METERS, server, values)
            if workers:
                found = settle.from_kafka(rig, place, workers, frames)
                rates[case].append(found["readings_per_s"])
                costs[case].append(found["cpu_s_per_million"])
            else:
                rates[case].append(settle.from_memory(place, rig.addresses.kafka, frames))
            settle.check_sum(place, readings, energy_wh)
            rig.drop(place)
    table = {case: show(f"{name}: {case}", values) for case, values in rates.items()}
    ratios = {
        "one worker : memory": [b / a for a, b in zip(rates["memory"], rates["one worker"], strict=True)],
        "two workers : one": [b / a for a, b in zip(rates["one worker"], rates["two workers"], strict=True)],
        "checkpoints : state each time": [
            a / b for a, b in zip(rates["memory"], rates["memory, state in every transaction"], strict=True)
        ],
    }
    for title, values in ratios.items():
        found = spread(values)
        print(f"{name + ': ' + title:58} {found['min']:>12.2f} {found['median']:>12.2f} {found['max']:>12.2f}")
    return {
        "readings_per_s": table,
        "ratios": {title: spread(values) for title, values in ratios.items()},
        "cpu_s_per_million": costs,
    }


def bench_path(rig: Rig, runs: int) -> dict[str, Any]:
    """(c) MQTT → committed."""
    results: dict[str, Any] = {}
    for per_message, readings in ((1, 200_000), (100, 1_000_000)):
        for way, run in (("drain", path.drain), ("live", path.live)):
            found = [run(rig, readings, per_message) for _ in repeats(runs)]
            title = f"MQTT → committed, {way}, {per_message} a message"
            rates = show(title, [row["readings_per_s"] for row in found])
            results[f"{way} {per_message}"] = {"readings_per_s": rates, "runs": found}
    return results


def bench_latency(rig: Rig, runs: int) -> dict[str, Any]:
    """(d) Publish → charge, publish → alarm."""
    found = [latency.run_once(rig) for _ in repeats(runs)]
    for kind, percent in (("charge", "p50"), ("charge", "p99"), ("alarm", "p99")):
        show(f"publish → {kind} visible, {percent}", [row[f"{kind}_ms"][percent] for row in found], "ms")
    return {"runs": found}


def bench_restart(rig: Rig, runs: int) -> dict[str, Any]:
    """(e) Restart with a million meters."""
    found = [restart.run_once(rig) for _ in repeats(runs)]
    show("restart, 1,000,000 meters: first commit after", [row["first_commit_s"] for row in found], "s")
    small = restart.run_once(rig, restart.SMALL)
    each = [(row["memory_mb"] - small["memory_mb"]) * 1024**2 / (row["meters"] - restart.SMALL) for row in found]
    return {"runs": found, "bytes_a_meter": show("memory of the worker a meter", each, "bytes")}


def bench_disk(rig: Rig, _runs: int) -> dict[str, Any]:
    """(f) Bytes a reading on disk."""
    servers = {"postgresql": rig.addresses.database} | ({"timescaledb": TIMESCALE_DSN} if TIMESCALE_DSN else {})
    rows = [disk.measure(server, kind, disk.METERS, disk.DAYS) for server in servers.values() for kind in disk.KINDS]
    print(disk.table(rows))
    return {"rows": rows}


def bench_projection(_rig: Rig | None, _runs: int) -> dict[str, Any]:
    """Errors of the projection on real loads; no component is needed."""
    found = projection.run()
    print(projection.table(found))
    return found


def bench_tariff(rig: Rig, runs: int) -> dict[str, Any]:
    """(g) A tariff of time of use x tiers x demand against a flat one."""
    job = settle.make_frames()
    found = [tariff.run_once(rig, job) for _ in repeats(runs)]
    flat, rich = tariff.TARIFFS
    pairs = [
        {name: tariff.worker_us(tariff.TARIFFS[name]) for name in (flat, rich)} for _ in range(tariff.WORKER_REPEATS)
    ]
    results: dict[str, Any] = {
        "worker_us_a_reading": {name: spread([pair[name] for pair in pairs]) for name in (flat, rich)}
    }
    for name, found_us in results["worker_us_a_reading"].items():
        title = f"worker's own code, {name}, µs of CPU a reading"
        print(f"{title:58} {found_us['min']:>12.2f} {found_us['median']:>12.2f} {found_us['max']:>12.2f}", flush=True)
    for way in found[0]:
        rows = [row[way] for row in found]
        rates = {
            name: show(f"settle, {way}, {name}", [row[name]["readings_per_s"] for row in rows])
            for name in tariff.TARIFFS
        }
        ratios = {
            "of the flat rate": spread([row[rich]["readings_per_s"] / row[flat]["readings_per_s"] for row in rows]),
            "of the flat rate, by CPU": spread(
                [row[flat]["cpu_s_per_million"] / row[rich]["cpu_s_per_million"] for row in rows]
            ),
        }
        for title, values in ratios.items():
            print(
                f"{'  ' + title:58} {values['min']:>12.2f} {values['median']:>12.2f} {values['max']:>12.2f}", flush=True
            )
        results[way] = {"readings_per_s": rates, "ratios": ratios, "runs": rows}
    return results


def bench_impact(rig: Rig, runs: int) -> dict[str, Any]:
    """A tariff tried on 10,000 accounts x a year."""
    found = [impact.run_once(rig) for _ in repeats(runs)]
    title = f"gridtally tariff impact, {impact.ACCOUNTS:,} accounts x a year"
    return {"took_s": show(title, [row["took_s"] for row in found], "s"), "runs": found}


def bench_bills(rig: Rig, runs: int) -> dict[str, Any]:
    """Sub-totals, a bill run and its issue, 50,000 accounts x 31 days."""
    found = [bills.run_once(rig.addresses.database) for _ in repeats(runs)]
    shown = {
        part: show(f"bills, {bills.ACCOUNTS:,} accounts: {part}", [row[f"{part}_s"] for row in found], "s")
        for part in ("refresh", "run", "issue")
    }
    return {"seconds": shown, "runs": found}


BENCHES: dict[str, Callable[[Any, int], dict[str, Any]]] = {
    "core": bench_core,
    "settle": bench_settle,
    "path": bench_path,
    "latency": bench_latency,
    "restart": bench_restart,
    "disk": bench_disk,
    "tariff": bench_tariff,
    "projection": bench_projection,
    "impact": bench_impact,
    "bills": bench_bills,
}
ALONE = {"projection"}
"""Benchmarks that need no component."""


def main() -> None:
    """Run what is named."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], metavar="NAME")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each; at least 3 for figures to be quoted")
    options = parser.parse_args()
    names = options.names or list(BENCHES)
    runs = options.runs
    directory = Path(tempfile.mkdtemp(prefix="gridtally-bench-"))
    rig = None if ALONE.issuperset(names) else Rig(directory)
    head = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{head}, load {os.getloadavg()[0]:.1f}\n{'':58} {'min':>12} {'median':>12} {'max':>12}")
    try:
        for name in names:
            found = {"at": dt.datetime.now(dt.UTC).isoformat(), "machine": head, **BENCHES[name](rig, runs)}  # noqa: TID251
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    finally:
        if rig is not None:
            rig.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
