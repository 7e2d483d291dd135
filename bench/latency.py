"""(d) Publish → charge and publish → alarm, at 1,111 messages/s from 100,000 meters, with all processes running.

A charge is visible when an independent consumer of meter.charges has it, which is what the console reads; an alarm when one of
grid.alarms has it. Each meter publishes once, so a meter's charge names its message.
"""

import json
import threading
import time
from typing import Any

import numpy as np
from confluent_kafka import Consumer

from bench.path import METERS, connect
from bench.rig import Place, Rig, cpu_s, wait_for
from schemas.frame import decode_charges
from schemas.topic import GRID_ALARMS, METER_CHARGES

RATE_PER_S = 1_111
WARM_UP_S = 10
MEASURED_S = 45
EVENTS_PER_S = 2
PROCESSES = (("worker", "validate"), ("worker", "settle"), ("worker", "detect"), ("bridge",), ("console",))


class Watcher(threading.Thread):
    """Notes when the charge or alarm of each meter came."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        super().__init__(daemon=True)
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": f"{prefix}watcher", "fetch.wait.max.ms": 5}
        )
        self._topics = [prefix + METER_CHARGES, prefix + GRID_ALARMS]
        self._prefix = prefix
        self.charged: dict[str, float] = {}
        self.alarmed: dict[str, float] = {}
        self.assigned = threading.Event()
        self.halt = threading.Event()

    def run(self) -> None:
        """Consume until told to stop."""
        self._consumer.subscribe(self._topics, on_assign=lambda *_: self.assigned.set())
        while not self.halt.is_set():
            message = self._consumer.poll(0.05)
            if message is None or message.error():
                continue
            now = time.time()
            if str(message.topic()).endswith(METER_CHARGES):
                for meter_id in decode_charges(message.value() or b"").column("meter_id").to_pylist():
                    self.charged.setdefault(meter_id, now)
            else:
                self.alarmed.setdefault(json.loads(message.value() or b"{}")["subject"], now)
        self._consumer.close()


def run_once(rig: Rig) -> dict[str, Any]:
    """Return percentiles in ms, and the CPU of all processes while it ran."""
    place = rig.place(METERS, values={"console.port": "28999"})
    for words in PROCESSES:
        place.spawn(*words)
    wait_for(lambda: place.assigned_stages() >= 3 and "mqtt_connected" in place.log.read_text(), "the processes")
    watcher = Watcher(rig.addresses.kafka, place.prefix)
    watcher.start()
    assert watcher.assigned.wait(30)
    sender = connect(rig.addresses.mqtt, "latency")
    published, events, cpu = _publish(rig, place, sender)
    wait_for(lambda: len(watcher.charged) >= len(published) and len(watcher.alarmed) >= len(events), "the rest", 30)
    watcher.halt.set()
    watcher.join()
    sender.shut()
    rig.drop(place)
    late = {name: at for name, at in published.items() if at >= min(published.values()) + WARM_UP_S}
    charges = np.array([watcher.charged[name] - at for name, at in late.items()]) * 1000
    alarms = np.array([watcher.alarmed[name] - at for name, at in events.items()]) * 1000
    return {
        "messages_per_s": len(late) / MEASURED_S,
        "charge_ms": {f"p{q}": round(float(np.percentile(charges, q)), 1) for q in (50, 90, 99, 100)},
        "alarm_ms": {f"p{q}": round(float(np.percentile(alarms, q)), 1) for q in (50, 99, 100)},
        "cpu_cores": cpu,
    }


def _publish(rig: Rig, place: Place, sender: Any) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    published: dict[str, float] = {}
    events: dict[str, float] = {}
    pids = {" ".join(p.args[3:5]): p.pid for p in place.processes}
    pids |= {name: rig.pid(name) for name in ("mqtt", "kafka", "postgres")}
    began, number, before = time.monotonic(), 0, dict[str, float]()
    while (passed := time.monotonic() - began) < WARM_UP_S + MEASURED_S:
        if passed >= WARM_UP_S and not before:
            before = {name: cpu_s(pid) for name, pid in pids.items()}
        due = int(passed * RATE_PER_S)
        while number < due:
            number += 1
            name, now = f"b-{number:07d}", time.time()
            payload = b'{"seq":1,"read_at":%d,"import_wh":%d,"power_w":412.0}' % (int(now), 1000 + number)
            sender.publish_later(f"gridtally/v1/meters/{name}/readings", payload)
            published[name] = now
        if passed >= WARM_UP_S and len(events) < (passed - WARM_UP_S) * EVENTS_PER_S:
            name, now = f"b-{METERS - len(events):07d}", time.time()
            payload = b'{"seq":1,"at":%d,"code":"cover_open"}' % int(now)
            sender.publish_later(f"gridtally/v1/meters/{name}/events", payload)
            events[name] = now
        sender.flush()
        sender.poll(0.001)
    cpu = {name: round((cpu_s(pid) - before[name]) / MEASURED_S, 3) for name, pid in pids.items()}
    return published, events, cpu
