"""gridtally detect: the theft detector over files of the past (`scan`), and over the ledger (`run`)."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridtally.options import EXIT_FAILED, EXIT_USAGE, As, AsJson, Config, DataDir, connect, fail, settings_of

if TYPE_CHECKING:
    from metering.theft.scan import Finding
    from metering.theft.weeks import Weeks

detect_app = typer.Typer(help="Look for theft in files of the past, or in the ledger.", no_args_is_help=True)
SHOWN = 20


@detect_app.callback()
def detect() -> None:
    """Look for theft in files of the past, or in the ledger."""


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
    from gridtally.detect_files import ALARMS_HEADER, SCORES_HEADER, read_network, read_readings, write_rows
    from metering.theft.scan import scanned
    from metering.theft.weeks import laid_out

    zone = _zone(zone_name)
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


def _zone(name: str) -> Any:
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        fail(f"--zone {name}: there is no such time zone; expected a name like Europe/Zurich", EXIT_USAGE)


@detect_app.command("run")
def run_command(
    *,
    who: As,
    weeks: Annotated[int, typer.Option("--weeks", min=2, max=26, help="Whole weeks to look at.")] = 7,
    zone: Annotated[str, typer.Option("--zone", help="Time zone of the weeks, such as Europe/Zurich.")] = "UTC",
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Look for theft in the last whole weeks of the ledger: scores, alarms, and a case for each new lead.

    Run it once a week; the same facts again change nothing. Example: gridtally detect run --zone Asia/Shanghai --as ann
    """
    from storage.theft_run import run_detector
    from storage.theft_weeks import TheftRunError

    clock = _zone(zone)
    with connect(settings_of(data_dir, config)) as conn:
        try:
            run = run_detector(conn, clock, weeks=weeks, who=who, progress=_note)
        except TheftRunError as error:
            fail(f"{error}; nothing was written", EXIT_FAILED)
    leads = [
        {"subject": lead.subject, "kind": lead.kind, "raised_at": lead.at.isoformat(), "detail": lead.detail}
        for lead in run.leads
    ]
    if as_json:
        shown = {"run_no": run.run_no, "is_new": run.is_new, "zone": run.zone, "first_week": run.first_week.isoformat()}
        shown |= {"end_on": run.end_on.isoformat(), "meters": run.meters, "leads": leads, "cases_opened": run.cases}
        print(json.dumps({**shown, "notes": run.notes}, indent=1, ensure_ascii=False))
        return
    for text in run.notes[:SHOWN]:
        _note(text)
    again = "" if run.is_new else ", as the run before: nothing was changed"
    print(f"run {run.run_no}: {run.meters} meters, {run.first_week} until {run.end_on}, {len(leads)} leads{again}")
    for lead in leads[:SHOWN]:
        print(f"{lead['raised_at'][:10]}  {lead['kind']:22} {lead['subject']:20} {lead['detail']}")
    if run.cases:
        print(f"{len(run.cases)} cases opened: gridtally case list --state new")


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
