"""The checks see what they are for; each finding here was planted."""

from collections.abc import Callable

import psycopg
import pytest

from storage.check import check_all
from tests.fixtures.fix_ledger import Ledger, make_records

pytestmark = pytest.mark.stack


def settled(make_ledger: Callable[..., Ledger]) -> Ledger:
    """Return a ledger whose last batch was a checkpoint."""
    ledger = make_ledger()
    handler = ledger.handler(checkpoint_batches=1)
    for record in make_records(5, frames=4):
        handler.commit(handler.topics[0], 0, [record])
    assert not broken(ledger)
    return ledger


def broken(ledger: Ledger) -> dict[str, list[str]]:
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        return {result.invariant: result.findings for result in check_all(conn) if not result.holds}


def change(ledger: Ledger, statement: str) -> None:
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        conn.execute(statement)  # type: ignore[arg-type]


def test_state_that_lacks_a_fact_before_the_checkpoint_is_seen(make_ledger: Callable[..., Ledger]) -> None:
    """The next owner would not fold that fact, and would bill its energy again."""
    ledger = settled(make_ledger)
    change(ledger, "update meter_state set next_offset = 1 where meter_no = 2")
    change(ledger, "delete from meter_state where meter_no = 3")
    found = broken(ledger)["I8"]
    assert sorted(text.split(" lacks")[0] for text in found) == ["x-002: state at 1", "x-003: state at None"]


def test_state_that_differs_from_its_facts_is_seen(make_ledger: Callable[..., Ledger]) -> None:
    ledger = settled(make_ledger)
    change(ledger, "update meter_state set quantities_wh[1] = quantities_wh[1] + 1 where meter_no = 4")
    assert [text.split(" is ")[0] for text in broken(ledger)["I5"]] == ["x-004: quantities_wh"]


def test_days_without_their_guard_are_seen(make_ledger: Callable[..., Ledger]) -> None:
    ledger = settled(make_ledger)
    change(ledger, "alter table fact disable trigger fact_append_only")
    found = broken(ledger)["I14"]
    assert "the guard fact_append_only is missing" in found
    assert any("has no guard against change" in text for text in found)
