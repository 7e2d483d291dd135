"""`gridtally charge` and `gridtally usage`: what was used and what it costs so far, as now or as known at a past moment."""

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridtally.options import (
    EXIT_FAILED,
    EXIT_USAGE,
    AsJson,
    Config,
    DataDir,
    connect,
    fail,
    instant_of,
    settings_of,
)

if TYPE_CHECKING:
    from storage.projection import Projection

AsKnownAt = Annotated[
    str | None,
    typer.Option("--as-known-at", help="Answer as it was known then, such as 2026-11-24T08:00:00+08:00."),
]
BASIS = {
    "own": "its own {days} whole days of the last six weeks",
    "class": "the shape of its class; of its own it has {days} whole days",
    "flat": "a flat load: there is no week of its own, and no other account of its class",
    "over": "nothing: the cycle is over",
}


@contextmanager
def telling() -> Iterator[None]:
    """End the command with what a charge cannot be made of."""
    from metering.pricing.indexed import MissingPriceError
    from metering.terms import RatingError
    from storage.contract import ContractError

    try:
        yield
    except (RatingError, MissingPriceError, ContractError, LookupError) as error:
        fail(str(error.args[0] if error.args else error), EXIT_FAILED)


def known_at_of(text: str | None) -> dt.datetime | None:
    """Return the instant of --as-known-at, or end the command."""
    return None if text is None else instant_of(text, "--as-known-at")


def charge_command(
    account: Annotated[str, typer.Argument(help="Account; or a service point, or a meter.")],
    as_known_at: AsKnownAt = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show the charge so far of the running cycle with its lines, and what the bill may come to.

    Example: gridtally charge a-00042 --as-known-at 2026-11-24T08:00:00+08:00
    """
    from storage.known import fetch_service_points
    from storage.projection import fetch_projection, projection_as_json

    at = known_at_of(as_known_at)
    with connect(settings_of(data_dir, config)) as conn, telling():
        points = fetch_service_points(conn, account)
        found = [(name, fetch_projection(conn, number, at)) for number, name in points]
    if as_json:
        rows = [{"service_point": name, **projection_as_json(one)} for name, one in found if one is not None]
        print(
            json.dumps({"account": account, "as_known_at": as_known_at, "charges": rows}, ensure_ascii=False, indent=1)
        )
    else:
        for name, one in found:
            if one is None:
                print(f"{name}: no reading with a tariff" + (" was known then" if at else " yet"))
            else:
                _print_charge(name, one)
    if all(one is None for _, one in found):
        raise typer.Exit(EXIT_FAILED)


def _print_charge(name: str, found: "Projection") -> None:
    charge, currency = found.charge, found.charge.bill.currency
    shown = _json_of(found)
    read_at = dt.datetime.fromisoformat(shown["read_at"]).astimezone(charge.zone)
    print(f"{name}, contract {charge.contract.contract_id}: {charge.cycle[0]} to {charge.cycle[1]}")
    print(f"  readings until {read_at:%Y-%m-%d %H:%M} ({charge.zone}), {charge.load.energy_wh / 1000:.3f} kWh")
    for line in shown["so_far"]["lines"]:
        quantity = f"{line['quantity']} {line['unit']}"
        print(f"  {line['id']:<32} {quantity:>24} x {line['price']:>12} = {line['amount']:>12}")
    print(f"  {'charge so far':<32} {shown['so_far']['total']:>54} {currency}")
    ahead = shown["projection"]
    if found.note:
        print(f"  no projection of the charge: {found.note}")
    elif found.basis != "over":
        print(
            f"  projected for the whole cycle    {ahead['middle']['total']:>54} {currency}\n"
            f"  8 times in 10 between {ahead['low']['total']} and {ahead['high']['total']} {currency}"
            f" ({ahead['low']['energy_wh'] / 1000:.0f} to {ahead['high']['energy_wh'] / 1000:.0f} kWh)"
        )
    print(f"  based on {BASIS[found.basis].format(days=found.own_days)}")


def _json_of(found: "Projection") -> dict[str, Any]:
    from storage.projection import projection_as_json

    return projection_as_json(found)


def usage_command(
    name: Annotated[str, typer.Argument(help="Service point, or meter.", metavar="SERVICE_POINT_OR_METER")],
    *,
    start: Annotated[str, typer.Option("--from", help="First instant, such as 2026-11-01T00:00:00+08:00.")],
    end: Annotated[str, typer.Option("--to", help="Instant after the last.")],
    as_known_at: AsKnownAt = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show what a service point used by quarter-hours (in the terminal by UTC day), as now or as known at a past moment.

    Example: gridtally usage p-00042 --from 2026-11-01T00:00:00+08:00 --to 2026-11-02T00:00:00+08:00 --json
    """
    from storage.known import fetch_usage_known, find_service_point, usage_as_json

    low, high, at = instant_of(start, "--from"), instant_of(end, "--to"), known_at_of(as_known_at)
    if low >= high:
        fail("--from has to be before --to", EXIT_USAGE)
    if high - low > dt.timedelta(days=400):
        fail("--from to --to: at most 400 days at a time", EXIT_USAGE)
    with connect(settings_of(data_dir, config)) as conn, telling():
        found = fetch_usage_known(conn, find_service_point(conn, name), low, high, at)
    shown = {"name": name, "as_known_at": as_known_at, **usage_as_json(found)}
    if as_json:
        print(json.dumps(shown, indent=1))
        return
    by_day: dict[str, list[int]] = {}
    for row in shown["intervals"]:
        total = by_day.setdefault(row["start"][:10], [0, 0, 0, 0])
        for place, key in enumerate(("import_wh", "export_wh", "estimated_wh", "covered_s")):
            total[place] += row.get(key, 0)
    print(f"{'day (UTC)':12} {'used kWh':>12} {'fed in kWh':>12} {'estimated kWh':>14} {'hours read':>11}")
    for day, (used, fed, estimated, covered) in by_day.items():
        print(f"{day:12} {used / 1000:12.3f} {fed / 1000:12.3f} {estimated / 1000:14.3f} {covered / 3600:11.2f}")
    print(f"{'total':12} {found.energy_wh / 1000:12.3f} {found.export_wh / 1000:12.3f}")
    for span in found.spans:
        print(f"{span.meter_id} {span.register}: {span.start_wh} Wh at {span.start_at:%Y-%m-%d %H:%M} to {span.end_wh} Wh"
              f" at {span.end_at:%Y-%m-%d %H:%M}")  # fmt: skip
