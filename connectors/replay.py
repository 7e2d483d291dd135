"""What a replay sends: meters and dates for the interval energy of a file, made into registers.

The dates are kept in the data directory before anything is sent, so that a replay that was killed goes on with the same
readings, and a second one finds all of it receipted and sends nothing. `connectors.gateway_sender` sends.
"""

import csv
import dataclasses
import datetime as dt
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import psycopg

from connectors.interval_file import IntervalFile
from connectors.interval_register import Registers, registers_from_cells
from schemas.ids import is_meter_id
from schemas.settings import Settings
from storage.meter_sum import MeterEnds, fetch_masters, fetch_meter_ends, fetch_tariff_zones
from storage.registry import MODULUS_DEFAULT_WH, TARIFF_DEFAULT_ID, import_meters

GATEWAY_METERS = 25
DAY_S, WEEK_S = 86_400, 7 * 86_400
CLOCK_MARGIN_S = DAY_S
"""Readings must stay young enough for the validator while they are being sent."""


class ReplayError(RuntimeError):
    """The replay cannot begin or go on; the message says what to do."""

    def __init__(self, message: str, *, retriable: bool = False) -> None:
        """Say whether the same command may do better later."""
        super().__init__(message)
        self.retriable = retriable


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the user may choose."""

    tariff_id: str | None = None
    prefix: str | None = None
    shift_days: int | None = None
    limit_days: int = 0


@dataclasses.dataclass(frozen=True)
class Replay:
    """Meters, readings and dates of one replay."""

    file: IntervalFile
    registers: Registers
    """Only as far as they are to be sent."""
    meter_ids: list[str]
    prefix: str
    begin_s: int
    """Epoch s of the first column of the registers."""

    @property
    def size(self) -> int:
        """Return the number of meters."""
        return len(self.meter_ids)

    @property
    def cells(self) -> int:
        """Return how many intervals of the file are to be sent."""
        return self.registers.made.shape[1] - 1

    @property
    def end_s(self) -> int:
        """Return the end of the last interval that is to be sent, epoch s."""
        return self.begin_s + self.cells * self.file.interval_s

    def gateway(self, number: int) -> str:
        """Return the gateway of a meter."""
        return f"{self.prefix}-gw-{number // GATEWAY_METERS + 1:02d}"


# -- meters and dates --------------------------------------------------------------------------------------------------


def prefix_of(path: Path) -> str:
    """Return what meters of a file without meter ids are called: the first letters of its folder's name.

    Example:
        >>> prefix_of(Path("data/swiss15min/readings_wh.csv.gz"))
        'swiss'
    """
    found = re.match(r"[A-Za-z]+", path.absolute().parent.name)
    return found.group().lower() if found else "replay"


def meter_ids_of(file: IntervalFile, prefix: str) -> list[str]:
    """Return the ids of a file's meters: numbered within a file without dates, the file's own in one with them.

    Raises:
        ReplayError: One of them is no meter id.
    """
    if file.start_s is None:
        digits = max(3, len(str(len(file.names))))
        ids = [f"{prefix}-{number:0{digits}d}" for number in range(1, len(file.names) + 1)]
    else:
        ids = file.names
    for meter_id in ids:
        if not is_meter_id(meter_id):
            raise ReplayError(f"{meter_id!r} is no meter id: 1 to 64 of A-Z a-z 0-9 . _ -")
    return ids


def begin_of(file: IntervalFile, zone: str, now_s: float, shift_days: int | None) -> int:
    """Return the epoch second at which the first interval begins.

    Without `shift_days` whole weeks bring the end as near to now as can be without lying after it. A file without dates
    begins on a Monday at midnight of the tariff's zone, and is shifted from there; one with dates from its own.
    """
    length_s = file.cells_wh.shape[1] * file.interval_s
    if file.start_s is not None:
        weeks = math.floor((now_s - file.start_s - length_s) / WEEK_S)
        return file.start_s + (7 * weeks if shift_days is None else shift_days) * DAY_S
    latest = dt.datetime.fromtimestamp(now_s - length_s, ZoneInfo(zone))
    monday = latest.date() - dt.timedelta(days=latest.weekday() - (shift_days or 0))
    return int(dt.datetime.combine(monday, dt.time(), ZoneInfo(zone)).timestamp())


def refuse_bad_dates(begin_s: int, end_s: int, now_s: float, past_max_days: int) -> None:
    """Raise ReplayError when readings would lie in the future, or be older than validation takes them."""
    if end_s > now_s:
        days = math.ceil((end_s - now_s) / DAY_S)
        raise ReplayError(f"the readings would end {days} days in the future: shift them further back")
    age_days = math.ceil((now_s + CLOCK_MARGIN_S - begin_s) / DAY_S)
    if age_days > past_max_days:
        raise ReplayError(
            f"the readings would begin {age_days - 1} days ago, and validate.past_max_days is {past_max_days}:"
            " shift them less, or begin the file later"
        )


def prepare(
    conn: psycopg.Connection, settings: Settings, path: Path, file: IntervalFile, choice: Choice, now_s: float
) -> Replay:
    """Return what is to be sent, its meters imported and its dates kept.

    1. Choose ids and dates. 2. Compare with what the database has. 3. Import meters that are not there. 4. Keep the dates.

    Raises:
        ReplayError: The dates cannot be, or the meters or their readings are somebody else's.
    """
    prefix = choice.prefix or prefix_of(path)
    meter_ids = meter_ids_of(file, prefix)  # Step 1.
    registers = registers_from_cells(file.cells_wh, file.present)
    zones = fetch_tariff_zones(conn)
    tariff_id = choice.tariff_id or TARIFF_DEFAULT_ID
    if tariff_id not in zones:
        raise ReplayError(f"unknown tariff {tariff_id!r}; known are {', '.join(sorted(zones))}")
    ends = fetch_meter_ends(conn, meter_ids)
    kept = _KeptDates(settings.data_dir / "replay" / f"{prefix}-{file.digest[:16]}.json")
    begin_s = kept.begin_s(choice.shift_days)
    if begin_s is None:
        begin_s = _begin_in_ledger(meter_ids, registers, file.interval_s, ends)
    if begin_s is None:
        begin_s = begin_of(file, zones[tariff_id], now_s, choice.shift_days)
    borders = registers.made.shape[1]
    if choice.limit_days:
        borders = min(borders, choice.limit_days * DAY_S // file.interval_s + 1)
    replay = Replay(file, registers.until(borders), meter_ids, prefix, begin_s)
    refuse_bad_dates(begin_s, replay.end_s, now_s, settings.validate_.past_max_days)
    _refuse_other_readings(replay, registers, ends)  # Step 2.
    _import(conn, settings, replay, choice.tariff_id)  # Step 3.
    kept.keep(begin_s, choice.shift_days)  # Step 4.
    return replay


@dataclasses.dataclass(frozen=True)
class _KeptDates:
    """The dates of a file's replay, as the data directory keeps them."""

    path: Path

    def begin_s(self, shift_days: int | None) -> int | None:
        if not self.path.exists():
            return None
        kept = json.loads(self.path.read_text("utf-8"))
        if shift_days is not None and shift_days != kept["shift_days"]:
            was = "without --shift-days" if kept["shift_days"] is None else f"with --shift-days {kept['shift_days']}"
            raise ReplayError(f"this file was begun {was}; other dates need other meters: --prefix")
        return int(kept["begin_s"])

    def keep(self, begin_s: int, shift_days: int | None) -> None:
        if self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".new")
        partial.write_text(json.dumps({"begin_s": begin_s, "shift_days": shift_days}), "utf-8")
        partial.replace(self.path)


def _begin_in_ledger(
    meter_ids: Sequence[str], registers: Registers, interval_s: int, ends: dict[str, MeterEnds]
) -> int | None:
    """Return the beginning that the first settled reading of any meter implies, or None."""
    for number, meter_id in enumerate(meter_ids):
        if meter_id in ends and registers.made[number].any():
            return round(ends[meter_id].first_at.timestamp()) - int(registers.made[number].argmax()) * interval_s
    return None


def _refuse_other_readings(replay: Replay, whole: Registers, ends: dict[str, MeterEnds]) -> None:
    """Raise ReplayError when the ledger has a register that this file would not have made."""
    for number, meter_id in enumerate(replay.meter_ids):
        if meter_id not in ends:
            continue
        end = ends[meter_id]
        border, rest_s = divmod(round(end.last_at.timestamp()) - replay.begin_s, replay.file.interval_s)
        if (
            rest_s
            or not 0 <= border < whole.made.shape[1]
            or not whole.made[number, border]
            or whole.import_wh[number, border] != end.import_wh
            or whole.export_wh[number, border] != (end.export_wh or 0)
        ):
            raise ReplayError(
                f"{meter_id} has readings that are not of this file and these dates: its register showed"
                f" {end.import_wh} Wh at {end.last_at.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC; give another --prefix"
            )


def _import(conn: psycopg.Connection, settings: Settings, replay: Replay, tariff_id: str | None) -> None:
    """Import the meters that are not there; those that are stay as they are, and must be the same customer's."""
    masters = fetch_masters(conn, replay.meter_ids)
    points = [f"{replay.prefix}-{name}" if replay.file.start_s is None else name for name in replay.file.names]
    new = []
    for number, (meter_id, point) in enumerate(zip(replay.meter_ids, points, strict=True)):
        if meter_id not in masters:
            new.append((number, meter_id, point))
            continue
        there, assigned = masters[meter_id]
        if replay.file.start_s is None and there != point:
            raise ReplayError(f"{meter_id} is there already, at service point {there}, not {point}: give --prefix")
        if tariff_id is not None and assigned != tariff_id:
            raise ReplayError(f"{meter_id} is there already with tariff {assigned}, not {tariff_id}")
    if not new:
        return
    totals_wh = np.maximum(replay.registers.import_wh[:, -1], replay.registers.export_wh[:, -1])
    path = settings.data_dir / "replay" / f"{replay.prefix}-meters.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["meter_id", "service_point_id", "tariff_id", "register_modulus_wh", "interval_s"])
        for number, meter_id, point in new:
            modulus_wh = max(MODULUS_DEFAULT_WH, 10 ** len(str(totals_wh[number])))
            writer.writerow([meter_id, point, tariff_id or TARIFF_DEFAULT_ID, modulus_wh, replay.file.interval_s])
    report = import_meters(conn, path)
    if report.faults:
        raise ReplayError(f"{path}: {report.faults[0]}")
