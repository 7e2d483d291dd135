"""A sender that behaves as meters do: it keeps what it sent until the broker took it, and until a receipt covers it."""

import time
from collections.abc import Callable, Sequence

import msgspec

from connectors.mqtt import MqttLink
from schemas.message import Receipt
from schemas.settings import MqttSettings
from schemas.topic import MQTT_ROOT

IN_FLIGHT_MAX = 400
ALL_RECEIPTS = (f"{MQTT_ROOT}/meters/+/receipts", f"{MQTT_ROOT}/gateways/+/receipts")
_one = msgspec.json.Decoder(Receipt)
_several = msgspec.json.Decoder(dict[str, Receipt])


class MeterSender(MqttLink):
    """Publishes with QoS 1 within a window, again after a reconnect, and hears the receipts."""

    def __init__(
        self,
        url: str,
        client_id: str,
        mqtt: MqttSettings,
        *,
        window: int = IN_FLIGHT_MAX,
        receipts: bool = True,
        receipt_filters: Sequence[str] = ALL_RECEIPTS,
        begins_at: int | None = None,
    ) -> None:
        """Prepare; `poll` connects.

        Args:
            url: Of the broker.
            client_id: Of this sender.
            mqtt: User and password.
            window: Messages published and not yet acknowledged by the broker.
            receipts: Whether to listen to receipts.
            receipt_filters: Topics of the receipts to listen to.
            begins_at: First number of each meter's log: a receipt that leaves out numbers from there on is not believed,
                as they may have been lost on the way. None believes any.
        """
        filters = receipt_filters if receipts else ()
        super().__init__(url, client_id, mqtt, filters=filters, clean=True)
        self.window = window
        self.begins_at = begins_at
        self.receipted: dict[str, int] = {}
        """Highest contiguous sequence number that is durable, by meter (boot 0)."""
        self.on_receipt: Callable[[str, int], None] = lambda _meter, _seq: None
        self.published = 0
        self.repeated = 0
        self._last_packet_id = 0
        self._sent: dict[int, tuple[bytes, bytes]] = {}
        self._queue: list[tuple[int, bytes, bytes, bool]] = []

    @property
    def in_flight(self) -> int:
        """Return how many messages the broker has not acknowledged."""
        return len(self._sent)

    def publish_later(self, topic: str, payload: bytes) -> None:
        """Queue a message; `flush` writes what is queued."""
        while True:
            self._last_packet_id = self._last_packet_id % 65535 + 1
            if self._last_packet_id not in self._sent:
                break
        packet_id = self._last_packet_id
        self._sent[packet_id] = topic.encode(), payload
        self._queue.append((packet_id, *self._sent[packet_id], False))
        self.published += 1

    def flush(self) -> None:
        """Write what is queued."""
        if self._queue and self.is_open:
            self.send_messages(self._queue)
            self._queue = []

    def has_room(self) -> bool:
        """Return whether another message fits into the window."""
        return len(self._sent) < self.window

    def wait_for_room(self, keep_on: Callable[[], bool] = lambda: True) -> None:
        """Poll until another message fits."""
        self.flush()
        while not self.has_room() and keep_on():
            self.poll(0.05)
            self.flush()

    def wait_until_acknowledged(self, timeout_s: float) -> bool:
        """Poll until the broker has everything; False when the time is over."""
        deadline = time.monotonic() + timeout_s
        self.flush()
        while self._sent and time.monotonic() < deadline:
            self.poll(0.05)
            self.flush()
        return not self._sent

    def opened(self) -> None:
        """Send again what the broker did not acknowledge in the connection before."""
        self._queue = [(packet_id, *message, False) for packet_id, message in self._sent.items()]
        self.repeated += len(self._queue)

    def acknowledged(self, mid: int) -> None:
        """Forget what the broker has."""
        self._sent.pop(mid, None)

    def received(self, topic: bytes, payload: bytes, mid: int, flags: int, received_at_us: int) -> None:
        """Take receipts."""
        del flags, received_at_us
        if mid:
            self.send_acknowledgements([mid])
        levels = topic.decode(errors="replace").split("/")
        try:
            found = {levels[3]: _one.decode(payload)} if levels[2] == "meters" else _several.decode(payload)
        except (msgspec.MsgspecError, IndexError):
            return
        for meter_id, receipt in found.items():
            covered = self.receipted.get(meter_id, -1)
            whole = self.begins_at is None or receipt.first_seq <= max(covered + 1, self.begins_at)
            if receipt.boot_id == 0 and receipt.seq > covered and whole:
                self.receipted[meter_id] = receipt.seq
                self.on_receipt(meter_id, receipt.seq)

    def shut(self) -> None:
        """Disconnect in order: the end of the connection is then nothing to warn of."""
        self.is_open = False
        super().shut()


def array_payload(elements: Sequence[bytes]) -> bytes:
    """Return a JSON array of encoded elements."""
    return b"[" + b",".join(elements) + b"]"
