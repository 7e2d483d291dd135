"""Receipts: what is durable is told to the meters, retained, and not forgotten before the broker has it."""

import contextlib
import json
import socket
import threading
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from connectors.receipts import ReceiptsThread, newest_receipts, rfc3339
from schemas.addresses import Addresses
from schemas.frame import RECEIPTS_SCHEMA, encode_frame
from schemas.message import Receipt
from schemas.settings import Settings
from schemas.topic import METER_RECEIPTS
from tests.connectors.brokers import Edge, free_port, wait

READ_AT_US = 1_795_507_200_000_000


def frame(*rows: tuple[str, int], gateway_id: str | None = None, boot_id: int = 0) -> bytes:
    base = {"first_seq": 0, "gateway_id": gateway_id, "boot_id": boot_id, "read_at": READ_AT_US}
    made = [{**base, "meter_id": meter_id, "seq": seq} for meter_id, seq in rows]
    return encode_frame(pa.RecordBatch.from_pylist(made, schema=RECEIPTS_SCHEMA))


def settings_of(edge: Edge) -> Settings:
    base = edge.settings()
    return base.model_copy(update={"bridge": base.bridge.model_copy(update={"receipts_wait_s": 0.05})})


def produce(edge: Edge, *frames: bytes) -> None:
    producer = Producer({"bootstrap.servers": edge.kafka})
    for value in frames:
        producer.produce(f"{edge.name}.{METER_RECEIPTS}", value, partition=0)
    assert producer.flush(10) == 0


class Running:
    """A receipts thread, started and stopped."""

    def __init__(self, edge: Edge, url: str | None = None) -> None:
        self.thread = ReceiptsThread(settings_of(edge), Addresses(url or edge.url, edge.kafka, "", ""))

    def __enter__(self) -> ReceiptsThread:
        self.thread.start()
        return self.thread

    def __exit__(self, *_: Any) -> None:
        self.thread.stop()
        self.thread.raise_failure()


def committed(edge: Edge) -> int:
    group = f"{edge.name}.gridtally-receipts"
    consumer = Consumer({"bootstrap.servers": edge.kafka, "group.id": group})
    (found,) = consumer.committed([TopicPartition(f"{edge.name}.{METER_RECEIPTS}", 0)], timeout=10)
    consumer.close()
    return int(found.offset)


def retained(edge: Edge, topic: str) -> Any:
    """Return what a newcomer is told on a topic, or None."""
    with edge.sender() as sender:
        heard: list[bytes] = []
        sender.received = lambda _, payload, *__: heard.append(payload)  # type: ignore[method-assign]
        sender.subscribe([(topic, 1)])
        try:
            wait(lambda: sender.poll(0.02) or heard, 2, "what is retained")
        except AssertionError:
            return None
        return json.loads(heard[0])


def wait_retained(edge: Edge, topic: str, condition: Any) -> Any:
    def is_there() -> Any:
        found = retained(edge, topic)
        return found if found is not None and condition(found) else None

    return wait(is_there, 15, topic)


@pytest.mark.stack
def test_the_newest_of_each_meter_is_published_and_kept_for_newcomers(edge: Edge) -> None:
    one, other = f"{edge.name}-a", f"{edge.name}-b"
    produce(edge, frame((one, 3), (other, 1)), b"no frame", frame((one, 5)))
    with Running(edge):
        found = wait_retained(edge, f"gridtally/v1/meters/{one}/receipts", lambda found: found["seq"] == 5)
        assert found.items() >= {"boot_id": 0, "seq": 5, "read_at": "2026-11-24T08:00:00+00:00"}.items()
        assert wait_retained(edge, f"gridtally/v1/meters/{other}/receipts", lambda found: found["seq"] == 1)
        wait(lambda: committed(edge) == 3, 10, "the commit in Kafka")


@pytest.mark.stack
def test_a_gateway_is_told_of_all_its_meters_also_after_a_restart(edge: Edge) -> None:
    topic = f"gridtally/v1/gateways/{edge.name}/receipts"
    produce(edge, frame(("quiet", 1), gateway_id=edge.name))
    with Running(edge):
        wait_retained(edge, topic, lambda found: found["quiet"]["seq"] == 1)
    produce(edge, frame(("busy", 7), gateway_id=edge.name))
    with Running(edge):
        found = wait_retained(edge, topic, lambda found: "busy" in found)
    assert {meter_id: receipt["seq"] for meter_id, receipt in found.items()} == {"quiet": 1, "busy": 7}


@pytest.mark.stack
def test_nothing_is_committed_before_the_broker_has_it(nats_edge: Edge) -> None:
    edge = nats_edge
    produce(edge, frame((f"{edge.name}-c", 4)))
    with Running(edge, url=f"mqtt://127.0.0.1:{free_port()}") as thread:
        thread.join(1.5)
        assert thread.is_alive()
    assert committed(edge) < 0
    with Running(edge):
        wait_retained(edge, f"gridtally/v1/meters/{edge.name}-c/receipts", lambda found: found["seq"] == 4)
        wait(lambda: committed(edge) == 1, 10, "the commit in Kafka")


class Mute:
    """A listener that plays a broker which takes everything and acknowledges nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        self.taken: list[bytes] = []
        self.links: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                self.links.append(link)
                self.taken.append(b"")
                threading.Thread(target=self._talk, args=(link, len(self.taken) - 1), daemon=True).start()

    def _talk(self, link: socket.socket, place: int) -> None:
        with contextlib.suppress(OSError):
            link.recv(4096)
            link.sendall(b"\x20\x02\x00\x00")
            link.sendall(b"\x90\x03" + link.recv(4096)[2:4] + b"\x01")
            while data := link.recv(65536):
                self.taken[place] += data

    def close(self) -> None:
        for one in (self._listener, *self.links):
            one.close()


@pytest.mark.stack
def test_nothing_is_committed_that_the_broker_took_and_did_not_acknowledge(nats_edge: Edge) -> None:
    edge, mute = nats_edge, Mute()
    produce(edge, frame((f"{edge.name}-d", 4)))
    topic = f"gridtally/v1/meters/{edge.name}-d/receipts".encode()
    with Running(edge, url=mute.url) as thread:
        wait(lambda: thread.join(0.05) or (mute.taken and topic in mute.taken[0]), 15, "the receipt")
        thread.join(0.5)
        assert committed(edge) < 0
        mute.links[0].shutdown(socket.SHUT_RDWR)
        wait(lambda: thread.join(0.05) or (len(mute.taken) > 1 and topic in mute.taken[1]), 15, "the receipt again")
        assert committed(edge) < 0
    mute.close()


@pytest.mark.stack
def test_a_broken_connection_publishes_all_of_it_again(nats_edge: Edge) -> None:
    edge = nats_edge
    with Running(edge) as thread:
        wait(lambda: thread.join(0.02) or thread._link.is_open, 10, "a connection")
        thread._link.socket().shutdown(socket.SHUT_RDWR)
        produce(edge, frame(*((f"{edge.name}-{number}", 2) for number in range(50))))
        wait(lambda: committed(edge) == 1, 20, "the commit in Kafka")
        assert thread._link.epoch > 1
    assert retained(edge, f"gridtally/v1/meters/{edge.name}-49/receipts")["seq"] == 2


@pytest.mark.stack
def test_a_thread_that_fails_tells_the_main_thread(nats_edge: Edge) -> None:
    thread = ReceiptsThread(settings_of(nats_edge), Addresses(nats_edge.url, nats_edge.kafka, "", ""))
    thread._seed = None  # type: ignore[assignment]
    thread.run()
    with pytest.raises(RuntimeError, match="the receipts thread failed"):
        thread.raise_failure()


def test_of_several_frames_the_later_says_more() -> None:
    newest = newest_receipts(
        [frame(("a", 1), ("b", 9)), b"junk", frame(("a", 2), gateway_id="g"), frame(("b", 0), boot_id=1)]
    )
    at = "2026-11-24T08:00:00+00:00"
    assert newest == {"a": ("g", Receipt(0, 2, at)), "b": (None, Receipt(1, 0, at))}


@pytest.mark.parametrize(
    ("at_us", "text"), [(0, "1970-01-01T00:00:00+00:00"), (1_500_000, "1970-01-01T00:00:01.500000+00:00"), (-1, "")]
)
def test_instants_are_told_in_utc(at_us: int, text: str) -> None:
    assert rfc3339(at_us) == text
