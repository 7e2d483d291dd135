"""The bridge against real brokers: it acknowledges last, and whatever breaks, nothing is lost between MQTT and Kafka."""

import time
from typing import Any

import pytest

from connectors.bridge import PAYLOAD_BYTES_KEPT, Bridge
from connectors.mqtt import READ_BYTES
from schemas.frame import FLAG_DUP, FLAG_RETAINED, decode_raw
from schemas.ids import partition_of
from tests.connectors.brokers import NOWHERE, Edge, Forwarder, Watched

pytestmark = pytest.mark.stack


def missing_after_a_crash(edge: Edge, kind: type[Bridge], wait_s: float) -> set[tuple[str, bytes]]:
    """Return what is lost when a bridge takes messages while Kafka is away, dies, and another one follows it."""
    first = edge.open_bridge(kind, kafka=NOWHERE)
    edge.publish(30)
    edge.turn_until(first, lambda: len(first.taken) >= 30, "30 messages")
    for _ in range(20):
        first.turn()
    first.crash()
    second = edge.open_bridge()
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline and not {*edge.sent} <= {*edge.in_kafka()}:
        for _ in range(20):
            second.turn()
    return {*edge.sent} - {*edge.in_kafka()}


def test_what_kafka_does_not_have_is_not_acknowledged_and_survives_a_crash(edge: Edge) -> None:
    assert missing_after_a_crash(edge, Watched, 20) == set()
    first, second = edge.bridges
    assert isinstance(first, Watched)
    assert isinstance(second, Watched)
    assert first.acked == []
    edge.turn_until(second, lambda: len(second.acked) >= 30, "acknowledgements")
    second.crash()
    third = edge.open_bridge()
    for _ in range(40):
        third.turn()
    assert third.taken == [], "what was acknowledged does not come again"


class _Eager(Watched):
    """Mutation M6: acknowledges on receipt."""

    def received(self, topic: bytes, payload: bytes, mid: int, flags: int, received_at_us: int) -> None:
        super().received(topic, payload, mid, flags, received_at_us)
        self.send_acknowledgements([mid])


def test_m6_acknowledging_on_receipt_is_seen(nats_edge: Edge) -> None:
    assert len(missing_after_a_crash(nats_edge, _Eager, 6.5)) == 30, (
        "NATS gives again after 5 s what it would give again"
    )


def reopen_before_delivery(edge: Edge, kind: type[Watched]) -> Watched:
    """Return a bridge whose messages Kafka confirms only after the connection that they came by is gone."""
    bridge: Watched = edge.open_bridge(kind)
    bridge.settings = bridge.settings.model_copy(
        update={"bridge": bridge.settings.bridge.model_copy(update={"batch_wait_s": 60.0})}
    )
    edge.publish(20)
    edge.turn_until(bridge, lambda: len(bridge.taken) >= 20, "20 messages")
    bridge.flush_due(everything=True)
    epoch = bridge.epoch
    bridge.drop_connection("the test")
    deadline = time.monotonic() + 10
    while bridge.epoch == epoch and time.monotonic() < deadline:
        bridge.poll(0.02)  # the link alone: Kafka's confirmations wait
    assert bridge.epoch == epoch + 1
    assert bridge._producer.flush(10) == 0
    return bridge


def test_an_acknowledgement_of_an_old_connection_is_never_sent(edge: Edge) -> None:
    bridge = reopen_before_delivery(edge, Watched)
    assert bridge._done == []
    bridge.settings = edge.settings()
    edge.turn_until(bridge, lambda: len(bridge.acked) >= 20, "acknowledgements")
    assert {*bridge.acked} <= {*bridge.taken}
    assert {epoch for epoch, _ in bridge.acked} == {bridge.epoch}
    kept = edge.in_kafka()
    assert {*kept} == {*edge.sent}
    assert len(kept) == 40, "sometimes: all of it came again"


def test_without_the_epoch_guard_it_would_be(edge: Edge) -> None:
    class NoGuard(Watched):
        def _delivered(self, epoch: int, mids: list[int], error: Any, message: Any) -> None:
            super()._delivered(self.epoch, mids, error, message)

    assert reopen_before_delivery(edge, NoGuard)._done != []


def test_while_kafka_is_away_the_bridge_stops_reading_and_goes_on_when_it_is_back(edge: Edge) -> None:
    window, count, size = 100, 4000, 400
    forwarder = Forwarder(edge.kafka)
    bridge = edge.open_bridge(kafka=f"127.0.0.1:{forwarder.port}", window=window)
    edge.publish(count, size)
    edge.turn_until(bridge, lambda: not bridge.reading, "a full window")
    depth = len(bridge._in_flight)
    for _ in range(50):
        bridge.turn()
    assert window <= depth <= window + READ_BYTES // size, "bounded by the window and one read"
    assert len(bridge._in_flight) == depth, "and it stays there"
    assert depth < count
    assert bridge.acked == []
    forwarder.open()
    edge.turn_until(bridge, lambda: len({*bridge.acked}) >= count, "everything acknowledged", 40)
    assert {*edge.in_kafka()} == {*edge.sent}
    forwarder.close()


def test_what_the_broker_repeats_while_kafka_is_away_is_taken_once(nats_edge: Edge) -> None:
    """NATS gives again each `ack_wait` what was not acknowledged: without a limit that would grow for ever."""
    edge = nats_edge
    forwarder = Forwarder(edge.kafka)
    bridge = edge.open_bridge(kafka=f"127.0.0.1:{forwarder.port}")
    edge.publish(10)
    edge.turn_until(bridge, lambda: len(bridge.taken) >= 20, "10 messages and their repetition", 15)
    assert len(bridge._in_flight) == 10
    forwarder.open()
    edge.turn_until(bridge, lambda: len(bridge.acked) >= 10, "acknowledgements", 30)
    assert sorted(edge.in_kafka()) == sorted(edge.sent)
    forwarder.close()


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast path", "paho's path"])
def test_messages_travel_as_they_came(edge: Edge, fast_path: bool) -> None:
    base = f"{edge.root}/v1"
    with edge.sender() as sender:
        sender.send_messages([(60_000, f"{base}/meters/kept/readings".encode(), b"retained", True)])
        sender.publish_later(f"{base}/meters/elsewhere/other", b"not ours")
        assert sender.wait_until_acknowledged(10)
        bridge = edge.open_bridge(fast_path=fast_path)
        sent = [
            (f"{base}/meters/m-1/readings", b""),
            (f"{base}/meters/m-1/readings", b"\xff\x00{" * 20),
            (f"{base}/meters/台区.1/readings", "é".encode()),
            (f"{base}/meters//readings", b"no meter"),
            (f"{base}/gateways/g/readings", b"y" * 100_000),
            (f"{base}/gateways/g/readings", b"z" * 900_000),
            *((f"{base}/meters/m-{n % 9}/readings", b"%d" % n) for n in range(500)),
        ]
        for message in sent:
            sender.wait_for_room()
            sender.publish_later(*message)
            bridge.turn()
        assert sender.wait_until_acknowledged(10)
        edge.turn_until(bridge, lambda: len(bridge.acked) >= len(sent) + 1, "acknowledgements")
    rows = [row for row in edge.rows() if not row[3] & FLAG_DUP] if bridge.epoch == 1 else edge.rows()
    assert {row[1:3] for row in rows} == {*sent, (f"{base}/meters/kept/readings", b"retained")}
    assert {row[2] for row in rows if row[3] & FLAG_RETAINED} == {b"retained"}
    for partition, topic, _, _ in rows:
        assert partition == partition_of(topic.split("/")[3], 3), "a meter stays in its partition"
    for number in range(9):
        payloads = [payload for _, topic, payload, _ in rows if topic.endswith(f"/m-{number}/readings")]
        numbers = [int(payload) for payload in payloads if payload.isdigit()]
        assert bridge.epoch > 1 or numbers == sorted(numbers), "in the order in which a meter sent them"


def test_qos_0_is_taken_and_not_acknowledged(edge: Edge) -> None:
    bridge = edge.open_bridge()
    topic = f"{edge.root}/v1/meters/m/readings"
    with edge.sender() as sender:
        sender.publish(topic, b"zero", qos=0)
        sender.poll(0.1)
        edge.turn_until(bridge, lambda: edge.in_kafka() or None, "the message")
    assert bridge.taken == [(1, 0)]
    assert bridge.acked == []
    assert edge.in_kafka() == [(topic, b"zero")]


def test_a_topic_that_is_no_utf8_travels_on(nats_edge: Edge) -> None:
    """Brokers refuse or pass it; what passes must not stop the bridge."""
    bridge = nats_edge.bridge()
    bridge.received(b"edge/v1/meters/\xff\xfe/readings", b"x", 0, 0, 5)
    bridge.received(b"", b"y", 0, 0, 5)
    bridge.flush_due(everything=True)
    assert bridge._producer.flush(10) == 0
    assert sorted(nats_edge.in_kafka()) == [("", b"y"), ("edge/v1/meters/\ufffd\ufffd/readings", b"x")]


def test_of_a_payload_beyond_all_limits_the_beginning_is_kept(nats_edge: Edge) -> None:
    bridge = nats_edge.bridge()
    bridge.received(b"a/b/c/m/readings", b"x" * (PAYLOAD_BYTES_KEPT + 5), 0, 0, 5)
    bridge.flush_due(everything=True)
    bridge._producer.flush(10)
    assert [len(payload) for _, payload in nats_edge.in_kafka()] == [PAYLOAD_BYTES_KEPT]


def test_a_batch_becomes_a_frame_before_it_is_too_large_for_kafka(nats_edge: Edge) -> None:
    bridge = nats_edge.bridge()
    for number in range(12):
        bridge.received(b"a/b/c/m/readings", b"%d" % number + b"x" * 900_000, 0, 0, 5)
    bridge.flush_due(everything=True)
    assert bridge._producer.flush(20) == 0
    assert not bridge._failed
    assert len(nats_edge.in_kafka()) == 12


def test_heartbeats_tell_every_partition_the_time_only_while_connected(nats_edge: Edge) -> None:
    bridge = nats_edge.bridge()
    frames: list[tuple[int, bytes]] = []
    bridge._produce = lambda partition, frame, _: frames.append((partition, frame))
    bridge._heartbeat_at = 0.0
    bridge._beat()
    assert frames == [], "not while meters cannot be heard"
    nats_edge.turn_until(bridge, lambda: bridge.is_open, "a connection")
    bridge._beat()
    assert frames == [], "not at once: what waited in the broker comes first"
    bridge._heartbeat_at = 0.0
    bridge._beat()
    assert [partition for partition, _ in frames] == [0, 1, 2]
    assert all(decode_raw(frame).num_rows == 0 for _, frame in frames)


def test_an_orderly_end_sends_and_acknowledges_what_was_taken(edge: Edge) -> None:
    bridge = edge.open_bridge()
    bridge.settings = bridge.settings.model_copy(
        update={"bridge": bridge.settings.bridge.model_copy(update={"batch_wait_s": 60.0})}
    )
    edge.publish(25)
    edge.turn_until(bridge, lambda: len(bridge.taken) >= 25, "25 messages")
    assert bridge.acked == []
    bridge.drain()
    assert len(bridge.acked) == 25
    assert sorted(edge.in_kafka()) == sorted(edge.sent)
    assert bridge.socket() is None
