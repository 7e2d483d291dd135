"""`gridtally import`, `gridtally export` and `gridtally open-epoch`: master data by hand, until the console has it."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gridtally.options import (
    EXIT_FAILED,
    EXIT_USAGE,
    As,
    Config,
    DataDir,
    connect,
    fail,
    instant_of,
    running,
    settings_of,
)

if TYPE_CHECKING:
    from storage.master_import import Imported

import_app = typer.Typer(help="Import master data, CSV or JSON, all of it or nothing.", no_args_is_help=True)
export_app = typer.Typer(help="Export master data as `gridtally import` takes it.", no_args_is_help=True)

COLUMNS = {
    "customers": "customer_id and name; email, phone, postal_address, language (en, zh)",
    "accounts": "account_id, customer_id and currency; class",
    "service-points": "service_point_id; postal_address, area",
    "meters": "meter_id; service_point_id, parent_id, tariff_id, rated_power_w, register_modulus_wh, interval_s,"
    " installed_on",
    "contracts": "contract_id, account_id, service_point_id, start_on and tariff_id; end_on, billing_day, delivery,"
    " tariff_from, terms. A row for each tariff of a contract",
    "exchanges": "service_point_id, at, old_meter_id, final_kwh, new_meter_id, initial_kwh and reason",
    "flags": "flag and day; withdrawn (yes, no)",
    "price-series": "series, start_at and price",
}
"""Kinds of master data, in the order in which one refers to another, with the columns of their files; first the required."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only check.")]
Who = Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who imports it; needed unless it is a dry run.")]
Out = Annotated[Path | None, typer.Option("-o", "--output", help="File. Default: standard output.")]
Format = Annotated[str | None, typer.Option("--format", help="csv or json. Default: as the file is named, csv.")]


def _import_command(kind: str) -> Callable[..., None]:
    def command(
        file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV, or JSON when it ends in .json.")],
        data_dir: DataDir = None,
        config: Config = None,
        *,
        dry_run: DryRun = False,
        who: Who = None,
    ) -> None:
        _import({kind: file}, data_dir, config, who, dry_run=dry_run)

    return command


def _export_command(kind: str) -> Callable[..., None]:
    def command(data_dir: DataDir = None, config: Config = None, output: Out = None, format_: Format = None) -> None:
        import io

        from storage.master_import import export_file

        name = format_ or ("json" if output is not None and output.suffix.lower() == ".json" else "csv")
        if name not in ("csv", "json"):
            fail(f"--format {name}: expected csv or json", EXIT_USAGE)
        stream = io.StringIO()
        with connect(settings_of(data_dir, config)) as conn:
            count = export_file(conn, kind, stream, as_json=name == "json")
        if output is None:
            sys.stdout.write(stream.getvalue())
            return
        partial = output.with_name(output.name + ".partial")
        partial.write_text(stream.getvalue(), "utf-8")
        partial.replace(output)
        print(f"exported {count} rows to {output}")

    return command


for _kind, _columns in COLUMNS.items():
    import_app.command(
        _kind,
        help=f"Import {_kind} from a file, all of it or nothing. Columns: {_columns}."
        f"\n\nExample: gridtally import {_kind} {_kind}.csv --dry-run, then with --as NAME",
    )(_import_command(_kind))
    export_app.command(
        _kind,
        help=f"Export {_kind} as `gridtally import {_kind}` takes them."
        f"\n\nExample: gridtally export {_kind} -o {_kind}.csv",
    )(_export_command(_kind))


@import_app.command("all")
def import_all_command(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="With KIND.csv or KIND.json.")],
    data_dir: DataDir = None,
    config: Config = None,
    *,
    dry_run: DryRun = False,
    who: Who = None,
) -> None:
    """Import all files of a directory in one transaction: customers.csv, accounts.csv, and so on; those that are there.

    Example: gridtally import all town/ --dry-run, then with --as NAME
    """
    from storage.master_import import find_master_files

    running(settings_of(data_dir, config), "database")
    try:
        files = find_master_files(directory)
    except ValueError as error:
        fail(str(error), EXIT_FAILED)
    _import(files, data_dir, config, who, dry_run=dry_run)


def _import(
    files: Mapping[str, Path], data_dir: Path | None, config: Path | None, who: str | None, *, dry_run: bool
) -> None:
    from storage.master_import import import_files

    if not dry_run and not (who or "").strip():
        fail("who imports it? --as NAME, or --dry-run", EXIT_USAGE)
    loaded = settings_of(data_dir, config)
    with connect(loaded) as conn:
        done = import_files(conn, files, who or "dry run", dry_run=dry_run)
        _report(done, dry_run=dry_run)
        if "exchanges" in files and not dry_run:
            from gridtally.meter_cli import publish_unsettled

            publish_unsettled(conn, loaded)


def _report(done: "Imported", *, dry_run: bool) -> None:
    for fault in done.faults:
        print(fault, file=sys.stderr)
    if done.fault_count > len(done.faults):
        print(f"and {done.fault_count - len(done.faults)} more faults", file=sys.stderr)
    for kind, one in done.outcomes.items():
        for notice in one.notices:
            print(f"{kind}: {notice}", file=sys.stderr)
    if done.fault_count:
        fail("nothing was imported", EXIT_FAILED)
    for kind, one in done.outcomes.items():
        if dry_run:
            print(f"checked {one.rows} {kind}: no fault")
        else:
            print(f"imported {one.rows} {kind}: {one.new} new, {one.changed} changed")


@import_app.command("tariff")
def import_tariff_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    *,
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Check a tariff document (YAML) and put it in force. Example: gridtally import tariff tariff.yaml --as NAME"""
    import yaml

    from metering.tariff import TariffError
    from storage.audit import write_audit
    from storage.contract import ContractError, refuse_mixed_currencies
    from storage.registry import import_tariff

    with connect(settings_of(data_dir, config)) as conn:
        try:
            with conn.transaction():
                tariff = import_tariff(conn, file)
                refuse_mixed_currencies(conn, tariff.tariff_id)
                write_audit(conn, who, "import.tariff", tariff.tariff_id, {"file": file.name})
        except (TariffError, ContractError, UnicodeDecodeError, yaml.YAMLError) as error:
            fail(f"{file}: {error}", EXIT_FAILED)
    print(f"tariff {tariff.tariff_id} is in force")


def open_epoch_command(
    meter_id: str,
    at: Annotated[str, typer.Option(help="From when on, RFC 3339 with offset, such as 2026-11-24T08:00:00+08:00.")],
    reason: Annotated[str, typer.Option(help="Why: reset, repaired, register board replaced.")],
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Begin a register anew: a meter was reset or repaired, and its register fell.

    Example: gridtally open-epoch m-00042 --at 2026-11-24T08:00:00+08:00 --reason "board replaced"
    --as NAME, then gridtally dead-letters replay --code register_decreased
    """
    from storage.audit import write_audit
    from storage.epoch import EpochError, open_epoch

    start_at = instant_of(at, "--at")
    with connect(settings_of(data_dir, config)) as conn:
        try:
            with conn.transaction():
                epoch = open_epoch(conn, meter_id, start_at, reason)
                detail = {"epoch": epoch, "start_at": start_at, "reason": reason}
                write_audit(conn, who, "meter.open_epoch", meter_id, detail)
        except EpochError as error:
            fail(str(error), EXIT_FAILED)
    print(f"epoch {epoch} of {meter_id} begins {start_at.isoformat()}")
