"""Names of Kafka topics and MQTT topics, in one place."""

from dataclasses import dataclass

from schemas.ids import is_meter_id

METER_RAW = "meter.raw"
METER_READINGS = "meter.readings"
METER_EVENTS = "meter.events"
METER_CHARGES = "meter.charges"
METER_RECEIPTS = "meter.receipts"
GRID_LIVE = "grid.live"
GRID_ALARMS = "grid.alarms"
KAFKA_TOPICS = (
    METER_RAW,
    METER_READINGS,
    METER_EVENTS,
    METER_CHARGES,
    METER_RECEIPTS,
    GRID_LIVE,
    GRID_ALARMS,
)

TOPIC_MEANINGS = {
    METER_RAW: "messages as received, many a record, never dropped; by meter or gateway",
    METER_READINGS: "validated readings as columns (Arrow), with lineage; by meter",
    METER_EVENTS: "events of meters, with lineage; by meter",
    METER_CHARGES: "running charges after each commit (Arrow); by meter",
    METER_RECEIPTS: "what became durable, for the meters (Arrow); by meter",
    GRID_LIVE: "figures of each committed batch (JSON)",
    GRID_ALARMS: "alarms after each change (JSON)",
}

MQTT_ROOT = "gridtally/v1"
_SOURCES = {"meters": ("readings", "events"), "gateways": ("readings",)}


@dataclass(frozen=True, slots=True)
class Source:
    """Where an MQTT message says that it comes from."""

    owner: str
    """``meters`` or ``gateways``."""
    owner_id: str
    kind: str
    """``readings`` or ``events``."""


def source_of(mqtt_topic: str) -> Source | None:
    """Return who sent a message by its topic, or None when the topic is not one of ours.

    Example:
        >>> source_of("gridtally/v1/meters/m-1/readings")
        Source(owner='meters', owner_id='m-1', kind='readings')
        >>> source_of("gridtally/v1/gateways/g/events") is None
        True
    """
    parts = mqtt_topic.split("/")
    if len(parts) != 5 or f"{parts[0]}/{parts[1]}" != MQTT_ROOT:
        return None
    owner, owner_id, kind = parts[2:]
    if kind not in _SOURCES.get(owner, ()) or not is_meter_id(owner_id):
        return None
    return Source(owner, owner_id, kind)


def receipts_topic(owner: str, owner_id: str) -> str:
    """Return the MQTT topic of the receipts of a meter (``meters``) or a gateway (``gateways``)."""
    return f"{MQTT_ROOT}/{owner}/{owner_id}/receipts"
