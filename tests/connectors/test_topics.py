"""Kafka topics: made once, never with another number of partitions than a meter's place was computed with."""

import time

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from connectors import topics
from connectors.topics import TopicError, ensure_topics
from schemas.settings import KafkaSettings
from schemas.topic import KAFKA_TOPICS
from tests.connectors.brokers import NOWHERE, wait
from tests.fixtures.stack import Stack


@pytest.mark.stack
def test_topics_are_made_once_and_another_number_of_partitions_is_refused(stack: Stack) -> None:
    bootstrap, prefix = stack.addresses["kafka"], f"topics{time.time_ns()}."
    settings = KafkaSettings(topic_prefix=prefix, partitions=3)
    assert ensure_topics(settings, bootstrap) == [prefix + name for name in KAFKA_TOPICS]
    wait(lambda: ensure_topics(settings, bootstrap) == [], 10, "nothing left to make")
    with pytest.raises(
        TopicError, match=rf"{prefix}meter.raw has 3 partitions, kafka.partitions is 4: .* must never change"
    ):
        ensure_topics(settings.model_copy(update={"partitions": 4}), bootstrap)


@pytest.mark.stack
def test_topics_are_never_compacted(stack: Stack) -> None:
    """Offsets without a hole prove that nothing is missing, only while Kafka takes nothing out of the middle."""
    admin = AdminClient({"bootstrap.servers": stack.addresses["kafka"]})
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in KAFKA_TOPICS]
    for future in admin.describe_configs(resources).values():
        assert future.result(10)["cleanup.policy"].value == "delete"


def test_an_unreachable_kafka_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "TIMEOUT_S", 0.3)
    with pytest.raises(TopicError, match=r"Kafka at 127\.0\.0\.1:9: "):
        ensure_topics(KafkaSettings(), NOWHERE)


@pytest.mark.stack
def test_what_kafka_refuses_is_told(stack: Stack) -> None:
    settings = KafkaSettings(topic_prefix=f"many{time.time_ns()}.", replication_factor=3)
    with pytest.raises(TopicError, match=r"meter\.raw: .*replicat"):
        ensure_topics(settings, stack.addresses["kafka"])
