"""gridtally detect scan, as a user calls it: files in, scores and alarms out, and clear words for bad input."""

import csv
import datetime as dt
import random
import subprocess
import sys
import zoneinfo
from pathlib import Path

import numpy as np
import pytest

from metering.theft.made_home import made_homes

ROOT = Path(__file__).parents[2]
ZONE = zoneinfo.ZoneInfo("Europe/Zurich")
FIRST = dt.datetime(2026, 9, 28, tzinfo=ZONE)  # a Monday; summer time ends on 25 October, in the fourth week
HOMES, WEEKS, THIEF = 16, 7, "m05"
HEADER = "meter_id,start,energy_wh\n"


def scan(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gridtally.cli import main; main()", "detect", "scan", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def made_rows() -> list[str]:
    """Return readings by the hour of homes of which one is bypassed from the fifth week on, and of their transformer."""
    true = made_homes(HOMES, WEEKS, 24, np.random.default_rng(51)).reshape(HOMES, -1)
    shown = true.copy()
    shown[5, 4 * 168 :] = shown[5, 4 * 168 :] // 50 * 10
    names = [f"m{number:02d}" for number in range(HOMES)] + ["t1"]
    load = true.sum(0)
    table = np.concatenate([shown, np.round(load + 20 + 2e-6 * load**2)[None]]).astype(int)
    first_s = int(FIRST.timestamp())
    return [
        f"{name},{dt.datetime.fromtimestamp(first_s + 3600 * hour, dt.UTC):%Y-%m-%dT%H:%M:%SZ},{table[row, hour]}\n"
        for row, name in enumerate(names)
        for hour in range(WEEKS * 168)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan")
    rows = made_rows()
    (path / "r.csv").write_text(HEADER + "".join(rows), "utf-8")
    random.Random(5).shuffle(rows)
    (path / "shuffled.csv").write_text(HEADER + "".join(rows), "utf-8")
    (path / "n.csv").write_text("meter_id,parent_id\n" + "".join(f"m{n:02d},t1\n" for n in range(HOMES)), "utf-8")
    return path


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    out = ("--alarms", folder / "alarms.csv", "--scores", folder / "scores.csv")
    return scan("--readings", folder / "r.csv", "--network", folder / "n.csv", "--zone", "Europe/Zurich", *out)


def test_scores_are_given_for_every_meter_and_local_week(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 0, done.stderr
    rows = rows_of(folder / "scores.csv")
    assert list(rows[0]) == ["meter_id", "window_start", "window_end", "score", "reason"]
    assert len(rows) == (HOMES + 1) * WEEKS
    assert all(np.isfinite(float(row["score"])) and row["reason"] for row in rows)
    starts = {dt.datetime.fromisoformat(row["window_start"]) for row in rows}
    assert starts == {FIRST + dt.timedelta(weeks=week) for week in range(WEEKS)}
    assert {(at.weekday(), at.hour) for at in starts} == {(0, 0)}


def test_bypassed_meter_is_raised_within_two_weeks(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 0, done.stderr
    rows = rows_of(folder / "alarms.csv")
    assert list(rows[0]) == ["subject_id", "kind", "raised_at", "cleared_at", "detail"]
    mine = [row for row in rows if row["subject_id"] == THIEF and row["kind"].startswith("theft_")]
    assert mine
    raised = dt.datetime.fromisoformat(mine[0]["raised_at"])
    assert FIRST + dt.timedelta(weeks=4) < raised <= FIRST + dt.timedelta(weeks=6)


def test_order_of_rows_changes_nothing(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 0, done.stderr
    out = ("--alarms", folder / "a2.csv", "--scores", folder / "s2.csv")
    again = scan("--readings", folder / "shuffled.csv", "--network", folder / "n.csv", "--zone", "Europe/Zurich", *out)
    assert again.returncode == 0, again.stderr
    assert (folder / "a2.csv").read_text("utf-8") == (folder / "alarms.csv").read_text("utf-8")
    assert (folder / "s2.csv").read_text("utf-8") == (folder / "scores.csv").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Empty CSV file"),
        ("meter,start,energy_wh\nm,2026-03-01T00:00:00Z,1\n", "line 1: the header must be"),
        (HEADER, "there are no readings"),
        (HEADER + "m,2026-03-01T00:00:00Z,1\nm,2026-03-01T00:15:00,1\n", "line 3, column start"),
        (HEADER + "m,2026-03-01T00:00:00Z,1\nm,2026-03-01T00:15:00Z,1.5\n", "line 3, column energy_wh"),
        (HEADER + "m,2026-03-01T00:00:00Z,1\nm,2026-03-01T00:07:00Z,1\n", "line 3, column start"),
        (HEADER + "m,2026-03-01T00:00:00Z,1\nm,2026-03-01T00:15:00Z,nan\n", "line 3, column energy_wh"),
        (HEADER + "m,2026-03-01T00:00:00Z,9999999999999\n", "line 2, column energy_wh"),
        (HEADER + "m,2026-03-01T00:00:00Z,1\n ,2026-03-01T00:15:00Z,1\n", "line 3, column meter_id"),
        (HEADER + "m,2026-03-01T00:00:00Z,1\nm,2026-03-01T00:15:00Z\n", "line 3: 2 columns"),
        (HEADER + "m,1900-03-01T00:00:00Z,1\n", "line 2, column start"),
    ],
    ids=[
        "empty", "header", "no-rows", "no-offset", "fraction", "off-grid", "nan", "huge", "no-name", "short-row", "old"
    ],
)  # fmt: skip
def test_bad_readings_are_refused_with_their_line(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_text(text, "utf-8")
    bad = scan("--readings", file)
    assert bad.returncode == 1
    assert words in bad.stderr
    assert "Traceback" not in bad.stderr


def test_unknown_zone_and_missing_file_are_told_plainly(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_text(HEADER + "m,2026-03-01T00:00:00Z,1\n", "utf-8")
    assert scan("--readings", file, "--zone", "Mars/Base").returncode == 2
    missing = scan("--readings", tmp_path / "none.csv")
    assert missing.returncode == 1
    assert "none.csv" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_odd_networks_are_said_and_stop_nothing(tmp_path: Path) -> None:
    lines = [f"m{m},2026-03-02T{h:02d}:00:00Z,{-5 if m == 9 else 10 + h}\n" for m in (1, 2, 9) for h in range(24)]
    (tmp_path / "r.csv").write_text(HEADER + "".join(lines) + "m1,2026-03-02T00:00:00Z,10\n", "utf-8")
    (tmp_path / "n.csv").write_text("meter_id,parent_id\nm1,m9\nm2,t1\nm2,t2\nm3,t3\n", "utf-8")
    done = scan("--readings", tmp_path / "r.csv", "--network", tmp_path / "n.csv", "--alarms", tmp_path / "a.csv")
    assert done.returncode == 0, done.stderr
    assert "m2 has 2 parents" in done.stderr
    assert "1 rows repeat" in done.stderr
    kinds = {(row["subject_id"], row["kind"]) for row in rows_of(tmp_path / "a.csv")}
    assert ("t3", "network_without_members") in kinds
    assert ("m2", "network_two_parents") in kinds
    assert not [kind for _, kind in kinds if kind.startswith("theft_")]
