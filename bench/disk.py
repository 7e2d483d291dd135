"""(f) Bytes on disk per reading, before and after conversion to the columnstore.

Job: METERS meters x DAYS days of quarter-hours through the core and `copy_facts`, in the order in which meters with a clock
of their own would send them: each round spread over a minute, one message a reading, on 4 partitions. Energy only, and
with three voltages and currents. Sizes hold heap or columnstore, indexes and maps. Run `python -m bench.disk --help`.
"""

import argparse
import contextlib
import dataclasses
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
from storage.migrate import migrate
from storage.partition import DailyPartitions
from storage.raw_record import ELEMENTS_PER_MESSAGE
from storage.settlement import copy_facts, days_of
from storage.timescale import has_timescaledb

METERS = 10_000
DAYS = 2
ROUNDS_A_DAY = 96
PARTITIONS = 4
FRAME_WAIT_S = 0.02
"""The bridge's `batch_wait_s`: what arrives within it shares a frame."""
SPREAD_S = 60.0
TARGETS = {"energy": 12.0, "electrical": 40.0}


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


@dataclasses.dataclass
class Arrival:
    """How readings come in: each message at a moment of its own within `spread_s`, frames of what comes within FRAME_WAIT_S."""

    spread_s: float
    raw_partition: np.ndarray
    """Of each message."""
    frame_partition: np.ndarray
    """Of each meter."""
    readings_a_message: int
    next_offset: np.ndarray
    """Of meter.raw and meter.readings, by partition; moves on with each round."""

    def take(self, columns: Columns, number: int) -> Columns:
        """Return one round's readings in the order of their arrival, with the lineage that bridge and validate give."""
        rng = np.random.default_rng(number)
        arrival_s = rng.uniform(0, self.spread_s, len(self.raw_partition))
        raw_offset, place = self._frames(0, self.raw_partition, arrival_s)
        message, element = np.divmod(np.arange(len(self.frame_partition)), self.readings_a_message)
        frame_offset, _ = self._frames(1, self.frame_partition, arrival_s[message])
        columns = {
            **columns,
            "raw_partition": self.raw_partition[message],
            "raw_offset": raw_offset[message],
            "raw_index": place[message] * ELEMENTS_PER_MESSAGE + element,
            "frame_offset": frame_offset,
            "frame_partition": self.frame_partition,
        }
        order = np.argsort(arrival_s[message], kind="stable")
        return {name: values[order] for name, values in columns.items()}

    def _frames(self, topic: int, partition: np.ndarray, arrival_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return offset and place in its frame of each record; one frame for each wait of each partition."""
        offset, place = np.zeros((2, len(partition)), np.int64)
        for target in range(PARTITIONS):
            ours = np.flatnonzero(partition == target)
            ours = ours[np.argsort(arrival_s[ours])]
            _, first, frame = np.unique(arrival_s[ours] // FRAME_WAIT_S, return_index=True, return_inverse=True)
            offset[ours] = self.next_offset[topic, target] + frame
            place[ours] = np.arange(len(ours)) - first[frame]
            self.next_offset[topic, target] += len(first)
        return offset, place


@dataclasses.dataclass(frozen=True)
class Job:
    """What is measured."""

    kind: str
    meters: int
    days: int
    spread_s: float
    readings_a_message: int

    def arrival(self, meter_id: list[str]) -> Arrival:
        """Return the way in: each meter by itself, or so many together by a gateway."""
        frame_partition = np.array([partition_of(name, PARTITIONS) for name in meter_id])
        gateways = [f"g-{number}" for number in range(-(-self.meters // self.readings_a_message))]
        senders = meter_id if self.readings_a_message == 1 else gateways
        return Arrival(
            self.spread_s,
            np.array([partition_of(name, PARTITIONS) for name in senders]),
            frame_partition,
            self.readings_a_message,
            np.zeros((2, PARTITIONS), np.int64),
        )


def fill(conn: psycopg.Connection, job: Job) -> int:
    """Settle the readings into an empty database; return how many facts that made."""
    prices = make_prices()
    fleet = make_meters(job.meters, prices)
    states = MeterStates.empty(fleet.size)
    arrival = job.arrival(fleet.meter_id[1:])
    rounds = job.days * ROUNDS_A_DAY
    registers = np.cumsum(household_wh(job.meters, rounds), axis=0) + 10_000
    native = DailyPartitions()
    for number in range(rounds):
        electrical = job.kind == "electrical"
        columns = round_columns(np.arange(1, fleet.size), registers[number], number, electrical=electrical)
        batch = arrival.take(columns, number)
        settled = settle_batch(plan_batch(batch, states, fleet), {}, states, fleet, prices)
        states.put(settled.touched, settled.states)
        native.ensure(conn, days_of(batch["read_at"]))
        with conn.transaction():
            copy_facts(conn, settled.facts)
    found = conn.execute("select count(*), sum(energy_wh) from fact").fetchone()
    assert found == (job.meters * rounds, int((registers[-1] - registers[0]).sum()))
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


def measure(server: str, job: Job) -> dict[str, Any]:
    """Return bytes per reading on one server; the sum of the ledger is the same before and after."""
    with database(server) as conn:
        readings = fill(conn, job)
        result: dict[str, Any] = {**dataclasses.asdict(job), "readings": readings, "server": "postgresql"}
        result["before"] = round(size_bytes(conn) / readings, 1)
        if has_timescaledb(conn):
            energy = conn.execute("select sum(energy_wh) from fact").fetchone()
            for (chunk,) in conn.execute("select c::text from show_chunks('fact') c").fetchall():
                conn.execute(f"call convert_to_columnstore('{chunk}')")
            assert conn.execute("select sum(energy_wh) from fact").fetchone() == energy
            after = round(size_bytes(conn) / readings, 1)
            result |= {"server": "timescaledb", "after": after, "target": TARGETS[job.kind]}
            result["columns"] = column_bytes(conn, readings)
    return result


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the results as text."""
    names = ("server", "kind", "readings", "spread_s", "readings_a_message", "before", "after", "target")
    lines = [[name.replace("_", " ") for name in names], *([str(row.get(name, "-")) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Bytes on disk per reading.", allow_abbrev=False)
    parser.add_argument("--dsn", action="append", required=True, help="server to measure on; may be given again")
    parser.add_argument("--kind", choices=tuple(TARGETS), action="append", help="all kinds by default")
    parser.add_argument("--meters", type=int, default=METERS)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--spread-s", type=float, default=SPREAD_S, help="over which the meters of a round are spread")
    parser.add_argument("--readings-a-message", type=int, default=1, help="above 1: by gateways")
    options = parser.parse_args()
    rows = [
        measure(dsn, Job(kind, options.meters, options.days, options.spread_s, options.readings_a_message))
        for dsn in options.dsn
        for kind in options.kind or TARGETS
    ]
    print(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
