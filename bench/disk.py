"""(f) Bytes on disk per reading, before and after conversion to the columnstore.

Job: METERS meters x DAYS days of quarter-hours through the core and `copy_facts`, in the order in which meters with a clock
of their own would send them: each round spread over a minute, one message a reading, on 4 partitions. Energy only, and
with three voltages and currents. Sizes hold heap or columnstore, indexes and maps. Run `python -m bench.disk --help`.
"""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psycopg

from bench.made import make_meters, make_prices, round_columns
from metering.fact import Columns
from metering.settlement import plan_batch, settle_batch
from metering.state import MeterStates
from schemas.ids import partition_of
from storage.migrate import has_timescaledb, migrate
from storage.partition import DailyPartitions
from storage.settlement import copy_facts, days_of

METERS = 10_000
DAYS = 2
ROUNDS_A_DAY = 96
PARTITIONS = 4
FRAME_WAIT_S = 0.02
"""The bridge's `batch_wait_s`: what arrives within it shares a frame."""
SPREAD_S = 60.0
TARGETS = {"energy": 12.0, "electrical": 40.0}
KINDS = tuple(TARGETS)


def household_wh(meters: int, rounds: int, seed: int = 1) -> np.ndarray:
    """Return energies that look like households', shape (rounds, meters), Wh: a level, a daily shape, noise with memory.

    The level spreads as in real streets (a median of 110 Wh a quarter-hour); an hour's use resembles the hour before.
    """
    rng = np.random.default_rng(seed)
    level = rng.normal(np.log(110), 0.6, meters)
    evening = rng.normal(19, 2, meters)
    noise = np.zeros(meters)
    energy = np.empty((rounds, meters), np.int64)
    for number in range(rounds):
        noise = 0.8 * noise + rng.normal(0, 0.35, meters)
        hour = number % ROUNDS_A_DAY / 4
        away = np.abs(hour - evening)
        shape = np.exp(-(np.minimum(away, 24 - away) ** 2) / 8)
        energy[number] = np.exp(level + noise + shape)
    return energy


def with_arrival(columns: Columns, number: int, partition: np.ndarray, counters: np.ndarray) -> Columns:
    """Return one round's readings in the order of their arrival, with the lineage that bridge and validate would give.

    Args:
        columns: One reading of each meter.
        number: Of the round; each has its own order.
        partition: Of each meter.
        counters: Next offset of each partition, moved on in place.
    """
    rng = np.random.default_rng(number)
    arrival_s = rng.uniform(0, SPREAD_S, len(partition))
    offsets, index = np.zeros((2, len(partition)), np.int64)
    for target in range(PARTITIONS):
        ours = np.flatnonzero(partition == target)
        ours = ours[np.argsort(arrival_s[ours])]
        _, frame = np.unique(arrival_s[ours] // FRAME_WAIT_S, return_inverse=True)
        offsets[ours] = counters[target] + frame
        first = np.r_[True, frame[1:] != frame[:-1]]
        index[ours] = (np.arange(len(ours)) - np.flatnonzero(first)[frame]) * int(os.environ.get("RI", "1024"))
        counters[target] += frame[-1] + 1
    order = np.argsort(arrival_s)
    columns = {**columns, "raw_partition": partition, "raw_offset": offsets, "raw_index": index}
    columns |= {"frame_offset": offsets, "frame_partition": partition}
    return {name: values[order] for name, values in columns.items()}


def fill(conn: psycopg.Connection, kind: str, meters: int, days: int) -> int:
    """Settle the readings into an empty database; return how many facts that made."""
    prices = make_prices()
    fleet = make_meters(meters, prices)
    states = MeterStates.empty(fleet.size)
    partition = np.array([partition_of(name, PARTITIONS) for name in fleet.meter_id[1:]])
    registers = np.cumsum(household_wh(meters, days * ROUNDS_A_DAY), axis=0) + 10_000
    counters = np.zeros(PARTITIONS, np.int64)
    native = DailyPartitions()
    for number in range(days * ROUNDS_A_DAY):
        columns = round_columns(np.arange(1, fleet.size), registers[number], number, electrical=kind == "electrical")
        batch = with_arrival(columns, number, partition, counters)
        settled = settle_batch(plan_batch(batch, states, fleet), {}, states, fleet, prices)
        states.put(settled.touched, settled.states)
        native.ensure(conn, days_of(batch["read_at"]))
        with conn.transaction():
            copy_facts(conn, settled.facts)
    found = conn.execute("select count(*), sum(energy_wh) from fact").fetchone()
    assert found == (meters * days * ROUNDS_A_DAY, int((registers[-1] - registers[0]).sum()))
    return int(found[0])


def size_bytes(conn: psycopg.Connection) -> int:
    """Return the bytes of `fact`: all partitions or chunks, with indexes and maps."""
    query = "select hypertable_size('fact')" if has_timescaledb(conn) else (
        "select sum(pg_total_relation_size(inhrelid)) from pg_inherits where inhparent = 'fact'::regclass"
    )  # fmt: skip
    conn.execute("vacuum analyze fact")
    row = conn.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def column_bytes(conn: psycopg.Connection, readings: int) -> dict[str, float]:
    """Return the columnstore's bytes per reading of each column, those under 0.01 left out."""
    sizes: dict[str, float] = {}
    chunks = conn.execute(
        "select compress_relid::regclass::text from _timescaledb_catalog.compression_settings"
        " where compress_relid is not null"
    ).fetchall()
    for (chunk,) in chunks:
        names = [
            row[0]
            for row in conn.execute(
                "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0", (chunk,)
            )
        ]
        sums = ", ".join(f'sum(pg_column_size("{name}"))::float8' for name in names)
        row = conn.execute(f"select {sums} from {chunk}").fetchone()  # type: ignore[arg-type]
        assert row is not None
        for name, value in zip(names, row, strict=True):
            sizes[name] = sizes.get(name, 0) + (value or 0) / readings
    return {name: round(value, 2) for name, value in sorted(sizes.items(), key=lambda item: -item[1]) if value >= 0.01}


@contextlib.contextmanager
def database(server: str) -> Iterator[psycopg.Connection]:
    """Make a database for one measurement and drop it after."""
    name = f"bench_disk_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"create database {name}")
    dsn = server.rsplit("/", 1)[0] + f"/{name}"
    try:
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            yield conn
    finally:
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute(f"drop database {name} with (force)")


def measure(server: str, kind: str, meters: int, days: int) -> dict[str, Any]:
    """Return bytes per reading of one kind on one server."""
    with database(server) as conn:
        readings = fill(conn, kind, meters, days)
        result: dict[str, Any] = {"kind": kind, "readings": readings, "timescaledb": has_timescaledb(conn)}
        result["before"] = round(size_bytes(conn) / readings, 1)
        if result["timescaledb"]:
            for (chunk,) in conn.execute("select c::text from show_chunks('fact') c").fetchall():
                conn.execute(f"call convert_to_columnstore('{chunk}')")
            result["after"] = round(size_bytes(conn) / readings, 1)
            result["target"] = TARGETS[kind]
            result["columns"] = column_bytes(conn, readings)
            result["sum_after_wh"] = int(conn.execute("select sum(energy_wh) from fact").fetchone()[0])  # type: ignore[index]
    return result


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the results as text."""
    lines = [f"{'server':12} {'readings':>10} {'kind':12} {'before':>8} {'after':>8} {'target':>8}   bytes a reading"]
    for row in rows:
        server = "timescaledb" if row["timescaledb"] else "postgresql"
        after, target = row.get("after", "-"), row.get("target", "-")
        lines.append(f"{server:12} {row['readings']:>10} {row['kind']:12} {row['before']:>8} {after:>8} {target:>8}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)  # type: ignore[union-attr]
    parser.add_argument("--dsn", action="append", required=True, help="server to measure on; may be given again")
    parser.add_argument("--meters", type=int, default=METERS)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--kind", choices=KINDS, action="append")
    options = parser.parse_args()
    rows = [measure(dsn, kind, options.meters, options.days) for dsn in options.dsn for kind in options.kind or KINDS]
    print(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
