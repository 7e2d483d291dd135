"""Facts as a hypertable: days turned into columns, late readings into them, and charts that show what the ledger has.

All of it needs a TimescaleDB server: set TEST_TIMESCALE_DSN. What holds on both kinds of database is in the other tests here.
"""

import datetime as dt
import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

import storage.check
import storage.timescale
from metering.fact import FACT_COLUMNS, INT_NULLABLE, Columns
from schemas.frame import ELECTRICAL
from storage.check import check_all
from storage.migrate import migrate
from storage.query import fetch_load_curve
from storage.settlement import copy_facts
from storage.timescale import has_timescaledb, refresh_load_curve
from tests.fixtures.fix_ledger import TIMESCALE_DSN, Ledger, make_records

pytestmark = pytest.mark.skipif(TIMESCALE_DSN is None, reason="no TimescaleDB: set TEST_TIMESCALE_DSN")
on_timescaledb = pytest.mark.parametrize("make_ledger", ["timescaledb"], indirect=True)

STEP_US = 900_000_000
_numbers = itertools.count(1)


@pytest.fixture
def dsn() -> Iterator[str]:
    """Make an empty database on the TimescaleDB server; the schema is the test's to bring."""
    assert TIMESCALE_DSN is not None
    name = f"test_timescale_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(TIMESCALE_DSN, autocommit=True) as conn:
        conn.execute(f"create database {name}")
    yield TIMESCALE_DSN.rsplit("/", 1)[0] + f"/{name}"
    with psycopg.connect(TIMESCALE_DSN, autocommit=True) as conn:
        conn.execute(f"drop database {name} with (force)")


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection]:
    migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as opened:
        yield opened


def day_us(days_ago: int) -> int:
    """Return the beginning of a UTC day, epoch µs."""
    return (int(time.time()) // 86_400 - days_ago) * 86_400_000_000


def make_facts(meters: int, rounds: int, begin_us: int, *, shift_us: int = 0, revision: int = 0) -> Columns:
    """Return facts of 100 Wh a quarter-hour of meters 1 to `meters`, round after round, the first ending at `begin_us`."""
    size = meters * rounds
    facts: Columns = {
        name: np.full(size, np.nan, np.float32) if name in ELECTRICAL else np.zeros(size, np.int64)
        for name in FACT_COLUMNS
    }
    facts |= {name: np.full(size, -1, np.int64) for name in INT_NULLABLE}
    number = np.repeat(np.arange(rounds), meters)
    facts["meter_no"] = np.tile(np.arange(1, meters + 1), rounds)
    facts["end_at"] = begin_us + number * STEP_US + shift_us
    facts["start_at"] = facts["end_at"] - STEP_US
    facts["energy_wh"] = np.full(size, 100)
    facts["import_wh"] = 100 * (number + 1)
    facts["revision"] = np.full(size, revision)
    facts["frame_offset"] = number
    return facts


def add(conn: psycopg.Connection, facts: Columns) -> None:
    with conn.transaction():
        copy_facts(conn, facts)


def compress(conn: psycopg.Connection) -> int:
    """Turn all days into columns and return how many there are."""
    chunks = conn.execute("select c::text from show_chunks('fact') c").fetchall()
    for (chunk,) in chunks:
        conn.execute(f"call convert_to_columnstore('{chunk}')")
    assert compressed_days(conn) == len(chunks)
    return len(chunks)


def compressed_days(conn: psycopg.Connection) -> int:
    return scalar(
        conn, "select count(*) from timescaledb_information.chunks where hypertable_name = 'fact' and is_compressed"
    )


def scalar(conn: psycopg.Connection, query: str) -> Any:
    row = conn.execute(query).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row[0]


def chart_findings(conn: psycopg.Connection) -> list[str]:
    return storage.check._load_curve(conn).findings


def guard_findings(conn: psycopg.Connection) -> list[str]:
    """Return what is wrong with the guards; these tests' facts are of meters without master data."""
    return [text for text in storage.check._append_only(conn).findings if "master data" not in text]


def assert_balanced(conn: psycopg.Connection) -> None:
    broken = [result for result in check_all(conn) if not result.holds]
    assert not broken, broken


# -- the schema ------------------------------------------------------------------------------------------------------


def test_facts_are_kept_in_days_as_columns_ordered_by_meter_and_time(conn: psycopg.Connection) -> None:
    days = "select time_interval from timescaledb_information.dimensions where hypertable_name = 'fact'"
    assert scalar(conn, days) == dt.timedelta(days=1)
    settings = conn.execute(
        "select segmentby, orderby from timescaledb_information.hypertable_columnstore_settings"
        " where hypertable = 'fact'::regclass"
    ).fetchall()
    assert settings == [("", "meter_no,end_at,revision")]


def test_policies_turn_old_days_into_columns_refresh_all_and_drop_nothing(conn: psycopg.Connection) -> None:
    jobs = dict(
        conn.execute("select proc_name, config from timescaledb_information.jobs where hypertable_name is not null")
    )
    assert set(jobs) == {"policy_compression", "policy_refresh_continuous_aggregate"}
    assert jobs["policy_compression"]["compress_after"] == "35 days"
    assert jobs["policy_refresh_continuous_aggregate"]["start_offset"] is None


def test_columnstore_policy_takes_only_days_older_than_the_late_window(conn: psycopg.Connection) -> None:
    for days_ago in (40, 34, 1):
        add(conn, make_facts(3, 4, day_us(days_ago)))
    job = scalar(conn, "select job_id from timescaledb_information.jobs where proc_name = 'policy_compression'")
    conn.execute(f"call run_job({job})")
    assert compressed_days(conn) == 1
    oldest = (
        "select is_compressed from timescaledb_information.chunks where hypertable_name = 'fact' order by range_start"
    )
    assert conn.execute(oldest).fetchall() == [(True,), (False,), (False,)]


def test_facts_that_are_in_daily_partitions_already_stay_there(
    dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(storage.timescale, "VERSION_MIN", (99,))
        migrate(dsn)
    assert "is older than 99" in capsys.readouterr().err
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert not has_timescaledb(conn)
        conn.execute("create table fact_today partition of fact for values from ('2026-01-01') to ('2026-01-02')")
        add(conn, make_facts(1, 4, 1_767_225_600_000_000))
        migrate(dsn)
        assert not has_timescaledb(conn)
        assert scalar(conn, "select count(*) from fact") == 4
    assert "there are facts already" in capsys.readouterr().err


def test_database_without_facts_takes_to_timescaledb_later(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(storage.timescale, "VERSION_MIN", (99,))
        migrate(dsn)
    migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert has_timescaledb(conn)


# -- days as columns -------------------------------------------------------------------------------------------------


def test_columns_give_back_every_row_as_it_was(conn: psycopg.Connection) -> None:
    facts = make_facts(50, 96, day_us(3))
    rng = np.random.default_rng(1)
    for name in ELECTRICAL:
        facts[name] = np.where(rng.random(4800) < 0.3, np.nan, rng.normal(230, 3, 4800)).astype(np.float32)
    facts["energy_wh"] = rng.integers(-(2**40), 2**40, 4800)
    facts["seq"] = rng.integers(-(2**63), 2**63, 4800)
    facts["export_wh"] = rng.integers(-1, 2**62, 4800)
    add(conn, facts)
    dump = "select f.*::text from fact f order by meter_no, end_at, revision"
    before = conn.execute(dump).fetchall()
    assert compress(conn) == 1
    assert conn.execute(dump).fetchall() == before


@on_timescaledb
@pytest.mark.stack
def test_late_readings_into_compressed_days_keep_the_ledger_exact(make_ledger: Callable[..., Ledger]) -> None:
    """The same records, settled with days turned into columns after each batch, give the same ledger and charges."""
    records = make_records(31, frames=25)
    plain, columns = make_ledger(), make_ledger()
    for ledger in (plain, columns):
        handler = ledger.handler()
        for record in records:
            handler.commit(handler.topics[0], 0, [record])
            if ledger is columns:
                with psycopg.connect(ledger.dsn, autocommit=True) as conn:
                    compress(conn)
    assert columns.dump() == plain.dump()
    reversals = "select count(*) filter (where revision % 2 = 1) from fact"
    assert columns.sql(reversals)[0][0] > 3, "sometimes: late readings met compressed days"
    with psycopg.connect(columns.dsn, autocommit=True) as conn:
        assert_balanced(conn)


def test_many_late_rows_enter_a_compressed_day_in_one_transaction(conn: psycopg.Connection) -> None:
    """A full batch of late readings, more rows than TimescaleDB would unpack in one transaction by default."""
    add(conn, make_facts(2500, 48, day_us(40)))
    compress(conn)
    late = make_facts(2500, 24, day_us(40), shift_us=STEP_US // 3)
    reversals, anew = (make_facts(2500, 24, day_us(40), revision=revision) for revision in (1, 2))
    reversals["energy_wh"] = -reversals["energy_wh"]
    add(conn, {name: np.concatenate([late[name], reversals[name], anew[name]]) for name in FACT_COLUMNS})
    assert conn.execute("select count(*), sum(energy_wh) from fact").fetchone() == (300_000, 18_000_000)
    compress(conn)  # again, with what came late
    assert conn.execute("select count(*), sum(energy_wh) from fact").fetchone() == (300_000, 18_000_000)


def test_fact_that_is_there_is_refused_in_a_compressed_day_with_its_whole_batch(conn: psycopg.Connection) -> None:
    facts = make_facts(20, 48, day_us(40))
    add(conn, facts)
    compress(conn)
    again = make_facts(20, 1, day_us(40) + 47 * STEP_US)
    fresh = make_facts(20, 1, day_us(40) + 48 * STEP_US)
    with pytest.raises(psycopg.errors.UniqueViolation):
        add(conn, {name: np.concatenate([fresh[name], again[name][-1:]]) for name in FACT_COLUMNS})
    assert scalar(conn, "select count(*) from fact") == 20 * 48
    add(conn, fresh)
    assert scalar(conn, "select count(*) from fact") == 20 * 49


def test_compressed_days_refuse_update_delete_and_truncate(conn: psycopg.Connection) -> None:
    add(conn, make_facts(20, 48, day_us(40)))
    compress(conn)
    one = "where meter_no = 3 and revision = 0"
    for statement in (
        f"update fact set energy_wh = 0 {one}",
        f"delete from fact {one}",
        "delete from fact",
        "truncate fact",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            conn.execute(statement)
    assert conn.execute("select count(*), sum(energy_wh) from fact").fetchone() == (960, 96_000)
    assert not guard_findings(conn)


def test_copy_never_goes_straight_into_columns(conn: psycopg.Connection) -> None:
    """Direct compress leaves the unique key unchecked; the key and the guard keep it off even where it is switched on."""
    conn.execute("set timescaledb.enable_direct_compress_copy = on")
    add(conn, make_facts(100, 48, day_us(1)))
    assert compressed_days(conn) == 0
    with pytest.raises(psycopg.errors.UniqueViolation):
        add(conn, make_facts(100, 48, day_us(1)))


def test_check_sees_a_policy_that_drops_days(conn: psycopg.Connection) -> None:
    add(conn, make_facts(1, 2, day_us(3)))
    assert not guard_findings(conn)
    conn.execute("select add_retention_policy('fact', interval '5 years')")
    assert guard_findings(conn) == ["a retention policy drops facts"]


# -- charts ----------------------------------------------------------------------------------------------------------


def test_load_curve_reads_the_newest_from_the_facts_and_the_rest_from_the_aggregate(conn: psycopg.Connection) -> None:
    now = dt.datetime.fromtimestamp(time.time(), dt.UTC)
    quarter_us = int(now.timestamp()) // 900 * STEP_US
    add(conn, make_facts(10, 3, day_us(60) + STEP_US))
    refresh_load_curve(conn)
    add(conn, make_facts(10, 1, quarter_us))  # not refreshed: read in real time
    curve = fetch_load_curve(conn, now - dt.timedelta(days=90), now)
    assert [row[1:] for row in curve] == [(1000, 0, 10)] * 4
    starts = [int(row[0].timestamp() * 1e6) for row in curve]
    assert starts == [*(day_us(60) + n * STEP_US for n in range(3)), quarter_us - STEP_US]
    bounds = [dt.datetime.fromtimestamp((day_us(60) + n * STEP_US) / 1e6, dt.UTC) for n in (1, 2)]
    assert len(fetch_load_curve(conn, *bounds)) == 1


def test_late_readings_are_in_the_chart_after_a_refresh_however_old(conn: psycopg.Connection) -> None:
    add(conn, make_facts(10, 96, day_us(60)))
    add(conn, make_facts(10, 8, day_us(1)))
    compress(conn)
    refresh_load_curve(conn)
    late = make_facts(1, 1, day_us(60) + 10 * STEP_US, shift_us=-60_000_000)
    add(conn, late)
    job = "select job_id from timescaledb_information.jobs where proc_name = 'policy_refresh_continuous_aggregate'"
    conn.execute(f"call run_job({scalar(conn, job)})")
    start = dt.datetime.fromtimestamp((day_us(60) + 9 * STEP_US) / 1e6, dt.UTC)
    assert fetch_load_curve(conn, start, start + dt.timedelta(minutes=15)) == [(start, 1100, 0, 11)]
    assert not chart_findings(conn)


def test_check_sees_a_chart_that_differs_from_the_ledger(conn: psycopg.Connection) -> None:
    add(conn, make_facts(10, 96, day_us(3)))
    assert not chart_findings(conn)
    table = scalar(
        conn,
        "select format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)"
        " from timescaledb_information.continuous_aggregates",
    )
    conn.execute(
        f"update {table} set energy_wh = energy_wh + 1 where quarter_at = (select min(quarter_at) from {table})"
    )
    assert any("the chart has 1001 Wh, the ledger 1000 Wh" in text for text in chart_findings(conn))


def test_check_sees_writes_that_leave_charts_untold(dsn: str, conn: psycopg.Connection) -> None:
    add(conn, make_facts(10, 96, day_us(3)))
    refresh_load_curve(conn)
    with psycopg.connect(dsn, autocommit=True) as careless:
        careless.execute("set timescaledb.skip_cagg_invalidation = on")
        add(careless, make_facts(1, 1, day_us(3), shift_us=-1))
        assert any("skip_cagg_invalidation" in text for text in chart_findings(careless))
    assert any("the ledger 100 Wh" in text or "the ledger 1100 Wh" in text for text in chart_findings(conn))
