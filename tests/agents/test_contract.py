"""Every reason for a refusal, through the running system: code, stage, bytes and receipt."""

import datetime as dt
import json
import time
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer

from schemas.reject import OPERATOR_ACTIONS, RejectCode
from tests.fixtures.stack import Stack

pytestmark = pytest.mark.stack

NOW_S = int(time.time()) // 900 * 900
MODULUS_WH = 1_000_000


def reading(seq: int, minutes: int = 0, wh: int = 1000, **fields: Any) -> bytes:
    return json.dumps({"seq": seq, "read_at": NOW_S + minutes * 60, "import_wh": wh} | fields).encode()


def array(*elements: bytes) -> bytes:
    return b"[" + b",".join(elements) + b"]"


@pytest.fixture(scope="module")
def meters(stack: Stack) -> str:
    """Import meters; the first settles a reading at NOW_S."""
    installed = dt.datetime.fromtimestamp(NOW_S, dt.UTC).date() - dt.timedelta(days=3)
    rows = [
        {"meter_id": f"ct-{number}", "register_modulus_wh": MODULUS_WH, "installed_on": installed}
        for number in range(20)
    ]
    stack.import_meters(rows)
    with stack.sender() as sender:
        for number in range(20):
            stack.publish(sender, f"meters/ct-{number}/readings", reading(0))
        for number in range(20):
            stack.wait_receipt(sender, f"ct-{number}", 0)
    return "ct"


BAD = b'{"seq":1,"read_at":1,"import_wh":"x"}'
MANY = array(*[BAD] * 1001)
SPACED, NO_METER = reading(1, meter_id="ct 6"), reading(1, meter_id="ct-no")
MILLIS = b'{"seq":1,"read_at":1795507200000,"import_wh":5}'


class Case(NamedTuple):
    """A message and the dead letter that it must become."""

    code: RejectCode
    stage: str
    topic: str
    payload: bytes
    kept: bytes | None
    """Bytes of the dead letter; None: the whole payload."""
    receipted: str | None
    """Meter whose number 1 is receipted all the same."""


CASES: list[Case] = [
    Case(RejectCode.UNKNOWN_TOPIC, "validate", "meters/ct-é/readings", reading(1), None, None),
    Case(RejectCode.OVERSIZE, "validate", "meters/ct-1/readings", reading(1, status=["x" * 70_000]), None, None),
    Case(RejectCode.BAD_JSON, "validate", "meters/ct-2/readings", reading(1)[:-1], None, None),
    Case(RejectCode.WRONG_TYPE, "validate", "meters/ct-3/readings", reading(1, wh=-5), None, "ct-3"),
    Case(RejectCode.WRONG_TYPE, "validate", "meters/ct-4/readings", array(reading(2, 5), BAD, reading(3, 10)), BAD, "ct-4"),
    Case(RejectCode.TOO_MANY_ELEMENTS, "validate", "meters/ct-5/readings", MANY, None, None),
    Case(RejectCode.BAD_METER_ID, "validate", "gateways/ct-gw/readings", array(SPACED), SPACED, None),
    Case(RejectCode.METER_MISMATCH, "validate", "meters/ct-7/readings", reading(1, meter_id="ct-8"), None, "ct-7"),
    Case(RejectCode.UNKNOWN_METER, "validate", "meters/ct-none/readings", reading(1), None, "ct-none"),
    Case(RejectCode.UNKNOWN_METER, "validate", "gateways/ct-gw/readings", array(NO_METER), NO_METER, "ct-no"),
    Case(RejectCode.IMPOSSIBLE_TIME, "validate", "meters/ct-9/readings", reading(1, 24 * 60), None, "ct-9"),
    Case(RejectCode.IMPOSSIBLE_TIME, "validate", "meters/ct-10/readings", MILLIS, None, "ct-10"),
    Case(RejectCode.OUT_OF_RANGE, "validate", "meters/ct-11/readings", reading(1, 15, MODULUS_WH), None, "ct-11"),
    Case(RejectCode.OUT_OF_RANGE, "validate", "meters/ct-12/readings", reading(1, 15, power_w=1e39), None, "ct-12"),
    Case(RejectCode.CONFLICTING_DUPLICATE, "settle", "meters/ct-13/readings", reading(1, 0, 1001), None, "ct-13"),
    Case(RejectCode.REGISTER_DECREASED, "settle", "meters/ct-14/readings", reading(1, 1, 999), None, "ct-14"),
    Case(RejectCode.NO_TARIFF, "settle", "meters/ct-15/readings", reading(1, -10 * 24 * 60, 500), None, "ct-15"),
]  # fmt: skip


def letters(stack: Stack, code: RejectCode, topic: str) -> list[tuple[str, bytes, int | None]]:
    rows = stack.sql(
        "select stage, payload, seq from dead_letter where code = %s and mqtt_topic = %s order by 1", code.word, topic
    )
    return [(stage, bytes(payload), None if seq is None else int(seq)) for stage, payload, seq in rows]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.code.word}-{case.topic}" for case in CASES])
def test_a_refusal_keeps_code_stage_and_bytes_and_is_receipted(stack: Stack, meters: str, case: Case) -> None:
    with stack.sender() as sender:
        stack.publish(sender, case.topic, case.payload)
        found = stack.wait(lambda: letters(stack, case.code, f"gridtally/v1/{case.topic}"), 30, "the dead letter")
        if case.receipted:
            stack.wait_receipt(sender, case.receipted, 1)
    wanted = case.payload if case.kept is None else case.kept
    assert (case.stage, wanted) in {one[:2] for one in found}
    seqs = {seq for _, data, seq in found if data == wanted}
    assert seqs == {1 if case.receipted or case.code is RejectCode.BAD_METER_ID else None}


def test_the_good_neighbours_of_a_bad_element_are_settled(stack: Stack, meters: str) -> None:
    elements = [reading(1, 5, 1100), b'{"seq":2,"read_at":%d,"import_wh":NaN}' % NOW_S, reading(3, 10, 1300)]
    with stack.sender() as sender:
        stack.publish(sender, "meters/ct-16/readings", array(*elements))
        stack.wait_receipt(sender, "ct-16", 3)
    facts = stack.sql("select import_wh from fact join meter using (meter_no) where meter_id = 'ct-16' order by end_at")
    assert [wh for (wh,) in facts] == [1000, 1100, 1300]
    assert letters(stack, RejectCode.BAD_JSON, "gridtally/v1/meters/ct-16/readings") == [("validate", elements[1], 2)]


@pytest.mark.parametrize(
    ("topic", "stage"), [("meter.raw", "validate"), ("meter.readings", "settle"), ("meter.events", "detect")]
)
def test_bytes_in_our_topics_that_are_no_frame_are_kept_and_passed(
    stack: Stack, meters: str, topic: str, stage: str
) -> None:
    garbage = f"no frame {topic} {time.time_ns()}".encode()
    producer = Producer({"bootstrap.servers": stack.addresses["kafka"]})
    producer.produce(topic, garbage, partition=0)
    assert producer.flush(10) == 0
    query = "select stage from dead_letter where code = 'bad_frame' and payload = %s"
    assert stack.wait(lambda: stack.sql(query, garbage), 30, "the dead letter") == [(stage,)]
    stack.assert_books_balance()


def test_hostile_events_do_not_stop_the_detectors(stack: Stack, meters: str) -> None:
    """What PostgreSQL cannot hold, what Python cannot date, and what nests too deep, before an event that raises an alarm."""
    hostile = [
        b'{"seq":1,"at":%d,"code":"cover_open","detail":"a\\u0000b"}' % NOW_S,
        b'{"seq":2,"at":"0001-01-01T00:00:00+14:00","code":"cover_open"}',
        b'{"seq":3,"at":"9999-12-31T23:59:59-14:00","code":"cover_open"}',
        *(b'{"seq":4,"at":%d,"code":"x","detail":' % NOW_S + b"[" * n + b"]" * n + b"}" for n in range(930, 990, 3)),
        b'{"seq":5,"at":%d,"code":"y","detail":{"\\u0000":"\\u0000"}}' % NOW_S,
    ]
    with stack.sender() as sender:
        stack.publish(sender, "meters/ct-17/events", *hostile)
        stack.publish(
            sender, "meters/ct-17/events", {"seq": 9, "at": NOW_S, "code": "terminal_cover_open", "detail": "the last"}
        )
        query = "select detail from meter_event join meter using (meter_no) where meter_id = 'ct-17' and seq = %s"
        assert stack.wait(lambda: stack.sql(query, 9), 30, "the last event") == [("the last",)]
    assert stack.sql(query, 1) == [("a\ufffdb",)]
    assert len(letters(stack, RejectCode.IMPOSSIBLE_TIME, "gridtally/v1/meters/ct-17/events")) == 2
    alarms = stack.sql("select count(*) from alarm where subject = 'ct-17' and kind = 'tamper' and cleared_at is null")
    assert alarms == [(1,)]


def test_every_reason_has_a_case_and_an_action_for_the_operator() -> None:
    assert {case.code for case in CASES} | {RejectCode.BAD_FRAME} == set(RejectCode)
    assert set(OPERATOR_ACTIONS) == set(RejectCode)
