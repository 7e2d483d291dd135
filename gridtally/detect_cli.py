"""gridtally detect: the detectors over files; nothing here needs a running system."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridtally.options import EXIT_FAILED, EXIT_USAGE, AsJson, fail

if TYPE_CHECKING:
    from metering.theft.scan import Finding
    from metering.theft.weeks import Weeks

detect_app = typer.Typer(help="Try the detectors on files of the past.", no_args_is_help=True)
SHOWN = 20


@detect_app.callback()
def detect() -> None:
    """Try the detectors on files of the past."""


@detect_app.command()
def scan(
    readings: Annotated[Path, typer.Option("--readings", help="CSV: meter_id,start,energy_wh; gzip or not.")],
    network: Annotated[Path | None, typer.Option("--network", help="CSV: meter_id,parent_id.")] = None,
    zone: Annotated[str, typer.Option("--zone", help="Time zone of the weeks, such as Europe/Zurich.")] = "UTC",
    alarms: Annotated[Path | None, typer.Option("--alarms", help="Where to write the alarms, CSV.")] = None,
    scores: Annotated[Path | None, typer.Option("--scores", help="Where to write the scores, CSV.")] = None,
    budget: Annotated[
        float, typer.Option("--budget", min=0.01, max=50, help="Theft alarms on honest meters per 1,000 meter-days.")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Look for theft in readings of 15, 30 or 60 minutes, without labels: each meter against its own past and its peers.

    With a network a parent that has readings of its own is balanced against its members. Scores are by meter and week,
    Monday to Monday, from the fourth week on, with a network from the first; docs/detection.md says what they mean.

    Example: gridtally detect scan --readings past.csv --zone Europe/Zurich --alarms alarms.csv --scores scores.csv
    """
    from gridtally.detect_files import DetectFileError
    from metering.theft.weeks import WeeksError

    try:
        _scan(readings, network, zone, (alarms, scores), budget, as_json)
    except DetectFileError as error:
        fail(str(error), EXIT_FAILED)
    except WeeksError as error:
        fail(f"{readings}: {error}", EXIT_FAILED)


def _scan(
    readings: Path,
    network: Path | None,
    zone_name: str,
    out: tuple[Path | None, Path | None],
    budget: float,
    as_json: bool,
) -> None:
    import zoneinfo

    from gridtally.detect_files import ALARMS_HEADER, SCORES_HEADER, read_network, read_readings, write_rows
    from metering.theft.scan import scanned
    from metering.theft.weeks import laid_out

    try:
        zone = zoneinfo.ZoneInfo(zone_name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        fail(f"--zone {zone_name}: there is no such time zone; expected a name like Europe/Zurich", EXIT_USAGE)
    net = read_network(network) if network else None
    rows = read_readings(readings)
    weeks = laid_out(rows.meter_ids, rows.meter, rows.start_s, rows.energy_wh, zone)
    if weeks.duplicates:
        _note(f"{weeks.duplicates} rows repeat a meter and start; the larger energy was taken")
    for meter, parents in sorted(net.two_parents.items()) if net else ():
        _note(f"{network}: meter {meter} has {len(parents)} parents ({', '.join(parents[:3])}): it is in no balance")
    found = scanned(weeks, net.parent_of if net else None, budget, several_parents=net.two_parents if net else None)
    alarm_rows = list(_alarm_rows(weeks, found))
    if out[0]:
        write_rows(out[0], ALARMS_HEADER, alarm_rows)
    if out[1]:
        write_rows(out[1], SCORES_HEADER, _score_rows(weeks, found))
    _tell(weeks, alarm_rows, as_json=as_json)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _score_rows(weeks: "Weeks", found: "Finding") -> Iterator[tuple[str, ...]]:
    bounds = [tuple(at.isoformat() for at in weeks.bounds(week)) for week in range(len(weeks.monday))]
    for row, name in enumerate(weeks.meter_ids):
        for week in range(found.first_week, len(weeks.monday)):
            yield name, *bounds[week], f"{found.score[row, week]:.4f}", found.reason[row][week]


def _alarm_rows(weeks: "Weeks", found: "Finding") -> Iterator[tuple[str, ...]]:
    for alarm in found.alarms:
        raised = weeks.bounds(alarm.raised_after)[1].isoformat()
        cleared = "" if alarm.cleared_after is None else weeks.bounds(alarm.cleared_after)[1].isoformat()
        yield found.subjects[alarm.subject], alarm.kind, raised, cleared, alarm.detail


def _tell(weeks: "Weeks", alarm_rows: list[tuple[str, ...]], *, as_json: bool) -> None:
    """Print a summary and the alarms; all of them as JSON, the first ones as text."""
    from gridtally.detect_files import ALARMS_HEADER

    if as_json:
        shown: dict[str, Any] = {
            "meters": len(weeks.meter_ids),
            "weeks": len(weeks.monday),
            "alarms": [dict(zip(ALARMS_HEADER, row, strict=True)) for row in alarm_rows],
        }
        print(json.dumps(shown, indent=1, ensure_ascii=False))
        return
    print(f"{len(weeks.meter_ids)} meters, {len(weeks.monday)} weeks from {weeks.monday[0]}, {len(alarm_rows)} alarms")
    for row in alarm_rows[:SHOWN]:
        print(f"{row[2][:10]}  {row[1]:22} {row[0]:20} {row[4]}")
    if len(alarm_rows) > SHOWN:
        print(f"and {len(alarm_rows) - SHOWN} more: --alarms FILE holds all")
