"""`gridtally replay`: shows progress, then compares the ledger with the file."""

import dataclasses
import datetime as dt
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from connectors.gateway_sender import GatewaySender
from connectors.interval_file import read_interval_file
from connectors.interval_register import odd_words
from connectors.replay import Choice, Replay, ReplayError, prepare
from gridtally.running import say
from monitoring.clock import now_us
from schemas.addresses import Addresses
from schemas.settings import Settings
from storage.meter_sum import MeterSum, count_dead_letters_of, count_settled, fetch_meter_sums

EXIT_INTERRUPTED = 130
PRINT_S = 5.0
ROWS_SHOWN_MAX = 30
NOTHING = MeterSum(0, 0, 0, {})


class _Progress:
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._console = Console()
        self._bar: Progress | None = None
        self._task: Any = None
        self._printed_at = -PRINT_S

    def show(self, told: dict[str, Any]) -> None:
        if not self._console.is_terminal:
            self._print(told)
            return
        if self._bar is None:
            self._bar = Progress(
                TextColumn("readings settled"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]} readings/s"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=told["of"], rate=0)
        self._bar.update(self._task, completed=told["done"], rate=told["readings_per_s"])

    def _print(self, told: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self._printed_at < PRINT_S and told["done"] < told["of"]:
            return
        self._printed_at = now
        share = 100 * told["done"] / max(told["of"], 1)
        say(
            f"{told['done']} of {told['of']} readings settled ({share:.0f} %), {told['sent']} sent,"
            f" {told['readings_per_s']}/s"
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def run_replay(settings: Settings, addresses: Addresses, path: Path, choice: Choice, *, speed: float) -> int:
    """Send a file and compare; 0 when the ledger is the file, 1 when it is not, 130 when it was interrupted.

    Raises:
        IntervalFileError: The file cannot be taken.
        ReplayError: The replay cannot begin or go on.
    """
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stop.append(received))
    file = read_interval_file(path)
    try:
        conn = psycopg.connect(addresses.database, autocommit=True, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise ReplayError(f"the database does not answer: {error}", retriable=True) from error
    with conn:
        replay = prepare(conn, settings, path, file, choice, now_us() / 1e6)
        settled_before = count_settled(conn)
        say(_headline(replay))
        sender = GatewaySender(settings, addresses.mqtt, replay, speed=speed)
        shown = _Progress()
        try:
            is_done = sender.run(lambda: not stop, shown.show)
        finally:
            shown.close()
            sender.close()
        if not is_done:
            say(f"stopped with {sender.done} of {sender.wanted} readings settled; the same command goes on from here")
            return EXIT_INTERRUPTED
        return _compare(conn, replay, sender, settled_before)


def _headline(replay: Replay) -> str:
    first, last = replay.meter_ids[0], replay.meter_ids[-1]
    return (
        f"{replay.size} meters ({first} to {last}), {replay.cells} intervals of {replay.file.interval_s} s each,"
        f" {_utc(replay.begin_s):%Y-%m-%d %H:%M} to {_utc(replay.end_s):%Y-%m-%d %H:%M} UTC"
    )


def _utc(at_s: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_s, dt.UTC)


@dataclasses.dataclass(frozen=True)
class _Meter:
    """A meter of the file beside its ledger."""

    meter_id: str
    readings: int
    import_wh: int
    export_wh: int
    ledger: MeterSum
    odd: list[str]

    @property
    def differs(self) -> bool:
        ours = (self.import_wh, self.export_wh, self.readings)
        return ours != (self.ledger.energy_wh, self.ledger.export_energy_wh, self.ledger.readings)


def _compare(conn: psycopg.Connection, replay: Replay, sender: GatewaySender, settled_before: tuple[int, int]) -> int:
    sums = fetch_meter_sums(conn, replay.meter_ids, _utc(replay.begin_s), _utc(replay.end_s))
    letters = count_dead_letters_of(conn, replay.meter_ids, sender.topics)
    after = count_settled(conn)
    meters = _beside(replay, sums)
    refused = Counter[str]()
    by_meter: dict[str | None, Counter[str]] = {}
    for stage, code, meter_id, count in letters:
        refused[f"{code} ({stage})"] += count
        by_meter.setdefault(meter_id, Counter())[code] += count
    _print_totals(meters, sender, refused, after[1] - settled_before[1])
    _print_odd([meter for meter in meters if meter.odd], by_meter)
    wrong = [meter for meter in meters if meter.differs]
    _print_wrong(wrong, by_meter)
    return 1 if wrong else 0


def _beside(replay: Replay, sums: dict[str, MeterSum]) -> list[_Meter]:
    """Return every meter with what the file says: summed from its cells, not from the registers that were sent."""
    cells = np.where(replay.file.present, replay.file.cells_wh, 0)[:, : replay.cells]
    used_wh = np.where(cells > 0, cells, 0).sum(axis=1)
    fed_in_wh = -np.where(cells < 0, cells, 0).sum(axis=1)
    made = replay.registers.made.sum(axis=1)
    return [
        _Meter(
            meter_id,
            int(made[number]),
            int(used_wh[number]),
            int(fed_in_wh[number]),
            sums.get(meter_id, NOTHING),
            odd_words(replay.file.cells_wh[number, : replay.cells], replay.file.present[number, : replay.cells]),
        )
        for number, meter_id in enumerate(replay.meter_ids)
    ]


def _print_totals(meters: list[_Meter], sender: GatewaySender, refused: Counter[str], duplicates: int) -> None:
    file = sum(m.readings for m in meters), sum(m.import_wh for m in meters), sum(m.export_wh for m in meters)
    ledger = (
        sum(m.ledger.readings for m in meters),
        sum(m.ledger.energy_wh for m in meters),
        sum(m.ledger.export_energy_wh for m in meters),
    )
    flags = sum((Counter(m.ledger.flags) for m in meters), Counter[str]())
    say(f"\n{'':22}{'file':>16}{'ledger':>16}")
    for name, ours, theirs in zip(("readings", "Wh in", "Wh out"), file, ledger, strict=True):
        say(f"{name:22}{ours:>16}{theirs:>16}{'' if ours == theirs else '   differs'}")
    say(f"{'meters':22}{len(meters):>16}{sum(m.ledger is not NOTHING for m in meters):>16}")
    rate = sender.newly_done / sender.elapsed_s if sender.elapsed_s else 0
    say(f"{'sent by this run':22}{sender.sent_readings:>16}   {sender.elapsed_s:.1f} s, {rate:.0f} readings/s settled")
    say(f"{'duplicates meanwhile':22}{duplicates:>16}   of all meters")
    say(f"{'dead letters':22}{refused.total():>16}   {_counts(refused)}")
    say(f"{'flagged intervals':22}{'':>16}   {_counts(flags) or 'none'}")


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _print_odd(odd: list[_Meter], letters: dict[str | None, Counter[str]]) -> None:
    if not odd:
        return
    say(f"\n{len(odd)} odd meters, and what became of them")
    say(f"{'meter':16}{'accepted':>9}{'Wh in':>12}{'Wh out':>10}  odd; flags")
    for meter in odd[:ROWS_SHOWN_MAX]:
        ledger = meter.ledger
        flags = _counts(Counter(ledger.flags) + letters.get(meter.meter_id, Counter()))
        say(
            f"{meter.meter_id:16}{ledger.readings:>9}{ledger.energy_wh:>12}{ledger.export_energy_wh:>10}"
            f"  {', '.join(meter.odd)}; {flags or 'no flags'}"
        )
    if len(odd) > ROWS_SHOWN_MAX:
        rest = Counter(word for meter in odd[ROWS_SHOWN_MAX:] for word in map(_kind, meter.odd))
        say(f"and {len(odd) - ROWS_SHOWN_MAX} more: {_counts(rest)}")


def _kind(word: str) -> str:
    return "".join(letter for letter in word if not letter.isdigit()).replace("  ", " ").strip()


def _print_wrong(wrong: list[_Meter], letters: dict[str | None, Counter[str]]) -> None:
    if not wrong:
        say("\nevery meter's ledger is the file, to the Wh")
        return
    say(f"\n{len(wrong)} meters differ")
    for meter in wrong:
        ledger = meter.ledger
        say(
            f"{meter.meter_id}: file {meter.import_wh} Wh in, {meter.export_wh} Wh out, {meter.readings} readings;"
            f" ledger {ledger.energy_wh}, {ledger.export_energy_wh}, {ledger.readings};"
            f" dead letters: {_counts(letters.get(meter.meter_id, Counter())) or 'none'}"
        )
