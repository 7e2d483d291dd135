"""`gridtally import` and `gridtally open-epoch`: master data by hand, until the console has it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gridtally.options import EXIT_FAILED, EXIT_USAGE, Config, DataDir, connect, fail, settings_of

import_app = typer.Typer(help="Import master data.", no_args_is_help=True)


@import_app.command("meters")
def import_meters_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    data_dir: DataDir = None,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check.")] = False,
) -> None:
    """Import meters from a CSV file, all of it or nothing. meter_id is required; optional are service_point_id,
    parent_id, tariff_id, rated_power_w, register_modulus_wh, interval_s, installed_on.

    Example: gridtally import meters meters.csv --dry-run
    """
    import csv

    from storage.registry import import_meters

    with connect(settings_of(data_dir, config)) as conn:
        try:
            report = import_meters(conn, file, dry_run=dry_run)
        except (UnicodeDecodeError, csv.Error) as error:
            fail(f"{file}: {error}; nothing was imported", EXIT_FAILED)
    for fault in report.faults:
        print(f"{file}: {fault}", file=sys.stderr)
    if report.faults:
        fail("nothing was imported", EXIT_FAILED)
    if dry_run:
        print(f"checked {report.rows} meters: no fault")
    else:
        print(f"imported {report.rows} meters: {report.new} new, {report.changed} changed")


@import_app.command("tariff")
def import_tariff_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)], data_dir: DataDir = None, config: Config = None
) -> None:
    """Check a tariff document (YAML) and put it into the database. Example: gridtally import tariff tariff.yaml"""
    from metering.tariff import TariffError
    from storage.registry import import_tariff

    with connect(settings_of(data_dir, config)) as conn:
        try:
            tariff = import_tariff(conn, file)
        except TariffError as error:
            fail(f"{file}: {error}", EXIT_FAILED)
    print(f"tariff {tariff.tariff_id} is in force")


def open_epoch_command(
    meter_id: str,
    at: Annotated[str, typer.Option(help="From when on, RFC 3339 with offset, such as 2026-11-24T08:00:00+08:00.")],
    reason: Annotated[str, typer.Option(help="Why: reset, repaired, register board replaced.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Begin a register anew: a meter was reset or repaired, and its register fell.

    Example: gridtally open-epoch m-00042 --at 2026-11-24T08:00:00+08:00 --reason "board replaced"
    then gridtally dead-letters replay --code register_decreased
    """
    import datetime as dt

    from storage.epoch import EpochError, open_epoch

    try:
        start_at = dt.datetime.fromisoformat(at)
    except ValueError:
        start_at = None
    if start_at is None or start_at.tzinfo is None:
        fail(f"--at {at}: expected a time with offset, such as 2026-11-24T08:00:00+08:00", EXIT_USAGE)
    with connect(settings_of(data_dir, config)) as conn:
        try:
            epoch = open_epoch(conn, meter_id, start_at, reason)
        except EpochError as error:
            fail(str(error), EXIT_FAILED)
    print(f"epoch {epoch} of {meter_id} begins {start_at.isoformat()}")
