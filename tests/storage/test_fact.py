"""Facts as columns into the database and out of it again."""

from collections.abc import Callable

import numpy as np
import psycopg
import pytest

from metering.fact import FACT_COLUMNS, INT_NULLABLE, Columns
from schemas.frame import ELECTRICAL
from storage.partition import DailyPartitions
from storage.raw_record import ELEMENTS_PER_MESSAGE
from storage.settlement import INT4_COLUMNS, copy_facts, days_of
from storage.state import columns_from_fetched, fact_select
from tests.fixtures.fix_ledger import Ledger

pytestmark = pytest.mark.stack


def random_facts(seed: int, size: int) -> Columns:
    """Return facts with every column over its whole range, and nulls where they may be."""
    rng = np.random.default_rng(seed)
    facts: Columns = {
        name: rng.integers(*((0, 2**31) if name in INT4_COLUMNS else (-(2**62), 2**62)), size) for name in FACT_COLUMNS
    }
    facts |= {name: rng.integers(-1, 2**62, size) for name in INT_NULLABLE}
    for name in ELECTRICAL:
        facts[name] = np.where(rng.random(size) < 0.5, np.nan, rng.normal(0, 1e3, size)).astype(np.float32)
    facts["meter_no"] = np.arange(1, size + 1)
    facts["end_at"] = 1_793_000_000_000_000 + rng.integers(0, 10**11, size)
    facts["start_at"] = facts["end_at"] - rng.integers(0, 10**12, size)
    facts["raw_index"] = rng.integers(0, 10_000, size) * ELEMENTS_PER_MESSAGE + rng.integers(0, 1000, size)
    return facts


@pytest.mark.parametrize("seed", [1, 2])
def test_facts_come_back_as_they_were_written(make_ledger: Callable[..., Ledger], seed: int) -> None:
    facts = random_facts(seed, 500)
    ledger = make_ledger()
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        DailyPartitions().ensure(conn, days_of(facts["end_at"]))
        with conn.transaction():
            copy_facts(conn, facts)
        rows = conn.execute(f"select {fact_select()} from fact f order by meter_no").fetchall()
    found = columns_from_fetched(rows)
    for name in FACT_COLUMNS:
        np.testing.assert_array_equal(found[name], facts[name], err_msg=name)


def test_raw_place_keeps_the_element_apart_from_the_message(make_ledger: Callable[..., Ledger]) -> None:
    facts = random_facts(3, 1)
    facts["raw_index"] = np.array([7 * ELEMENTS_PER_MESSAGE + 999])
    ledger = make_ledger()
    with psycopg.connect(ledger.dsn, autocommit=True) as conn:
        DailyPartitions().ensure(conn, days_of(facts["end_at"]))
        copy_facts(conn, facts)
    assert ledger.sql("select raw_place >> 20, raw_place & 1048575, raw_index_of(raw_place) from fact") == [
        (999, 7, 7 * 1024 + 999)
    ]
