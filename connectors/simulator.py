"""A simulated utility: a county town whose meters publish over MQTT, some of them misbehaving.

Everything is a function of the seed and the time, so a simulator that was killed goes on as if it had only been silent: its
meters keep what no receipt covers and send it again, as real meters do. The simulator knows the truth.
"""

import csv
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.meter_log import MeterSender, array_payload
from schemas.settings import Settings
from schemas.topic import MQTT_ROOT

SLOT_S = 900
ZONE_OFFSET_S = 8 * 3600  # Asia/Shanghai has no daylight saving
GATEWAY_METERS = 25
READINGS_PER_MESSAGE_MAX = 450
"""About 110 bytes each: 50 of the 64 KiB a message may have."""
BAD_METERS = {"opened": 7, "stops": 111, "repeats": 222, "rubbish": 333}
"""Places of the misbehaving meters among each 500 (in smaller utilities, modulo their size)."""
RESEND_AFTER_S = 20.0
LIVE_ARRAY_MAX = 200
OPENED_DAYS_AGO, HONEST_DAYS_MIN = 13, 3
"""The opened meter counts half since so long: the last whole week then is stolen from whole, whatever day it is."""
STOPS_AFTER_LIVE_S = 90
FAULTS_AFTER_LIVE_S = 60
"""When a gateway falls silent, a phase is lost and a register begins to stand."""
QUIET_GATEWAY_FROM = 100
"""Smaller utilities keep all their gateways."""
LOW_PHASE_V = 150.0
OPEN_EVENT_AFTER_LIVE_S = 20
PROGRESS_S = 0.5


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of customer: mean watts by hour of the day, and how it is billed."""

    name: str
    share: float
    hourly_w: tuple[int, ...]
    rated_w: int
    tariff_id: str


def _hours(*spans: tuple[int, int]) -> tuple[int, ...]:
    return tuple(watts for count, watts in spans for _ in range(count))


KINDS = (
    Kind("household", 0.90, _hours((6, 120), (3, 380), (8, 220), (5, 650), (2, 300)), 8_000, "county-residential"),
    Kind("shop", 0.094, _hours((7, 150), (2, 900), (11, 1800), (2, 700), (2, 150)), 20_000, "county-commercial"),
    Kind("workshop", 0.006, _hours((7, 800), (1, 6000), (4, 22000), (2, 14000), (4, 21000), (6, 900)), 80_000,
         "county-commercial"),
)  # fmt: skip
PV_HOURLY_W = _hours((7, 0), (2, 500), (2, 1600), (3, 2600), (2, 1500), (2, 350), (6, 0))


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Readings at a fixed step from an instant on; live stretches spread the meters over the step."""

    first_seq: int
    start_s: int
    step_s: float
    spread: bool


class Utility:
    """Meters, their registers at any time, and what they do wrong."""

    def __init__(self, meters: int, seed: int, origin_s: int) -> None:
        """Lay out a town.

        Args:
            meters: How many.
            seed: Of everything.
            origin_s: Epoch seconds, a multiple of SLOT_S, when the registers are counted from.
        """
        self.size = meters
        self.seed = seed
        self.origin_s = origin_s
        rng = np.random.default_rng(seed)
        bounds = np.cumsum([kind.share for kind in KINDS])
        self.kind = np.minimum(np.searchsorted(bounds, rng.permutation(meters) / meters, side="right"), len(KINDS) - 1)
        self.scale = rng.lognormal(0.0, 0.45, meters)
        self.has_pv = (self.kind == 0) & (rng.random(meters) < 0.02)
        self.phase = rng.permutation(meters) / meters
        """Place of each meter in a live step, in [0, 1)."""
        self.base_wh = rng.integers(100_000, 60_000_000, meters)
        self.ids = [f"m-{number:05d}" for number in range(1, meters + 1)]
        self.gateway = [f"gw-{number // GATEWAY_METERS + 1:03d}" for number in range(meters)]
        self.bad = {name: place % meters for name, place in BAD_METERS.items()}
        largest = np.argsort(-self.kind, kind="stable")
        self.bad |= {"stuck": int(largest[0]), "phase": int(largest[1 % meters])}
        quiet = meters * 9 // 10 // GATEWAY_METERS * GATEWAY_METERS
        self.quiet = range(quiet, quiet + GATEWAY_METERS) if meters >= QUIET_GATEWAY_FROM else range(0)
        """Meters of the gateway that falls silent; they send through it."""
        self._hourly = np.array([kind.hourly_w for kind in KINDS])
        self._import: list[NDArray[np.int64]] = [np.zeros(meters, np.int64)]
        self._export: list[NDArray[np.int64]] = [np.zeros(meters, np.int64)]

    def slot_energy_wh(self, slot: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return import and export of each meter in a quarter-hour, Wh, shape (meters,) each."""
        rng = np.random.default_rng((self.seed, slot))
        hour = (self.origin_s + slot * SLOT_S + ZONE_OFFSET_S) // 3600 % 24
        watts = self._hourly[self.kind, hour] * self.scale * rng.gamma(4.0, 0.25, self.size)
        sun = PV_HOURLY_W[hour] * rng.uniform(0.4, 1.0) * self.has_pv
        net = watts - sun
        wh = np.rint(np.abs(net) * SLOT_S / 3600).astype(np.int64)
        return np.where(net >= 0, wh, 0), np.where(net < 0, wh, 0)

    def registers_wh(self, at_s: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the true import and export registers of all meters at an instant, Wh."""
        slot, rest_s = divmod(at_s - self.origin_s, SLOT_S)
        number = int(slot)
        while len(self._import) <= number + 1:
            used, fed = self.slot_energy_wh(len(self._import) - 1)
            self._import.append(self._import[-1] + used)
            self._export.append(self._export[-1] + fed)
        share = rest_s / SLOT_S

        def between(sums: list[NDArray[np.int64]]) -> NDArray[np.int64]:
            step = np.floor((sums[number + 1] - sums[number]) * share).astype(np.int64)
            return sums[number] + step

        return self.base_wh + between(self._import), between(self._export)

    def write_csv(self, path: Path, interval_s: int) -> None:
        """Write the master data as `gridtally import meters` takes them."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["meter_id", "service_point_id", "parent_id", "tariff_id", "rated_power_w", "register_modulus_wh",
                 "interval_s"]
            )  # fmt: skip
            for number, meter_id in enumerate(self.ids):
                kind = KINDS[self.kind[number]]
                transformer = number * 20 // self.size + 1
                parent = f"feeder-{(transformer - 1) // 10 + 1}/transformer-{transformer:02d}"
                point = f"sp-{number + 1:05d}"
                writer.writerow([meter_id, point, parent, kind.tariff_id, kind.rated_w, 10**9, interval_s])


class Simulator:
    """Sends history through gateways, then live readings of each meter; keeps logs until the receipts cover them."""

    def __init__(self, settings: Settings, url: str, *, meters: int, days: int, live_s: float, seed: int = 1) -> None:
        """Go on from the state in the data directory, or begin `days` before now."""
        self.settings = settings
        self.live_s = live_s
        self.path = settings.data_dir / "simulator" / "state.json"
        self._state = self._load(meters, days, seed)
        self.utility = Utility(self._state["meters"], self._state["seed"], self._state["origin_s"])
        self.stretches = [Stretch(**stretch) for stretch in self._state["stretches"]]
        self.sender = MeterSender(url, f"gridtally-simulator-{int(time.time()) % 10**6}", settings.mqtt, begins_at=0)
        self.number_of = {meter_id: number for number, meter_id in enumerate(self.utility.ids)}
        self.sender.on_receipt = self._receipted
        size = self.utility.size
        self.receipted = np.full(size, -1, np.int64)
        self.sent = np.full(size, -1, np.int64)
        self.moved_at = np.zeros(size)
        self.live_from_s = 0.0
        self._events_sent: set[str] = set()
        self._truth_cache: tuple[float, Any] | None = None
        self._shown: dict[float, tuple[list[int], list[int]]] = {}
        self._slot = -1
        self._slot_energy: Any = None

    # -- what was there before -----------------------------------------------------------------------------------

    def _load(self, meters: int, days: int, seed: int) -> dict[str, Any]:
        if self.path.exists():
            state: dict[str, Any] = json.loads(self.path.read_text("utf-8"))
            return state
        now_slot = int(time.time()) // SLOT_S * SLOT_S
        today_s = (now_slot + ZONE_OFFSET_S) // 86_400 * 86_400 - ZONE_OFFSET_S
        honest_days = max(HONEST_DAYS_MIN, days - OPENED_DAYS_AGO)
        return {
            "meters": meters,
            "seed": seed,
            "origin_s": today_s - days * 86_400,
            "honest_s": honest_days * 86_400,
            "stretches": [],
        }

    def save(self) -> None:
        """Keep the stretches: with the seed they are everything that a meter remembers."""
        self._state["stretches"] = [dataclasses.asdict(stretch) for stretch in self.stretches]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".new")
        partial.write_text(json.dumps(self._state), "utf-8")
        partial.replace(self.path)

    def begin(self) -> None:
        """Add a stretch of quarter-hours up to now, for the time in which nothing was sent, and a live one after it."""
        now = time.time()
        start = self.utility.origin_s
        first = 0
        if self.stretches:
            first, last_s = self._end_of_last(now)
            start = (int(last_s) // SLOT_S + 1) * SLOT_S
        count = max(0, (int(now) // SLOT_S * SLOT_S - start) // SLOT_S + 1)
        if count:
            self.stretches.append(Stretch(first, start, SLOT_S, spread=False))
        live_start = int(now) + 1
        self.live_from_s = live_start
        self.stretches.append(Stretch(first + count, live_start, self.live_s, spread=True))
        self.save()

    def _end_of_last(self, now: float) -> tuple[int, float]:
        """Return the next sequence number of all meters, and the last instant that any has read."""
        stretch = self.stretches[-1]
        ran_s = self._state.get("stopped_s", now) - stretch.start_s
        done = max(0, int(ran_s // stretch.step_s) + 1)
        return stretch.first_seq + done, stretch.start_s + done * stretch.step_s

    # -- readings ------------------------------------------------------------------------------------------------

    def stretch_of(self, seq: int) -> Stretch:
        """Return the stretch that a sequence number lies in."""
        return next(stretch for stretch in reversed(self.stretches) if stretch.first_seq <= seq)

    def read_at_s(self, number: int, seq: int) -> float:
        """Return when a meter makes a reading, epoch s."""
        stretch = self.stretch_of(seq)
        at = stretch.start_s + (seq - stretch.first_seq) * stretch.step_s
        return float(int(at + self.utility.phase[number] * stretch.step_s)) if stretch.spread else at

    def truth_wh(self, at_s: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the true registers at an instant."""
        if self._truth_cache is None or self._truth_cache[0] != at_s:
            self._truth_cache = at_s, self.utility.registers_wh(at_s)
        return self._truth_cache[1]

    @property
    def _opened_s(self) -> int:
        """Return when the opened meter was opened, epoch s."""
        return int(self._state["origin_s"] + self._state.get("honest_s", HONEST_DAYS_MIN * 86_400))

    def reported_wh(self, number: int, at_s: float) -> tuple[int, int]:
        """Return the registers that a meter shows: the opened one counts half since it was opened."""
        used, fed = self.truth_wh(at_s)
        shown = int(used[number])
        opened_s = self._opened_s
        if number == self.utility.bad["opened"] and at_s > opened_s:
            at_opening = int(self.utility.registers_wh(opened_s)[0][number])
            shown = at_opening + (shown - at_opening) // 2
        if number == self.utility.bad["stuck"] and self.live_from_s and at_s > self.live_from_s + FAULTS_AFTER_LIVE_S:
            shown = int(self.utility.registers_wh(self.live_from_s + FAULTS_AFTER_LIVE_S)[0][number])
        return shown, int(fed[number])

    def element(self, number: int, seq: int, *, named: bool, live: bool) -> bytes:
        """Return one reading as JSON."""
        at_s = self.read_at_s(number, seq)
        used, fed = self.reported_wh(number, at_s)
        reading: dict[str, Any] = {"meter_id": self.utility.ids[number]} if named else {}
        reading |= {"seq": seq, "read_at": int(at_s), "import_wh": used}
        if self.utility.has_pv[number]:
            reading["export_wh"] = fed
        if live:
            slot = int(at_s - self.utility.origin_s) // SLOT_S
            energy, back = self.utility.slot_energy_wh(slot) if self._slot != slot else self._slot_energy
            self._slot, self._slot_energy = slot, (energy, back)
            power = float(energy[number] - back[number]) * 3600 / SLOT_S
            voltage = 230 + 4 * float(np.sin(seq * 0.7 + number)) - power / 4000
            reading |= {
                "power_w": round(power, 1),
                "voltage_v": round(voltage, 1),
                "current_a": round(abs(power) / voltage, 2),
                "interval_s": int(self.live_s),
            }
            if number == self.utility.bad["phase"]:
                third = LOW_PHASE_V if at_s > self.live_from_s + FAULTS_AFTER_LIVE_S else round(voltage, 1)
                share = round(abs(power) / voltage / 3, 2)
                reading |= {"voltage_v": [round(voltage, 1), round(voltage, 1), third], "current_a": [share] * 3}
        return json.dumps(reading, separators=(",", ":")).encode()

    def _receipted(self, meter_id: str, seq: int) -> None:
        number = self.number_of.get(meter_id)
        if number is not None:
            self.receipted[number] = max(seq, self.receipted[number])
            self.moved_at[number] = time.monotonic()

    # -- running -------------------------------------------------------------------------------------------------

    def run(
        self, keep_on: Callable[[], bool], progress: Callable[[dict[str, Any]], None], *, once: bool = False
    ) -> bool:
        """Send history until it is receipted, then live readings, until `keep_on` says no."""
        self.begin()
        self._hear_retained()
        if not self._send_history(keep_on, progress):
            return False
        if once:
            return True
        progress({"state": "live"})
        self._live(keep_on, progress)
        self._state["stopped_s"] = time.time()
        self.save()
        return True

    def _hear_retained(self) -> None:
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            self.sender.poll(0.05)
        self.sent[:] = self.receipted

    def _send_history(self, keep_on: Callable[[], bool], progress: Callable[[dict[str, Any]], None]) -> bool:
        """Send everything before the live stretch through the gateways; True when receipts cover it."""
        end = self.stretches[-1].first_seq  # first live sequence number
        told = time.monotonic()
        began = told
        started_from = int(np.clip(self.receipted + 1, 0, end).sum())
        wanted = end * self.utility.size
        moved, moved_at = -1, time.monotonic()
        while keep_on():
            lowest = int(self.sent.min()) + 1
            if lowest < end:
                high = min(end, lowest + READINGS_PER_MESSAGE_MAX // GATEWAY_METERS)
                self._send_window(lowest, high, keep_on)
            else:
                self.sender.flush()
                self.sender.poll(0.05)
            done = int(np.clip(self.receipted + 1, 0, end).sum())
            now = time.monotonic()
            if done != moved:
                moved, moved_at = done, now
            if now - told >= PROGRESS_S or done >= wanted:
                told = now
                rate = (done - started_from) / max(now - began, 0.001)
                progress({"state": "history", "done": done, "of": wanted, "readings_per_s": round(rate)})
            if done >= wanted:
                return True
            if lowest >= end and now - moved_at > RESEND_AFTER_S:
                self.sent[:] = np.minimum(self.receipted, end - 1)  # what no receipt covers is sent again
                moved_at = now
        return False

    def _send_window(self, low: int, high: int, keep_on: Callable[[], bool]) -> None:
        """Send readings [low, high) of all meters that have not sent them, one message a gateway."""
        size = self.utility.size
        for start in range(0, size, GATEWAY_METERS):
            numbers = range(start, min(start + GATEWAY_METERS, size))
            elements = [
                self._history_element(number, seq)
                for seq in range(low, high)
                for number in numbers
                if seq > self.sent[number]
            ]
            if elements:
                self.sender.wait_for_room(keep_on)
                topic = f"{MQTT_ROOT}/gateways/{self.utility.gateway[start]}/readings"
                self.sender.publish_later(topic, array_payload(elements))
        self.sender.flush()
        self.sent[:] = np.maximum(self.sent, high - 1)

    def _history_element(self, number: int, seq: int) -> bytes:
        at_s = self.read_at_s(number, seq)
        used, fed = self._registers_of_history(at_s)
        back = b',"export_wh":%d' % fed[number] if self.utility.has_pv[number] else b""
        head = self.utility.ids[number].encode()
        return b'{"meter_id":"%b","seq":%d,"read_at":%d,"import_wh":%d%b}' % (head, seq, int(at_s), used[number], back)

    def _registers_of_history(self, at_s: float) -> tuple[list[int], list[int]]:
        """Return what all meters show at an instant, as lists; a few instants are kept."""
        kept = self._shown.get(at_s)
        if kept is None:
            used, fed = self.truth_wh(at_s)
            shown = used.tolist()
            bad = self.utility.bad["opened"]
            shown[bad] = self.reported_wh(bad, at_s)[0]
            if len(self._shown) > 64:
                self._shown.clear()
            kept = self._shown[at_s] = shown, fed.tolist()
        return kept

    def _live(self, keep_on: Callable[[], bool], progress: Callable[[dict[str, Any]], None]) -> None:
        stretch = self.stretches[-1]
        order = np.argsort(self.utility.phase, kind="stable").tolist()
        step, place = 0, 0
        checked = told = time.monotonic()
        while keep_on():
            number = order[place]
            due_s = self.read_at_s(number, stretch.first_seq + step)
            wait_s = due_s - time.time()
            if wait_s > 0:
                self.sender.flush()
                self.sender.poll(min(wait_s, 0.1))
            else:
                self.sender.wait_for_room(keep_on)
                self._send_live(number, stretch.first_seq + step)
                place += 1
                if place == len(order):
                    step, place = step + 1, 0
            now = time.monotonic()
            self._send_events()
            if now - checked > RESEND_AFTER_S:
                checked = now
                self._resend(now)
            if now - told > 2 * PROGRESS_S:
                told = now
                behind = int(np.maximum(self.sent - self.receipted, 0).sum())
                progress({"state": "live", "sent": self.sender.published, "not_receipted": behind})

    def _is_stopped(self, number: int) -> bool:
        live_s = time.time() - self.live_from_s
        if number in self.utility.quiet:
            return live_s > FAULTS_AFTER_LIVE_S
        return number == self.utility.bad["stops"] and live_s > STOPS_AFTER_LIVE_S

    def _send_live(self, number: int, seq: int) -> None:
        self.sent[number] = seq
        self.moved_at[number] = max(self.moved_at[number], time.monotonic() - RESEND_AFTER_S / 2)
        if self._is_stopped(number):
            return
        if number in self.utility.quiet:
            elements = [self.element(number, seq, named=True, live=True)]
            topic = f"{MQTT_ROOT}/gateways/{self.utility.gateway[number]}/readings"
            self.sender.publish_later(topic, array_payload(elements))
            return
        topic = f"{MQTT_ROOT}/meters/{self.utility.ids[number]}/readings"
        payload = self.element(number, seq, named=False, live=True)
        if number == self.utility.bad["rubbish"] and seq % 2:
            self.sender.publish_later(topic, b'{"seq":%d,"read_at":"yesterday","import_wh":-1' % seq)
        self.sender.publish_later(topic, payload)
        if number == self.utility.bad["repeats"]:
            self.sender.publish_later(topic, payload)
            self.sender.publish_later(topic, payload)

    def _send_events(self) -> None:
        """Send the opened meter's events: of the day it was opened, and of somebody who is there again now."""
        opened_s = self._opened_s
        for name, at_s, detail in (
            ("opened", opened_s, "meter cover"),
            ("again", int(self.live_from_s) + OPEN_EVENT_AFTER_LIVE_S, "terminal cover"),
        ):
            if name in self._events_sent or time.time() < at_s:
                continue
            self._events_sent.add(name)
            event = {"seq": at_s - self.utility.origin_s, "at": at_s, "code": "cover_open", "detail": detail}
            meter_id = self.utility.ids[self.utility.bad["opened"]]
            self.sender.publish_later(f"{MQTT_ROOT}/meters/{meter_id}/events", json.dumps(event).encode())

    def _resend(self, now: float) -> None:
        """Send again what a meter has sent and no receipt covers for a while."""
        late = (self.sent > self.receipted) & (now - self.moved_at > RESEND_AFTER_S)
        for number in np.flatnonzero(late).tolist():
            if self._is_stopped(number):
                continue
            self.moved_at[number] = now
            first = int(self.receipted[number]) + 1
            seqs = range(first, min(int(self.sent[number]) + 1, first + LIVE_ARRAY_MAX))
            self.sender.wait_for_room()
            elements = [self.element(number, seq, named=False, live=False) for seq in seqs]
            self.sender.publish_later(
                f"{MQTT_ROOT}/meters/{self.utility.ids[number]}/readings", array_payload(elements)
            )

    def close(self) -> None:
        """Hand over what is queued and disconnect."""
        self.sender.wait_until_acknowledged(1.0)
        self.sender.shut()
