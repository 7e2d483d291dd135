"""What the commands share: their options, their exit codes, and how they end when something is not there."""

import datetime as dt
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from schemas.addresses import COMPONENTS, Addresses, AddressesError, resolve_addresses
from schemas.settings import Loaded, SettingsError, load_settings

EXIT_FAILED, EXIT_USAGE, EXIT_NOT_RUNNING, EXIT_TEMPORARY = 1, 2, 3, 75


def _who(name: str) -> str:
    """Return the name of a user, or end the command."""
    if not name.strip() or not name.isprintable() or len(name) > 100:
        raise typer.BadParameter("expected a name")
    return name.strip()


DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where data, logs and addresses are. Default: ./gridtally-data")
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file. Default: DATA_DIR/gridtally.toml")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, such as --set kafka.partitions=8. May be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
As = Annotated[str, typer.Option("--as", metavar="NAME", help="Who does it, for the audit trail.", callback=_who)]
Name = Annotated[str | None, typer.Option("--name", help="Name of this process in logs and metrics.")]


def fail(message: str, code: int) -> NoReturn:
    """End with a message on stderr."""
    print(f"gridtally: {message}", file=sys.stderr)
    raise typer.Exit(code)


def day_of(text: str, option: str) -> dt.date:
    """Return a day such as 2026-11-24, or end the command."""
    try:
        if len(text) == 10:
            return dt.date.fromisoformat(text)
    except ValueError:
        pass
    fail(f"{option} {text}: expected a day such as 2026-11-24", EXIT_USAGE)


def instant_of(text: str, option: str) -> dt.datetime:
    """Return an instant with its offset, or end the command."""
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        fail(f"{option} {text}: expected a time with offset, such as 2026-11-24T08:00:00+08:00", EXIT_USAGE)
    return at


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
    """Return a connection to a database that has our tables, or end the command."""
    import psycopg

    try:
        conn = psycopg.connect(running(loaded, "database").database, autocommit=True, connect_timeout=10)
    except psycopg.OperationalError as error:
        fail(f"the database does not answer: {error}", EXIT_NOT_RUNNING)
    if conn.execute("select to_regclass('stream_offset')").fetchone() == (None,):
        conn.close()
        fail("the database has no tables yet: run `gridtally migrate`", EXIT_NOT_RUNNING)
    return conn
