"""Dead letters are replayed through the whole path after what was wrong has been put right, once."""

import time
from typing import Any

import psycopg
import pytest

from connectors import dead_letter_replay
from connectors.dead_letter_replay import DeadLetterReplayError, replay_dead_letters
from schemas.settings import KafkaSettings
from tests.connectors.brokers import NOWHERE
from tests.fixtures.stack import Stack

pytestmark = pytest.mark.stack


def letters(stack: Stack, meter_id: str) -> list[tuple[int, str]]:
    """Return id and state of the dead letters of a meter."""
    return stack.sql("select dead_letter_id, state from dead_letter where meter_id = %s order by 1", meter_id)


def facts(stack: Stack, meter_id: str) -> list[tuple[Any, ...]]:
    query = "select f.* from fact f join meter using (meter_no) where meter_id = %s order by end_at, revision"
    return stack.sql(query, meter_id)


def send_unknown(stack: Stack, meter_id: str, count: int = 3) -> list[int]:
    """Publish readings of a meter that is not in the master data; return the ids of their dead letters."""
    at_s = int(time.time()) // 900 * 900 - count * 900
    readings = [{"seq": n, "read_at": at_s + n * 900, "import_wh": 100 * n} for n in range(count)]
    with stack.sender() as sender:
        stack.publish(sender, f"meters/{meter_id}/readings", *readings)
        stack.wait_receipt(sender, meter_id, count - 1)
    return [number for number, _ in letters(stack, meter_id)]


def test_an_imported_meters_dead_letters_are_replayed_and_settled_once(stack: Stack) -> None:
    meter_id = f"late-{time.time_ns()}"
    ids = [str(number) for number in send_unknown(stack, meter_id)]
    assert len(ids) == 3
    stack.import_meters([{"meter_id": meter_id}])
    assert stack.run("dead-letters", "replay", *ids).stdout == "replayed 3 dead letters\n"
    settled = stack.wait(lambda: len(found := facts(stack, meter_id)) == 3 and found, 30, "the facts")
    assert {state for _, state in letters(stack, meter_id)} == {"replayed"}
    assert stack.run("dead-letters", "replay", *ids).stdout == "replayed 0 dead letters\n"
    stack.sql("update dead_letter set state = 'new' where meter_id = %s", meter_id)  # as after a crash before the mark
    before = duplicates(stack)
    assert stack.run("dead-letters", "replay", *ids).stdout == "replayed 3 dead letters\n"
    stack.wait(lambda: duplicates(stack) >= before + 3, 30, "the duplicates to be counted")
    assert facts(stack, meter_id) == settled
    stack.assert_books_balance()


def duplicates(stack: Stack) -> int:
    return int(stack.sql("select sum(duplicate) from stream_offset where consumer = 'settle'")[0][0])


def test_a_meter_that_is_still_unknown_becomes_a_dead_letter_again(stack: Stack) -> None:
    meter_id = f"never-{time.time_ns()}"
    (number,) = send_unknown(stack, meter_id, 1)
    stack.run("dead-letters", "replay", str(number))
    stack.wait(lambda: len(letters(stack, meter_id)) == 2, 30, "another dead letter")
    assert [state for _, state in letters(stack, meter_id)] == ["replayed", "new"]


def test_when_kafka_does_not_take_them_nothing_is_marked(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    meter_id = f"away-{time.time_ns()}"
    (number,) = send_unknown(stack, meter_id, 1)
    monkeypatch.setattr(dead_letter_replay, "FLUSH_TIMEOUT_S", 0.3)
    with psycopg.connect(stack.addresses["database"], autocommit=True) as conn, pytest.raises(DeadLetterReplayError):
        replay_dead_letters(conn, KafkaSettings(), NOWHERE, [number], None)
    assert letters(stack, meter_id) == [(number, "new")]


def test_the_largest_dead_letters_are_replayed_too(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_replay, "BYTES_AT_ONCE", 1)
    topic = f"gridtally/v1/meters/large-{time.time_ns()}/readings"
    query = "select dead_letter_id, length(payload), state from dead_letter where mqtt_topic = %s order by 1"
    with stack.sender() as sender:
        for _ in range(2):
            stack.publish(sender, topic.removeprefix("gridtally/v1/"), b"x" * 1_040_000)
    rows = stack.wait(lambda: len(found := stack.sql(query, topic)) == 2 and found, 30, "the dead letters")
    with psycopg.connect(stack.addresses["database"], autocommit=True) as conn:
        ids = [row[0] for row in rows]
        assert replay_dead_letters(conn, KafkaSettings(), stack.addresses["kafka"], ids, None) == 2
    stack.wait(lambda: len(stack.sql(query, topic)) == 4, 30, "them again")
    assert {row[1] for row in stack.sql(query, topic)} == {1_040_000}
