"""`gridtally meter`: exchanges and registers read by hand. What is entered is kept first, then sent down the ordinary path."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridtally.options import (
    EXIT_FAILED,
    EXIT_NOT_RUNNING,
    EXIT_TEMPORARY,
    EXIT_USAGE,
    As,
    AsJson,
    Config,
    DataDir,
    connect,
    fail,
    instant_of,
    settings_of,
)
from schemas.settings import Loaded

if TYPE_CHECKING:
    from storage.exchange import HandReading

meter_app = typer.Typer(help="Exchange meters, enter registers that were read by hand.", no_args_is_help=True)

At = Annotated[str, typer.Option("--at", help="When, with offset, such as 2026-11-24T08:00:00+08:00.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit trail.")]


def _kwh(text: str | None, option: str) -> int | None:
    from storage.master_cell import read_kwh

    if text is None:
        return None
    try:
        return read_kwh(text.strip())
    except ValueError:
        fail(f"{option} {text}: expected kWh with at most three decimals, such as 6193.2", EXIT_USAGE)


def publish(conn: Any, loaded: Loaded, readings: Sequence["HandReading"]) -> None:
    """Send the readings that are not settled yet, or end the command saying how to do it later."""
    from connectors.hand_reading import HandReadingError, publish_readings
    from schemas.addresses import AddressesError, resolve_addresses
    from storage.exchange import ExchangeError, check_reading

    later = "what was entered is kept; its readings are not sent yet: start Kafka, and run the same command again"
    waiting = []
    for reading in readings:
        try:
            if not check_reading(conn, reading):
                waiting.append(reading)
        except ExchangeError as error:
            fail(f"{reading.meter_id}: {error}", EXIT_FAILED)
    if not waiting:
        print("its readings are settled" if readings else "no reading is waiting")
        return
    try:
        address = resolve_addresses(loaded.settings, ("kafka",)).kafka
    except AddressesError as error:
        fail(f"{error}; {later}", EXIT_NOT_RUNNING)
    try:
        publish_readings(loaded.settings.kafka, address, waiting)
    except HandReadingError as error:
        fail(f"Kafka did not take them: {error}; {later}", EXIT_TEMPORARY)
    print(f"sent {len(waiting)} readings: they are settled in a moment, or refused in `gridtally dead-letters list`")


def publish_unsettled(conn: Any, loaded: Loaded) -> None:
    """Send the readings of all exchanges that are not settled yet."""
    from storage.exchange import fetch_unsettled

    publish(conn, loaded, fetch_unsettled(conn, loaded.settings.validate_.past_max_days))


@meter_app.command("exchange")
def exchange_command(
    *,
    service_point: Annotated[str, typer.Option("--service-point", help="Where.")],
    old: Annotated[str, typer.Option("--old", help="Meter that was taken away.")],
    final_kwh: Annotated[str, typer.Option("--final-kwh", help="Its last register.")],
    new: Annotated[str, typer.Option("--new", help="Meter that was put there; import it first.")],
    initial_kwh: Annotated[str, typer.Option("--initial-kwh", help="Its first register.")],
    at: At,
    reason: Reason,
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Put a meter in another's place: the old one's last register and the new one's first go down the path as readings.

    Run again, it changes nothing and sends what is not settled. Example: gridtally meter exchange --service-point sp-00042
    --old m-00042 --final-kwh 6193.2 --new m-90001 --initial-kwh 0.1 --at 2026-11-24T08:00:00+08:00 --reason worn --as ann
    """
    from storage.exchange import Exchange, ExchangeError, enter_exchange

    final_wh, initial_wh = _kwh(final_kwh, "--final-kwh"), _kwh(initial_kwh, "--initial-kwh")
    assert final_wh is not None
    assert initial_wh is not None
    exchange = Exchange(service_point, instant_of(at, "--at"), old, final_wh, new, initial_wh, reason)
    loaded = settings_of(data_dir, config)
    with connect(loaded) as conn:
        try:
            is_known = enter_exchange(conn, exchange, who)
        except ExchangeError as error:
            fail(f"{error}; nothing was changed", EXIT_FAILED)
        print(f"{service_point}: {new} in the place of {old} from {at}" + (" (entered before)" if is_known else ""))
        publish(conn, loaded, exchange.readings)


@meter_app.command("reading")
def reading_command(
    meter_id: Annotated[str, typer.Argument(help="Whose register.")],
    *,
    import_kwh: Annotated[str, typer.Option("--import-kwh", help="What it shows.")],
    at: At,
    reason: Reason,
    who: As,
    export_kwh: Annotated[str | None, typer.Option("--export-kwh", help="What the export register shows.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Enter a register that was read by hand; run again, it is settled once.

    Example: gridtally meter reading m-00042 --import-kwh 6202.9 --at 2026-11-24T08:00:00+08:00 --reason "card" --as ann
    """
    from storage.exchange import ExchangeError, HandReading, enter_reading

    import_wh = _kwh(import_kwh, "--import-kwh")
    assert import_wh is not None
    reading = HandReading(meter_id, instant_of(at, "--at"), import_wh, _kwh(export_kwh, "--export-kwh"))
    loaded = settings_of(data_dir, config)
    with connect(loaded) as conn:
        try:
            enter_reading(conn, reading, reason, who)
        except ExchangeError as error:
            fail(str(error), EXIT_FAILED)
        publish(conn, loaded, [reading])


@meter_app.command("exchanges")
def exchanges_command(data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """List the exchanges. Example: gridtally meter exchanges --json"""
    from storage.exchange import EXCHANGES, fetch_exchange_rows

    with connect(settings_of(data_dir, config)) as conn:
        rows = [dict(zip(EXCHANGES.names, row, strict=True)) for row in fetch_exchange_rows(conn)]
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
        return
    for row in rows:
        print(
            f"{row['at']:%Y-%m-%d %H:%M} {row['service_point_id']:20} {row['old_meter_id']} {row['final_kwh']} ->"
            f" {row['new_meter_id']} {row['initial_kwh']}  {row['reason']}"
        )
