"""Hostile messages through the running system: all of them end as dead letters with their bytes, and no neighbour is harmed."""

import collections
import hashlib
import itertools
import json
import re
import secrets
import time

import pytest

from agents.consumer import Record
from agents.decoding import Validated, Validator
from schemas.frame import encode_raw
from tests.fixtures.stack import Stack
from tests.fuzz.payloads import METERS, Hostile
from tests.fuzz.validator import make_registry

pytestmark = pytest.mark.stack

HOSTILE, GOOD_METERS, GOOD_EACH = 2000, 20, 10
OURS = re.compile(r"gridtally/v1/(meters/[^/ ]*/(readings|events)|gateways/[^/ ]+/readings)")
ALWAYS = (b" " * 70_000, b"x" * 900_000, b"[" + b",".join([b"0"] * 1001) + b"]", b"[" * 60_000, b"")
Letter = tuple[str, str, str]
"""MQTT topic, code, SHA-256 of the bytes."""


def hostile_messages(seed: int, count: int) -> tuple[list[tuple[str, bytes]], collections.Counter[Letter]]:
    """Return messages in which nothing at all is good, and the dead letters that they must become."""
    validator = Validator(make_registry(), lambda registry: registry)
    beginning = [(f"gridtally/v1/meters/{METERS[0]}/readings", payload) for payload in ALWAYS]
    messages: list[tuple[str, bytes]] = []
    letters: collections.Counter[Letter] = collections.Counter()
    for topic, payload in itertools.chain(beginning, Hostile(seed).messages()):
        out = Validated()
        validator.take_record(out, Record("", 0, 0, encode_raw([topic], [payload], [0], [0], 0)))
        depth = payload.count(b"[") + payload.count(b"{")
        if out.readings or out.events or not OURS.fullmatch(topic) or 300 < depth < 5000:
            continue  # how deep the decoder goes depends on who calls it: near the limit the system may take what we refuse
        messages.append((topic, payload))
        letters.update(letter(topic, one.code.word, one.payload) for _, one, *_ in out.refused)
        if len(messages) == count:
            break
    return messages, letters


def letter(topic: str, code: str, payload: bytes) -> Letter:
    return topic, code, hashlib.sha256(payload).hexdigest()


def test_two_thousand_hostile_payloads_among_good_readings(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    seed = secrets.randbelow(2**32)
    with capsys.disabled():
        print(f"\nend to end: seed {seed}")
    good = [f"fz-good-{number}" for number in range(GOOD_METERS)]
    stack.import_meters([{"meter_id": meter_id} for meter_id in (*METERS, *good)])
    hostile, expected = hostile_messages(seed, HOSTILE)
    before = stack.sql("select coalesce(max(dead_letter_id), 0) from dead_letter")[0][0]
    start_s = int(time.time()) // 900 * 900 - GOOD_EACH * 900
    readings = (
        (
            f"gridtally/v1/meters/{meter_id}/readings",
            {"seq": seq, "read_at": start_s + seq * 900, "import_wh": 7 * seq * seq},
        )
        for seq in range(GOOD_EACH)
        for meter_id in good
    )
    with stack.sender("fuzz") as sender:
        for number, (topic, payload) in enumerate(hostile):
            if number % 10 == 0:
                good_topic, reading = next(readings)
                sender.wait_for_room()
                sender.publish_later(good_topic, json.dumps(reading).encode())
            sender.wait_for_room()
            sender.publish_later(topic, payload)
        assert list(readings) == []
        assert sender.wait_until_acknowledged(20)
        for meter_id in good:
            stack.wait_receipt(sender, meter_id, GOOD_EACH - 1, 60)

    topics = sorted({topic for topic, _ in hostile})

    def letters() -> collections.Counter[Letter] | None:
        query = (
            "select mqtt_topic, code, encode(sha256(payload), 'hex') from dead_letter"
            " where mqtt_topic = any(%s) and dead_letter_id > %s"
        )
        rows = stack.sql(query, topics, before)
        found = collections.Counter[Letter](rows)
        return found if found >= expected else None

    found = stack.wait(letters, 60, "all dead letters")
    assert found.keys() == expected.keys(), "and no others"
    whole = {
        letter(topic, "", payload)[2] for topic, payload in hostile if not payload.lstrip(b" \t\r\n").startswith(b"[")
    }
    assert whole <= {digest for *_, digest in found}, "every message that is no array is kept to the byte"
    facts = stack.sql(
        "select m.meter_id, count(*), sum(f.energy_wh) from fact f join meter m using (meter_no)"
        " where m.meter_id = any(%s) group by 1",
        good,
    )
    assert {row[0]: row[1:] for row in facts} == dict.fromkeys(good, (GOOD_EACH, 7 * (GOOD_EACH - 1) ** 2))
    assert stack.sql("select count(*) from fact join meter using (meter_no) where meter_id = any(%s)", METERS) == [(0,)]
    stack.assert_books_balance()


def test_the_messages_are_of_every_kind() -> None:
    messages, letters = hostile_messages(1, HOSTILE)
    assert len(messages) == HOSTILE
    codes = {code for _, code, _ in letters}
    assert codes >= {
        "unknown_topic",
        "oversize",
        "bad_json",
        "wrong_type",
        "too_many_elements",
        "meter_mismatch",
        "unknown_meter",
    }
    assert len({topic for topic, _ in messages}) > 40
    assert list(itertools.islice(Hostile(1).messages(), 3)) != list(itertools.islice(Hostile(2).messages(), 3))
