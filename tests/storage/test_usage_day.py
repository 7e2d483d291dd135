"""Sub-totals of days are the facts, however these came: late, long, in any number of refreshes."""

import datetime as dt
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest

from metering.profile import cut, share_wh
from storage.ledger_time import position_at, position_now
from storage.load import fetch_load, fetch_placements
from storage.usage_day import fetch_profiles, refresh_usage_days
from tests.storage.made_ledger import US, MadeLedger

FIRST = dt.date(2026, 10, 1)
START_US = int(dt.datetime(2026, 10, 1, tzinfo=dt.UTC).timestamp()) * US
DAY_US = 86_400 * US
QUARTER_US = 900 * US
METERS = 6


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


def random_readings(rng: np.random.Generator, days: int) -> list[tuple[int, int, int, int]]:
    """Return meter, instant, registers: some regular, some with gaps of days, some off the quarter-hour."""
    found = []
    for meter_no in range(1, METERS + 1):
        step = [QUARTER_US, 7 * 3600 * US, 333 * US, 1800 * US, 2 * DAY_US + 5 * US, 3600 * US][meter_no - 1]
        count = min(days * DAY_US // step, 120)
        at = START_US + np.sort(rng.choice(days * DAY_US // step, count, replace=False)) * step
        import_wh = np.cumsum(rng.integers(0, 9000, count))
        export_wh = np.cumsum(rng.integers(0, 3, count)) if meter_no % 2 else np.full(count, -1)
        found += [(meter_no, *row) for row in zip(at.tolist(), import_wh.tolist(), export_wh.tolist(), strict=True)]
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sub_totals_equal_the_load_computed_from_the_facts(conn: psycopg.Connection, seed: int) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    ledger = MadeLedger(conn)
    for meter_no in range(1, METERS + 1):
        ledger.add_meter(meter_no, meter_no)
    readings = random_readings(rng, 9)
    late = rng.random(len(readings)) < 0.2
    order = [row for row, is_late in zip(readings, late, strict=True) if not is_late]
    order += [row for row, is_late in zip(readings, late, strict=True) if is_late]
    for part in np.array_split(np.arange(len(order)), 4):
        for index in part.tolist():
            ledger.read(*order[index])
        ledger.flush()
        done = refresh_usage_days(conn)
        assert done.position == position_now(conn)
    assert refresh_usage_days(conn).facts == 0, "what was folded is not folded again"
    assert conn.execute("select count(*) from fact where revision > 0").fetchone() != (0,), "sometimes: late readings"
    low, high = START_US + 8 * 3600 * US, START_US + 8 * DAY_US + 8 * 3600 * US
    profiles = fetch_profiles(conn, range(1, METERS + 1), FIRST, FIRST + dt.timedelta(days=10))
    for meter_no in range(1, METERS + 1):
        direct = fetch_load(conn, meter_no, low, high)
        folded = profiles.load(fetch_placements(conn, [meter_no], low, high), low, high)
        assert folded is not None
        assert direct.load.start_us.tolist() == folded.load.start_us.tolist()
        assert direct.load.registers.keys() == folded.load.registers.keys()
        for name, column in direct.load.registers.items():
            assert column.tolist() == folded.load.registers[name].tolist(), (meter_no, name)
        assert direct.estimated_wh.tolist() == folded.estimated_wh.tolist()
        assert direct.covered_s.tolist() == folded.covered_s.tolist()


def test_the_load_as_known_at_a_position_is_what_it_was_then(conn: psycopg.Connection) -> None:
    ledger = MadeLedger(conn)
    ledger.add_meter(1, 1)
    start = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
    ledger.read(1, START_US, 0)
    ledger.read(1, START_US + 4 * QUARTER_US, 403)
    ledger.flush()
    then, at = position_now(conn), conn.execute("select clock_timestamp()").fetchone()
    ledger.read(1, START_US + QUARTER_US, 400)
    ledger.flush()
    assert at is not None
    for known in (then, position_at(conn, at[0])):
        load = fetch_load(conn, 1, START_US, START_US + DAY_US, known=known)
        assert load.load.registers["import_wh"].tolist() == [100, 101, 101, 101], "spread evenly by cumulative floor"
        assert load.estimated_wh.sum() == 403
    now = fetch_load(conn, 1, START_US, START_US + DAY_US)
    assert now.load.registers["import_wh"].tolist() == [400, 1, 1, 1]
    assert position_at(conn, start) == {}
    assert fetch_load(conn, 1, START_US, START_US + DAY_US, known={}).energy_wh == 0


def test_an_exchange_inside_an_hour_joins_the_registers_of_both_meters(conn: psycopg.Connection) -> None:
    ledger = MadeLedger(conn)
    exchange = "2026-10-01T00:20:00Z"
    ledger.add_meter(1, 1, end_at=exchange)
    ledger.add_meter(2, 1, start_at=exchange)
    at = START_US + 1200 * US
    for meter_no, when, register in ((1, START_US, 5000), (1, START_US + QUARTER_US, 5090), (1, at, 5100)):
        ledger.read(meter_no, when, register)
    for when, register in ((at, 7), (START_US + 2 * QUARTER_US, 27), (START_US + 3 * QUARTER_US, 30)):
        ledger.read(2, when, register)
    ledger.flush()
    found = fetch_load(conn, 1, START_US, START_US + DAY_US)
    assert found.load.registers["import_wh"].tolist() == [90, 30, 3]
    assert [(span.meter_id, span.start_wh, span.end_wh, span.energy_wh) for span in found.spans] == [
        ("m-1", 5000, 5100, 100),
        ("m-2", 7, 30, 23),
    ]
    refresh_usage_days(conn)
    profiles = fetch_profiles(conn, [1, 2], FIRST, FIRST + dt.timedelta(days=1))
    placements = fetch_placements(conn, [1], START_US, START_US + DAY_US)
    assert profiles.load(placements, START_US, START_US + DAY_US) is None, "the facts are asked instead"


def test_registers_at_the_edges_of_a_long_interval_are_interpolated_as_its_energy_is(conn: psycopg.Connection) -> None:
    ledger = MadeLedger(conn)
    ledger.add_meter(1, 1)
    ledger.read(1, START_US - DAY_US, 1000, varh=50)
    ledger.read(1, START_US + DAY_US, 1101, varh=250)
    ledger.read(1, START_US + DAY_US + QUARTER_US, 1111, varh=260)
    ledger.flush()
    first = fetch_load(conn, 1, START_US, START_US + DAY_US)
    (span,) = first.spans
    assert (span.start_wh, span.end_wh, span.energy_wh) == (1050, 1101, 51) == (1050, 1101, first.energy_wh)
    assert first.estimated_wh.sum() == 51
    second = fetch_load(conn, 1, START_US + DAY_US, START_US + 2 * DAY_US)
    assert [(span.start_wh, span.end_wh) for span in second.spans] == [(1101, 1111)]
    assert second.load.registers["import_varh"].tolist() == [10], "the reading before the first interval opens it"


def test_shares_of_energies_that_64_bits_do_not_hold_the_product_of_are_exact() -> None:
    start, end = np.array([0]), np.array([31 * DAY_US + 1])
    energy = np.array([10**15 + 7])
    slices = cut(start, end, DAY_US)
    pieces = share_wh(slices, start, end, energy)
    assert int(pieces.sum()) == 10**15 + 7
    assert int(pieces[0]) == (10**15 + 7) * DAY_US // (31 * DAY_US + 1)
