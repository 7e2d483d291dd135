"""The validate agent on a real database and broker, one batch at a time."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import agents.validate
from agents.consumer import Record
from agents.validate import ValidateHandler
from schemas.frame import decode_readings, encode_raw, watermark_of
from storage.offset import GapError
from storage.registry import import_meters
from tests.fixtures.fix_ledger import Ledger

pytestmark = pytest.mark.stack

READ_AT = int(time.time()) // 900 * 900


class Validating:
    """A validate handler with its own database, and raw records in the order of their offsets."""

    def __init__(self, ledger: Ledger, tmp_path: Path) -> None:
        self.ledger = ledger
        self.path = tmp_path / "more.csv"
        self.handler = ValidateHandler(ledger.settings, ledger.dsn, ledger.kafka)
        self.offset = self.handler.next_offsets({(self.handler.topics[0], 0)})[self.handler.topics[0], 0]

    def record(self, *messages: tuple[str, bytes], kind: str = "readings") -> Record:
        topics = [f"gridtally/v1/meters/{meter_id}/{kind}" for meter_id, _ in messages]
        now_us, size = int(time.time() * 1e6), len(messages)
        value = encode_raw(topics, [payload for _, payload in messages], [now_us] * size, [0] * size, now_us)
        self.offset += 1
        return Record(self.handler.topics[0], 0, self.offset - 1, value)

    def commit(self, *records: Record) -> None:
        self.handler.commit(self.handler.topics[0], 0, records)

    def import_meters(self, *meter_ids: str) -> None:
        self.path.write_text("\n".join(["meter_id", *meter_ids, ""]), "utf-8")
        with psycopg.connect(self.ledger.dsn, autocommit=True) as conn:
            assert not import_meters(conn, self.path).faults

    def counts(self) -> dict[str, int]:
        names = "next_offset, readings, accepted, refused"
        ((*values,),) = self.ledger.sql(f"select {names} from stream_offset where consumer = 'validate'")
        return dict(zip(names.split(", "), values, strict=True))

    def letters(self) -> list[tuple[Any, ...]]:
        return self.ledger.sql("select code, meter_id, seq::int from dead_letter order by dead_letter_id")


@pytest.fixture
def validating(make_ledger: Callable[..., Ledger], tmp_path: Path) -> Iterator[Validating]:
    made = Validating(make_ledger(), tmp_path)
    yield made
    made.handler.close()


def reading(seq: int) -> bytes:
    return json.dumps({"seq": seq, "read_at": READ_AT + seq, "import_wh": seq}).encode()


def test_a_meter_is_known_from_the_moment_its_import_is_done(validating: Validating) -> None:
    """However lately the master data were looked at: what is sent after the import must not become a dead letter."""
    for number in range(3):
        meter_id = f"new-{number}"
        validating.commit(validating.record((meter_id, reading(number))))
        validating.import_meters(meter_id)
        validating.commit(validating.record((meter_id, reading(number + 10))))
    assert validating.letters() == [("unknown_meter", f"new-{number}", number) for number in range(3)]
    assert validating.counts() == {"next_offset": 6, "readings": 6, "accepted": 3, "refused": 3}


def test_many_unknown_meters_ask_for_the_master_data_a_few_times_only(
    validating: Validating, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = agents.validate.refresh_registry

    def refresh(*arguments: Any) -> Any:
        asked.append(1)
        return real(*arguments)

    monkeypatch.setattr(agents.validate, "refresh_registry", refresh)
    messages = [(f"unknown-{number}", reading(1)) for number in range(500)]
    for _ in range(3):
        validating.commit(validating.record(*messages), validating.record(*messages))
    assert len(validating.letters()) == 3000
    assert len(asked) <= 6


def test_a_batch_twice_changes_nothing_and_a_gap_is_refused(validating: Validating) -> None:
    records = [validating.record(("x-001", reading(seq)), ("none", reading(seq))) for seq in range(4)]
    validating.commit(*records[:3])
    before = validating.counts(), validating.letters()
    validating.commit(*records[:3])
    assert (validating.counts(), validating.letters()) == before
    missing = validating.record(("x-001", reading(9)))
    with pytest.raises(GapError, match="expected offset 3, got 4"):
        validating.commit(missing)
    assert (validating.counts(), validating.letters()) == before
    validating.commit(records[2], records[3], missing)
    assert validating.counts() == {"next_offset": 5, "readings": 9, "accepted": 5, "refused": 4}


def test_event_dated_ahead_of_its_reception_or_long_before_is_refused(validating: Validating) -> None:
    """An alarm dated in the future would never end by itself."""
    now = int(time.time())
    limit = validating.handler.limits.future_max_s
    ahead, near, old = now + limit + 60, now + limit - 60, now - validating.handler.limits.past_max_days * 86_400 - 60
    events = [
        json.dumps({"seq": seq, "at": at, "code": "cover_open"}).encode() for seq, at in enumerate((ahead, near, old))
    ]
    validating.commit(validating.record(*(("x-001", event) for event in events), kind="events"))
    assert [code for code, *_ in validating.letters()] == ["impossible_time"] * 2
    assert [bytes(row[0]) for row in validating.ledger.sql("select payload from dead_letter order by raw_index")] == [
        events[0],
        events[2],
    ]


def test_watermark_travels_on_with_readings_and_refusals_of_one_batch(
    validating: Validating, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[bytes] = []
    monkeypatch.setattr(validating.handler.publisher, "produce", lambda topic, _partition, value: frames.append(value))
    far = json.dumps({"seq": 1, "read_at": READ_AT + 10**6, "import_wh": 1}).encode()
    validating.commit(validating.record(("x-001", reading(0)), ("x-001", far)))
    marks = [watermark_of(decode_readings(value)) for value in frames]
    assert sum(mark is not None for mark in marks) == 1
