"""The pages: control room, a meter, a raw message."""

import threading
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from console.alarm_pages import add_alarm_pages
from console.billing_pages import add_billing_pages
from console.case_pages import add_case_pages
from console.meter_page import DAYS_MAX, meter_page, usage_csv
from console.room_page import room_page
from console.web import Console, DatabaseAwayError, KafkaAwayError, words_for
from monitoring.clock import now
from schemas.ids import is_meter_id
from schemas.message import PAYLOAD_BYTES_MAX
from schemas.topic import METER_RAW, source_of
from storage.query import fetch_meter, fetch_refusals
from storage.raw_record import RawMessages

INT4_MAX, INT8_MAX = 2**31 - 1, 2**63 - 1
RAW_FETCHES_MAX = 4
RAW_WAIT_S = 5.0
KAFKA_TIMEOUT_S = 2.0
LINES_MAX = 64

Days = Annotated[int, Query(ge=1, le=DAYS_MAX)]


def page_router(console: Console) -> APIRouter:
    """Return the routes of all pages."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    @router.get("/")
    def room(request: Request) -> Response:
        return console.page(request, "room.html", room_page(console.feed, words_for(request), console.zone))

    @router.get("/meters")
    def find(q: Annotated[str, Query(max_length=200)] = "") -> Response:
        wanted = q.strip()
        return RedirectResponse(f"/meters/{quote(wanted, safe='')}" if wanted else "/", 303)

    _add_meter(router, console)
    _add_raw(router, console)
    add_billing_pages(router, console)
    add_alarm_pages(router, console)
    add_case_pages(router, console)
    return router


def _add_meter(router: APIRouter, console: Console) -> None:
    @router.get("/meters/{meter_id}")
    def meter(
        request: Request,
        meter_id: str,
        days: Days = 2,
        explain: Annotated[int | None, Query(ge=0, lt=LINES_MAX)] = None,
    ) -> Response:
        asked = {"days": days, "explain": explain, "words": words_for(request), "zone": console.zone}
        if not is_meter_id(meter_id):
            return _no_meter(request, console, meter_id)
        with console.database() as conn:
            info = fetch_meter(conn, meter_id)
            if info is None:
                return _no_meter(request, console, meter_id)
            values = meter_page(conn, console.registry(conn), info, asked, now())
        return console.page(request, "meter.html", values)

    @router.get("/meters/{meter_id}/usage.csv")
    def usage(request: Request, meter_id: str, days: Days = 2) -> Response:
        if not is_meter_id(meter_id):
            return _no_meter(request, console, meter_id)
        with console.database() as conn:
            info = fetch_meter(conn, meter_id)
            if info is None:
                return _no_meter(request, console, meter_id)
            text = usage_csv(conn, info, days, now())
        headers = {"Content-Disposition": f'attachment; filename="{meter_id}-{days}d.csv"'}
        return PlainTextResponse(text, media_type="text/csv; charset=utf-8", headers=headers)


def _no_meter(request: Request, console: Console, meter_id: str) -> Response:
    words = words_for(request)
    values = {"title": words.say("no_meter", meter=meter_id[:64]), "do": words.no_meter_do}
    return console.page(request, "problem.html", values, 404)


def _add_raw(router: APIRouter, console: Console) -> None:
    fetches = threading.BoundedSemaphore(RAW_FETCHES_MAX)

    @router.get("/raw/{partition}/{offset}/{index}")
    def raw(
        request: Request,
        partition: Annotated[int, Path(ge=0, le=INT4_MAX)],
        offset: Annotated[int, Path(ge=0, le=INT8_MAX)],
        index: Annotated[int, Path(ge=-1, le=INT4_MAX)],
    ) -> Response:
        if not fetches.acquire(timeout=RAW_WAIT_S):
            raise KafkaAwayError("too many raw messages are being read")
        try:
            values = raw_page(console, partition, offset, index)
        finally:
            fetches.release()
        return console.page(request, "raw.html", values, 200 if values["payload_bytes"] is not None else 404)


def raw_page(console: Console, partition: int, offset: int, index: int) -> dict[str, Any]:
    """Return the values of a raw message's page: from Kafka, or from the dead letter that kept the bytes.

    Raises:
        KafkaAwayError: Kafka does not answer, and no dead letter has it.
    """
    refusals = _refusals(console, partition, offset, index)
    topic, payload, why = _from_kafka(console, partition, offset, index)
    if not topic and refusals:
        topic, payload, why = refusals[0]["mqtt_topic"], bytes(refusals[0]["payload"]), "raw_from_letter"
    if why == "away":
        raise KafkaAwayError("Kafka does not answer")
    source = source_of(topic)
    meters = [letter["meter_id"] for letter in refusals] or [source.owner_id if source else None]
    has_bytes = bool(topic or payload)
    return {
        "partition": partition,
        "offset": offset,
        "index": index,
        "topic": topic,
        "payload": payload[:PAYLOAD_BYTES_MAX].decode(errors="backslashreplace"),
        "payload_bytes": len(payload) if has_bytes else None,
        "is_cut": len(payload) > PAYLOAD_BYTES_MAX,
        "why": why,
        "refusals": refusals,
        "meter_id": meters[0] if source is None or source.owner == "meters" else _meter_in(payload),
    }


def _meter_in(payload: bytes) -> str | None:
    """Return the meter that an element of a gateway's message names, or None."""
    try:
        value = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return None
    named = value.get("meter_id") if isinstance(value, dict) else None
    return named if isinstance(named, str) and is_meter_id(named) else None


def _refusals(console: Console, partition: int, offset: int, index: int) -> list[dict[str, Any]]:
    """Return the dead letters of a message; while the database is away the message itself can still be shown."""
    try:
        with console.database() as conn:
            return fetch_refusals(conn, partition, offset, index)
    except DatabaseAwayError:
        return []


def _from_kafka(console: Console, partition: int, offset: int, index: int) -> tuple[str, bytes, str]:
    """Return MQTT topic and bytes; where there are none, the word that says why."""
    prefix = console.settings.kafka.topic_prefix
    messages = RawMessages(console.addresses.kafka, prefix)
    try:
        topic, payload = messages.fetch(partition, offset, max(index, 0))
    finally:
        messages.close()
    if topic or payload:
        return topic, payload, ""
    consumer = Consumer({"bootstrap.servers": console.addresses.kafka, "group.id": "gridtally-raw-messages"})
    try:
        place = TopicPartition(prefix + METER_RAW, partition)
        low, high = consumer.get_watermark_offsets(place, timeout=KAFKA_TIMEOUT_S)
    except KafkaException:
        return "", b"", "away" if partition < console.settings.kafka.partitions else "raw_never"
    finally:
        consumer.close()
    return "", b"", "raw_expired" if offset < low else "raw_never" if offset >= high else "raw_no_element"
