"""Settlement over columns against a naive ledger that takes one reading at a time."""

import datetime as dt
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.calendar import compile_timeline
from metering.fold import fold_receipts
from metering.pricebook import PriceBook
from metering.state import NEVER, MeterStates
from metering.tariff import parse_tariff
from schemas.quality import Quality
from schemas.reject import RejectCode
from tests.metering.settling import METERS, MODULUS_WH, QUARTER_US, START_US, TARIFF, Ledger, make_batch


@pytest.fixture(scope="module")
def prices() -> PriceBook:
    tariff = parse_tariff(TARIFF)
    return PriceBook([tariff], [compile_timeline(tariff, dt.date(2026, 1, 1), dt.date(2027, 12, 31))])


def registers(quarters: int) -> list[int]:
    return [1000 + 37 * quarter + quarter % 5 for quarter in range(quarters)]


def test_readings_in_order_give_one_interval_each(prices: PriceBook) -> None:
    ledger = Ledger(prices)
    ledger.settle(make_batch([(1, q, wh) for q, wh in enumerate(registers(10))]))
    live = ledger.live(1)
    assert [row["quality"] & Quality.OPENING for row in live] == [1] + [0] * 9
    assert [row["start_at"] for row in live[1:]] == [row["end_at"] for row in live[:-1]]
    assert ledger.energy_wh(1) == registers(10)[-1] - registers(10)[0]


def test_a_repeated_reading_changes_nothing(prices: PriceBook) -> None:
    ledger = Ledger(prices)
    batch = make_batch([(1, q, wh) for q, wh in enumerate(registers(10))])
    ledger.settle(batch)
    before = list(ledger.rows)
    settled = ledger.settle(batch)
    assert ledger.rows == before
    assert (settled.accepted, settled.duplicates) == (0, 10)


def test_another_value_for_a_settled_instant_is_refused(prices: PriceBook) -> None:
    ledger = Ledger(prices)
    ledger.settle(make_batch([(1, 0, 100), (1, 1, 150)]))
    ledger.settle(make_batch([(1, 0, 101)], 2))
    assert [code for _, code, _ in ledger.refused] == [RejectCode.CONFLICTING_DUPLICATE]
    assert ledger.energy_wh(1) == 50


def test_a_late_reading_reverses_its_interval_and_enters_both_parts(prices: PriceBook) -> None:
    ledger = Ledger(prices)
    ledger.settle(make_batch([(1, 0, 100), (1, 2, 180)]))
    settled = ledger.settle(make_batch([(1, 1, 130)], 2))
    assert (settled.accepted, settled.late) == (1, 1)
    entries = sorted((row["end_at"], row["revision"], row["energy_wh"]) for row in ledger.rows)
    second, third = START_US + QUARTER_US, START_US + 2 * QUARTER_US
    assert entries == [(START_US, 0, 0), (second, 0, 30), (third, 0, 80), (third, 1, -80), (third, 2, 50)]


def test_a_reading_before_the_first_becomes_the_opening(prices: PriceBook) -> None:
    ledger = Ledger(prices)
    ledger.settle(make_batch([(1, 4, 500), (1, 5, 520)]))
    ledger.settle(make_batch([(1, 1, 400)], 2))
    assert [(row["energy_wh"], row["quality"] & Quality.OPENING) for row in ledger.live(1)] == [
        (0, 1),
        (100, 0),
        (20, 0),
    ]


def test_a_late_reading_outside_its_neighbours_is_refused(prices: PriceBook) -> None:
    ledger = Ledger(prices)
    ledger.settle(make_batch([(1, 0, 100), (1, 2, 180)]))
    ledger.settle(make_batch([(1, 1, 190)], 2))
    assert [code for _, code, _ in ledger.refused] == [RejectCode.REGISTER_DECREASED]
    assert ledger.energy_wh(1) == 80


def test_a_small_fall_past_the_modulus_is_a_rollover(prices: PriceBook) -> None:
    ledger = Ledger(prices)
    ledger.settle(make_batch([(1, 0, MODULUS_WH - 100), (1, 1, 50)]))
    assert ledger.energy_wh(1) == 150
    assert ledger.live(1)[1]["quality"] & Quality.ROLLOVER


def test_a_large_fall_is_refused_until_a_register_epoch_is_opened(prices: PriceBook) -> None:
    ledger = Ledger(prices)
    ledger.settle(make_batch([(1, 0, 5000), (1, 1, 10)]))
    assert [code for _, code, _ in ledger.refused] == [RejectCode.REGISTER_DECREASED]
    ledger.meters.irregular[1] = True
    ledger.meters.epochs[1] = [START_US + QUARTER_US]
    ledger.settle(make_batch([(1, 1, 10), (1, 2, 30)], 2))
    assert [(row["epoch"], row["energy_wh"]) for row in ledger.live(1)] == [(0, 0), (1, 0), (1, 20)]


def test_receipts_stop_at_a_hole_and_go_on_when_it_is_filled(prices: PriceBook) -> None:
    ledger = Ledger(prices)
    ledger.settle(make_batch([(1, 0, 100), (1, 1, 110), (1, 3, 130)]))
    assert int(ledger.states.seq[1]) == 1
    ledger.settle(make_batch([(1, 2, 120)], 3))
    assert int(ledger.states.seq[1]) == 3
    assert ledger.states.seq_pending[1] is None


def test_a_meter_never_seen_has_no_state(prices: PriceBook) -> None:
    ledger = Ledger(prices)
    ledger.settle(make_batch([(1, 0, 100)]))
    assert ledger.states.last_at[2] == NEVER


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Draw readings of several meters, disordered and repeated, and where to cut them into batches."""
    readings = []
    for meter in range(1, METERS + 1):
        steps = draw(st.lists(st.integers(0, 2000), min_size=1, max_size=12))
        values = np.cumsum([1000, *steps]).tolist()
        readings += [(meter, quarter, value) for quarter, value in enumerate(values)]
    repeats = draw(st.lists(st.sampled_from(readings), max_size=6))
    order = draw(st.permutations(readings + repeats))
    cuts = draw(st.lists(st.integers(0, len(order)), max_size=5))
    return order, sorted(set(cuts))


def settle_in_parts(prices: PriceBook, order: Sequence[tuple[int, int, int]], cuts: list[int]) -> Ledger:
    ledger = Ledger(prices)
    for low, high in zip([0, *cuts], [*cuts, len(order)], strict=True):
        if low < high:
            ledger.settle(make_batch(order[low:high], low))
    return ledger


@given(history=histories())
def test_batches_do_not_matter_and_energy_is_what_the_register_says(
    prices: PriceBook, history: tuple[list[tuple[int, int, int]], list[int]]
) -> None:
    order, cuts = history
    ledger = settle_in_parts(prices, order, cuts)
    one_by_one = settle_in_parts(prices, order, list(range(1, len(order))))

    def key(row: dict[str, int]) -> tuple[int, int, int]:
        return row["meter_no"], row["end_at"], row["revision"]

    def comparable(rows: list[dict[str, int]]) -> list[str]:
        return [repr(sorted(row.items())) for row in sorted(rows, key=key)]

    assert comparable(ledger.rows) == comparable(one_by_one.rows)
    for number in range(1, METERS + 1):
        values = [wh for meter, _, wh in order if meter == number]
        assert ledger.energy_wh(number) == max(values) - min(values)
        live = ledger.live(number)
        assert [row["start_at"] for row in live[1:]] == [row["end_at"] for row in live[:-1]]
        quantities = ledger.states.quantities_wh[number].sum()
        cycle_start = ledger.states.cycle_start[number]
        in_cycle = [row for row in ledger.rows if row["meter_no"] == number and row["start_at"] >= cycle_start]
        assert quantities >= sum(row["energy_wh"] for row in in_cycle)
    for name in ("last_at", "import_wh", "seq", "cycle_start", "quantities_wh"):
        assert (getattr(ledger.states, name) == getattr(one_by_one.states, name)).all(), name


def test_receipt_names_where_it_begins_and_grows_downwards() -> None:
    """What was lost before the first number heard is not covered, until it comes."""
    states = MeterStates.empty(2)
    place = np.zeros(1, np.int64)

    def heard(*seqs: int) -> tuple[int, int]:
        for seq in seqs:
            rows = {"boot_id": np.zeros(1, np.int64), "seq": np.array([seq], np.uint64), "read_at": np.array([seq])}
            fold_receipts(states, place, rows)
        return int(states.seq_first[0]), int(states.seq[0])

    assert heard(5, 6) == (5, 6)
    assert heard(3) == (5, 6)
    assert heard(4) == (3, 6)
    assert heard(0, 1) == (3, 6)
    assert heard(2) == (0, 6)
