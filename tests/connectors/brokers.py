"""Real brokers and what is in them, for the tests of the edge."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from connectors.bridge import Bridge
from connectors.embedded.process import is_listening
from connectors.meter_log import MeterSender
from connectors.topics import ensure_topics
from schemas.addresses import Addresses
from schemas.frame import decode_raw
from schemas.settings import MqttSettings, Settings
from schemas.topic import METER_RAW
from tests.fixtures.stack import Stack

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
NOWHERE = "127.0.0.1:9"
"""Nothing listens there."""
_AT_ONCE = {"enable.auto.commit": False, "fetch.wait.max.ms": 10}
_numbers = itertools.count(1)


def wait(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Return what the condition gives once that is true; it does its own waiting."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
    raise AssertionError(f"waited {timeout_s} s for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def mosquitto(directory: Path, *lines: str) -> Iterator[str]:
    """Run a mosquitto of our own; give its address."""
    port = free_port()
    user = ["user root"] if os.geteuid() == 0 else []
    limits = ["persistence false", "max_inflight_messages 1000", "max_queued_messages 0"]
    config = [f"listener {port} 127.0.0.1", *limits, *user, *lines]
    (directory / "mosquitto.conf").write_text("\n".join([*config, ""]), "utf-8")
    with (directory / "mosquitto.log").open("ab") as log:
        process = subprocess.Popen([MOSQUITTO, "-c", str(directory / "mosquitto.conf")], stdout=log, stderr=log)
    try:
        wait(lambda: is_listening(port) or time.sleep(0.02), 10, "mosquitto")
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


class Forwarder:
    """A port that leads to another one while it is open: closed, what is behind it is unreachable."""

    def __init__(self, target: str) -> None:
        host, port = target.split(",", maxsplit=1)[0].split(":")
        self._target = host, int(port)
        self.port = free_port()
        self._listener: socket.socket | None = None

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


class Watched(Bridge):
    """A bridge that remembers what it received and acknowledged, by connection."""

    def __init__(self, settings: Settings, addresses: Addresses) -> None:
        super().__init__(settings, addresses)
        self.taken: list[tuple[int, int]] = []
        self.acked: list[tuple[int, int]] = []
        self.failures: list[str] = []

    def received(self, topic: bytes, payload: bytes, mid: int, flags: int, received_at_us: int) -> None:
        self.taken.append((self.epoch, mid))
        super().received(topic, payload, mid, flags, received_at_us)

    def send_acknowledgements(self, mids: Any) -> None:
        self.acked += [(self.epoch, mid) for mid in mids]
        super().send_acknowledgements(mids)

    def crash(self) -> None:
        """End as kill -9 does: nothing is drained and nobody is told."""
        link = self.socket()
        if link is not None:
            link.close()


class Edge:
    """A broker, Kafka topics of its own, and bridges between them."""

    def __init__(self, url: str, kafka: str, *, root: str | None = None) -> None:
        self.name = f"edge{os.getpid()}-{next(_numbers)}"
        self.url = url
        self.kafka = kafka
        self.root = root or self.name
        self.bridges: list[Bridge] = []
        self.sent: list[tuple[str, bytes]] = []
        self._consumer = Consumer({"bootstrap.servers": kafka, "group.id": self.name, **_AT_ONCE})
        self._next = [0, 0, 0]
        self._rows: list[tuple[int, str, bytes, int]] = []
        ensure_topics(self.settings().kafka, kafka)
        wait(self._has_leaders, 30, "the topic's partitions to have leaders")

    def _has_leaders(self) -> bool | None:
        topic = f"{self.name}.{METER_RAW}"
        try:
            for partition in range(3):
                self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        except KafkaException:
            return time.sleep(0.2)
        return True

    def settings(self, **mqtt: Any) -> Settings:
        filters = [f"{self.root}/v1/meters/+/readings", f"{self.root}/v1/gateways/+/readings"]
        return Settings.model_validate(
            {
                "mqtt": {"client_id": self.name, "topic_filters": filters, **mqtt},
                "kafka": {"topic_prefix": f"{self.name}.", "partitions": 3},
                "bridge": {"heartbeat_s": 60},
            }
        )

    def bridge(self, kind: type[Bridge] = Watched, *, kafka: str | None = None, **mqtt: Any) -> Any:
        made = kind(self.settings(**mqtt), Addresses(self.url, kafka or self.kafka, "", ""))
        self.bridges.append(made)
        return made

    def open_bridge(self, kind: type[Bridge] = Watched, **options: Any) -> Any:
        """Return a bridge that is connected, with its subscription granted."""
        made = self.bridge(kind, **options)
        self.turn_until(made, lambda: made.is_open, "a connection")
        for _ in range(10):
            made.turn()
        return made

    def turn_until(self, bridge: Bridge, condition: Callable[[], Any], what: str, timeout_s: float = 20) -> None:
        wait(lambda: bridge.turn() or condition(), timeout_s, what)

    @contextlib.contextmanager
    def sender(self) -> Iterator[MeterSender]:
        sender = MeterSender(self.url, f"{self.name}-s{next(_numbers)}", MqttSettings(), receipts=False)
        wait(lambda: sender.poll(0.02) or sender.is_open, 20, "the sender's connection")
        yield sender
        sender.shut()

    def publish(self, count: int, size: int = 100) -> None:
        """Publish messages of several meters and wait until the broker has them."""
        with self.sender() as sender:
            for _ in range(count):
                number = len(self.sent)
                topic = f"{self.root}/v1/meters/m-{number % 17}/readings"
                self.sent.append((topic, b"%d " % number + b"x" * size))
                sender.wait_for_room()
                sender.publish_later(*self.sent[-1])
            assert sender.wait_until_acknowledged(20)

    def in_kafka(self) -> list[tuple[str, bytes]]:
        """Return the messages of all raw frames, in each partition's order."""
        return [(topic, payload) for _, topic, payload, _ in self.rows()]

    def rows(self) -> list[tuple[int, str, bytes, int]]:
        """Return partition, topic, payload and flags of the messages of all raw frames, as far as Kafka has them now."""
        topic = f"{self.name}.{METER_RAW}"
        ends = [self._consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=10)[1] for n in range(3)]
        if not self._consumer.assignment():
            self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(3)])
        while self._next != ends:
            message = self._consumer.poll(10)
            assert message is not None
            assert not message.error()
            partition = message.partition()
            assert message.offset() == self._next[partition]
            self._next[partition] += 1
            ends[partition] = max(ends[partition], self._next[partition])
            columns = [column.to_pylist() for column in decode_raw(message.value()).columns]
            self._rows += [(partition, *row) for row in zip(columns[0], columns[1], columns[3], strict=True)]
        return self._rows

    def close(self) -> None:
        self._consumer.close()
        for bridge in self.bridges:
            bridge._producer.purge()
            bridge._producer.flush(1)
            bridge.crash() if isinstance(bridge, Watched) else bridge.shut()


def edge_on(broker: str, stack: Stack, directory: Path, stays: contextlib.ExitStack) -> Edge:
    url = (
        stack.addresses["mqtt"]
        if broker == "nats"
        else stays.enter_context(mosquitto(directory, "allow_anonymous true"))
    )
    edge = Edge(url, stack.addresses["kafka"])
    stays.callback(edge.close)
    return edge
