"""(c) MQTT → committed: the drain of a filled broker, and live, with 1 and with 100 readings a message."""

import time
from typing import Any

import numpy as np

from bench.made import START_S, STEP_S, Fleet
from bench.rig import Place, Rig, cpu_s, wait_for
from connectors.meter_log import MeterSender, array_payload
from schemas.settings import MqttSettings

METERS = 100_000
WINDOW = 2_000
PROCESSES = (("bridge",), ("worker", "validate"), ("worker", "settle"), ("worker", "detect"))


def make_messages(readings: int, per_message: int) -> list[tuple[str, bytes]]:
    """Return topics and payloads: each meter's readings in order, one a message or through gateways of so many meters."""
    rounds = -(-readings // METERS)
    registers = np.cumsum(Fleet(METERS).rises_wh(rounds), axis=0) + 1_000
    messages = []
    for number in range(rounds):
        at, shown = START_S + number * STEP_S, registers[number].tolist()
        if per_message == 1:
            for meter, wh in enumerate(shown, 1):
                payload = b'{"seq":%d,"read_at":%d,"import_wh":%d,"voltage_v":230.4}' % (number, at, wh)
                messages.append((f"gridtally/v1/meters/b-{meter:07d}/readings", payload))
            continue
        for low in range(0, METERS, per_message):
            elements = [
                b'{"meter_id":"b-%07d","seq":%d,"read_at":%d,"import_wh":%d}' % (low + place, number, at, wh)
                for place, wh in enumerate(shown[low : low + per_message], 1)
            ]
            messages.append((f"gridtally/v1/gateways/g-{low // per_message:05d}/readings", array_payload(elements)))
    return messages[: readings // per_message]


def send(sender: MeterSender, messages: list[tuple[str, bytes]]) -> float:
    """Publish as fast as the broker acknowledges, and return the seconds it took."""
    began = time.monotonic()
    for number, (topic, payload) in enumerate(messages):
        if number % 100 == 0:
            sender.wait_for_room()
        sender.publish_later(topic, payload)
    assert sender.wait_until_acknowledged(300)
    return time.monotonic() - began


def connect(url: str, name: str) -> MeterSender:
    """Return a connected sender that does not listen to receipts."""
    sender = MeterSender(url, f"bench-{name}-{time.time_ns()}", MqttSettings(), window=WINDOW, receipts=False)
    wait_for(lambda: (sender.poll(0.02), sender.is_open)[1], "the broker", 30)
    return sender


def start_path(place: Place) -> None:
    """Start all workers and wait until settlement has its partitions."""
    for words in PROCESSES:
        place.spawn(*words)
    wait_for(lambda: place.assigned_stages() >= 3, "the assignments")


def drain(rig: Rig, readings: int, per_message: int) -> dict[str, Any]:
    """Fill the broker while the bridge is away, then measure from the bridge's start of reading to the last commit."""
    place = rig.place(METERS)
    messages = make_messages(readings, per_message)
    bridge = place.spawn("bridge")
    wait_for(lambda: "mqtt_connected" in place.log.read_text(), "the bridge's session")
    time.sleep(1)  # its subscription is acknowledged meanwhile
    bridge.terminate()
    bridge.wait(15)
    place.processes.remove(bridge)
    place.log.write_text("")
    sender = connect(rig.addresses.mqtt, "drain")
    filled_s = send(sender, messages)
    sender.shut()
    for words in PROCESSES[1:]:
        place.spawn(*words)
    wait_for(lambda: place.assigned_stages() >= 3, "the assignments")
    place.spawn("bridge")
    wait_for(lambda: "mqtt_connected" in place.log.read_text(), "the bridge")
    result = measured(place, costs(rig, place), time.monotonic(), readings)
    rig.drop(place)
    return {**result, "fill_messages_per_s": len(messages) / filled_s}


def live(rig: Rig, readings: int, per_message: int) -> dict[str, Any]:
    """Publish while everything runs, and measure from the first publish to the last commit."""
    place = rig.place(METERS)
    messages = make_messages(readings, per_message)
    start_path(place)
    wait_for(lambda: "mqtt_connected" in place.log.read_text(), "the bridge")
    time.sleep(1)
    sender = connect(rig.addresses.mqtt, "live")
    before, began = costs(rig, place), time.monotonic()
    send(sender, messages)
    result = measured(place, before, began, readings)
    sender.shut()
    rig.drop(place)
    return result


def costs(rig: Rig, place: Place) -> dict[str, tuple[int, float]]:
    """Return process and CPU seconds so far of all that takes part."""
    pids = {" ".join(map(str, p.args[3:5])): p.pid for p in place.processes}  # type: ignore[index]
    pids |= {name: rig.pid(name) for name in ("mqtt", "kafka", "postgres")}
    return {name: (pid, cpu_s(pid)) for name, pid in pids.items()}


def measured(place: Place, before: dict[str, tuple[int, float]], began: float, readings: int) -> dict[str, Any]:
    """Wait for the last commit, check that the ledger has every reading, and return rate and CPU."""
    ended = place.wait_settled(readings)
    cpu = {name: round((cpu_s(pid) - used) / readings * 1e6, 1) for name, (pid, used) in before.items()}
    found = place.sql("select count(*) from fact where revision = 0")[0][0]
    assert found == readings, (found, readings)
    return {"readings_per_s": readings / (ended - began), "cpu_s_per_million": cpu}
