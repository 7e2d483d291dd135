"""The supervisor: what dies is started again, what keeps dying is said to, and nothing is left behind."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors import supervisor as module
from connectors.embedded.process import ProcessSpec, choose_port, is_listening, is_port_free
from connectors.supervisor import FAILURES_MAX, Supervisor, SupervisorError
from monitoring.status import read_status
from schemas.settings import Settings
from tests.connectors.brokers import wait
from tests.fixtures.stack import ROOT, Stack


def is_alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


# -- one process -------------------------------------------------------------------------------------------------


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor without components or workers, in a hurry."""
    monkeypatch.setattr(module, "BACK_OFF_S", 0.02)
    monkeypatch.setattr(module, "BACK_OFF_MAX_S", 0.1)
    monkeypatch.setattr(module, "STOP_WORKERS_S", 0.5)
    made = Supervisor(Settings.model_validate({"data_dir": tmp_path}), workers=())
    made._take_lock()
    yield made
    made.stop()


def turn_until(supervisor: Supervisor, condition: Callable[[], Any], what: str) -> Any:
    return wait(lambda: supervisor.turn() or time.sleep(0.01) or condition(), 15, what)


def shown(supervisor: Supervisor) -> dict[str, tuple[str, int | None]]:
    rows = json.loads((supervisor.settings.run_dir / "supervisor.json").read_text("utf-8"))["processes"]
    return {row["name"]: (row["state"], row["pid"]) for row in rows}


def test_a_process_that_keeps_failing_is_failed_and_still_tried(supervisor: Supervisor, tmp_path: Path) -> None:
    repaired = tmp_path / "repaired"
    command = ["sh", "-c", f'test -e "{repaired}" || exit 3; exec sleep 60']
    supervisor.add(ProcessSpec("bad", command, repaired.exists))
    assert shown_after_turn(supervisor)["bad"][0] == "starting"
    turn_until(supervisor, lambda: shown(supervisor)["bad"][0] == "failed", "the state failed")
    (child,) = supervisor._workers
    failures = child.failures
    assert failures == FAILURES_MAX
    seen: set[str] = set()
    turn_until(supervisor, lambda: seen.add(shown(supervisor)["bad"][0]) or child.failures > failures + 2, "more tries")
    assert seen == {"failed"}, "not 'starting' at each of them"
    repaired.touch()
    turn_until(supervisor, lambda: shown(supervisor)["bad"][0] == "running", "the state running")
    pid = shown(supervisor)["bad"][1]
    assert pid
    assert is_alive(pid)


def shown_after_turn(supervisor: Supervisor) -> dict[str, tuple[str, int | None]]:
    supervisor.turn()
    return shown(supervisor)


def test_waits_between_tries_double_to_a_bound(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF_S", 0.5)
    monkeypatch.setattr(module, "BACK_OFF_MAX_S", 30.0)
    child = module._Child(ProcessSpec("x", ["false"], lambda: False))
    waits = []
    for _ in range(9):
        supervisor._note_death(child, 1, 100.0)
        waits.append(child.retry_at - 100.0)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_process_that_ran_long_begins_with_the_shortest_wait(supervisor: Supervisor) -> None:
    supervisor.add(ProcessSpec("x", ["sleep", "60"], lambda: True))
    (child,) = supervisor._workers
    child.failures = 4
    turn_until(supervisor, lambda: child.state == "running", "it to run")
    assert child.failures == 4
    child.started_at -= module.STEADY_AFTER_S + 1
    supervisor.turn()
    assert child.failures == 0


def test_what_cannot_even_be_prepared_is_tried_again_and_logged(supervisor: Supervisor) -> None:
    def prepare() -> None:
        raise OSError("the disk is full")

    supervisor.add(ProcessSpec("x", ["true"], lambda: True, prepare=prepare))
    supervisor.add(ProcessSpec("y", ["/no/such/program"], lambda: True))
    turn_until(supervisor, lambda: {state for state, _ in shown(supervisor).values()} == {"failed"}, "the state failed")
    assert "the disk is full" in supervisor.log_path("x").read_text("utf-8")
    assert "/no/such/program" in supervisor.log_path("y").read_text("utf-8")


def test_a_process_that_ignores_the_signal_is_killed(supervisor: Supervisor) -> None:
    supervisor.add(ProcessSpec("deaf", [sys.executable, "-c", _DEAF], lambda: True))
    supervisor.add(ProcessSpec("good", ["sleep", "60"], lambda: True))
    log = supervisor.log_path("deaf")
    turn_until(supervisor, lambda: "deaf now" in log.read_text("utf-8"), "deafness")
    pids = [pid for _, pid in shown(supervisor).values() if pid]
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 3
    assert len(pids) == 2
    assert not any(map(is_alive, pids))
    assert {state for state, _ in shown(supervisor).values()} == {"stopped"}


_DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf now", flush=True)
time.sleep(60)
"""


def test_a_long_log_is_put_aside_at_the_next_start(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES_MAX", 100)
    supervisor.log_path("x").write_text("old " * 100, "utf-8")
    supervisor.add(ProcessSpec("x", ["echo", "new"], lambda: False))
    turn_until(supervisor, lambda: supervisor._workers[0].failures, "its end")
    assert supervisor.log_path("x").read_text("utf-8").startswith("new")
    assert supervisor.log_path("x").with_suffix(".log.1").read_text("utf-8").startswith("old")


_PARENT = """
import sys, time
from pathlib import Path
from connectors.embedded.process import ProcessSpec, spawn
print(spawn(ProcessSpec("x", ["sleep", "60"], lambda: True), Path(sys.argv[1])).pid, flush=True)
time.sleep(60)
"""


def test_a_child_dies_with_its_parent_however_that_dies(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path / "log")], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait(5)
    parent.stdout.close()
    wait(lambda: time.sleep(0.02) or not is_alive(pid), 5, "the child's end")


# -- the data directory ------------------------------------------------------------------------------------------


def test_a_second_supervisor_on_a_data_directory_touches_nothing(supervisor: Supervisor) -> None:
    supervisor.add(ProcessSpec("x", ["sleep", "60"], lambda: True))
    turn_until(supervisor, lambda: shown(supervisor)["x"][0] == "running", "it to run")
    before = shown(supervisor)
    second = Supervisor(supervisor.settings, workers=())
    with pytest.raises(
        SupervisorError, match=rf"already runs on .* \(process {os.getpid()}\); stop it, or use another"
    ):
        second._take_lock()
    second.stop()
    assert shown(supervisor) == before


def test_a_lock_file_of_a_dead_supervisor_is_no_lock(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path})
    settings.run_dir.mkdir(parents=True)
    (settings.run_dir / "supervisor.lock").write_text("99999999", "utf-8")
    rows = [{"name": "mqtt", "pid": 99999999, "state": "running"}]
    (settings.run_dir / "supervisor.json").write_text(json.dumps({"processes": rows}), "utf-8")
    (settings.run_dir / "addresses.json").write_text('{"mqtt": "mqtt://gone:1"}', "utf-8")
    made = Supervisor(settings, workers=())
    assert read_status(settings)["processes"] == [{"name": "mqtt", "pid": None, "state": "stopped"}]
    made._take_lock()
    status = read_status(settings)
    assert (status["processes"], status["mqtt"]) == ([], None), "what the last one left is not shown as if it ran"
    assert (settings.run_dir / "supervisor.lock").read_text("utf-8") == str(os.getpid())
    made.stop()
    again = Supervisor(settings, workers=())
    again._take_lock()
    again.stop()


# -- ports -------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_avoided_and_none_is_given_twice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        usual = other.getsockname()[1]
        assert not is_port_free(usual)
        assert is_listening(usual)
        taken: set[int] = set()
        chosen = [choose_port(usual, taken) for _ in range(5)]
    assert usual not in chosen
    assert len({*chosen}) == 5 == len(taken)
    assert choose_port(usual, set()) == usual
    assert not is_listening(usual)


# -- the whole system --------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """A system of our own, to be mistreated."""
    made = Stack(tmp_path / "own dir")
    yield made
    made.stop()
    made.discard()


def pids_of(stack: Stack) -> dict[str, int]:
    return {row["name"]: row["pid"] for row in stack.status()["processes"]}


def children_of(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()}


@pytest.mark.stack
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_system_survives_a_second_start_kills_of_its_parts_and_of_its_supervisor(own: Stack) -> None:
    with contextlib.ExitStack() as taken:
        for port in (1883, 9092, 5433):
            with contextlib.suppress(OSError):  # somebody has it: just as well
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
        own.start()
    assert own.process
    assert not {"1883", "9092", "5433"} & {part.split("/")[0].split(":")[-1] for part in own.addresses.values()}
    first = pids_of(own)
    assert len(first) == 8
    assert children_of(own.process.pid) == {*first.values()}
    if os.geteuid() == 0:
        assert "Uid:\t0" not in Path(f"/proc/{first['postgres']}/status").read_text("utf-8"), "PostgreSQL refuses root"

    second = own.run("up", check=False)
    assert second.returncode == 3
    assert f"already runs on {own.data_dir} (process {own.process.pid})" in second.stderr
    assert pids_of(own) == first, "and the running one is as it was"

    own.kill("detect")
    own.wait(lambda: own.is_up() and pids_of(own)["detect"] != first["detect"], 60, "detect to run again")
    assert {name: pid for name, pid in pids_of(own).items() if name != "detect"} == {
        name: pid for name, pid in first.items() if name != "detect"
    }

    own.import_meters([{"meter_id": "kept"}])
    left = {*pids_of(own).values()}
    own.process.kill()
    own.process.wait(10)
    own.process = None
    wait(lambda: time.sleep(0.1) or not any(map(is_alive, left)), 30, "the end of all children")
    assert own.run("status", check=False).returncode == 3
    assert {row["state"] for row in own.status()["processes"]} == {"stopped"}

    own.start()
    assert own.sql("select count(*) from meter where meter_id = 'kept'") == [(1,)]
    pids = {*pids_of(own).values()}
    began = time.monotonic()
    own.process.send_signal(signal.SIGINT)
    assert own.process.wait(30) == 0
    assert time.monotonic() - began <= 10.5
    own.process = None
    assert not any(map(is_alive, pids))


@pytest.mark.stack
def test_what_cannot_be_started_is_said_in_a_line_and_nothing_is_left(stack: Stack, tmp_path: Path) -> None:
    """With all components given by their addresses, only the workers are ours to start."""
    at = stack.addresses
    given = {"mqtt.url": at["mqtt"], "kafka.bootstrap_servers": at["kafka"], "database.dsn": at["database"]}
    own = Stack(tmp_path / "own")
    flags = [
        word for name, value in {**given, "kafka.partitions": "9"}.items() for word in ("--set", f"{name}={value}")
    ]
    refused = own.run("up", *flags, check=False)
    assert refused.returncode == 3
    assert "kafka.partitions is 9: the partition of a meter must never change" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert own.status()["processes"] == []
