"""Topics: only the contract's own name a source."""

import pytest

from schemas.topic import KAFKA_TOPICS, Source, receipts_topic, source_of


@pytest.mark.parametrize(
    ("topic", "source"),
    [
        ("gridtally/v1/meters/m.1/readings", Source("meters", "m.1", "readings")),
        ("gridtally/v1/meters/m.1/events", Source("meters", "m.1", "events")),
        ("gridtally/v1/gateways/g_1/readings", Source("gateways", "g_1", "readings")),
    ],
)
def test_the_contracts_topics_name_their_source(topic: str, source: Source) -> None:
    assert source_of(topic) == source


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "gridtally/v1/meters/m/receipts",
        "gridtally/v1/gateways/g/events",
        "gridtally/v2/meters/m/readings",
        "gridtally/v1/meters//readings",
        "gridtally/v1/meters/m/readings/",
        "/gridtally/v1/meters/m/readings",
        "gridtally/v1/meters/a b/readings",
        "gridtally/v1/meters/é/readings",
        "gridtally/v1/meters/m\n/readings",
        "gridtally/v1/meter/m/readings",
        "gridtally/v1/meters/" + "m" * 65 + "/readings",
    ],
)
def test_any_other_topic_names_none(topic: str) -> None:
    assert source_of(topic) is None


def test_receipts_go_where_no_reading_comes_from() -> None:
    assert receipts_topic("meters", "m") == "gridtally/v1/meters/m/receipts"
    assert source_of(receipts_topic("gateways", "g")) is None


def test_kafka_topics_are_those_of_the_design() -> None:
    assert {"meter.raw", "meter.readings", "meter.charges", "grid.live", "grid.alarms"} <= set(KAFKA_TOPICS)
