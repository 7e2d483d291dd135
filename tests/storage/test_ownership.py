"""State across owners: what one folded from facts at its start must be in the next checkpoint, and is never folded twice."""

from collections.abc import Callable

import psycopg
import pytest

from agents.consumer import Record
from agents.settle import SettleHandler
from storage.check import check_all
from storage.query import fetch_last_reading
from storage.registry import load_registry
from storage.state import fetch_state
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


def test_backlog_of_a_month_ago_after_the_checkpoint_is_found_by_the_next_owner(
    make_ledger: Callable[..., Ledger],
) -> None:
    """Owners look for facts after the checkpoint only in the days that these lie in; each further batch may add older days."""
    ledger = make_ledger()
    never, at_once = {"checkpoint_batches": 500, "checkpoint_s": 1e9}, {"checkpoint_batches": 1}
    commit(ledger.handler(**at_once), round_of(0, 3000, (1,)))
    assert ledger.sql("select later_facts_from = 'infinity' from stream_offset") == [(True,)]
    owner = ledger.handler(**never)
    for offset, place, meter in ((1, 3001, 1), (2, 1, 2), (3, 3002, 1), (4, 2, 2)):
        commit(owner, round_of(offset, place, (meter,)))
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        registry = load_registry(conn)
        assert fetch_state(conn, registry, 2).import_wh.tolist() == [1200]
        last = fetch_last_reading(conn, 2)
        assert last is not None
        assert last["import_wh"] == 1200
    commit(ledger.handler(**never), round_of(5, 3, (2,)))
    assert_exact(ledger, {1: 200, 2: 200})
    commit(ledger.handler(**at_once), round_of(6, 4, (2,)))
    assert ledger.sql("select later_facts_from = 'infinity' from stream_offset") == [(True,)]
    commit(ledger.handler(**never), round_of(7, 5, (2,)))
    assert_exact(ledger, {1: 200, 2: 400})


def test_meter_that_was_silent_for_months_goes_on_from_its_last_fact(make_ledger: Callable[..., Ledger]) -> None:
    """A meter with register epochs is settled against its facts: those of the day before, or the last there is."""
    ledger = make_ledger()
    begins_s = (START_US + 50 * STEP_US) / 1e6
    ledger.sql("insert into register_epoch values (3, 1, to_timestamp(%s), 'replaced') returning 1", begins_s)
    owner = ledger.handler()
    for offset, place in enumerate((0, 100, 9000, 8900)):  # 94 days later, and a late reading of the day before
        commit(owner, round_of(offset, place, (1, 3)))
    assert_exact(ledger, {1: 900_000, 3: 890_000})
    live = "select count(*) from fact where meter_no = 3 and revision % 2 = 0"
    assert ledger.sql(live) == [(5,)]  # two openings, the long interval, and its two parts
