"""The MQTT link: the paho that it leans on, subscriptions that are not what was asked for, and both of its paths."""

import contextlib
import importlib.metadata
import re
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from connectors.mqtt import PACKET_BYTES_MAX, PRIVATE_NAMES, MqttLink, _head_of, parse_url, publish_packet
from schemas.settings import MqttSettings
from tests.connectors.brokers import Edge, free_port, mosquitto, wait
from tests.connectors.conftest import NO_MOSQUITTO

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_the_private_names_of_paho_that_we_lean_on_are_there(name: str) -> None:
    assert hasattr(Client(CallbackAPIVersion.VERSION2, "x"), name)


def test_every_private_name_that_we_use_is_listed() -> None:
    text = (ROOT / "connectors" / "mqtt.py").read_text("utf-8")
    ours = set(re.findall(r"^    def (_\w+)", text, re.MULTILINE)) | set(
        re.findall(r"self\.(_\w+)(?::[^=]+)? = ", text)
    )
    used = set(re.findall(r"(?:self|super\(\))\.(_[a-z]\w+)", text)) - (ours - set(dir(Client)))
    assert used <= set(PRIVATE_NAMES) | {"_last_bytes_received"}


def test_the_pinned_paho_is_installed() -> None:
    pinned = re.search(r'"paho-mqtt==([^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert pinned
    assert importlib.metadata.version("paho-mqtt") == pinned[1]


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("mqtt://h", ("h", 1883, False)),
        ("mqtt://h:1", ("h", 1, False)),
        ("mqtts://h", ("h", 8883, True)),
        ("mqtts://h:2", ("h", 2, True)),
    ],
)
def test_addresses(url: str, parts: tuple[str, int, bool]) -> None:
    assert parse_url(url) == parts


# -- packets -----------------------------------------------------------------------------------------------------


class Collector(MqttLink):
    """Keeps what it receives."""

    def __init__(self, **options: Any) -> None:
        super().__init__("mqtt://127.0.0.1:1", "x", MqttSettings(**options))
        self.messages: list[tuple[bytes, bytes, int, int]] = []
        self.acks: list[int] = []

    def received(self, topic: bytes, payload: bytes, mid: int, flags: int, received_at_us: int) -> None:
        self.messages.append((topic, payload, mid, flags))

    def acknowledged(self, mid: int) -> None:
        self.acks.append(mid)


messages = st.lists(
    st.tuples(st.integers(1, 65535), st.binary(min_size=1, max_size=300), st.binary(max_size=20_000), st.booleans()),
    max_size=8,
)


@given(messages, st.lists(st.integers(1, 50_000), max_size=30))
def test_packets_are_taken_whole_however_the_stream_is_cut(
    sent: list[tuple[int, bytes, bytes, bool]], cuts: list[int]
) -> None:
    stream = b"".join(publish_packet(*one) + b"\x40\x02" + struct.pack(">H", one[0]) for one in sent)
    link = Collector()
    position = 0
    for size in [*cuts, len(stream)]:
        link._buffer += stream[position : position + size]
        position += size
        link._take_packets()
    assert link.messages == [(topic, payload, mid, retain << 1) for mid, topic, payload, retain in sent]
    assert link.acks == [mid for mid, *_ in sent]
    assert not link._buffer


@given(st.integers(0, 268_435_455))
def test_remaining_length_is_read_as_mqtt_writes_it(length: int) -> None:
    head, rest = bytearray(), length
    while rest > 127:
        head.append(rest & 127 | 128)
        rest >>= 7
    head.append(rest)
    data = b"\x30" + bytes(head)
    assert _head_of(data, 0, len(data)) == (len(data), len(data) + length)
    assert _head_of(data, 0, len(data) - 1) is None


def test_a_length_that_never_ends_is_longer_than_any_packet() -> None:
    start, end = _head_of(b"\x30\xff\xff\xff\xff\x01", 0, 6)  # type: ignore[misc]
    assert end - start > PACKET_BYTES_MAX


# -- what the broker grants --------------------------------------------------------------------------------------


class Twice(MqttLink):
    """Mutation M7: asks for QoS 2, which lost 10 of 10 messages in a crash."""

    def subscribe(self, topic: Any, *_: Any, **__: Any) -> Any:
        return super().subscribe([(name, 2) for name, _ in topic])


class _Logged:
    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **_: Any) -> None:
        self.events.append(event)

    warning = error = info


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    log = _Logged()
    monkeypatch.setattr("connectors.mqtt.log", log)
    return log.events


@pytest.mark.stack
def test_m7_a_subscription_with_qos_2_is_refused(edge: Edge, logged: list[str]) -> None:
    link = Twice(edge.url, f"{edge.name}-m7", MqttSettings(), filters=[f"{edge.root}/+"])
    wait(lambda: link.poll(0.02) or "mqtt_subscription_refused" in logged, 10, "the refusal")
    assert not link.is_open
    wait(lambda: link.poll(0.02) or link.epoch > 1, 10, "another try")
    link.shut()


@pytest.mark.stack
def test_our_subscriptions_are_granted_as_asked(edge: Edge, logged: list[str]) -> None:
    bridge = edge.open_bridge()
    edge.publish(1)
    edge.turn_until(bridge, lambda: bridge.acked, "a message")
    assert bridge.epoch == 1
    assert "mqtt_subscription_refused" not in logged


def granting(code: int) -> tuple[int, threading.Thread]:
    """Return the port of a listener that plays the few packets of a broker which grants `code`, once."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError), listener, listener.accept()[0] as link:
            link.recv(4096)
            link.sendall(b"\x20\x02\x00\x00")
            subscribe = link.recv(4096)
            link.sendall(b"\x90\x03" + subscribe[2:4] + bytes([code]))
            link.recv(4096)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener.getsockname()[1], thread


@pytest.mark.parametrize("code", [0, 2, 128], ids=["QoS 0", "QoS 2", "refused"])
def test_a_grant_of_anything_but_qos_1_is_no_connection(code: int, logged: list[str]) -> None:
    """No broker at hand grants less than it was asked for, but the standard lets it: MQTT 3.1.1 §3.8.4."""
    port, thread = granting(code)
    link = MqttLink(f"mqtt://127.0.0.1:{port}", "x", MqttSettings(), filters=["a"])
    wait(lambda: link.poll(0.02) or "mqtt_subscription_refused" in logged, 10, "the refusal")
    assert not link.is_open
    thread.join(5)


@NO_MOSQUITTO
def test_a_wrong_password_is_told_and_tried_again_ever_more_slowly(tmp_path: Path, logged: list[str]) -> None:
    with mosquitto(tmp_path, "allow_anonymous false") as url:
        link = MqttLink(url, "x", MqttSettings.model_validate({"username": "u", "password": "wrong"}), filters=["a"])
        wait(lambda: link.poll(0.02) or logged.count("mqtt_refused") >= 2, 10, "two refusals")
        assert not link.is_open
        assert link._connect_wait_s > 0.4


def test_an_unreachable_broker_is_tried_again_and_never_raises(logged: list[str]) -> None:
    link = MqttLink(f"mqtt://127.0.0.1:{free_port()}", "x", MqttSettings())
    wait(lambda: link.poll(0.02) or logged.count("mqtt_unreachable") >= 3, 10, "three tries")


# -- sending -----------------------------------------------------------------------------------------------------


@pytest.mark.stack
@pytest.mark.parametrize("fast_path", [True, False], ids=["fast path", "paho's path"])
def test_the_brokers_acknowledgements_are_heard(edge: Edge, fast_path: bool) -> None:
    link = Collector(fast_path=fast_path)
    link._host_port = parse_url(edge.url)
    link._client_id = f"{edge.name}-ack".encode()
    wait(lambda: link.poll(0.02) or link.is_open, 10, "a connection")
    link.send_messages([(mid, f"{edge.root}/none".encode(), b"x", False) for mid in (1, 256, 65535)])
    wait(lambda: link.poll(0.02) or len(link.acks) >= 3, 10, "acknowledgements")
    assert sorted(link.acks) == [1, 256, 65535]
    link.shut()
