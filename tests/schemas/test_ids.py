"""Ids and partitions: our hash is Kafka's, so that any client finds a meter's partition."""

import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import is_meter_id, murmur2, partition_of
from tests.fixtures.stack import Stack


@pytest.mark.parametrize(
    ("key", "expected"),
    [  # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_vectors_of_kafkas_own_test(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected % 2**32


@given(st.text(), st.integers(1, 256))
def test_partition_is_one_of_the_topics(key: str, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions


@pytest.mark.stack
def test_partition_of_a_key_is_where_kafkas_murmur2_random_puts_it(stack: Stack) -> None:
    bootstrap, topic, partitions = stack.addresses["kafka"], f"partitions.{time.time_ns()}", 7
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)
    put: dict[str, int] = {}
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
    keys = [f"m-{number}" * (number % 5 + 1) for number in range(200)] + ["台区-一", "a", "x" * 64]
    for key in keys:
        producer.produce(
            topic,
            b"",
            key=key.encode(),
            on_delivery=lambda _, message: put.update({message.key().decode(): message.partition()}),
        )
    assert producer.flush(20) == 0
    assert put == {key: partition_of(key, partitions) for key in keys}
    assert len(set(put.values())) == partitions


@pytest.mark.parametrize("text", ["a", "A.b_c-9", "0" * 64, ".", "-"])
def test_meter_ids_are_1_to_64_of_the_allowed_signs(text: str) -> None:
    assert is_meter_id(text)


@pytest.mark.parametrize("text", ["", "0" * 65, "a b", "a/b", "a+", "#", "é", "a\n", "\n", "台", "a\0", "\ud800"])
def test_anything_else_is_no_meter_id(text: str) -> None:
    assert not is_meter_id(text)
