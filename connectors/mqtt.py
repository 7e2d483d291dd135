"""An MQTT link: paho's client with its packet reader replaced, driven by our own loop.

paho takes 77 to 100 µs a message, mostly in objects, locks and logs that we do not need; reading 256 KiB at a time and
parsing PUBLISH and PUBACK in one loop takes 9 to 16 µs (reference/mqtt_broker.md §5). Everything else (connect, keep-alive,
subscribe, reconnect state) stays paho's. The private names that this leans on are in PRIVATE_NAMES: paho is pinned, and
tests/connectors/test_mqtt.py fails when one vanishes.
"""

import select
import ssl
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from monitoring.clock import now_us
from monitoring.log import get_logger
from schemas.frame import FLAG_DUP, FLAG_RETAINED
from schemas.settings import MqttSettings

PRIVATE_NAMES = (
    "_packet_read",
    "_packet_handle",
    "_packet_queue",
    "_sock_recv",
    "_in_packet",
    "_last_bytes_received",
    "_out_packet",
    "_loop_rc_handle",
)
READ_BYTES = 256 * 1024
PUBLISH, PUBACK = 0x30, 0x40
PACKET_BYTES_MAX = 16 * 1024 * 1024
KEEP_ALIVE_S = 30
RECONNECT_WAIT_S, RECONNECT_WAIT_MAX_S = 0.2, 5.0
OUT_PACKETS_MAX = 256
"""Packets of ours (each of many messages) that wait to be written; beyond it `wants_more` says no."""

log = get_logger("connectors.mqtt")


def parse_url(url: str) -> tuple[str, int, bool]:
    """Return host, port and whether to use TLS of ``mqtt://host:port`` or ``mqtts://``."""
    parts = urlsplit(url)
    secure = parts.scheme == "mqtts"
    assert parts.hostname  # the settings' pattern asks for it
    return parts.hostname, parts.port or (8883 if secure else 1883), secure


class MqttLink(Client):
    """A connection that reconnects for ever, with hooks for what it receives. One thread drives it with `poll`."""

    def __init__(
        self, url: str, client_id: str, mqtt: MqttSettings, *, filters: Sequence[str] = (), clean: bool = False
    ) -> None:
        """Prepare; the first `poll` connects.

        Args:
            url: ``mqtt://host:port`` or ``mqtts://``.
            client_id: Fixed for a persistent session; NATS refuses ``.``, ``*``, ``>`` and spaces in it.
            mqtt: User, password, and whether to take the fast path.
            filters: Topic filters, subscribed with QoS 1 at each connection.
            clean: Forget the session on disconnect.
        """
        super().__init__(CallbackAPIVersion.VERSION2, client_id, clean_session=clean, manual_ack=True)
        self._host_port = parse_url(url)
        self._filters = list(filters)
        self._refused: list[str] = []
        self._fast = mqtt.fast_path
        self._buffer = bytearray()
        self._next_connect = 0.0
        self._connect_wait_s = RECONNECT_WAIT_S
        self.epoch = 0
        """Counts connections: what was received in an earlier one must not be acknowledged in this one."""
        self.reading = True
        self.is_open = False
        if mqtt.username:
            password = mqtt.password.get_secret_value() if mqtt.password else None
            self.username_pw_set(mqtt.username, password)
        if self._host_port[2]:
            self.tls_set_context(ssl.create_default_context())
        self.on_connect = self._connected
        self.on_disconnect = self._disconnected
        self.on_subscribe = self._subscribed
        self.on_message = self._message

    # -- hooks ---------------------------------------------------------------------------------------------------

    def received(self, topic: bytes, payload: bytes, mid: int, flags: int, received_at_us: int) -> None:
        """Take a message; `mid` is 0 for QoS 0, which needs no acknowledgement."""

    def acknowledged(self, mid: int) -> None:
        """Take the broker's acknowledgement of a message of ours."""

    def opened(self) -> None:
        """Go on after a connection, in a new epoch."""

    def closed(self) -> None:
        """Note that the connection is gone."""

    # -- the loop ------------------------------------------------------------------------------------------------

    def poll(self, timeout_s: float) -> None:
        """Read and write what there is, waiting at most `timeout_s`; connect when there is no connection."""
        link = self.socket()
        if link is None:
            self._connect_when_due(timeout_s)
            return
        pending = getattr(link, "pending", None)
        if pending is not None and pending():
            timeout_s = 0.0
        readers = [link] if self.reading else []
        writers = [link] if self.want_write() else []
        if not readers and not writers:
            time.sleep(timeout_s)
            ready: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        else:
            ready = select.select(readers, writers, [], timeout_s)
        if ready[0]:
            self.loop_read()
        if self._refused:
            refused, self._refused = self._refused, []
            log.error(
                "mqtt_subscription_refused", filters=refused, remedy="let this client subscribe to them with QoS 1"
            )
            self.drop_connection("a subscription was refused")
            return
        if ready[1]:
            self.loop_write()
        self.loop_misc()

    def _connect_when_due(self, timeout_s: float) -> None:
        now = time.monotonic()
        if now < self._next_connect:
            time.sleep(min(timeout_s, self._next_connect - now))
            return
        self._next_connect = now + self._connect_wait_s
        self._connect_wait_s = min(self._connect_wait_s * 2, RECONNECT_WAIT_MAX_S)
        self._buffer.clear()
        try:
            self.connect(*self._host_port[:2], keepalive=KEEP_ALIVE_S)
        except (OSError, ValueError) as error:
            log.warning("mqtt_unreachable", address=self._host_port[:2], error=str(error))

    def drop_connection(self, why: str) -> None:
        """Close the connection: the broker sends again all that was not acknowledged."""
        log.warning("mqtt_dropped", why=why)
        self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)

    def wants_more(self) -> bool:
        """Return whether more may be queued for writing."""
        return self.is_open and len(self._out_packet) < OUT_PACKETS_MAX

    def shut(self) -> None:
        """Disconnect in order."""
        self.disconnect()
        deadline = time.monotonic() + 1
        while self.socket() is not None and time.monotonic() < deadline:
            self.poll(0.02)

    def send_acknowledgements(self, mids: Sequence[int]) -> None:
        """Acknowledge messages of this epoch, all in one write."""
        if mids:
            pairs = b"".join([b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids])
            self._packet_queue(PUBACK, pairs, 0, 0)

    def send_messages(self, messages: Iterable[tuple[int, bytes, bytes, bool]]) -> None:
        """Publish with QoS 1, all in one write: packet id, topic, payload, whether retained."""
        packet = b"".join([publish_packet(*message) for message in messages])
        if packet:
            self._packet_queue(PUBLISH | 2, packet, 0, 1)

    # -- paho's callbacks ----------------------------------------------------------------------------------------

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.error("mqtt_refused", reason=str(reason))
            return
        self.epoch += 1
        self.is_open = True
        self._connect_wait_s = RECONNECT_WAIT_S
        log.info("mqtt_connected", address=self._host_port[:2], epoch=self.epoch)
        if self._filters:
            self.subscribe([(name, 1) for name in self._filters])
        self.opened()

    def _subscribed(self, _client: Any, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        """Note filters that were not granted with QoS 1: with 0 messages are lost unseen, with 2 in every crash."""
        self._refused += [name for name, reason in zip(self._filters, reasons, strict=False) if reason.value != 1]

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self.is_open:
            log.warning("mqtt_disconnected", reason=str(reason))
        self.is_open = False
        self.closed()

    def _message(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        flags = FLAG_DUP * message.dup | FLAG_RETAINED * message.retain
        topic = message.topic.encode(errors="surrogateescape")
        self.received(topic, bytes(message.payload), message.mid if message.qos else 0, flags, now_us())

    # -- reading -------------------------------------------------------------------------------------------------

    def _packet_handle(self) -> MQTTErrorCode:
        """Hear acknowledgements on paho's own path as well: it does not know what we published past it."""
        packet = self._in_packet
        if packet["command"] & 0xF0 == PUBACK:
            self.acknowledged(int.from_bytes(packet["packet"][:2], "big"))
        return super()._packet_handle()

    def _packet_read(self) -> MQTTErrorCode:
        if not self._fast:
            return super()._packet_read()
        try:
            data = self._sock_recv(READ_BYTES)
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_AGAIN
        except OSError:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        if not data:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        self._last_bytes_received = time.monotonic()
        self._buffer += data
        return self._take_packets()

    def _take_packets(self) -> MQTTErrorCode:
        """Handle all whole packets of the buffer and leave the rest."""
        data = bytes(self._buffer)
        at, size, now = 0, len(data), now_us()
        while True:
            head = _head_of(data, at, size)
            if head is None:
                break
            start, end = head
            if end - start > PACKET_BYTES_MAX:
                return MQTTErrorCode.MQTT_ERR_PROTOCOL
            if end > size:
                break
            command = data[at]
            kind = command & 0xF0
            if kind == PUBLISH:
                self._take_publish(data, command, start, end, now)
            elif kind == PUBACK:
                self.acknowledged(data[start] << 8 | data[start + 1])
            else:
                code = self._hand_to_paho(command, data[start:end])
                if code:
                    return code
            at = end
        del self._buffer[:at]
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _take_publish(self, data: bytes, command: int, start: int, end: int, now: int) -> None:
        at = start + 2 + (data[start] << 8 | data[start + 1])
        topic = data[start + 2 : at]
        mid = 0
        if command & 0x06:
            mid = data[at] << 8 | data[at + 1]
            at += 2
        self.received(topic, data[at:end], mid, (command >> 3 & 1) | (command & 1) << 1, now)

    def _hand_to_paho(self, command: int, body: bytes) -> MQTTErrorCode:
        packet = self._in_packet
        packet["command"] = command
        packet["remaining_length"] = len(body)
        packet["packet"] = bytearray(body)
        packet["pos"] = 0
        code = self._packet_handle()
        self._in_packet["command"] = 0
        return code


def _head_of(data: bytes, at: int, size: int) -> tuple[int, int] | None:
    """Return where the body of the packet at `at` starts and ends, or None when its header is not there yet."""
    length = 0
    for place in range(4):
        if at + 1 + place >= size:
            return None
        byte = data[at + 1 + place]
        length |= (byte & 127) << 7 * place
        if byte < 128:
            start = at + 2 + place
            return start, start + length
    return at + 5, at + 5 + PACKET_BYTES_MAX + 1  # malformed: longer than any packet


def publish_packet(mid: int, topic: bytes, payload: bytes, retain: bool) -> bytes:  # noqa: FBT001
    """Return a PUBLISH packet with QoS 1 (MQTT 3.1.1 §3.3)."""
    length = 2 + len(topic) + 2 + len(payload)
    head = bytearray([0x32 | retain])
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return b"".join((head, struct.pack(">H", len(topic)), topic, struct.pack(">H", mid), payload))
