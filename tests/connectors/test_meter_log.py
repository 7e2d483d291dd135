"""A sender that behaves as meters do: nothing is forgotten before the broker has it."""

import pytest

from connectors.meter_log import MeterSender, array_payload
from schemas.settings import MqttSettings
from tests.connectors.brokers import Edge, wait


def sender_at(url: str = "mqtt://127.0.0.1:1", **options: int) -> MeterSender:
    return MeterSender(url, "x", MqttSettings(), receipts=False, **options)


@pytest.mark.stack
def test_what_the_broker_did_not_take_is_sent_again_after_a_reconnect(edge: Edge) -> None:
    bridge = edge.open_bridge()
    with edge.sender() as sender:
        for number in range(200):
            sender.publish_later(f"{edge.root}/v1/meters/m/readings", b"%d" % number)
            if number == 100:
                sender.flush()
                sender.drop_connection("the test")
        wait(lambda: bridge.turn() or sender.wait_until_acknowledged(0.01), 20, "everything taken")
        assert sender.repeated > 0
        edge.turn_until(bridge, lambda: len({*bridge.acked}) >= 200, "everything in Kafka")
    assert {int(payload) for _, payload in edge.in_kafka()} == {*range(200)}


def test_packet_ids_wrap_and_are_never_used_twice() -> None:
    sender = sender_at(window=70_000)
    sender._last_packet_id = 65_530
    for _ in range(20):
        sender.publish_later("t", b"")
    ids = [packet_id for packet_id, *_ in sender._queue]
    assert ids == [*range(65_531, 65_536), *range(1, 16)]
    sender._last_packet_id = 65_533
    sender.publish_later("t", b"")
    assert sender._queue[-1][0] == 16, "the ids on their way are left out"


def test_the_window_is_kept() -> None:
    sender = sender_at(window=3)
    for _ in range(3):
        assert sender.has_room()
        sender.publish_later("t", b"")
    assert not sender.has_room()
    sender.wait_for_room(lambda: False)
    assert sender.in_flight == 3
    sender.acknowledged(1)
    assert sender.has_room()
    assert not sender.wait_until_acknowledged(0.05)


@pytest.mark.parametrize(
    ("topic", "payload", "heard"),
    [
        (b"gridtally/v1/meters/m/receipts", b'{"boot_id":0,"seq":5,"read_at":""}', {"m": 5}),
        (b"gridtally/v1/meters/m/receipts", b'{"boot_id":0,"seq":1,"read_at":""}', {"m": 3}),
        (b"gridtally/v1/meters/m/receipts", b'{"boot_id":1,"seq":9,"read_at":""}', {"m": 3}),
        (b"gridtally/v1/gateways/g/receipts", b'{"a":{"boot_id":0,"seq":4,"read_at":""}}', {"m": 3, "a": 4}),
        (b"gridtally/v1/meters/m/receipts", b"junk", {"m": 3}),
        (b"gridtally/v1/meters/m/receipts", b"", {"m": 3}),
        (b"short/topic", b'{"boot_id":0,"seq":5,"read_at":""}', {"m": 3}),
        (b"a/b/meters", b'{"boot_id":0,"seq":5,"read_at":""}', {"m": 3}),
        (b"\xff", b"{}", {"m": 3}),
    ],
    ids=["newer", "older", "another boot", "gateway", "junk", "empty", "short topic", "no meter", "no UTF-8"],
)
def test_receipts_are_heard_and_never_go_back(topic: bytes, payload: bytes, heard: dict[str, int]) -> None:
    sender = sender_at()
    told: list[tuple[str, int]] = []
    sender.on_receipt = lambda meter_id, seq: told.append((meter_id, seq))
    sender.receipted["m"] = 3
    sender.received(topic, payload, 0, 0, 0)
    assert sender.receipted == heard
    assert told == [item for item in heard.items() if item != ("m", 3)]


def test_an_array_is_put_together_from_encoded_elements() -> None:
    assert array_payload([]) == b"[]"
    assert array_payload([b"{}", b"1"]) == b"[{},1]"
