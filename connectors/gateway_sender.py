"""Sends a replay's readings through MQTT as gateways do after an outage, and again what no receipt covers."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from connectors.meter_log import MeterSender
from connectors.replay import GATEWAY_METERS, Replay, ReplayError
from schemas.message import ELEMENTS_MAX, PAYLOAD_BYTES_MAX
from schemas.settings import Settings
from schemas.topic import MQTT_ROOT

AHEAD_READINGS_MAX = 500_000
"""Sent and not receipted; beyond it the replay waits, as the way to the ledger is the slower part."""
RECEIPT_FILTERS = (f"{MQTT_ROOT}/gateways/+/receipts",)
"""Of all gateways at once: with max_ack_pending at 20,000, NATS refuses a client's fourth filter (3 x 20,000 of 65,535)."""
RESEND_AFTER_S, RESEND_AFTER_MAX_S = 20.0, 160.0
"""Without any receipt. It doubles until what was sent again is receipted: a way that stands still loses nothing, and
what it holds need not be sent to it again and again."""
SILENCE_MAX_S = 300.0
"""Then the replay ends, to be started again."""
HEAR_QUIET_S, HEAR_MAX_S = 1.5, 15.0
"""Retained receipts have been heard when none came for so long; what was not heard is sent again, and changes nothing."""
POLL_S = 0.05
TELL_S = 0.5


class GatewaySender:
    """Sends a replay's readings as gateways would, and again what no receipt covers."""

    def __init__(self, settings: Settings, mqtt_url: str, replay: Replay, *, speed: float) -> None:
        """Prepare; `run` connects.

        Args:
            settings: For the broker's user and password.
            mqtt_url: Of the broker.
            replay: What to send.
            speed: Times real time; 0 is as fast as it goes.
        """
        self.replay = replay
        self.speed = speed
        gateways = range(0, replay.size, GATEWAY_METERS)
        self.topics = [f"{MQTT_ROOT}/gateways/{replay.gateway(start)}/readings" for start in gateways]
        client_id = f"gridtally-replay-{time.time_ns() // 1000 % 10**9}"
        self.sender = MeterSender(mqtt_url, client_id, settings.mqtt, receipt_filters=RECEIPT_FILTERS, begins_at=0)
        self.sender.on_receipt = self._receipted
        self._number_of = {meter_id: number for number, meter_id in enumerate(replay.meter_ids)}
        self._last = replay.registers.seq[:, -1].astype(np.int64)
        """Number of each meter's last reading; -1 where it has none."""
        self.receipted = np.full(replay.size, -1, np.int64)
        self._sent = np.full(replay.size, -1, np.int64)
        self._has_export = np.asarray(replay.file.cells_wh.min(axis=1) < 0)
        self._heads = [self._head(number) for number in range(replay.size)]
        self._width = self._borders_per_message()
        self._low, self._high, self._gateway = 0, 0, 0
        self._heard_at = self._moved_at = self._told_at = self._began = 0.0
        self._resend_after_s = RESEND_AFTER_S
        self._repeated = self._sent.copy()
        """Up to where each meter had been sent when it was last sent again."""
        self._already = 0
        self.sent_readings = 0
        self.elapsed_s = 0.0

    def _head(self, number: int) -> bytes:
        export = b',"export_wh":%d' if self._has_export[number] else b""
        meter_id = self.replay.meter_ids[number].encode()
        return b'{"meter_id":"%b","seq":%%d,"read_at":%%d,"import_wh":%%d%b}' % (meter_id, export)

    def _borders_per_message(self) -> int:
        """Return how many readings of each meter fit into a message: by count, and by bytes at their longest."""
        registers = self.replay.registers
        highest = [int(registers.seq.max(initial=0)), self.replay.end_s, int(registers.import_wh.max(initial=0))]
        if self._has_export.any():
            highest.append(int(registers.export_wh.max(initial=0)))
        digits = sum(len(str(value)) for value in highest)
        longest = max(len(head.replace(b"%d", b"")) for head in self._heads) + digits
        return max(1, min(ELEMENTS_MAX, (PAYLOAD_BYTES_MAX - 2) // (longest + 1)) // GATEWAY_METERS)

    def _receipted(self, meter_id: str, seq: int) -> None:
        number = self._number_of.get(meter_id)
        if number is not None:
            self.receipted[number] = max(min(seq, int(self._last[number])), self.receipted[number])
            self._heard_at = self._moved_at = time.monotonic()

    @property
    def wanted(self) -> int:
        """Return how many readings there are."""
        return int((self._last + 1).sum())

    @property
    def done(self) -> int:
        """Return how many readings receipts cover."""
        return int((self.receipted + 1).sum())

    @property
    def newly_done(self) -> int:
        """Return how many readings receipts cover that they did not when this run began."""
        return self.done - self._already

    def run(self, keep_on: Callable[[], bool], progress: Callable[[dict[str, Any]], None]) -> bool:
        """Send until receipts cover everything; False when `keep_on` said no before.

        Raises:
            ReplayError: Nothing moves any more.
        """
        self._hear_retained(keep_on)
        self._already = self.done
        self._begin_again()
        self._began = self._heard_at = self._moved_at = time.monotonic()
        began_at_border = self._low
        while keep_on():
            if self._may_send(began_at_border):
                self._send_next()
                self.sender.poll(0)
            else:
                self.sender.flush()
                self.sender.poll(POLL_S)
            self._tell(progress)
            if self.done >= self.wanted:
                return True
            self._resend_when_stalled()
        return False

    def _hear_retained(self, keep_on: Callable[[], bool]) -> None:
        begun = self._heard_at = time.monotonic()
        while keep_on() and (now := time.monotonic()) < begun + HEAR_MAX_S:
            if not self.sender.is_open:
                self._heard_at = now
            elif now > self._heard_at + HEAR_QUIET_S:
                return
            self.sender.poll(POLL_S)

    def _begin_again(self) -> None:
        """Go back to the first reading that no receipt covers."""
        self._sent[:] = self.receipted
        open_rows = self._sent < self._last
        behind = np.count_nonzero(self.replay.registers.seq[open_rows] <= self._sent[open_rows, None], axis=1)
        self._low = int(behind.min(initial=self.replay.cells + 1))
        self._high, self._gateway = self._low, len(self.topics)

    def _due(self, began_at_border: int) -> int:
        """Return the first column that is not due yet at the speed asked for."""
        if not self.speed:
            return self.replay.cells + 1
        passed_s = (time.monotonic() - self._began) * self.speed
        return min(began_at_border + 1 + int(passed_s / self.replay.file.interval_s), self.replay.cells + 1)

    def _may_send(self, began_at_border: int) -> bool:
        """Return whether a message is to be sent now; lays out the next columns when the last ones are through."""
        if not self.sender.is_open or not self.sender.has_room():
            return False
        if self._gateway >= len(self.topics):
            due = self._due(began_at_border)
            ahead = int((self._sent - self.receipted).sum())
            if self._high >= due or ahead > AHEAD_READINGS_MAX:
                return False
            self._low, self._high, self._gateway = self._high, min(due, self._high + self._width), 0
        return True

    def _send_next(self) -> None:
        """Send the columns [low, high) of the next gateway, without what its meters have sent."""
        start = self._gateway * GATEWAY_METERS
        rows, columns = slice(start, start + GATEWAY_METERS), slice(self._low, self._high)
        registers = self.replay.registers
        seq = registers.seq[rows, columns]
        through = np.maximum(self._sent[rows], self.receipted[rows])
        border, meter = np.nonzero((registers.made[rows, columns] & (seq > through[:, None])).T)
        if len(border):
            values = np.empty((len(border), 4), np.int64)
            values[:, 0] = seq[meter, border]
            values[:, 1] = self.replay.begin_s + (self._low + border) * self.replay.file.interval_s
            values[:, 2] = registers.import_wh[rows, columns][meter, border]
            values[:, 3] = registers.export_wh[rows, columns][meter, border]
            shown = np.ones(values.shape, np.bool_)
            shown[:, 3] = self._has_export[rows][meter]
            pattern = b",".join([self._heads[start + number] for number in meter.tolist()])
            payload = b"[" + pattern % tuple(values[shown].tolist()) + b"]"
            assert len(payload) <= PAYLOAD_BYTES_MAX
            assert len(border) <= ELEMENTS_MAX
            self.sender.publish_later(self.topics[self._gateway], payload)
            self.sender.flush()
            self.sent_readings += len(border)
            self._sent[rows] = np.maximum(through, seq[:, -1])
        self._gateway += 1

    def _resend_when_stalled(self) -> None:
        now = time.monotonic()
        if not (self._sent > self.receipted).any() and self.sender.is_open:
            self._heard_at = self._moved_at = now  # nothing is owed to us: the next column is not due
        if now - self._moved_at > SILENCE_MAX_S:
            raise ReplayError(
                f"no receipt for {SILENCE_MAX_S:.0f} s, with {self.wanted - self.done} readings to go:"
                " look at `gridtally status`, and run the same command again",
                retriable=True,
            )
        if (self.receipted >= self._repeated).all():
            self._resend_after_s = RESEND_AFTER_S
        if now - self._heard_at > self._resend_after_s:
            self._resend_after_s = min(2 * self._resend_after_s, RESEND_AFTER_MAX_S)
            self._heard_at = now
            self._repeated = self._sent.copy()
            self._begin_again()

    def _tell(self, progress: Callable[[dict[str, Any]], None]) -> None:
        now = time.monotonic()
        done = self.done
        if now - self._told_at < TELL_S and done < self.wanted:
            return
        self._told_at = now
        self.elapsed_s = now - self._began
        rate = self.newly_done / max(self.elapsed_s, 0.001)
        progress({"done": done, "of": self.wanted, "sent": self.sent_readings, "readings_per_s": round(rate)})

    def close(self) -> None:
        """Hand over what is queued and disconnect."""
        self.sender.wait_until_acknowledged(1.0)
        self.sender.shut()
