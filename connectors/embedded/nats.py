"""An embedded MQTT broker: nats-server with its MQTT listener on loopback, and the settings that reference §7 asks for."""

import json
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

from connectors.embedded.process import LOOPBACK, ProcessSpec, is_listening

STORE_BYTES_MAX = 8 * 1024**3
MESSAGES_BYTES_MAX = 6 * 1024**3
"""Less than the whole store: at the limit publishers are refused, while the bridge can still connect and drain it
(reference/mqtt_broker.md §3)."""
ANSWER_TIMEOUT_S = 5.0


def _configuration(directory: Path, port: int, nats_port: int) -> str:
    return f"""
server_name: gridtally
listen: "{LOOPBACK}:{nats_port}"
max_payload: 1MB
jetstream {{
  store_dir: {json.dumps(str(directory / "store"), ensure_ascii=False)}
  max_file_store: {STORE_BYTES_MAX}
}}
mqtt {{
  listen: "{LOOPBACK}:{port}"
  ack_wait: "5s"
  max_ack_pending: 20000
}}
"""


def nats_server() -> str:
    """Return the path of the server that the wheel brings.

    Raises:
        FileNotFoundError: The wheel is not installed.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise FileNotFoundError("nats-server is not installed: run `make setup`")
    return found


def nats_spec(directory: Path, port: int, nats_port: int) -> ProcessSpec:
    """Return how to run the broker with its store in a directory."""
    config = directory / "nats.conf"

    def prepare() -> None:
        directory.mkdir(parents=True, exist_ok=True)
        config.write_text(_configuration(directory, port, nats_port), "utf-8")

    return ProcessSpec(
        "mqtt", [nats_server(), "-c", str(config)], lambda: is_listening(port), directory, prepare=prepare
    )


def cap_messages(nats_port: int, bytes_max: int = MESSAGES_BYTES_MAX) -> bool:
    """Cap the stream of undelivered messages below the whole store; False while the stream does not exist yet."""
    info = _ask(nats_port, "$JS.API.STREAM.INFO.$MQTT_msgs", b"")
    if "config" not in info:
        return False
    config = {**info["config"], "max_bytes": bytes_max, "discard": "new"}
    return "error" not in _ask(nats_port, "$JS.API.STREAM.UPDATE.$MQTT_msgs", json.dumps(config).encode())


def _ask(nats_port: int, subject: str, payload: bytes) -> dict[str, Any]:
    """Return the answer to one request, in NATS's text protocol."""
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    with socket.create_connection((LOOPBACK, nats_port), ANSWER_TIMEOUT_S) as link, link.makefile("rb") as lines:
        link.sendall(
            b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB _INBOX.gridtally 1\r\n'
            + f"PUB {subject} _INBOX.gridtally {len(payload)}\r\n".encode()
            + payload
            + b"\r\n"
        )
        while time.monotonic() < deadline:
            words = lines.readline().split()
            if words[:1] == [b"PING"]:
                link.sendall(b"PONG\r\n")
            elif words[:1] == [b"MSG"]:
                answer: dict[str, Any] = json.loads(lines.read(int(words[-1])))
                return answer
    return {}
