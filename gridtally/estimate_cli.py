"""gridtally estimate: the gaps of a file filled by the estimation ladder; nothing here needs a running system."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridtally.options import EXIT_FAILED, EXIT_USAGE, AsJson, fail

if TYPE_CHECKING:
    import zoneinfo

    from gridtally.detect_files import Readings

SHOWN = 20


def estimate_command(
    readings: Annotated[Path, typer.Option("--readings", help="CSV: meter_id,start,energy_wh; gzip or not.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write meter_id,start,energy_wh,quality.")],
    zone: Annotated[str, typer.Option("--zone", help="Time zone of the days, such as Europe/Zurich.")] = "UTC",
    registers: Annotated[Path | None, typer.Option("--registers", help="CSV: meter_id,at,register_wh.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fill the gaps in readings of 15, 30 or 60 minutes by the estimation ladder, each with its quality code.

    A gap is what is missing between a meter's first and last reading. Between two readings of its register the missing intervals
    have exactly what it counted and the others do not. Quality: A read, E1 to E7 the rung, N not estimated (no energy);
    docs/estimation.md says what they mean. The summary goes to standard error, as JSON with --json.

    Example: gridtally estimate --readings past.csv --out filled.csv --zone Europe/Zurich --registers registers.csv
    """
    import zoneinfo

    from gridtally.detect_files import DetectFileError
    from metering.estimation.load import EstimateError

    try:
        place = zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        fail(f"--zone {zone}: there is no such time zone; expected a name like Europe/Zurich", EXIT_USAGE)
    try:
        _estimate(readings, out, place, registers, as_json)
    except DetectFileError as error:
        fail(str(error), EXIT_FAILED)
    except EstimateError as error:
        fail(f"{readings}: {error}", EXIT_FAILED)


def _estimate(readings: Path, out: Path, zone: "zoneinfo.ZoneInfo", registers: Path | None, as_json: bool) -> None:
    import dataclasses

    import numpy as np

    from gridtally.detect_files import read_readings, write_rows
    from gridtally.estimate_files import FILLED_HEADER, read_registers

    told = read_registers(registers) if registers else {}
    rows = read_readings(readings)
    order = np.lexsort((rows.energy_wh, rows.start_s, rows.meter))
    rows = dataclasses.replace(
        rows, meter=rows.meter[order], start_s=rows.start_s[order], energy_wh=rows.energy_wh[order]
    )
    found = _Found()
    write_rows(out, FILLED_HEADER, _filled(rows, zone, told, found))
    found.notes += [f"{registers}: meter {name} has no readings" for name in sorted(set(told) - set(rows.meter_ids))]
    found.tell(len(rows.meter_ids), as_json=as_json)


def _filled(
    rows: "Readings", zone: "zoneinfo.ZoneInfo", told: dict[str, list[tuple[int, int]]], found: "_Found"
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the file, by meter and start."""
    import datetime as dt

    import numpy as np

    from gridtally.estimate_files import load_of_meter
    from metering.estimation.fill import fill

    edges = np.searchsorted(rows.meter, np.arange(len(rows.meter_ids) + 1))
    for number, name in enumerate(rows.meter_ids):
        mine = slice(int(edges[number]), int(edges[number + 1]))
        if mine.start == mine.stop:
            found.notes.append(f"meter {name} has no reading with energy: nothing is estimated")
            continue
        load, repeated = load_of_meter(rows, mine, name, zone)
        found.repeated += repeated
        filled = fill(load, told.get(name, ()))
        codes = filled.codes
        found.add(name, codes, filled.energy_wh.tolist(), filled.notes)
        for cell, (energy_wh, code) in enumerate(zip(filled.energy_wh.tolist(), codes, strict=True)):
            at = dt.datetime.fromtimestamp(load.start_s + cell * load.interval_s, zone)
            yield name, at.isoformat(), "" if code == "N" else energy_wh, code


class _Found:
    """What was done, for the summary."""

    def __init__(self) -> None:
        self.intervals: Counter[str] = Counter()
        self.energy_wh: Counter[str] = Counter()
        self.notes: list[str] = []
        self.repeated = 0

    def add(self, name: str, codes: list[str], energy_wh: list[int], notes: list[str]) -> None:
        """Count one meter."""
        for code, wh in zip(codes, energy_wh, strict=True):
            self.intervals[code] += 1
            self.energy_wh[code] += wh
        self.notes += [f"meter {name}: {note}" for note in notes]

    def tell(self, meters: int, *, as_json: bool) -> None:
        """Print the summary to standard error."""
        if self.repeated:
            self.notes.append(f"{self.repeated} rows repeat a meter and start; the larger energy was taken")
        if as_json:
            shown = {
                "meters": meters,
                "quality": {
                    code: {"intervals": count, "energy_wh": self.energy_wh[code]}
                    for code, count in sorted(self.intervals.items())
                },
                "notes": self.notes,
            }
            print(json.dumps(shown, indent=1, ensure_ascii=False), file=sys.stderr)
            return
        for note in self.notes[:SHOWN]:
            print(f"note: {note}", file=sys.stderr)
        if len(self.notes) > SHOWN:
            print(f"note: and {len(self.notes) - SHOWN} more: --json holds all", file=sys.stderr)
        print(f"{meters} meters, {self.intervals.total()} intervals", file=sys.stderr)
        for code, count in sorted(self.intervals.items()):
            print(f"{code:2} {count:>10} intervals {self.energy_wh[code]:>15} Wh", file=sys.stderr)
