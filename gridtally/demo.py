"""`gridtally demo` and `gridtally simulate`: a small utility alive."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from connectors.embedded.process import ProcessSpec, spawn
from connectors.simulated_customers import write_master_files
from connectors.simulator import SLOT_S, Simulator, Utility
from connectors.supervisor import Supervisor
from gridtally.demo_bills import CLERK, bill_the_past
from gridtally.running import EXIT_CANNOT_START, say, start
from schemas.addresses import Addresses
from schemas.settings import Loaded, Settings
from storage.bill import BillError
from storage.bill_run import BillRunError
from storage.first_tariffs import TARIFFS_DIR
from storage.master_import import find_master_files, import_files
from storage.registry import import_tariff

STOP_S = 10.0
TURN_S = 0.1
PROGRESS_FILE = "simulator.json"
PRINT_S = 5.0


class _Shown:
    """Shows progress as a bar on a terminal, and as a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: Any = None
        self._printed = 0.0
        self._state = ""
        self._terminal = Console(stderr=False)

    def show(self, told: dict[str, Any]) -> None:
        state = told.get("state", "")
        if state == "history":
            self._history(told)
        elif state != self._state:
            self.close()
            if state == "live":
                say("history is settled; live readings now")
        self._state = state

    def _history(self, told: dict[str, Any]) -> None:
        if self._terminal.is_terminal:
            if self._bar is None:
                self._bar = Progress(
                    TextColumn("history through the path"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("{task.fields[rate]} readings/s"),
                    TimeRemainingColumn(),
                    console=self._terminal,
                )
                self._bar.start()
                self._task = self._bar.add_task("", total=told["of"], rate=0)
            self._bar.update(self._task, completed=told["done"], rate=told["readings_per_s"])
        elif time.monotonic() - self._printed > PRINT_S or told["done"] >= told["of"]:
            self._printed = time.monotonic()
            share = 100 * told["done"] / max(told["of"], 1)
            say(f"history: {told['done']} of {told['of']} readings settled ({share:.0f} %), {told['readings_per_s']}/s")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def run_simulator(
    settings: Settings, addresses: Addresses, *, meters: int, days: int, live_s: float, once: bool
) -> int:
    """Run the simulator in the foreground; it imports its meters first."""
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stop.append(received))
    simulator = Simulator(settings, addresses.mqtt, meters=meters, days=days, live_s=live_s)
    _import(settings, addresses, simulator.utility, SLOT_S)
    shown = _Shown()
    path = settings.run_dir / PROGRESS_FILE
    is_live = False

    def progress(told: dict[str, Any]) -> None:
        nonlocal is_live
        if told["state"] == "live" and not is_live:
            is_live = True
            _import(settings, addresses, simulator.utility, int(live_s))
        partial = path.with_suffix(".new")
        partial.write_text(json.dumps(told), "utf-8")
        partial.replace(path)
        shown.show(told)

    path.parent.mkdir(parents=True, exist_ok=True)  # nobody else has made it when no supervisor runs here
    path.unlink(missing_ok=True)
    done = simulator.run(lambda: not stop, progress, once=once)
    shown.close()
    simulator.close()
    return 0 if done or stop else 1


def _import(settings: Settings, addresses: Addresses, utility: Utility, interval_s: int) -> None:
    """Import the town with its people; again, and with another interval, it changes what differs."""
    directory = settings.data_dir / "simulator" / "town"
    write_master_files(utility, directory, interval_s)
    with psycopg.connect(addresses.database, autocommit=True) as conn:
        if conn.execute("select from tariff where tariff_id = 'county-industrial'").fetchone() is None:
            import_tariff(conn, TARIFFS_DIR / "county-industrial.yaml")  # of a database that had tariffs before
        done = import_files(conn, find_master_files(directory), "demo")
    assert not done.faults, done.faults


def run_demo(loaded: Loaded, config: Path | None, *, days: int, meters: int, live_s: float) -> int:
    """Start everything with the simulator beside it, show progress, and run until a signal."""
    began = time.monotonic()
    supervisor = start(loaded, 1, config)
    if supervisor is None:
        return EXIT_CANNOT_START
    _add_simulator(supervisor, loaded.settings, days=days, meters=meters, live_s=live_s)
    shown = _Shown()
    path = loaded.settings.run_dir / PROGRESS_FILE
    path.unlink(missing_ok=True)
    told: dict[str, Any] = {}
    is_said = False
    theft: subprocess.Popen[bytes] | None = None
    while not supervisor.stopping:
        supervisor.turn()
        time.sleep(TURN_S)
        told = _read(path) or told
        shown.show(told)
        if told.get("state") == "live" and not is_said:
            is_said = True
            shown.close()
            ready_s = time.monotonic() - began
            _bill(supervisor, loaded.settings)
            _say_what_next(supervisor, loaded.settings, ready_s)
            theft = _look_for_theft(loaded.settings)
    shown.close()
    if theft is not None and theft.poll() is None:
        theft.terminate()
        theft.wait(STOP_S)
    say("stopping")
    began = time.monotonic()
    supervisor.stop()
    say(f"stopped in {time.monotonic() - began:.1f} s; `make demo` goes on from here")
    return 0


def _bill(supervisor: Supervisor, settings: Settings) -> None:
    """Bill the history; a demo without bills is still a demo, so a fault is told and does not end it."""
    assert supervisor.addresses is not None
    try:
        billed = bill_the_past(settings, supervisor.addresses.database, say)
    except (psycopg.Error, BillRunError, BillError) as error:
        say(f"no bills were made: {error}")
        return
    if billed is not None:
        say(f"{billed.issued} bills issued, {billed.held} held for a look")


def _look_for_theft(settings: Settings) -> "subprocess.Popen[bytes]":
    """Begin to look for theft in the history, beside everything else, as a timer would each night; what it says is in its log."""
    command = [
        sys.executable,
        "-m",
        "gridtally",
        "detect",
        "run",
        "--as",
        CLERK,
        "--data-dir",
        str(settings.data_dir.resolve()),
    ]
    root = Path(__file__).parent.parent
    spec = ProcessSpec("theft", command, lambda: True, environment={"PYTHONPATH": str(root)})
    return spawn(spec, settings.data_dir / "log" / "theft.log")


def _add_simulator(supervisor: Supervisor, settings: Settings, *, days: int, meters: int, live_s: float) -> None:
    command = [sys.executable, "-m", "gridtally", "simulate", "--data-dir", str(settings.data_dir.resolve())]
    command += ["--meters", str(meters), "--days", str(days), "--live-s", str(live_s)]
    path = settings.run_dir / PROGRESS_FILE
    root = Path(__file__).parent.parent
    supervisor.add(ProcessSpec("simulator", command, path.exists, environment={"PYTHONPATH": str(root)}))


def _read(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return told


def _say_what_next(supervisor: Supervisor, settings: Settings, seconds: float) -> None:
    assert supervisor.addresses is not None
    command = ".venv/bin/gridtally" if Path(".venv/bin/gridtally").exists() else "gridtally"
    where = f"--data-dir {shlex.quote(str(settings.data_dir))}"
    say(
        f"\nready after {seconds:.0f} s\n"
        f"  open      {supervisor.addresses.console}\n"
        f"  bills     {supervisor.addresses.console}/bills\n"
        f"  look      {command} status {where}\n"
        f"  check     {command} check {where}\n"
        f"  refused   {command} dead-letters list {where}\n"
        f"  alarms    {supervisor.addresses.console}/alarms (faults begin a minute from now, and are told within six)\n"
        f"  theft     {command} case list {where} (looked for now: about half a minute)\n"
        "  break it  kill -9 any process that `status` names, and check again\n"
        "Ctrl-C stops everything"
    )
