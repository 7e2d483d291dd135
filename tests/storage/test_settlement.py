"""The settlement transaction on a real database: whatever breaks, and wherever, the ledger is exact."""

import itertools
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from agents.settle import SettleHandler
from storage.check import check_all
from storage.offset import GapError
from tests.fixtures.fix_ledger import Ledger, make_records

pytestmark = pytest.mark.stack


def settle_all(handler: SettleHandler, records: list[Any], size: int = 1) -> None:
    for start in range(0, len(records), size):
        handler.commit(handler.topics[0], 0, records[start : start + size])


def assert_balanced(ledger: Ledger) -> None:
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        broken = [result for result in check_all(conn) if not result.holds]
    assert not broken, broken


def charges_of(ledger: Ledger) -> list[Any]:
    from storage.charge import fetch_running_charge

    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        return [fetch_running_charge(conn, f"x-{n:03d}") for n in range(1, 7)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ledger_and_charges_do_not_depend_on_batching_or_checkpoints(
    make_ledger: Callable[..., Ledger], seed: int
) -> None:
    records = make_records(seed)
    outcomes = []
    for size, checkpoints in ((1, 1), (5, 3), (12, 500)):
        ledger = make_ledger()
        settle_all(ledger.handler(checkpoint_batches=checkpoints), records, size)
        assert_balanced(ledger)
        outcomes.append((ledger.dump(), charges_of(ledger)))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    facts = outcomes[0][0]
    assert len(facts) > 100
    revisions = ledger.sql("select count(*) filter (where revision % 2 = 1), sum(energy_wh) from fact")[0]
    assert revisions[0] > 0, "sometimes: a late reading was settled"


def test_every_batch_twice_changes_nothing(make_ledger: Callable[..., Ledger]) -> None:
    records = make_records(7)
    once, twice = make_ledger(), make_ledger()
    settle_all(once.handler(), records)
    handler = twice.handler()
    for record in records:
        handler.commit(handler.topics[0], 0, [record])
        handler.commit(handler.topics[0], 0, [record])
    assert once.dump() == twice.dump()
    settle_all(twice.handler(), records, 4)  # another owner that was given all of it again
    assert once.dump() == twice.dump()
    assert_balanced(twice)


def test_missing_record_halts_and_commits_nothing(make_ledger: Callable[..., Ledger]) -> None:
    records = make_records(8)
    ledger = make_ledger()
    handler = ledger.handler()
    settle_all(handler, records[:2])
    before = ledger.dump()
    with pytest.raises(GapError, match="expected offset 2, got 3"):
        handler.commit(handler.topics[0], 0, records[3:5])
    with pytest.raises(GapError):
        handler.commit(handler.topics[0], 0, [records[2], records[4]])
    assert ledger.dump() == before
    settle_all(handler, records[2:])
    assert_balanced(ledger)


class _FailingConnection:
    """Passes everything to a connection, but breaks it at the n-th statement, as a lost server does."""

    def __init__(self, conn: psycopg.Connection, fail_at: int, *, after: bool) -> None:
        self._conn, self._left, self._after = conn, fail_at, after
        self.struck = False

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.struck = True
            self._conn.close()
            raise psycopg.OperationalError("injected")

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        if not self._after:
            self._count()
        done = self._conn.execute(*args, **kwargs)
        if self._after:
            self._count()
        return done

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        self._count()
        return self._conn.cursor(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_failure_at_every_statement_leaves_an_exact_ledger(make_ledger: Callable[..., Ledger], after: bool) -> None:
    records = make_records(11, frames=6)
    expected = make_ledger()
    settle_all(expected.handler(), records)
    ledger = make_ledger()
    handler = ledger.handler()
    struck = 0
    for record in records:
        for number in itertools.count(1):
            real = handler.connection()
            failing = _FailingConnection(real, number, after=after)
            handler._conn = failing  # type: ignore[assignment]
            try:
                handler.commit(handler.topics[0], 0, [record])
            except psycopg.OperationalError:
                struck += 1
                continue
            finally:
                if handler._conn is failing:
                    handler._conn = real
            assert number < 60
            break
    assert struck > 30, "sometimes: the failures really struck"
    assert ledger.dump() == expected.dump()
    assert charges_of(ledger) == charges_of(expected)
    assert_balanced(ledger)


def test_new_owner_goes_on_from_checkpoint_and_later_facts(make_ledger: Callable[..., Ledger]) -> None:
    records = make_records(12)
    expected, ledger = make_ledger(), make_ledger()
    settle_all(expected.handler(), records)
    for place, record in enumerate(records):
        handler = ledger.handler(checkpoint_batches=4)  # each record by an owner of its own
        handler.commit(handler.topics[0], 0, [record])
        if place % 3 == 0:
            handler._checkpoint_at[0] = -1e9  # sometimes a checkpoint is due
    assert ledger.dump() == expected.dump()
    assert_balanced(ledger)


def test_two_owners_of_a_partition_take_turns(make_ledger: Callable[..., Ledger]) -> None:
    records = make_records(13)
    expected, ledger = make_ledger(), make_ledger()
    settle_all(expected.handler(), records)
    one, two = ledger.handler(), ledger.handler()
    for place in range(0, len(records), 2):
        pair = records[place : place + 2]
        one.commit(one.topics[0], 0, pair)
        two.commit(two.topics[0], 0, pair)  # a zombie with the same records
    assert ledger.dump() == expected.dump()
    assert_balanced(ledger)


def test_facts_refuse_update_and_delete(make_ledger: Callable[..., Ledger]) -> None:
    ledger = make_ledger()
    settle_all(ledger.handler(), make_records(14, frames=2))
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        for statement in ("update fact set energy_wh = 0", "delete from fact"):
            with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                conn.execute(statement)
        with pytest.raises(psycopg.errors.RaiseException, match="never falls"):
            conn.execute("update stream_offset set next_offset = next_offset - 1, checkpoint_offset = 0")
