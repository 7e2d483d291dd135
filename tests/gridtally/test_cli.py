"""The command line: exit codes, help with examples, and errors that name what is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from typer.testing import CliRunner

import gridtally
from gridtally.cli import app
from gridtally.dead_letters import plain
from schemas.reject import RejectCode
from tests.connectors.brokers import NOWHERE
from tests.fixtures.stack import ROOT, Stack
from tests.gridtally.calls import CALLS, READ, SET

runner = CliRunner()


def commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words and the command of each leaf; typer brings a click of its own, so no type of that is asked for."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *words, name)
        else:
            yield (*words, name), command


LEAVES = dict(commands(typer.main.get_command(app)))
PURE = {
    ("version",),
    ("bill", "verify"),
    ("detect", "scan"),
    ("estimate",),
    ("alarm", "kinds"),
    *(words for words in LEAVES if words[0] == "tariff"),
}
"""Commands that neither start nor ask anything."""
NEEDS_NOTHING = {("up",), ("demo",), ("config",), ("bill", "public-key"), *PURE}


def run(*words: str, env: dict[str, str] | None = None) -> Any:
    return runner.invoke(app, list(words), env=env or {})


# -- help --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_help_of_each_command_says_what_it_does_with_an_example(words: tuple[str, ...]) -> None:
    done = run(*words, "--help")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"Usage: gridtally {' '.join(words)} ") or "Usage:" in done.stdout
    assert re.search(rf"Example: .*gridtally {' '.join(words)}\b", " ".join(done.stdout.split()))
    takes = {name for parameter in LEAVES[words].params for name in parameter.opts}
    assert "--data-dir" in takes or words in PURE


def test_the_commands_are_those_of_the_contract() -> None:
    wanted = ["up", "demo", "status", "check", "migrate", "config", "simulate", "replay", "bridge", "console"]
    assert {(name,) for name in wanted} | {("worker", role) for role in ("validate", "settle", "detect")} <= set(LEAVES)
    assert {
        ("import", "meters"),
        ("dead-letters", "list"),
        ("dead-letters", "show"),
        ("dead-letters", "replay"),
    } <= set(LEAVES)


def test_exit_codes_are_in_the_help() -> None:
    text = " ".join(run("--help").stdout.split())
    for code in ("0", "1", "2", "3", "75", "130"):
        assert re.search(rf"\b{code} \w+", text)


# -- 2: wrong usage or settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "env", "named"),
    [
        (["config", "--set", "kafka.partition=1"], {}, "kafka.partition (from flag --set): unknown setting"),
        (["config", "--set", "kafka.partitions=many"], {}, "kafka.partitions (from flag --set)"),
        (["config", "--set", "novalue"], {}, "--set novalue: expected NAME=VALUE"),
        (["config"], {"GRIDTALLY_KAFKA__PARTITIONS": "0"}, "kafka.partitions (from GRIDTALLY_KAFKA__PARTITIONS)"),
        (["config"], {"GRIDTALLY_SPEED": "9"}, "speed (from GRIDTALLY_SPEED): unknown setting"),
        (["config", "--config", "/no/such.toml"], {}, "/no/such.toml"),
        (["up", "--set", "mqtt.url=http://x"], {}, "mqtt.url (from flag --set)"),
        (["status", "--nonsense"], {}, "--nonsense"),
        (["nonsense"], {}, "nonsense"),
        (["replay", "/no/such.csv"], {}, "/no/such.csv"),
        (["up", "--settle-workers", "0"], {}, "--settle-workers"),
        (["dead-letters", "replay"], {}, "name dead letters, or give --code"),
        (["dead-letters", "list", "--code", "bad_jason"], {}, "expected one of unknown_topic, oversize, bad_json"),
        (["dead-letters", "replay", "--code", "x"], {}, "expected one of"),
        (["dead-letters", "show", "99999999999999999999"], {}, "dead_letter_id"),
        (["dead-letters", "show", "x"], {}, "dead_letter_id"),
        (
            ["open-epoch", "m", "--at", "2026-11-24T08:00:00", "--reason", "x", "--as", "a"],
            {},
            "expected a time with offset",
        ),
        (["contract", "end", "k", "--on", "soon", "--as", "ann"], {}, "expected a day such as 2026-11-24"),
        (["contract", "tariff", *SET, "--term", "kw"], {}, "expected NAME=DECIMAL"),
        (["contract", "tariff", *SET, "--term", "kw=1", "--term", "kw=2"], {}, "kw is there twice"),
        (["import", "flags", __file__], {}, "who imports it? --as NAME, or --dry-run"),
        (["meter", "reading", "m", "--import-kwh", "1.0001", *READ], {}, "expected kWh with at most three decimals"),
        (["meter", "reading", "m", "--import-kwh", "-1", *READ], {}, "expected kWh with at most three decimals"),
        (["meter", "reading", "m", "--import-kwh", "1", *READ[:-2]], {}, "Missing option '--as'"),
        (["meter", "reading", "m", "--import-kwh", "1", *READ[:-1], " "], {}, "expected a name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_or_settings_is_2_and_names_it(words: list[str], env: dict[str, str], named: str) -> None:
    done = run(*words, env=env)
    assert done.exit_code == 2
    assert named in " ".join(re.sub(r"[│╭╰─╮╯]", "", done.stderr).split()).replace(" ,", ",")


# -- 3: not running or unreachable -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [words for words in LEAVES if words not in NEEDS_NOTHING], ids=" ".join)
def test_where_nothing_runs_it_is_3_and_says_how_to_start(words: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text("account,amount,on,reference\n" if words == ("payment", "import") else "meter_id\n", "utf-8")
    arguments = [word.format(file=file) for word in CALLS.get(words, [])]
    done = run(*words, *arguments, "--data-dir", str(tmp_path / "none"))
    assert done.exit_code == 3, done.output
    if words == ("status",):
        assert "nothing was started in this data directory" in done.stdout
    else:
        assert re.search(r"gridtally: no address of .*: start `gridtally up --data-dir .*none`, or set it", done.stderr)
    assert not (tmp_path / "none").exists(), "asking makes no data directory"


@pytest.mark.parametrize("words", ["check", "migrate", "dead-letters list"])
def test_an_unreachable_database_is_3(words: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    addresses = {
        "mqtt": "mqtt://127.0.0.1:9",
        "kafka": NOWHERE,
        "database": f"postgresql://u@{NOWHERE}/x",
        "console": "http://x",
    }
    (tmp_path / "run" / "addresses.json").write_text(json.dumps(addresses), "utf-8")
    done = run(*words.split(), "--data-dir", str(tmp_path))
    assert done.exit_code == 3
    assert "gridtally: the database does not answer" in done.stderr


def test_an_addresses_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "addresses.json").write_text("{", "utf-8")
    done = run("check", "--data-dir", str(tmp_path))
    assert done.exit_code == 3
    assert "addresses.json" in done.stderr


def test_a_data_directory_that_cannot_be_used_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "gridtally", "up", "--data-dir", str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 3
    assert done.stderr.startswith("gridtally: ")
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


# -- with a running system ---------------------------------------------------------------------------------------


@pytest.mark.stack
def test_status_has_the_shape_of_the_contract(stack: Stack) -> None:
    done = run("status", "--data-dir", str(stack.data_dir), "--json")
    assert done.exit_code == 0
    status = json.loads(done.stdout)
    assert set(status) == {"mqtt", "kafka", "database", "console", "metrics", "processes"}
    assert status["mqtt"].startswith("mqtt://127.0.0.1:")
    assert status["database"].startswith("postgresql://")
    assert status["console"].startswith("http://")
    names = {row["name"] for row in status["processes"]}
    assert names == {"bridge", "validate", "settle", "detect", "console", "mqtt", "kafka", "postgres"}
    for row in status["processes"]:
        assert set(row) == {"name", "pid", "state"}
        assert row["state"] == "running"
        os.kill(row["pid"], 0)
    assert set(status["metrics"]) == {"bridge", "validate", "settle", "detect", "console"}
    assert all(url.startswith("http://127.0.0.1:") for url in status["metrics"].values())


@pytest.mark.stack
def test_status_for_people_shows_no_password(stack: Stack) -> None:
    done = run("status", "--data-dir", str(stack.data_dir))
    assert done.exit_code == 0
    assert re.search(r"^settle +running +\d+$", done.stdout, re.MULTILINE)
    password = psycopg.conninfo.conninfo_to_dict(stack.addresses["database"])["password"]
    assert str(password) not in done.stdout


@pytest.mark.stack
def test_migrate_twice_changes_nothing(stack: Stack) -> None:
    done = run("migrate", "--data-dir", str(stack.data_dir))
    assert (done.exit_code, done.stdout) == (0, "up to date\n")


@pytest.mark.stack
@pytest.mark.parametrize("words", [["check"], ["dead-letters", "list"], ["dead-letters", "show", "1"]], ids=" ".join)
def test_a_database_without_tables_is_3_and_says_migrate(stack: Stack, tmp_path: Path, words: list[str]) -> None:
    name = f"empty{time.time_ns()}"
    with psycopg.connect(stack.addresses["database"], autocommit=True) as conn:
        conn.execute(f"create database {name}")
        dsn = stack.addresses["database"].rsplit("/", 1)[0] + f"/{name}"
        done = run(*words, "--data-dir", str(tmp_path), env={"GRIDTALLY_DATABASE__DSN": dsn})
        conn.execute(f"drop database {name} with (force)")
    assert done.exit_code == 3
    assert "gridtally migrate" in done.stderr


@pytest.mark.stack
def test_an_import_with_faults_imports_nothing_and_names_each_line(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "meters.csv"
    file.write_text("meter_id,interval_s\ncli-ok,900\ncli bad,900\ncli-ok2,soon\n", "utf-8")
    before = stack.sql("select count(*) from meter")
    for more in (["--as", "ann"], ["--dry-run"]):
        done = run("import", "meters", str(file), "--data-dir", str(stack.data_dir), *more)
        assert done.exit_code == 1
        assert "cli bad" in done.stderr
        assert "interval_s" in done.stderr
        assert "nothing was imported" in done.stderr
    assert stack.sql("select count(*) from meter") == before
    file.write_text(f"meter_id\ncli-{time.time_ns()}\n", "utf-8")
    done = run("import", "meters", str(file), "--data-dir", str(stack.data_dir), "--dry-run")
    assert (done.exit_code, done.stdout) == (0, "checked 1 meters: no fault\n")
    assert stack.sql("select count(*) from meter") == before


@pytest.mark.stack
@pytest.mark.parametrize("content", [b"", b"meter_id\n\xff\n", b"PK\x03\x04\x00\x00"], ids=["empty", "no UTF-8", "zip"])
def test_a_file_that_is_no_csv_of_meters_is_said_in_a_line(stack: Stack, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "meters.csv"
    file.write_bytes(content)
    done = run("import", "meters", str(file), "--data-dir", str(stack.data_dir), "--as", "ann")
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert "nothing was imported" in done.stderr


@pytest.mark.stack
def test_a_dead_letter_is_shown_with_its_bytes_and_what_to_do(stack: Stack) -> None:
    meter_id, payload = f"cli-{time.time_ns()}", b"\x1b[31m\xff{"
    query = "select dead_letter_id from dead_letter where mqtt_topic = %s"
    with stack.sender() as sender:
        stack.publish(sender, f"meters/{meter_id}/readings", payload)
        ((number,),) = stack.wait(
            lambda: stack.sql(query, f"gridtally/v1/meters/{meter_id}/readings"), 30, "the dead letter"
        )
    where = ["--data-dir", str(stack.data_dir)]
    listed = json.loads(run("dead-letters", "list", *where, "--json", "--code", "bad_json").stdout)
    assert number in [row["dead_letter_id"] for row in listed]
    assert {row["code"] for row in listed} == {"bad_json"}
    command = [sys.executable, "-m", "gridtally", "dead-letters", "show", str(number), *where]
    shown = subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout
    assert shown.endswith(payload + b"\n")
    assert b"to do            Look at the bytes" in shown
    assert run("dead-letters", "show", str(2**62), *where).exit_code == 1


@pytest.mark.stack
def test_what_senders_wrote_does_not_steer_the_terminal(stack: Stack) -> None:
    meter_id = "\x1b]0;owned\x07" + "x" * 3
    payload = json.dumps([{"seq": 1, "read_at": 1, "import_wh": 1, "meter_id": meter_id}]).encode()
    query = "select 1 from dead_letter where meter_id = %s"
    with stack.sender() as sender:
        stack.publish(sender, "gateways/cli-gw/readings", payload)
        stack.wait(lambda: stack.sql(query, meter_id), 30, "the dead letter")
    done = run("dead-letters", "list", "--data-dir", str(stack.data_dir), "--code", "bad_meter_id")
    assert r"\x1b]0;owned\x07xxx" in done.stdout
    assert "\x1b" not in done.stdout


def test_plain_text_is_left_alone() -> None:
    assert plain("m-1 台区 é") == "m-1 台区 é"
    assert plain("a\tb\n\x9b") == r"a\tb\n\x9b"


@pytest.mark.stack
def test_a_replay_that_kafka_does_not_take_is_75(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.dead_letter_replay.FLUSH_TIMEOUT_S", 0.3)
    topic = f"meters/cli-{time.time_ns()}/readings"
    query = "select dead_letter_id, state from dead_letter where mqtt_topic = %s"
    with stack.sender() as sender:
        stack.publish(sender, topic, b"{")
        ((number, _),) = stack.wait(lambda: stack.sql(query, f"gridtally/v1/{topic}"), 30, "the dead letter")
    env = {"GRIDTALLY_KAFKA__BOOTSTRAP_SERVERS": NOWHERE}
    done = run("dead-letters", "replay", str(number), "--data-dir", str(stack.data_dir), env=env)
    assert done.exit_code == 75
    assert "nothing was replayed" in done.stderr
    assert stack.sql(query, f"gridtally/v1/{topic}") == [(number, "new")]


@pytest.mark.stack
def test_check_is_1_when_the_books_do_not_balance(stack: Stack) -> None:
    """In a database whose offsets tell of more than the ledger holds."""
    name = f"broken{time.time_ns()}"
    server = stack.addresses["database"]
    dsn = server.rsplit("/", 1)[0] + f"/{name}"
    from storage.migrate import migrate

    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"create database {name}")
    migrate(dsn)
    env = {"GRIDTALLY_DATABASE__DSN": dsn}
    assert run("check", "--data-dir", "/tmp/none", env=env).exit_code == 0
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into stream_offset (consumer, topic, partition, next_offset, readings, accepted)"
            " values ('settle', 'meter.readings', 0, 5, 7, 7)"
        )
    done = run("check", "--data-dir", "/tmp/none", env=env)
    assert done.exit_code == 1
    assert "FAIL I3" in done.stdout
    assert "7 accepted, 0 entries in the ledger" in done.stdout
    rows = json.loads(run("check", "--data-dir", "/tmp/none", "--json", env=env).stdout)
    assert [row["invariant"] for row in rows if not row["holds"]] == ["I3"]
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"drop database {name} with (force)")


def test_version_is_the_packages() -> None:
    assert run("version").stdout == gridtally.__version__ + "\n"
    assert f'version = "{gridtally.__version__}"' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_every_reason_can_be_asked_for(tmp_path: Path) -> None:
    for code in RejectCode:
        assert run("dead-letters", "list", "--code", code.word, "--data-dir", str(tmp_path)).exit_code == 3


@pytest.mark.stack
def test_an_interrupted_command_is_130(stack: Stack) -> None:
    code = "import gridtally.cli as c, signal, time\nc.app = lambda: time.sleep(60)\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # tests that run in the background ignore it
    code += "print(1, flush=True)\nc.main()"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    process.stdout.close()
