"""Known-bad code paths, switched on, must turn the checks red; one that stays green would be a hole in the checks."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

import agents.settle
import storage.settlement
from agents.consumer import Record
from agents.settle import SettleHandler
from storage.check import check_all
from storage.offset import OffsetCounts
from tests.fixtures.fix_ledger import Ledger, frame_of, make_records

pytestmark = [pytest.mark.stack, pytest.mark.faults]


class _KilledError(Exception):
    """Stands for kill -9: nothing of the process runs on."""


def settle(ledger: Ledger, records: list[Any], crash_at: int | None = None) -> None:
    """Settle one record after the other; at `crash_at` the owner dies at its commit, and another goes on from the database."""
    handler = ledger.handler()
    position = 0
    while position < len(records):
        try:
            handler.commit(handler.topics[0], 0, [records[position]])
        except _KilledError:
            handler = ledger.handler()
        position = handler.next_offsets({(handler.topics[0], 0)})[handler.topics[0], 0]
        if position == crash_at:
            handler = ledger.handler()
            crash_at = None
            handler.commit(handler.topics[0], 0, records[max(0, position - 2) : position])  # what Kafka gives again


def is_green(ledger: Ledger, expected: Ledger) -> bool:
    """Return whether the oracle sees nothing: the invariants hold and the ledger is the expected one."""
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        holds = all(result.holds for result in check_all(conn))
    energy = "select meter_no, sum(energy_wh), count(*) from fact group by 1 order by 1"
    return holds and ledger.sql(energy) == expected.sql(energy)


@pytest.fixture
def records() -> list[Any]:
    made = make_records(21, frames=8)
    row = {
        "meter_no": 1,
        "seq": 900,
        "read_at": 1_793_000_000 // 900 * 900_000_000,
        "import_wh": 99_999,
        "raw_index": 900,
    }
    return [*made, Record("meter.readings", 0, len(made), frame_of([row]))]  # a conflict with the first reading


@pytest.fixture
def expected(make_ledger: Callable[..., Ledger], records: list[Any]) -> Ledger:
    ledger = make_ledger()
    settle(ledger, records, crash_at=4)
    return ledger


def test_without_a_mutation_the_checks_are_green(
    make_ledger: Callable[..., Ledger], expected: Ledger, records: list[Any]
) -> None:
    ledger = make_ledger()
    settle(ledger, records, crash_at=4)
    assert is_green(ledger, expected)


def test_m3_without_the_offset_check_is_seen(
    make_ledger: Callable[..., Ledger], expected: Ledger, records: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """M3: replays are not skipped by offset: counts no longer balance, or the database refuses a second fact."""
    ledger = make_ledger()
    monkeypatch.setattr(agents.settle, "skip_replays", lambda row, items: list(items))
    try:
        settle(ledger, records, crash_at=4)
        green = is_green(ledger, expected) and ledger.sql("select sum(readings) from stream_offset") == expected.sql(
            "select sum(readings) from stream_offset"
        )
    except psycopg.Error:
        green = False
    assert not green


def test_m4_overwriting_facts_is_seen(
    make_ledger: Callable[..., Ledger], expected: Ledger, records: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """M4: a conflicting reading overwrites the settled register instead of being refused."""
    ledger = make_ledger()
    real = agents.settle.keep_refused

    def overwrite(conn: psycopg.Connection, batch: Any, refused: Any, describe: Any) -> int:
        done = real(conn, batch, refused, describe)
        for index, *_ in refused:
            conn.execute("set local session_replication_role = replica")
            conn.execute(
                "update fact set import_wh = %s where meter_no = %s and end_at = to_timestamp(%s)",
                (int(batch["import_wh"][index]), int(batch["meter_no"][index]), int(batch["read_at"][index]) / 1e6),
            )
            conn.execute("set local session_replication_role = origin")
        return done

    monkeypatch.setattr(agents.settle, "keep_refused", overwrite)
    settle(ledger, records, crash_at=4)
    assert ledger.sql("select count(*) from dead_letter")[0][0] > 0, "sometimes: a conflict was there"
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        assert not all(result.holds for result in check_all(conn))


def test_m5_delta_billing_is_seen(
    make_ledger: Callable[..., Ledger], expected: Ledger, records: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """M5: energy from whatever reading came before in the stream, not from registers in their order."""
    ledger = make_ledger()
    real = storage.settlement.copy_facts

    def deltas(conn: psycopg.Connection, facts: Any) -> None:
        wrong = {
            **facts,
            "energy_wh": np.where(facts["revision"] == 0, np.maximum(facts["energy_wh"] - 1, 0), facts["energy_wh"]),
        }
        real(conn, wrong)

    monkeypatch.setattr(storage.settlement, "copy_facts", deltas)
    settle(ledger, records, crash_at=4)
    assert not is_green(ledger, expected)


@contextlib.contextmanager
def _second_transaction(monkeypatch: pytest.MonkeyPatch, kill_at: int) -> Iterator[None]:
    """Commit the data first and the offset in a transaction of its own; die between them once."""
    real = SettleHandler._write
    state = {"count": 0}

    def write(self: SettleHandler, partition: int, batch: Any, items: Any) -> Any:
        kept: dict[str, Any] = {}
        with monkeypatch.context() as patch:
            patch.setattr(
                storage.settlement, "advance", lambda conn, key, **values: kept.update(key=key, values=values)
            )
            after = real(self, partition, batch, items)

        def second() -> None:
            state["count"] += 1
            if state["count"] == kill_at:
                raise _KilledError
            from storage.offset import advance

            with self.connection().transaction():
                advance(self.connection(), kept["key"], **kept["values"])
            after()

        return second

    monkeypatch.setattr(SettleHandler, "_write", write)
    yield


def test_m10_offset_in_a_second_transaction_is_seen(
    make_ledger: Callable[..., Ledger], expected: Ledger, records: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger()
    with _second_transaction(monkeypatch, kill_at=3):
        try:
            settle(ledger, records)
            green = is_green(ledger, expected)
        except (psycopg.Error, AssertionError):
            green = False
    assert not green


def test_m1_offset_before_the_data_is_seen(
    make_ledger: Callable[..., Ledger], expected: Ledger, records: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """M1: the batch is acknowledged (our offset) before its data are committed, and the owner dies between."""
    ledger = make_ledger()
    real = SettleHandler._commit
    state = {"count": 0}

    def commit(self: SettleHandler, partition: int, items: Any) -> None:
        state["count"] += 1
        if state["count"] == 4:
            from storage.offset import advance

            with self.connection().transaction():
                key = ("settle", "meter.readings", partition)
                advance(
                    self.connection(), key, next_offset=items[-1].offset + 1, worker="mutant", counts=OffsetCounts()
                )
            raise _KilledError
        real(self, partition, items)

    monkeypatch.setattr(SettleHandler, "_commit", commit)
    settle(ledger, records)
    assert state["count"] >= 4
    assert not is_green(ledger, expected)
