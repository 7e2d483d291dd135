"""One supervisor for everything: starts it in order, starts again what dies, stops it all within ten seconds."""

import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import psycopg

from connectors.embedded.kafka import kafka_spec
from connectors.embedded.nats import cap_messages, nats_spec
from connectors.embedded.postgres import postgres_spec
from connectors.embedded.process import LOOPBACK, ProcessSpec, choose_port, spawn
from connectors.topics import TopicError, ensure_topics
from metering.tariff import TariffError
from monitoring.log import get_logger
from schemas.addresses import FILE_NAME as ADDRESSES_FILE
from schemas.addresses import Addresses, write_addresses
from schemas.settings import Settings
from storage.first_tariffs import import_first_tariffs
from storage.migrate import MigrationError, migrate

MQTT_PORT, NATS_PORT, KAFKA_PORT, CONTROLLER_PORT, POSTGRES_PORT = 1883, 4222, 9092, 9093, 5433
START_TIMEOUT_S = 120.0
STOP_WORKERS_S = 5.0
STOP_COMPONENTS_S = 4.0
TURN_S = 0.1
BACK_OFF_S, BACK_OFF_MAX_S = 0.5, 30.0
STEADY_AFTER_S = 20.0
"""A process that ran this long starts again with the shortest wait."""
FAILURES_MAX = 5
"""In a row; then the state is `failed`, and it is still tried every BACK_OFF_MAX_S."""
LOG_BYTES_MAX = 64 * 1024**2
WORKERS = ("bridge", "validate", "settle", "detect", "console")

log = get_logger("connectors.supervisor")


class SupervisorError(RuntimeError):
    """The system cannot be started; the message says why and what to do."""


@dataclasses.dataclass
class _Child:
    spec: ProcessSpec
    process: "subprocess.Popen[bytes] | None" = None
    state: str = "stopped"
    started_at: float = 0.0
    failures: int = 0
    retry_at: float = 0.0


class Supervisor:
    """Keeps the processes of one data directory running."""

    def __init__(
        self,
        settings: Settings,
        settle_workers: int = 1,
        config: Path | None = None,
        *,
        workers: Sequence[str] = WORKERS,
    ) -> None:
        """Prepare; nothing is started yet. `workers` are those to run beside the components."""
        self.settings = settings
        self.data_dir = settings.data_dir.resolve()
        self.settle_workers = settle_workers
        self.workers = tuple(workers)
        self.config = config.resolve() if config else None
        self.addresses: Addresses | None = None
        self._components: list[_Child] = []
        self._workers: list[_Child] = []
        self._stop = False
        self._lock: IO[str] | None = None
        self._shown = ""
        self._nats_port = 0
        self._nats_capped = False
        self._nats_asked = 0.0

    # -- starting ------------------------------------------------------------------------------------------------

    def start(self, say: Callable[[str], None] = lambda _: None) -> Addresses:
        """Start components, migrate, start workers; return the addresses once the components answer.

        Raises:
            SupervisorError: It already runs, or something does not come up.
        """
        self._take_lock()
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        addresses = self._prepare_components(say)
        for child in self._components:
            self._spawn(child)
        self._wait_components(say)
        say("bringing the database to the newest schema")
        try:
            migrate(addresses.database)
            import_first_tariffs(addresses.database)
            ensure_topics(self.settings.kafka, addresses.kafka)
            write_addresses(self.settings, addresses)
        except (MigrationError, TariffError, TopicError, psycopg.Error, OSError) as error:
            raise SupervisorError(str(error)) from error
        self.addresses = addresses
        self._workers = [_Child(self._worker_spec(name)) for name in self._worker_names()]
        for child in self._workers:
            self._spawn(child)
        self._write_state()
        return addresses

    def _take_lock(self) -> None:
        self.settings.run_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "log").mkdir(exist_ok=True)
        path = self.settings.run_dir / "supervisor.lock"
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip()
            lock.close()
            raise SupervisorError(
                f"gridtally already runs on {self.data_dir} (process {owner}); stop it, or use another --data-dir"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        self._write_state()  # what the last one left, pids and addresses, is not so any more
        (self.settings.run_dir / ADDRESSES_FILE).unlink(missing_ok=True)

    def _prepare_components(self, say: Callable[[str], None]) -> Addresses:
        settings, taken = self.settings, set[int]()
        mqtt, kafka = settings.mqtt.url, settings.kafka.bootstrap_servers
        dsn = settings.database.dsn.get_secret_value() if settings.database.dsn else None
        try:
            if mqtt is None:
                port = choose_port(MQTT_PORT, taken)
                self._nats_port = choose_port(NATS_PORT, taken)
                self._components.append(_Child(nats_spec(self.data_dir / "mqtt", port, self._nats_port)))
                mqtt = f"mqtt://{LOOPBACK}:{port}"
            if dsn is None:
                spec, dsn = postgres_spec(self.data_dir / "postgres", choose_port(POSTGRES_PORT, taken))
                self._components.append(_Child(spec))
            if kafka is None:
                port, controller = choose_port(KAFKA_PORT, taken), choose_port(CONTROLLER_PORT, taken)
                spec = kafka_spec(
                    self.data_dir / "kafka",
                    port,
                    controller,
                    lambda i, n, name: say(f"fetching Kafka, {i} of {n}: {name}"),
                )
                self._components.append(_Child(spec))
                kafka = f"{LOOPBACK}:{port}"
        except (OSError, RuntimeError) as error:
            raise SupervisorError(str(error)) from error
        console = settings.console
        console_port = choose_port(console.port, taken)
        host = LOOPBACK if console.host in ("0.0.0.0", "::") else console.host  # noqa: S104  # compared, not bound
        return Addresses(mqtt, kafka, dsn, f"http://{host}:{console_port}")

    def _wait_components(self, say: Callable[[str], None]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        waiting = [child.spec.name for child in self._components]
        if waiting:
            say(f"starting {', '.join(waiting)}")
        while waiting and not self._stop:
            self._turn()
            waiting = [child.spec.name for child in self._components if child.state != "running"]
            failed = [child.spec.name for child in self._components if child.failures >= FAILURES_MAX]
            if failed or time.monotonic() > deadline:
                name = (failed or waiting)[0]
                raise SupervisorError(f"{name} does not come up: see {self.log_path(name)}{self._tail(name)}")
            time.sleep(TURN_S / 2)
        if self._stop:
            raise SupervisorError("stopped while starting")

    def _tail(self, name: str) -> str:
        lines = self.log_path(name).read_text("utf-8", errors="replace").strip().splitlines()
        return "".join(f"\n  {line[:300]}" for line in lines[-5:])

    def _worker_names(self) -> list[str]:
        more = [f"settle-{number}" for number in range(2, self.settle_workers + 1)]
        return [*self.workers, *more]

    def _worker_spec(self, name: str) -> ProcessSpec:
        role = name.split("-", maxsplit=1)[0]
        words = [role] if role in ("bridge", "console") else ["worker", role]
        command = [sys.executable, "-m", "gridtally", *words, "--data-dir", str(self.data_dir)]
        if self.config:
            command += ["--config", str(self.config)]
        if role not in ("bridge", "console"):
            command += ["--name", name]
        metrics = self.settings.run_dir / f"metrics-{name}.json"

        def prepare() -> None:
            metrics.unlink(missing_ok=True)

        def ready() -> bool:
            try:
                url = json.loads(metrics.read_text("utf-8"))["url"]
                with urllib.request.urlopen(f"{url}/ready", timeout=1) as answer:  # noqa: S310  # our own address
                    return bool(answer.status == 200)
            except (OSError, ValueError, urllib.error.URLError):
                return False

        root = str(Path(__file__).parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        return ProcessSpec(name, command, ready, environment={"PYTHONPATH": path}, prepare=prepare)

    def add(self, spec: ProcessSpec) -> None:
        """Keep one more process running, beside the workers."""
        child = _Child(spec)
        self._workers.append(child)
        self._spawn(child)

    # -- running -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Keep everything running until a signal comes; then stop it."""
        while not self._stop:
            self._turn()
            time.sleep(TURN_S)

    @property
    def stopping(self) -> bool:
        """Return whether a signal asked to stop."""
        return self._stop

    def turn(self) -> None:
        """Look after the processes once; for callers that do something else meanwhile."""
        self._turn()

    def all_running(self) -> bool:
        """Return whether every process does its work."""
        return all(child.state == "running" for child in self._children())

    def _children(self) -> list[_Child]:
        return self._components + self._workers

    def _turn(self) -> None:
        now = time.monotonic()
        for child in self._children():
            self._look_after(child, now)
        self._cap_nats(now)
        self._write_state()

    def _look_after(self, child: _Child, now: float) -> None:
        if child.process is None:
            if now >= child.retry_at:
                self._spawn(child)
            return
        code = child.process.poll()
        if code is not None:
            self._note_death(child, code, now)
        elif child.state != "running" and child.spec.ready():
            child.state = "running"
            log.info("process_running", name=child.spec.name, seconds=round(now - child.started_at, 2))
        elif child.state == "running" and now - child.started_at > STEADY_AFTER_S:
            child.failures = 0

    def _note_death(self, child: _Child, code: int, now: float) -> None:
        child.process = None
        child.failures += 1
        wait_s = min(BACK_OFF_S * 2 ** (child.failures - 1), BACK_OFF_MAX_S)
        child.retry_at = now + wait_s
        child.state = "failed" if child.failures >= FAILURES_MAX else "starting"
        log.warning("process_died", name=child.spec.name, code=code, failures=child.failures, wait_s=wait_s)

    def _spawn(self, child: _Child) -> None:
        path = self.log_path(child.spec.name)
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        child.started_at = time.monotonic()
        try:
            child.spec.prepare()
            child.process = spawn(child.spec, path)
        except (OSError, subprocess.SubprocessError) as error:
            with path.open("a") as file:
                file.write(f"{error}\n")
            self._note_death(child, -1, child.started_at)
            return
        if child.state != "failed":
            child.state = "starting"
        log.info("process_started", name=child.spec.name, pid=child.process.pid)

    def _cap_nats(self, now: float) -> None:
        """Cap the broker's store below its limit once its stream exists: at the limit the bridge must still get in."""
        if not self._nats_port or self._nats_capped or now - self._nats_asked < 2 or not self._workers:
            return
        self._nats_asked = now
        try:
            self._nats_capped = cap_messages(self._nats_port)
        except (OSError, ValueError) as error:
            log.warning("store_not_capped", error=str(error))

    def log_path(self, name: str) -> Path:
        """Return the log of a process."""
        return self.data_dir / "log" / f"{name}.log"

    def _write_state(self) -> None:
        rows = [
            {
                "name": child.spec.name,
                "pid": child.process.pid if child.process else None,
                "state": child.state,
            }
            for child in self._children()
        ]
        text = json.dumps({"supervisor": os.getpid(), "processes": rows})
        if text != self._shown:
            partial = self.settings.run_dir / "supervisor.json.new"
            partial.write_text(text, "utf-8")
            partial.replace(self.settings.run_dir / "supervisor.json")
            self._shown = text

    # -- stopping ------------------------------------------------------------------------------------------------

    def _on_signal(self, *_: object) -> None:
        self._stop = True

    def stop(self) -> None:
        """Stop the workers, then the components, together within ten seconds."""
        if self._lock is None:
            return  # another has this directory: what it runs and shows is not ours to touch
        self._stop_all(self._workers, STOP_WORKERS_S)
        self._stop_all(self._components, STOP_COMPONENTS_S)
        self._write_state()
        self._lock.close()
        self._lock = None

    def _stop_all(self, children: Sequence[_Child], timeout_s: float) -> None:
        alive = [child for child in children if child.process is not None]
        for child in alive:
            assert child.process is not None
            child.process.send_signal(child.spec.stop_signal)
        deadline = time.monotonic() + timeout_s
        for child in alive:
            assert child.process is not None
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("process_killed", name=child.spec.name)
                child.process.kill()
                child.process.wait()
            child.process = None
        for child in children:
            child.state = "stopped"
