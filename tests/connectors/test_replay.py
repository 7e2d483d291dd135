"""Interval files become registers, and the ledger becomes the file."""

import csv
import datetime as dt
import gzip
import itertools
import signal
import subprocess
import time
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from connectors.interval_file import IntervalFile, IntervalFileError, read_interval_file
from connectors.interval_register import odd_words, registers_from_cells
from connectors.replay import ReplayError, begin_of, meter_ids_of, refuse_bad_dates
from tests.fixtures.stack import ROOT, Stack

SWISS = ROOT.parent / "shared" / "data" / "swiss15min" / "readings_wh.csv.gz"
DAY_S = 86_400

shapes = st.tuples(st.integers(1, 4), st.integers(1, 12))
cell_values = hnp.arrays(np.int64, shapes, elements=st.integers(-(10**9), 10**9))


def write_wide(path: Path, rows: list[tuple[str, list[object]]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    width = len(rows[0][1])
    lines = [",".join(["meter", *(f"q{n:04d}" for n in range(width))])]
    lines += [",".join([name, *map(str, cells)]) for name, cells in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def dateless(days: int) -> IntervalFile:
    cells = np.ones((1, days * 96), np.int64)
    return IntervalFile(["a"], 900, None, cells, np.ones(cells.shape, np.bool_), "")


# -- registers ---------------------------------------------------------------------------------------------------------


@given(cell_values, st.data())
def test_sum_of_register_differences_is_the_sum_of_the_cells_whatever_is_missing(
    cells: np.ndarray, data: st.DataObject
) -> None:
    present = data.draw(hnp.arrays(np.bool_, cells.shape))
    registers = registers_from_cells(cells, present)
    for row in range(len(cells)):
        made = registers.made[row]
        kept = cells[row][present[row]]
        for shown, wanted in (
            (registers.import_wh[row][made], kept[kept > 0].sum()),
            (registers.export_wh[row][made], -kept[kept < 0].sum()),
        ):
            assert (np.diff(shown) >= 0).all()
            assert (shown[-1] - shown[0] if len(shown) else 0) == wanted
        assert registers.seq[row][made].tolist() == list(range(np.count_nonzero(made)))
        assert np.count_nonzero(made) == (len(kept) + 1 if len(kept) else 0)


def test_a_negative_cell_lets_the_import_register_stand_still() -> None:
    cells = np.array([[5, -7, 3]])
    registers = registers_from_cells(cells, np.ones((1, 3), np.bool_))
    assert registers.import_wh.tolist() == [[0, 5, 5, 8]]
    assert registers.export_wh.tolist() == [[0, 0, 7, 7]]


def test_a_missing_cell_makes_no_reading_and_the_first_reading_opens_the_first_known_interval() -> None:
    registers = registers_from_cells(np.array([[9, 5, 9, 3]]), np.array([[False, True, False, True]]))
    assert registers.made.tolist() == [[False, True, True, False, True]]
    assert registers.import_wh[registers.made].tolist() == [0, 5, 8]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        pytest.param([0] * 5, ["all zero"], id="zero"),
        pytest.param([7, *[30] * 16, 7], ["frozen for 16 cells"], id="frozen"),
        pytest.param([7, *[30] * 15, 7], [], id="nearly frozen"),
        pytest.param([7, *[0] * 96, 7], ["zero for 96 cells"], id="zero run"),
        pytest.param([7, -3, None, 8, -1], ["1 missing cells", "2 negative cells"], id="missing and negative"),
        pytest.param([*[30] * 8, None, *[30] * 8], ["1 missing cells"], id="a gap ends a run"),
        pytest.param([*[0] * 48, None, *[0] * 48, 7], ["1 missing cells"], id="a gap ends a zero run"),
        pytest.param([None, None], ["no cell at all"], id="empty"),
    ],
)
def test_oddness_is_said_in_words(cells: list[int | None], words: list[str]) -> None:
    values = np.array([0 if cell is None else cell for cell in cells])
    assert odd_words(values, np.array([cell is not None for cell in cells])) == words


# -- files -------------------------------------------------------------------------------------------------------------

LONG = "meter_id,start,energy_wh\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("meter,q0000,q0001\na,1,2\nb,3,x\n", "line 3, column q0001: 'x' is not a whole", id="word"),
        pytest.param("meter,q0000\na,1.5\n", "line 2, column q0000: '1.5' is not a whole", id="decimal"),
        pytest.param("meter,q0000\na,1_000\n", "line 2, column q0000: '1_000'", id="underscore"),
        pytest.param("meter,q0000\na,--1\n", "line 2, column q0000: '--1'", id="two signs"),
        pytest.param("meter,q0000\na,-9223372036854775808\n", "column q0000: '-9223372036854775808'", id="huge"),
        pytest.param("meter,q0000\na,1,2\n", "line 2: 3 columns, the header has 2", id="ragged"),
        pytest.param("meter,q0000\na,1\na,2\n", "line 3, column meter: a is in line 2 already", id="twice"),
        pytest.param("meter,q0001\na,1\n", "line 1: the header must be", id="header"),
        pytest.param("meter,q0000\n", "no meters", id="no rows"),
        pytest.param("", "line 1: the header must be", id="empty"),
        pytest.param("meter\na\n", "no intervals", id="no columns"),
        pytest.param(LONG + "a,2026-03-01T00:00:00,5\n", "line 2, column start: '2026-03-01T00:00:00'", id="naive"),
        pytest.param(LONG + "a,soon,5\n", "line 2, column start: 'soon'", id="no instant"),
        pytest.param(LONG + "a,900,5\na,1800,5\na,3000,5\n", "not a multiple of 900 s", id="off the grid"),
        pytest.param(
            LONG + "a,900,5\nb,900,5\na,900,6\n", "line 4: that meter and start are in line 2", id="same start"
        ),
        pytest.param(LONG + "a,900,y\n", "line 2, column energy_wh: 'y'", id="long word"),
    ],
)
def test_a_bad_file_is_refused_with_line_and_column(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(IntervalFileError) as caught:
        read_interval_file(path)
    assert fault in str(caught.value)


def test_a_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(b"meter,q0000\na,1\n" * 100)[:-20])
    with pytest.raises(IntervalFileError):
        read_interval_file(path)


@given(
    hnp.arrays(np.int64, shapes, elements=st.integers(-(10**11), 10**11)),
    st.data(),
)
def test_both_shapes_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, cells: np.ndarray, data: st.DataObject
) -> None:
    present = data.draw(hnp.arrays(np.bool_, cells.shape))
    present[:, 0] = present[0, -1] = True  # the long shape shows no interval in which no meter has a row
    wide = tmp_path_factory.mktemp("shapes") / "wide.csv"
    texts = np.where(present, cells.astype(str), "")
    write_wide(wide, [(f"m{row}", list(texts[row])) for row in range(len(cells))])
    rows = [
        f"m{row},{1_700_000_100 + 900 * column},{texts[row, column]}"
        for row, column in itertools.product(*map(range, cells.shape))
    ]
    long = wide.with_name("long.csv.gz")
    order = data.draw(st.permutations(range(len(rows))))
    first = [rows[0], *(rows[place] for place in order if place)]
    long.write_bytes(gzip.compress((LONG + "\n".join(first) + "\n").encode()))
    ours, theirs = read_interval_file(wide), read_interval_file(long)
    assert theirs.start_s == 1_700_000_100
    place = [theirs.names.index(name) for name in ours.names]
    assert (ours.cells_wh == theirs.cells_wh[place]).all()
    assert (ours.present == theirs.present[place]).all()
    assert (ours.cells_wh == np.where(present, cells, 0)).all()


# -- dates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "Europe/Zurich", "America/New_York"])
@given(now_s=st.integers(1_700_000_000, 1_900_000_000), days=st.integers(1, 60))
def test_a_file_without_dates_ends_at_most_a_week_ago_and_begins_on_a_local_monday(
    zone: str, now_s: int, days: int
) -> None:
    file = dateless(days)
    begin_s = begin_of(file, zone, now_s, None)
    begin = dt.datetime.fromtimestamp(begin_s, ZoneInfo(zone))
    assert (begin.weekday(), begin.hour, begin.minute) == (0, 0, 0)
    slack_s = now_s - begin_s - days * DAY_S
    assert 0 <= slack_s <= 7 * DAY_S + 3600  # an hour for the clock change between


@given(start_s=st.integers(1_000_000_000, 2_000_000_000), now_s=st.integers(1_700_000_000, 1_900_000_000))
def test_a_file_with_dates_is_shifted_by_whole_weeks_to_end_within_the_last_one(start_s: int, now_s: int) -> None:
    cells = np.ones((1, 96), np.int64)
    file = IntervalFile(["a"], 900, start_s, cells, np.ones(cells.shape, np.bool_), "")
    begin_s = begin_of(file, "Asia/Shanghai", now_s, None)
    assert (begin_s - start_s) % (7 * DAY_S) == 0
    assert 0 <= now_s - begin_s - DAY_S < 7 * DAY_S
    assert begin_of(file, "Asia/Shanghai", now_s, -3) == start_s - 3 * DAY_S


def test_readings_in_the_future_or_too_old_are_refused_before_anything_is_sent() -> None:
    now_s = 1_790_000_000
    refuse_bad_dates(now_s - 398 * DAY_S, now_s, now_s, 400)
    with pytest.raises(ReplayError, match="1 days in the future"):
        refuse_bad_dates(now_s - DAY_S, now_s + 1, now_s, 400)
    with pytest.raises(ReplayError, match=r"begin 400 days ago, and validate\.past_max_days is 400"):
        refuse_bad_dates(now_s - 400 * DAY_S, now_s, now_s, 400)


def test_a_name_in_the_file_that_is_no_meter_id_is_refused() -> None:
    cells = np.ones((1, 1), np.int64)
    with pytest.raises(ReplayError, match="'a b' is no meter id"):
        meter_ids_of(IntervalFile(["a b"], 900, 0, cells, cells > 0, ""), "town")


# -- the whole path ----------------------------------------------------------------------------------------------------


def sums_of(stack: Stack, ids: str) -> dict[str, tuple[int, int, int]]:
    """Return Wh in, Wh out and accepted readings of the meters whose id is like `ids`."""
    rows = stack.sql(
        "select m.meter_id, sum(energy_wh)::bigint, sum(export_energy_wh)::bigint, count(*) filter (where revision = 0)"
        " from fact join meter m using (meter_no) where m.meter_id like %s group by 1",
        ids,
    )
    return {row[0]: row[1:] for row in rows}


def flags_of(stack: Stack, meter_id: str) -> list[int]:
    return [
        row[0]
        for row in stack.sql(
            "select quality from fact join meter m using (meter_no) where m.meter_id = %s order by end_at", meter_id
        )
    ]


def ledger_of(stack: Stack, ids: str) -> list[tuple[str]]:
    return stack.sql(
        "select f.*::text from fact f join meter m using (meter_no) where m.meter_id like %s order by 1", ids
    )


ODD = [
    ("plain", [100, 200, 300, 400] * 24),
    ("sells", [100, -250, 0, 40] * 24),
    ("frozen", [70] * 96),
    ("zero", [0] * 96),
    ("gaps", ["", 50, "", "", 60, 70] * 16),
    ("silent", [""] * 96),
]


@pytest.mark.stack
def test_ledger_equals_a_file_with_negative_missing_frozen_and_zero_cells(stack: Stack, tmp_path: Path) -> None:
    path = write_wide(tmp_path / "odd" / "made.csv", ODD)
    told = stack.run("replay", str(path)).stdout
    assert "every meter's ledger is the file, to the Wh" in told
    assert sums_of(stack, "odd-%") == {
        "odd-001": (24_000, 0, 97),
        "odd-002": (140 * 24, 250 * 24, 97),
        "odd-003": (70 * 96, 0, 97),
        "odd-004": (0, 0, 97),
        "odd-005": (180 * 16, 0, 49),
    }
    for line in ("24 negative cells", "all zero", "frozen for 96 cells", "48 missing cells", "no cell at all"):
        assert line in told
    long_flag = 16
    assert sum(bool(quality & long_flag) for quality in flags_of(stack, "odd-005")) == 31  # each gap but the first
    assert stack.sql("select count(*) from dead_letter where meter_id like 'odd-%%'") == [(0,)]
    stack.assert_books_balance()


@pytest.mark.stack
def test_a_second_run_sends_nothing_and_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    path = write_wide(tmp_path / "twice" / "made.csv", ODD[:3])
    stack.run("replay", str(path), "--limit-days", "1")
    before = ledger_of(stack, "twice-%")
    told = stack.run("replay", str(path)).stdout
    assert "sent by this run" in told
    assert [line.split()[4] for line in told.splitlines() if line.startswith("sent by this run")] == ["0"]
    assert ledger_of(stack, "twice-%") == before
    assert len(before) == 3 * 97


@pytest.mark.stack
def test_a_limited_run_is_gone_on_with_by_a_whole_one(stack: Stack, tmp_path: Path) -> None:
    cells: list[object] = list(range(1, 193))
    path = write_wide(tmp_path / "limited" / "made.csv", [("a", cells), ("b", cells)])
    assert "every meter" in stack.run("replay", str(path), "--limit-days", "1").stdout
    assert sums_of(stack, "limited-%")["limited-002"] == (sum(range(1, 97)), 0, 97)
    assert "every meter" in stack.run("replay", str(path)).stdout
    assert sums_of(stack, "limited-%")["limited-002"] == (sum(range(1, 193)), 0, 193)


@pytest.mark.stack
def test_a_killed_replay_is_gone_on_with_and_the_ledger_is_the_file(stack: Stack, tmp_path: Path) -> None:
    cells: list[object] = [10 + n % 7 for n in range(192)]
    path = write_wide(tmp_path / "killed" / "made.csv", [(f"m{n}", cells) for n in range(30)])
    command = stack.command("replay", str(path), "--speed", "20000")  # two days in 8.6 s
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    half = 30 * 193 // 2

    def is_half() -> bool:
        return sum(row[2] for row in sums_of(stack, "killed-%").values()) >= half

    stack.wait(is_half, 60, "half of the replay")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    done = sum(row[2] for row in sums_of(stack, "killed-%").values())
    assert half <= done < 30 * 193  # it was struck in the middle
    assert "every meter" in stack.run("replay", str(path)).stdout
    assert set(sums_of(stack, "killed-%").values()) == {(sum(map(int, map(str, cells))), 0, 193)}
    stack.assert_books_balance()


@pytest.mark.stack
def test_speed_keeps_readings_back_until_they_are_due(stack: Stack, tmp_path: Path) -> None:
    path = write_wide(tmp_path / "paced" / "made.csv", [("a", [5] * 96)])
    started = time.monotonic()
    assert "every meter" in stack.run("replay", str(path), "--speed", "30000").stdout
    assert time.monotonic() - started > DAY_S / 30_000


@pytest.mark.stack
def test_a_meter_whose_readings_are_refused_is_named_and_the_exit_code_says_so(stack: Stack, tmp_path: Path) -> None:
    path = write_wide(tmp_path / "small" / "made.csv", [("a", [100] * 96), ("b", [1] * 96)])
    stack.import_meters([{"meter_id": "small-001", "service_point_id": "small-a", "register_modulus_wh": 1000}])
    done = stack.run("replay", str(path), check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 meters differ" in done.stdout
    assert (
        "small-001: file 9600 Wh in, 0 Wh out, 97 readings; ledger 900, 0, 10; dead letters: 87 out_of_range"
        in done.stdout
    )
    assert "small-002:" not in done.stdout


@pytest.mark.stack
def test_meters_of_another_customer_or_another_file_are_left_alone(stack: Stack, tmp_path: Path) -> None:
    stack.import_meters([{"meter_id": "others-001", "service_point_id": "somebody"}])
    path = write_wide(tmp_path / "others" / "made.csv", [("a", [5] * 96)])
    done = stack.run("replay", str(path), check=False)
    assert done.returncode == 1
    assert "others-001 is there already, at service point somebody, not others-a: give --prefix" in done.stderr
    assert "every meter" in stack.run("replay", str(path), "--prefix", "ours").stdout
    write_wide(path, [("a", [6] * 96)])
    done = stack.run("replay", str(path), "--prefix", "ours", check=False)
    assert done.returncode == 1
    assert "ours-001 has readings that are not of this file and these dates" in done.stderr
    assert sums_of(stack, "ours-%") == {"ours-001": (480, 0, 97)}


@pytest.mark.stack
def test_a_long_file_with_long_ids_fills_messages_and_keeps_its_own_meters(stack: Stack, tmp_path: Path) -> None:
    ids = [f"{'long-' + 'x' * 55}-{n:03d}" for n in range(26)]
    path = tmp_path / "long.csv.gz"
    with gzip.open(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["meter_id", "start", "energy_wh"])
        for column, meter_id in itertools.product(range(96), ids):
            at = dt.datetime(2026, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))) + dt.timedelta(minutes=15 * column)
            writer.writerow([meter_id, at.isoformat(), 10**7 + column])
    assert "every meter" in stack.run("replay", str(path)).stdout
    wanted = 96 * 10**7 + sum(range(96))
    assert sums_of(stack, "long-x%") == dict.fromkeys(ids, (wanted, 0, 97))
    places = stack.sql(
        "select max(raw_place >> 20) from fact join meter m using (meter_no) where m.meter_id like %s", "long-x%"
    )
    assert places[0][0] == 25 * 19 - 1  # 132 bytes each: 20 readings of 25 meters would be over 64 KiB


@pytest.mark.stack
def test_ledger_equals_a_slice_of_the_real_file(stack: Stack, tmp_path: Path) -> None:
    if not SWISS.exists():
        pytest.skip(f"{SWISS} is not there")
    path = tmp_path / "swiss15min" / "slice.csv"
    path.parent.mkdir()
    with gzip.open(SWISS, "rt", encoding="utf-8", newline="") as file, path.open("w", encoding="utf-8") as out:
        rows = list(csv.reader(file))
        chosen = [rows[0], *rows[1:30], *rows[84:86], *rows[140:142]]  # two of them odd
        for row in chosen:
            out.write(",".join(row[: 1 + 3 * 96]) + "\n")
    told = stack.run("replay", str(path)).stdout
    assert "every meter's ledger is the file, to the Wh" in told
    energies = [sum(map(int, row[1 : 1 + 3 * 96])) for row in chosen[1:]]
    found = sums_of(stack, "swiss-%")
    assert [found[f"swiss-{n:03d}"] for n in range(1, len(chosen))] == [(wh, 0, 289) for wh in energies]
