"""Kafka topics: created when missing, never compacted (design §3.3)."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.settings import KafkaSettings
from schemas.topic import KAFKA_TOPICS, METER_RAW, METER_READINGS

TIMEOUT_S = 30.0
SHORT_RETENTION_DAYS = 3


class TopicError(RuntimeError):
    """A topic cannot be made, or is not as it must be."""


def ensure_topics(kafka: KafkaSettings, bootstrap_servers: str) -> list[str]:
    """Create the topics that are missing and return their names.

    Raises:
        TopicError: Kafka refuses, or a topic has another number of partitions than the settings say.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    try:
        there = admin.list_topics(timeout=TIMEOUT_S).topics
    except KafkaException as error:
        raise TopicError(f"Kafka at {bootstrap_servers}: {error}") from error
    missing = []
    for name in KAFKA_TOPICS:
        topic = kafka.topic_prefix + name
        if topic not in there:
            missing.append(_new_topic(kafka, topic, name))
        elif len(there[topic].partitions) != kafka.partitions:
            raise TopicError(
                f"{topic} has {len(there[topic].partitions)} partitions, kafka.partitions is {kafka.partitions}:"
                " the partition of a meter must never change"
            )
    for topic, future in admin.create_topics(missing).items() if missing else ():
        try:
            future.result(TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicError(f"{topic}: {error}") from error
    return [topic.topic for topic in missing]


def _new_topic(kafka: KafkaSettings, topic: str, name: str) -> NewTopic:
    days = kafka.retention_days if name in (METER_RAW, METER_READINGS) else SHORT_RETENTION_DAYS
    return NewTopic(
        topic,
        kafka.partitions,
        kafka.replication_factor,
        config={
            "cleanup.policy": "delete",
            "retention.ms": str(days * 86_400_000),
            "max.message.bytes": "8388608",
            "min.insync.replicas": "2" if kafka.replication_factor >= 3 else "1",
        },
    )
