"""The command line. Exit codes: 0 done; 1 a check failed or nothing was found; 2 wrong usage or settings; 3 not running or
unreachable; 75 a temporary failure; 130 interrupted.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from gridtally.tariff_cli import tariff_app
from schemas.addresses import COMPONENTS, Addresses, AddressesError, resolve_addresses
from schemas.settings import Loaded, SettingsError, describe, load_settings

EXIT_FAILED, EXIT_USAGE, EXIT_NOT_RUNNING, EXIT_TEMPORARY = 1, 2, 3, 75

app = typer.Typer(
    name="gridtally",
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
worker_app = typer.Typer(help="Run one worker of a deployment with its own services.", no_args_is_help=True)
import_app = typer.Typer(help="Import master data.", no_args_is_help=True)
letters_app = typer.Typer(help="See and replay what was refused.", no_args_is_help=True)
app.add_typer(worker_app, name="worker")
app.add_typer(import_app, name="import")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(tariff_app, name="tariff")

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where data, logs and addresses are. Default: ./gridtally-data")
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file. Default: DATA_DIR/gridtally.toml")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, such as --set kafka.partitions=8. May be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of this process in logs and metrics.")]


def fail(message: str, code: int) -> NoReturn:
    """End with a message on stderr."""
    print(f"gridtally: {message}", file=sys.stderr)
    raise typer.Exit(code)


def settings_of(data_dir: Path | None, config: Path | None = None, pairs: list[str] | None = None) -> Loaded:
    """Return the settings in force; a fault of them ends the command."""
    flags: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            fail(f"--set {pair}: expected NAME=VALUE", EXIT_USAGE)
        flags[name] = value
    try:
        return load_settings(data_dir=data_dir, config=config, flags=flags)
    except SettingsError as error:
        fail(str(error), EXIT_USAGE)


def running(loaded: Loaded, *needed: str) -> Addresses:
    """Return the addresses of the running system, or end the command when one that is needed is not known."""
    try:
        return resolve_addresses(loaded.settings, needed or COMPONENTS)
    except AddressesError as error:
        fail(str(error), EXIT_NOT_RUNNING)


def connect(loaded: Loaded) -> Any:
    """Return a database connection, or end the command."""
    import psycopg

    try:
        return psycopg.connect(running(loaded, "database").database, autocommit=True, connect_timeout=10)
    except psycopg.OperationalError as error:
        fail(f"the database does not answer: {error}", EXIT_NOT_RUNNING)


@app.command()
def up(
    data_dir: DataDir = None,
    config: Config = None,
    set_: Set = None,
    settle_workers: Annotated[int, typer.Option(min=1, max=16, help="Settle workers to run.")] = 1,
) -> None:
    """Start everything under one supervisor, and keep it running until Ctrl-C.

    Components with an address in the settings are used; the others are started on loopback, with their data in the data
    directory. Example: gridtally up --data-dir /var/lib/gridtally
    """
    from gridtally.running import run_up

    raise typer.Exit(run_up(settings_of(data_dir, config, set_), settle_workers, config))


@app.command()
def demo(
    data_dir: DataDir = None,
    config: Config = None,
    set_: Set = None,
    days: Annotated[int, typer.Option(min=0, max=400, help="Days of history.")] = 30,
    meters: Annotated[int, typer.Option(min=20, max=20_000, help="Meters of the demo utility.")] = 500,
    live_s: Annotated[float, typer.Option(min=1, help="Seconds between live readings of a meter.")] = 60.0,
) -> None:
    """Start everything with a small demo utility, and show it at work until Ctrl-C.

    A second start goes on where the first stopped. Example: gridtally demo --days 7
    """
    from gridtally.demo import run_demo

    raise typer.Exit(run_demo(settings_of(data_dir, config, set_), config, days=days, meters=meters, live_s=live_s))


@app.command()
def status(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show addresses and processes. Exit code 3 when nothing runs. Example: gridtally status --json"""
    from monitoring.status import read_status

    state: dict[str, Any] = read_status(settings_of(data_dir).settings)
    alive = any(row["state"] != "stopped" for row in state["processes"])
    if as_json:
        print(json.dumps(state, indent=1))
    else:
        for name in ("console", "mqtt", "kafka"):
            print(f"{name:10} {state[name] or '-'}")
        for row in state["processes"]:
            print(f"{row['name']:10} {row['state']:10} {row['pid'] or ''}")
        if not state["processes"]:
            print("nothing was started in this data directory")
    raise typer.Exit(0 if alive else EXIT_NOT_RUNNING)


@app.command()
def check(data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """Check that the books balance: exit code 0 when every invariant holds, 1 with what is wrong and where.

    Example: gridtally check --json
    """
    from storage.check import check_all

    with connect(settings_of(data_dir, config)) as conn:
        results = check_all(conn)
    if as_json:
        print(json.dumps([result.to_dict() for result in results], indent=1, default=str))
    else:
        for result in results:
            print(result.to_text())
    raise typer.Exit(0 if all(result.holds for result in results) else EXIT_FAILED)


@app.command()
def migrate(data_dir: DataDir = None, config: Config = None, set_: Set = None) -> None:
    """Bring the database to the newest schema, with the tariffs that we bring when it has none, and make the Kafka topics
    that are missing.
    """
    from connectors.topics import TopicError, ensure_topics
    from storage.first_tariffs import import_first_tariffs
    from storage.migrate import MigrationError
    from storage.migrate import migrate as migrate_database

    loaded = settings_of(data_dir, config, set_)
    addresses = running(loaded, "kafka", "database")
    try:
        for name in migrate_database(addresses.database):
            print(f"applied {name}")
        for name in import_first_tariffs(addresses.database):
            print(f"imported tariff {name}")
        for name in ensure_topics(loaded.settings.kafka, addresses.kafka):
            print(f"made topic {name}")
    except (MigrationError, TopicError) as error:
        fail(str(error), EXIT_FAILED)
    print("up to date")


@app.command("config")
def show_config(data_dir: DataDir = None, config: Config = None, set_: Set = None, as_json: AsJson = False) -> None:
    """Print every setting in force and where it came from; secrets are hidden."""
    rows = describe(settings_of(data_dir, config, set_))
    if as_json:
        print(json.dumps([{"name": n, "value": v, "origin": o} for n, v, o in rows], indent=1))
        return
    for name, value, origin in rows:
        print(f"{name:28} {value:50} {origin}")


@app.command()
def simulate(
    data_dir: DataDir = None,
    config: Config = None,
    meters: Annotated[int, typer.Option(min=20, max=200_000)] = 500,
    days: Annotated[int, typer.Option(min=0, max=400, help="Days of history to send first.")] = 0,
    live_s: Annotated[float, typer.Option(min=1, help="Seconds between live readings of a meter.")] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="End when the history is receipted.")] = False,
) -> None:
    """Publish readings of a simulated utility to the running system, keeping a log until the receipts cover it."""
    from gridtally.demo import run_simulator

    loaded = settings_of(data_dir, config)
    addresses = running(loaded, "mqtt", "database")
    raise typer.Exit(run_simulator(loaded.settings, addresses, meters=meters, days=days, live_s=live_s, once=once))


@app.command()
def replay(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV of intervals, Wh; wide or long, gzip or not.")
    ],
    data_dir: DataDir = None,
    config: Config = None,
    *,
    speed: Annotated[float, typer.Option(min=0, help="Times real time; 0 is as fast as it goes.")] = 0.0,
    limit_days: Annotated[int, typer.Option(min=0, help="Send only so many days; 0 is all.")] = 0,
    shift_days: Annotated[
        int | None, typer.Option(help="Move the readings by whole days; by default their end comes near today.")
    ] = None,
    tariff: Annotated[str | None, typer.Option(help="Tariff of new meters. Default: county-residential")] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Of the ids of numbered meters. Default: first letters of the file's folder")
    ] = None,
) -> None:
    """Send real interval data, made into registers, through MQTT; when all of it is receipted, compare the ledger with it.

    The file has a row of quarter-hours for each meter (meter,q0000,q0001,…), or a row for each interval
    (meter_id,start,energy_wh). Negative energy is fed in, an empty cell is missing. A second run goes on where the first
    stopped. Exit code 1 when the ledger differs from the file, 75 when nothing moves and the same command may do better.

    Example: gridtally replay ../shared/data/swiss15min/readings_wh.csv.gz
    """
    from connectors.interval_file import IntervalFileError
    from connectors.replay import Choice, ReplayError
    from gridtally.replay import run_replay

    loaded = settings_of(data_dir, config)
    addresses = running(loaded)
    choice = Choice(tariff, prefix, shift_days, limit_days)
    try:
        code = run_replay(loaded.settings, addresses, file, choice, speed=speed)
    except IntervalFileError as error:
        fail(str(error), EXIT_FAILED)
    except ReplayError as error:
        fail(str(error), EXIT_TEMPORARY if error.retriable else EXIT_FAILED)
    raise typer.Exit(code)


@app.command()
def bridge(data_dir: DataDir = None, config: Config = None, set_: Set = None) -> None:
    """Run the bridge from MQTT to Kafka."""
    from connectors.bridge import run
    from monitoring.log import set_up_logging

    set_up_logging()
    loaded = settings_of(data_dir, config, set_)
    run(loaded.settings, running(loaded, "mqtt", "kafka"))


@app.command()
def console(data_dir: DataDir = None, config: Config = None, set_: Set = None) -> None:
    """Run the web console."""
    from console.app import run
    from monitoring.log import set_up_logging

    set_up_logging()
    loaded = settings_of(data_dir, config, set_)
    run(loaded.settings, running(loaded, "kafka", "database"))


def _work(role: str, loaded: Loaded, name: str | None) -> None:
    import importlib

    from monitoring.log import set_up_logging

    set_up_logging()
    addresses = running(loaded, "kafka", "database")
    importlib.import_module(f"agents.{role}").run(loaded.settings, addresses.database, addresses.kafka, name or role)


@worker_app.command("validate")
def worker_validate(data_dir: DataDir = None, config: Config = None, set_: Set = None, name: Name = None) -> None:
    """Run a validate worker."""
    _work("validate", settings_of(data_dir, config, set_), name)


@worker_app.command("settle")
def worker_settle(data_dir: DataDir = None, config: Config = None, set_: Set = None, name: Name = None) -> None:
    """Run a settle worker."""
    _work("settle", settings_of(data_dir, config, set_), name)


@worker_app.command("detect")
def worker_detect(data_dir: DataDir = None, config: Config = None, set_: Set = None, name: Name = None) -> None:
    """Run a detect worker."""
    _work("detect", settings_of(data_dir, config, set_), name)


@import_app.command("meters")
def import_meters_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    data_dir: DataDir = None,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check.")] = False,
) -> None:
    """Import meters from a CSV file, all of it or nothing. meter_id is required; optional are service_point_id,
    parent_id, tariff_id, rated_power_w, register_modulus_wh, interval_s, installed_on.
    """
    from storage.registry import import_meters

    with connect(settings_of(data_dir, config)) as conn:
        report = import_meters(conn, file, dry_run=dry_run)
    for fault in report.faults:
        print(f"{file}: {fault}", file=sys.stderr)
    if report.faults:
        fail("nothing was imported", EXIT_FAILED)
    what = "checked" if dry_run else "imported"
    print(f"{what} {report.rows} meters: {report.new} new, {report.changed} changed")


@import_app.command("tariff")
def import_tariff_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)], data_dir: DataDir = None, config: Config = None
) -> None:
    """Check a tariff document (YAML) and put it into the database."""
    from metering.tariff import TariffError
    from storage.registry import import_tariff

    with connect(settings_of(data_dir, config)) as conn:
        try:
            tariff = import_tariff(conn, file)
        except TariffError as error:
            fail(f"{file}: {error}", EXIT_FAILED)
    print(f"tariff {tariff.tariff_id} is in force")


@app.command("open-epoch")
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


@letters_app.command("list")
def letters_list(
    data_dir: DataDir = None,
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    code: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""
    from storage.dead_letter import fetch_dead_letters

    with connect(settings_of(data_dir, config)) as conn:
        rows = fetch_dead_letters(conn, limit=limit, code=code)
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
        return
    for row in rows:
        where = f"{row['raw_partition']}/{row['raw_offset']}/{row['raw_index']}"
        print(
            f"{row['dead_letter_id']:8} {row['received_at']:%Y-%m-%d %H:%M:%S} {row['stage']:9} {row['code']:22}"
            f" {row['meter_id'] or '-':20} {where:16} {row['state']:9} {row['detail'][:80]}"
        )


@letters_app.command("show")
def letters_show(dead_letter_id: int, data_dir: DataDir = None, config: Config = None) -> None:
    """Show one dead letter with its bytes and what to do about it."""
    from schemas.reject import OPERATOR_ACTIONS, RejectCode
    from storage.dead_letter import fetch_dead_letter

    with connect(settings_of(data_dir, config)) as conn:
        row = fetch_dead_letter(conn, dead_letter_id)
    if row is None:
        fail(f"no dead letter {dead_letter_id}", EXIT_FAILED)
    payload = bytes(row.pop("payload"))
    for name, value in row.items():
        print(f"{name:16} {value}")
    print(f"{'to do':16} {OPERATOR_ACTIONS[RejectCode[row['code'].upper()]]}")
    print(f"{'payload':16} {len(payload)} bytes")
    sys.stdout.flush()
    sys.stdout.buffer.write(payload + b"\n")


@letters_app.command("replay")
def letters_replay(
    dead_letter_id: Annotated[list[int] | None, typer.Argument(help="Which; or --code for all of a reason.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    code: Annotated[str | None, typer.Option(help="All new ones of this reason.")] = None,
) -> None:
    """Send dead letters through the path again, after what was wrong has been put right.

    Example: gridtally import meters new.csv && gridtally dead-letters replay --code unknown_meter
    """
    from connectors.dead_letter_replay import replay_dead_letters

    if not dead_letter_id and not code:
        fail("name dead letters, or give --code", EXIT_USAGE)
    loaded = settings_of(data_dir, config)
    addresses = running(loaded, "kafka", "database")
    with connect(loaded) as conn:
        count = replay_dead_letters(conn, loaded.settings.kafka, addresses.kafka, dead_letter_id or [], code)
    print(f"replayed {count} dead letters")


@app.command()
def version() -> None:
    """Print the version."""
    from gridtally import __version__

    print(__version__)


def main() -> None:
    """Run the command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
