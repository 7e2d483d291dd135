"""gridtally estimate, as a user calls it: gaps filled with their quality codes, and clear words for bad input."""

import csv
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START_S = 1_790_553_600  # Monday, 28 September 2026, 00:00 UTC
HOURS = 35 * 24
GAP = range(30 * 24 + 2, 30 * 24 + 9)


def estimate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gridtally.cli import main; main()", "estimate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)


def rows() -> list[str]:
    return [f"m1,{START_S + hour * 3600},{100 + hour % 24 * 10}\n" for hour in range(HOURS) if hour not in GAP]


def written(path: Path, header: str, lines: list[str]) -> Path:
    path.write_text(header + "\n" + "".join(lines), "utf-8")
    return path


def readings(folder: Path, lines: list[str]) -> Path:
    return written(folder / "r.csv", "meter_id,start,energy_wh", lines)


def registers(folder: Path, lines: list[str]) -> Path:
    return written(folder / "s.csv", "meter_id,at,register_wh", lines)


def test_a_gap_is_filled_and_marked_and_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    lines = rows()
    one = estimate("--readings", readings(tmp_path, lines), "--out", tmp_path / "a.csv", "--json")
    assert one.returncode == 0, one.stderr
    told = json.loads(one.stderr)
    assert {code: found["intervals"] for code, found in told["quality"].items()} == {"A": HOURS - 7, "E4": 7}
    random.Random(3).shuffle(lines)
    assert estimate("--readings", readings(tmp_path, lines), "--out", tmp_path / "b.csv").returncode == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["energy_wh"] for row in found[GAP[0] : GAP[-1] + 1]] == [str(120 + 10 * hour) for hour in range(7)]
    assert {row["quality"] for row in found[GAP[0] : GAP[-1] + 1]} == {"E4"}


def test_with_registers_the_day_has_what_the_register_counted(tmp_path: Path) -> None:
    first = 30 * 24
    told = registers(tmp_path, [f"m1,{START_S + (first + 24) * 3600},59999\n", f"m1,{START_S + first * 3600},50000\n"])
    done = estimate("--readings", readings(tmp_path, rows()), "--out", tmp_path / "f.csv", "--registers", told)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        day = list(csv.DictReader(file))[first : first + 24]
    assert sum(int(row["energy_wh"]) for row in day) == 9999
    assert {row["quality"] for row in day} == {"A", "E3"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("m1,yesterday,5\n", "line 2, column at: 'yesterday' is not an instant"),
        (f"m1,{START_S},-5\n", "line 2, column register_wh: '-5' is not a whole number of Wh"),
        (f"m1,{START_S}\n", "line 2: expected meter_id,at,register_wh"),
        (f"m1,{START_S},5\nm1,{START_S},6\n", "line 3: m1 has 6 Wh, but 5 Wh at the same instant in line 2"),
    ],
)
def test_a_wrong_row_of_the_registers_is_told_with_its_line_and_nothing_is_written(
    line: str, words: str, tmp_path: Path
) -> None:
    told = registers(tmp_path, [line])
    done = estimate("--readings", readings(tmp_path, rows()), "--out", tmp_path / "f.csv", "--registers", told)
    assert done.returncode == 1
    assert words in done.stderr
    assert not (tmp_path / "f.csv").exists()


def test_a_wrong_row_of_the_readings_is_told_with_its_line(tmp_path: Path) -> None:
    bad = readings(tmp_path, [*rows()[:3], f"m1,{START_S},1.5\n"])
    done = estimate("--readings", bad, "--out", tmp_path / "f.csv")
    assert done.returncode == 1
    assert "line 5, column energy_wh" in done.stderr


def test_an_unknown_zone_is_wrong_usage(tmp_path: Path) -> None:
    done = estimate("--readings", readings(tmp_path, rows()), "--out", tmp_path / "f.csv", "--zone", "Mars/North")
    assert done.returncode == 2
    assert "there is no such time zone" in done.stderr
