"""The real components for measurements, a database and topics of its own for each run, and what processes cost."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg

from connectors.supervisor import Supervisor
from connectors.topics import ensure_topics
from schemas.addresses import Addresses
from schemas.settings import Settings, load_settings
from storage.migrate import migrate
from storage.registry import import_meters, import_tariff

ROOT = Path(__file__).parent.parent
TARIFF = ROOT / "tariffs" / "county-residential.yaml"
TICKS = os.sysconf("SC_CLK_TCK")
WAIT_MAX_S = 120.0
_numbers = itertools.count(1)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process, its reaped children and its living children have used."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        fields = text[text.rindex(")") + 2 :].split()
        if int(path.parent.name) == pid or int(fields[1]) == pid:
            total += sum(map(int, fields[11:15])) / TICKS
    return total


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process, MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = WAIT_MAX_S, step_s: float = 0.02) -> float:
    """Wait until a condition holds and return when it did, by the monotonic clock."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s} s for {what}")
        time.sleep(step_s)
    return time.monotonic()


@dataclasses.dataclass
class Place:
    """A database and topics of one run."""

    dsn: str
    prefix: str
    environment: dict[str, str]
    settings: Settings
    processes: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)
    log: Path = Path("/dev/null")

    def sql(self, query: str) -> list[tuple[object, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            return conn.execute(query).fetchall()  # type: ignore[arg-type]

    def assigned(self) -> list[int]:
        """Return how many partitions each running settle worker was given last, by its log."""
        found: dict[int, int] = {}
        for line in self.log.read_text().splitlines():
            if '"event": "partitions_assigned"' in line:
                row = json.loads(line)
                found[row["pid"]] = len(row["offsets"])
        return sorted(found.values())

    def assigned_stages(self) -> int:
        """Return how many workers have their partitions."""
        return len(self.assigned())

    def wait_settled(self, readings: int, consumer: str = "settle") -> float:
        """Wait until so many readings have an outcome, and return when that was, by the monotonic clock."""
        query = f"select coalesce(sum(readings), 0) from stream_offset where consumer = '{consumer}'"
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            return wait_for(lambda: conn.execute(query).fetchone()[0] >= readings, f"{readings} readings")  # type: ignore[index,arg-type]

    def spawn(self, *words: str) -> subprocess.Popen[bytes]:
        """Start one of our processes."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gridtally", *words], env=self.environment, cwd=ROOT, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End all processes of this run."""
        for process in self.processes:
            process.send_signal(number)
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


class Rig:
    """MQTT broker, Kafka and PostgreSQL started for the measurements, or a PostgreSQL given by a DSN."""

    def __init__(self, data_dir: Path) -> None:
        """Start them."""
        self.data_dir = data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        self.settings = load_settings(data_dir=data_dir, environment={}).settings
        self.supervisor = Supervisor(self.settings, workers=())
        self.addresses: Addresses = self.supervisor.start()

    def pid(self, name: str) -> int:
        """Return the process of a component."""
        rows = json.loads((self.settings.run_dir / "supervisor.json").read_text())["processes"]
        return int(next(row["pid"] for row in rows if row["name"] == name))

    def place(self, meters: int, server: str | None = None, values: Mapping[str, str] | None = None) -> Place:
        """Return a fresh database with so many meters, and topics of its own.

        Args:
            meters: Imported as ``b-0000001`` and on.
            server: DSN of another database server; ours by default.
            values: Further settings for the processes, by dotted name.
        """
        name = f"bench_{os.getpid()}_{next(_numbers)}"
        server = server or self.addresses.database
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute(f"create database {name}")
        dsn = server.rsplit("/", 1)[0] + f"/{name}"
        migrate(dsn)
        path = self.data_dir / "meters.csv"
        path.write_text("meter_id\n" + "".join(f"b-{number:07d}\n" for number in range(1, meters + 1)))
        with psycopg.connect(dsn, autocommit=True) as conn:
            import_tariff(conn, TARIFF)
            assert not import_meters(conn, path).faults
        run_dir = self.data_dir / name
        environment = {
            **os.environ,
            "GRIDTALLY_DATA_DIR": str(run_dir),
            "GRIDTALLY_MQTT__URL": self.addresses.mqtt,
            "GRIDTALLY_MQTT__CLIENT_ID": name.replace("_", "-"),
            "GRIDTALLY_KAFKA__BOOTSTRAP_SERVERS": self.addresses.kafka,
            "GRIDTALLY_KAFKA__TOPIC_PREFIX": f"{name}.",
            "GRIDTALLY_DATABASE__DSN": dsn,
            **{f"GRIDTALLY_{key.upper().replace('.', '__')}": value for key, value in (values or {}).items()},
        }
        settings = load_settings(environment=environment).settings
        ensure_topics(settings.kafka, self.addresses.kafka)
        return Place(dsn, f"{name}.", environment, settings, log=self.data_dir / f"{name}.log")

    def drop(self, place: Place) -> None:
        """End a run and remove its database."""
        place.stop()
        name = place.dsn.rsplit("/", 1)[1]
        with psycopg.connect(place.dsn.rsplit("/", 1)[0] + "/postgres", autocommit=True) as conn:
            conn.execute(f"drop database {name} with (force)")

    def stop(self) -> None:
        """Stop the components."""
        self.supervisor.stop()


def spread(values: list[float]) -> dict[str, float]:
    """Return min, median and max."""
    ordered = sorted(values)
    return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}


def repeats(times: int) -> Iterator[int]:
    """Count runs, telling which one is on."""
    for number in range(1, times + 1):
        print(f"  run {number} of {times}", file=sys.stderr, flush=True)
        yield number
