"""Meter faults injected into Swiss meters and sent through the whole running system: what is told of which meter.

A week of quarter-hours goes through MQTT, Kafka, validation, settlement and the ledger, with registers that fall and roll over;
a few minutes of live readings then hold the faults that only a live stream shows. A fault is found when what it must lead to
names its meter; what is told of a meter without that fault counts against precision. Spike, scale and gap are faults of days,
which nothing judges yet.
"""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psycopg
from numpy.typing import NDArray

from bench.detection.swiss import Town
from bench.path import connect
from bench.rig import ROOT, wait_for
from connectors.meter_log import MeterSender, array_payload

DAYS, FAULT_DAY = 7, 5
STEP_S, LIVE_STEP_S, LIVE_S = 900, 5, 150
QUARTERS = 96
GATEWAY_METERS = 10
PER_FAULT = 5
MODULUS_WH = 10**8
WINDOW = 20
"""Readings of a meter in a message."""
START_S = 120.0
POWER_W = 2_600
"""Of every meter while it is live: a stuck register is told after 50 Wh."""

Ints = NDArray[np.int64]
Registers = Callable[[Ints, np.random.Generator], Ints]
"""From the registers of a meter, shape (DAYS x 96 + 1,), to what it shows."""

FIRST = FAULT_DAY * QUARTERS + 40


def _rollback(true_wh: Ints, rng: np.random.Generator) -> Ints:
    shown = true_wh.copy()
    shown[FIRST:] -= int(rng.integers(2_000, 50_000))
    return shown


def _rollover(true_wh: Ints, rng: np.random.Generator) -> Ints:
    del rng
    return (true_wh - true_wh[FIRST] + MODULUS_WH - 1) % MODULUS_WH


PAST: dict[str, tuple[Registers, tuple[str, ...]]] = {
    "rollback": (_rollback, ("letter:register_decreased",)),
    "rollover": (_rollover, ("quality:rollover",)),
}
"""Fault in the past, what the meter shows, and what may tell of it."""
LIVE: dict[str, tuple[str, ...]] = {
    "stuck": ("alarm:register_stuck",),
    "clock_off": ("alarm:clock_drift",),
    "phase_loss": ("alarm:lost_voltage", "alarm:voltage_out_of_range", "alarm:current_without_voltage"),
    "silent_gateway": ("gateway:gateway_silent",),
}
HONEST = "honest"


@dataclasses.dataclass
class Meter:
    """One meter of the run."""

    meter_id: str
    gateway: str
    fault: str
    shown_wh: Ints
    energy_wh: Ints


def made_meters(town: Town, seed: int) -> list[Meter]:
    """Return meters with faults dealt out by the seed; the meters of one gateway share the fault that is the gateway's."""
    rng = np.random.default_rng(seed)
    weeks = town.energy[:, : DAYS // 7].reshape(len(town.names), -1)
    used = (np.count_nonzero(weeks == 0, axis=1) < 100) & (weeks.mean(axis=1) > 40)
    rows = rng.permutation(np.flatnonzero(used))[:120]
    faults = [name for name in (*PAST, "stuck", "clock_off", "phase_loss") for _ in range(PER_FAULT)]
    meters = []
    for place, row in enumerate(rows.tolist()):
        gateway = place // GATEWAY_METERS
        fault = faults[place] if place < len(faults) else HONEST
        if gateway == len(rows) // GATEWAY_METERS - 1:
            fault = "silent_gateway"
        energy = np.rint(weeks[row]).astype(np.int64)
        true_wh = 5_000_000 + np.concatenate([[0], np.cumsum(energy)])
        shown = PAST[fault][0](true_wh, rng) if fault in PAST else true_wh
        meters.append(Meter(f"f-{town.names[row]}", f"fg-{gateway:02d}", fault, shown, energy))
    return meters


class System:
    """A running gridtally of its own."""

    def __init__(self, data_dir: Path) -> None:
        """Start it and wait until it is there."""
        self.data_dir = data_dir
        data_dir.mkdir(parents=True)
        with (data_dir / "up.out").open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gridtally", "up", "--data-dir", str(data_dir)], cwd=ROOT, stdout=out, stderr=out
            )
        addresses = data_dir / "run" / "addresses.json"
        wait_for(addresses.exists, "the system", START_S, 0.2)
        self.addresses = json.loads(addresses.read_text("utf-8"))
        wait_for(self._bridge_is_ready, "the bridge", START_S, 0.2)  # nobody keeps what is sent before it subscribed

    def _bridge_is_ready(self) -> bool:
        try:
            url = json.loads((self.data_dir / "run" / "metrics-bridge.json").read_text("utf-8"))["url"]
            with urllib.request.urlopen(f"{url}/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, ValueError, urllib.error.URLError):
            return False

    def run(self, *words: str) -> str:
        """Run one of our commands and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "gridtally", *words, "--data-dir", str(self.data_dir)],
            cwd=ROOT, check=True, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        return done.stdout

    def sql(self, query: str) -> list[tuple[object, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(self.addresses["database"], autocommit=True) as conn:
            return conn.execute(query).fetchall()  # type: ignore[arg-type]

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        database = self.data_dir / "postgres" / "data"
        if database.is_symlink():  # run by root, it lies where the database's own user can reach it
            shutil.rmtree(database.resolve(), ignore_errors=True)


def past_messages(meters: list[Meter], start_s: int) -> Iterator[tuple[str, bytes]]:
    """Yield topic and payload of the past, gateway by gateway and window by window."""
    size = DAYS * QUARTERS + 1
    for low in range(0, size, WINDOW):
        for gateway in sorted({meter.gateway for meter in meters}):
            elements = []
            for meter in meters:
                if meter.gateway != gateway:
                    continue
                elements += [
                    _element(meter, seq, start_s + seq * STEP_S, int(meter.shown_wh[seq]))
                    for seq in range(low, min(low + WINDOW, size))
                ]
            yield f"gridtally/v1/gateways/{gateway}/readings", array_payload(elements)


def _element(meter: Meter, seq: int, at_s: int, import_wh: int, **more: object) -> bytes:
    return json.dumps(
        {"meter_id": meter.meter_id, "seq": seq, "read_at": at_s, "import_wh": import_wh, **more}
    ).encode()


def send_live(sender: MeterSender, meters: list[Meter], seconds: float) -> None:
    """Send live readings through the gateways; after a third of the time a phase is lost and a gateway falls silent."""
    began = time.time()
    seq = DAYS * QUARTERS + 1
    while (passed := time.time() - began) < seconds:
        now_s = int(time.time())
        broken = passed > seconds / 3
        for gateway in sorted({meter.gateway for meter in meters}):
            elements = []
            for meter in meters:
                if meter.gateway != gateway or (broken and meter.fault == "silent_gateway"):
                    continue
                volts = [229.5, 231.0, 0.0 if broken and meter.fault == "phase_loss" else 230.2]
                at_s = now_s + 600 if meter.fault == "clock_off" else now_s
                moved_s = min(passed, seconds / 3) if meter.fault == "stuck" else passed
                shown = int(meter.shown_wh[-1] + moved_s * POWER_W / 3600)
                more = {"voltage_v": volts, "current_a": [4.0, 3.6, 3.9], "power_w": POWER_W, "interval_s": LIVE_STEP_S}
                elements.append(_element(meter, seq, at_s, shown % MODULUS_WH, **more))
            if elements:
                sender.publish_later(f"gridtally/v1/gateways/{gateway}/readings", array_payload(elements))
        sender.flush()
        seq += 1
        while time.time() < now_s + LIVE_STEP_S:
            sender.poll(0.2)


def told(system: System) -> dict[str, set[str]]:
    """Return what was told of each meter: ``alarm:kind``, ``letter:code``, ``quality:flag``."""
    found: dict[str, set[str]] = {}
    queries = {
        "alarm": "select subject, kind from alarm",
        "letter": "select meter_id, code from dead_letter where meter_id is not null",
        "quality": "select distinct meter_id, 'rollover' from fact join meter using (meter_no) where quality & 4 > 0",
    }
    for name, query in queries.items():
        for subject, what in system.sql(query):
            found.setdefault(str(subject), set()).add(f"{name}:{what}")
    return found


def report(meters: list[Meter], found: dict[str, set[str]]) -> None:
    """Print recall of each fault, and precision over all meters."""
    expected = {**{name: words for name, (_, words) in PAST.items()}, **LIVE}
    right = wrong = missed = 0
    print(f"{'fault':<16} meters found  told as")
    for fault, words in expected.items():
        mine = [meter for meter in meters if meter.fault == fault]
        seen: dict[str, int] = {}
        hits = 0
        for meter in mine:
            names = found.get(meter.meter_id, set()) & set(words)
            if fault == "silent_gateway" and "alarm:gateway_silent" in found.get(meter.gateway, set()):
                names = names | {"gateway:gateway_silent"}
            hits += bool(names)
            for name in names:
                seen[name] = seen.get(name, 0) + 1
        right, missed = right + hits, missed + len(mine) - hits
        print(f"{fault:<16} {len(mine):>6} {hits:>5}  {dict(sorted(seen.items()))}")
    of_faults = {word for words in expected.values() for word in words}
    for meter in meters:
        other = found.get(meter.meter_id, set()) & of_faults - set(expected.get(meter.fault, ()))
        if other:
            wrong += 1
            print(f"  {meter.fault} {meter.meter_id} was told as {sorted(other)}")
    print(f"recall {right / max(right + missed, 1):.3f} ({right} of {right + missed})")
    print(f"precision {right / max(right + wrong, 1):.3f} ({wrong} meters told of a fault that they do not have)")


def faults(town: Town, seed: int) -> None:
    """Run the whole and print its table."""
    meters = made_meters(town, seed)
    with tempfile.TemporaryDirectory(prefix="gridtally-faults-") as directory:
        system = System(Path(directory) / "data")
        try:
            _run(system, meters)
        finally:
            system.stop()


def _run(system: System, meters: list[Meter]) -> None:
    path = system.data_dir / "meters.csv"
    lines = [
        f"{meter.meter_id},sp-{meter.meter_id},county-residential,50000,{MODULUS_WH},{LIVE_STEP_S}" for meter in meters
    ]
    header = "meter_id,service_point_id,tariff_id,rated_power_w,register_modulus_wh,interval_s"
    path.write_text("\n".join([header, *lines]) + "\n", "utf-8")
    system.run("import", "meters", str(path), "--as", "bench")
    start_s = int(time.time()) // 86_400 * 86_400 - DAYS * 86_400
    sender = connect(system.addresses["mqtt"], "faults")
    sent = 0
    for topic, payload in past_messages(meters, start_s):
        sender.wait_for_room()
        sender.publish_later(topic, payload)
        sent += payload.count(b'"seq"')
    sender.flush()
    assert sender.wait_until_acknowledged(120)
    query = "select coalesce(sum(readings), 0) from stream_offset where consumer = 'settle'"
    wait_for(lambda: int(str(system.sql(query)[0][0])) >= sent, f"{sent} readings", 240, 0.5)
    print(f"{len(meters)} meters, {sent:,} readings settled; live for {LIVE_S} s", flush=True)
    send_live(sender, meters, LIVE_S)
    sender.wait_until_acknowledged(10)
    sender.shut()
    report(meters, told(system))
