"""State across owners: what one folded from facts at its start must be in the next checkpoint, and is never folded twice."""

from collections.abc import Callable

import psycopg
import pytest

from agents.consumer import Record
from agents.settle import SettleHandler
from storage.check import check_all
from tests.fixtures.fix_ledger import Ledger, frame_of

pytestmark = pytest.mark.stack

START_US = 1_793_000_000 // 900 * 900_000_000
STEP_US = 900_000_000


def round_of(offset: int, place: int, meters: tuple[int, ...]) -> Record:
    """Return one reading of some meters; each uses 100 Wh a quarter-hour."""
    rows = [
        {
            "meter_no": meter,
            "seq": place,
            "read_at": START_US + place * STEP_US,
            "import_wh": 1000 + 100 * place,
            "raw_offset": offset,
            "raw_index": index,
        }
        for index, meter in enumerate(meters)
    ]
    return Record("meter.readings", 0, offset, frame_of(rows))


def commit(handler: SettleHandler, record: Record) -> None:
    handler.commit(handler.topics[0], 0, [record])


def assert_exact(ledger: Ledger, energy_wh: dict[int, int]) -> None:
    found = ledger.sql("select meter_no, sum(energy_wh)::int from fact group by 1 order by 1")
    assert dict(found) == energy_wh
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        assert not [result for result in check_all(conn) if not result.holds]


def test_meters_folded_at_the_start_are_in_the_next_checkpoint(make_ledger: Callable[..., Ledger]) -> None:
    ledger = make_ledger()
    never, at_once = {"checkpoint_batches": 500, "checkpoint_s": 1e9}, {"checkpoint_batches": 1}
    first = ledger.handler(**at_once)
    commit(first, round_of(0, 0, (1, 2)))  # a checkpoint with both
    second = ledger.handler(**never)
    commit(second, round_of(1, 1, (1, 2)))  # facts after it, then the owner dies
    third = ledger.handler(**at_once)
    commit(third, round_of(2, 2, (1,)))  # a checkpoint, and meter 2 was not heard of since
    fourth = ledger.handler(**never)
    commit(fourth, round_of(3, 3, (1, 2)))
    assert_exact(ledger, {1: 300, 2: 300})


def test_facts_are_folded_once_when_a_partition_is_loaded_again(make_ledger: Callable[..., Ledger]) -> None:
    ledger = make_ledger()
    never = {"checkpoint_batches": 500, "checkpoint_s": 1e9}
    commit(ledger.handler(**never), round_of(0, 0, (1, 2)))
    commit(ledger.handler(**never), round_of(1, 1, (1, 2)))
    owner = ledger.handler(**never)  # folds both from facts alone
    owner._stands_at.clear()  # as after a lost connection
    owner.next_offsets({(owner.topics[0], 0)})
    assert owner.states.quantities_wh[2].sum() == 100
    commit(owner, round_of(2, 2, (1, 2)))
    assert_exact(ledger, {1: 200, 2: 200})
