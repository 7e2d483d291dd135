"""The command line. Exit codes: 0 done; 1 a check failed or nothing was found; 2 wrong usage or settings; 3 not running or
unreachable; 75 a temporary failure; 130 interrupted.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gridtally.alarm_cli import alarm_app
from gridtally.bill_cli import bill_app
from gridtally.case_cli import case_app
from gridtally.charge_cli import charge_command, usage_command
from gridtally.contract_cli import contract_app
from gridtally.dead_letters import letters_app
from gridtally.detect_cli import detect_app
from gridtally.estimate_cli import estimate_command
from gridtally.impact_cli import impact_command
from gridtally.master_data import export_app, import_app, open_epoch_command
from gridtally.meter_cli import meter_app
from gridtally.notify_cli import notify_app
from gridtally.offer_cli import offer_app
from gridtally.options import (
    EXIT_FAILED,
    EXIT_NOT_RUNNING,
    EXIT_TEMPORARY,
    AsJson,
    Config,
    DataDir,
    Name,
    Set,
    connect,
    fail,
    running,
    settings_of,
)
from gridtally.payment_cli import audit_command, payment_app, statement_command
from gridtally.tariff_cli import tariff_app
from schemas.settings import Loaded, describe

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
app.add_typer(worker_app, name="worker")
app.add_typer(alarm_app, name="alarm")
app.add_typer(notify_app, name="notify")
app.add_typer(import_app, name="import")
app.add_typer(export_app, name="export")
app.add_typer(meter_app, name="meter")
app.add_typer(contract_app, name="contract")
app.add_typer(offer_app, name="offer")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(detect_app, name="detect")
app.add_typer(case_app, name="case")
app.add_typer(tariff_app, name="tariff")
app.add_typer(bill_app, name="bill")
app.add_typer(payment_app, name="payment")
app.command("statement")(statement_command)
app.command("audit")(audit_command)
app.command("open-epoch")(open_epoch_command)
app.command("charge")(charge_command)
tariff_app.command("impact")(impact_command)
app.command("usage")(usage_command)
app.command("estimate")(estimate_command)


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
    that are missing. Example: gridtally migrate --config /etc/gridtally.toml
    """
    import psycopg

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
    except psycopg.OperationalError as error:
        fail(f"the database does not answer: {error}", EXIT_NOT_RUNNING)
    except (MigrationError, TopicError) as error:
        fail(str(error), EXIT_FAILED)
    print("up to date")


@app.command("config")
def show_config(data_dir: DataDir = None, config: Config = None, set_: Set = None, as_json: AsJson = False) -> None:
    """Print every setting in force and where it came from; secrets are hidden. Example: gridtally config --json"""
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
    """Publish readings of a simulated utility to the running system, keeping a log until the receipts cover it.

    Example: gridtally simulate --meters 1000 --days 7 --once
    """
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
    """Run the bridge from MQTT to Kafka. Example: gridtally bridge --config /etc/gridtally.toml"""
    from connectors.bridge import run
    from monitoring.log import set_up_logging

    loaded = settings_of(data_dir, config, set_)
    addresses = running(loaded, "mqtt", "kafka")
    set_up_logging()
    run(loaded.settings, addresses)


@app.command()
def console(data_dir: DataDir = None, config: Config = None, set_: Set = None) -> None:
    """Run the web console. Example: gridtally console --set console.host=0.0.0.0"""
    from console.app import run
    from gridtally.sheets import Sheets
    from monitoring.log import set_up_logging

    loaded = settings_of(data_dir, config, set_)
    addresses = running(loaded, "kafka", "database")
    set_up_logging()
    run(loaded.settings, addresses, paper=Sheets())


def _work(role: str, loaded: Loaded, name: str | None) -> None:
    import importlib

    from monitoring.log import set_up_logging

    addresses = running(loaded, "kafka", "database")
    set_up_logging()
    importlib.import_module(f"agents.{role}").run(loaded.settings, addresses.database, addresses.kafka, name or role)


@worker_app.command("validate")
def worker_validate(data_dir: DataDir = None, config: Config = None, set_: Set = None, name: Name = None) -> None:
    """Run a validate worker. Example: gridtally worker validate --name validate-2"""
    _work("validate", settings_of(data_dir, config, set_), name)


@worker_app.command("settle")
def worker_settle(data_dir: DataDir = None, config: Config = None, set_: Set = None, name: Name = None) -> None:
    """Run a settle worker. Example: gridtally worker settle --name settle-2"""
    _work("settle", settings_of(data_dir, config, set_), name)


@worker_app.command("detect")
def worker_detect(data_dir: DataDir = None, config: Config = None, set_: Set = None, name: Name = None) -> None:
    """Run a detect worker. Example: gridtally worker detect --name detect-2"""
    _work("detect", settings_of(data_dir, config, set_), name)


@app.command()
def version() -> None:
    """Print the version. Example: gridtally version"""
    from gridtally import __version__

    print(__version__)


def main() -> None:
    """Run the command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
