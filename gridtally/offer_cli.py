"""`gridtally offer`: a customer's own past year under other tariffs, and what was decided about it."""

import json
from typing import Annotated, Any

import typer

from gridtally.contract_cli import Terms, terms_of, text_of
from gridtally.options import EXIT_FAILED, As, AsJson, Config, DataDir, connect, day_of, fail, settings_of

offer_app = typer.Typer(help="Offers: the past year under other tariffs, accepted or declined.", no_args_is_help=True)

OfferNo = Annotated[int, typer.Argument(min=1, max=2**63 - 1, help="Number of the offer.")]


def _now() -> Any:
    import datetime as dt

    from monitoring.clock import now_us

    return dt.datetime.fromtimestamp(now_us() // 1_000_000, dt.UTC)


@offer_app.command("make")
def make_command(
    contract: Annotated[str, typer.Argument(help="Whose past year.")],
    *,
    tariff: Annotated[list[str], typer.Option("--tariff", help="Proposed tariff. May be repeated.")],
    start_on: Annotated[str, typer.Option("--start-on", help="Local day from which it would hold.")],
    valid_until: Annotated[str, typer.Option("--valid-until", help="First day on which it is too late to accept.")],
    who: As,
    term: Terms = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Price a contract's past year under its tariff and each proposed one, at the prices of the day they would hold from.

    Example: gridtally offer make k-00042 --tariff county-commercial --start-on 2026-12-01 --valid-until 2026-12-15 --as ann
    """
    from storage.offer import OfferError, Proposed, make_offers

    offered = Proposed(tariff, terms_of(term), day_of(start_on, "--start-on"), day_of(valid_until, "--valid-until"))
    with connect(settings_of(data_dir, config)) as conn:
        try:
            made = make_offers(conn, contract, offered, _now(), who)
        except OfferError as error:
            fail(f"{error}; no offer was made", EXIT_FAILED)
    if as_json:
        print(json.dumps(made, indent=1))
        return
    for one in made:
        print(f"offer {one['offer_no']}: ", end="")
        _print_comparison(one)


def _print_comparison(one: dict[str, Any]) -> None:
    present, proposed = one["present"], one["proposed"]
    print(f"{proposed['tariff_id']} instead of {present['tariff_id']}, prices of {one['prices_of']}, {one['currency']}")
    of_a_year = "" if one["days"] >= 365 else ": less than a year"
    print(
        f"  {one['start_on']} until {one['end_on']}, {one['days']} days, readings for {one['covered_days']}{of_a_year};"
        f" {one['energy_wh'] / 1000:,.1f} kWh"
        + (f", {one['estimated_wh'] / 1000:,.1f} kWh of it estimated in time" if one["estimated_wh"] else "")
    )
    print(f"  {'from':10} {'until':10} {'kWh':>12} {'present':>14} {'proposed':>14} {'difference':>14}")
    for month in one["months"]:
        print(
            f"  {month['start_on']} {month['end_on']} {month['energy_wh'] / 1000:12,.1f} {month['present']:>14}"
            f" {month['proposed']:>14} {month['difference']:>14}"
        )
    print(f"  {'together':34} {present['total']:>14} {proposed['total']:>14} {one['difference']:>14}")


@offer_app.command("list")
def list_command(
    contract: Annotated[str | None, typer.Option("--contract", help="Only of this contract.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List offers, newest first. Example: gridtally offer list --contract k-00042"""
    from storage.offer import fetch_offers

    with connect(settings_of(data_dir, config)) as conn:
        rows = fetch_offers(conn, contract_id=contract, limit=limit)
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
        return
    for row in rows:
        print(
            f"{row['offer_no']:6} {row['contract_id']:16} {row['tariff_id']:24} from {row['start_on']}"
            f" valid until {row['valid_until']} {row['state']:9} {row['comparison']['difference']:>12}"
            f" {row['comparison']['currency']} {text_of(row['terms'])}"
        )


@offer_app.command("show")
def show_command(offer_no: OfferNo, data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show an offer with its months. Example: gridtally offer show 17"""
    from storage.offer import fetch_offers

    with connect(settings_of(data_dir, config)) as conn:
        rows = fetch_offers(conn, offer_no=offer_no)
    if not rows:
        fail(f"no offer {offer_no}", EXIT_FAILED)
    row = rows[0]
    if as_json:
        print(json.dumps(row, indent=1, default=str))
        return
    decided = f", {row['state']} by {row['decided_by']}" if row["decided_by"] else ""
    print(
        f"offer {offer_no} for {row['contract_id']} from {row['start_on']}, valid until {row['valid_until']}{decided}: "
    )
    _print_comparison(row["comparison"])


@offer_app.command("accept")
def accept_command(offer_no: OfferNo, *, who: As, data_dir: DataDir = None, config: Config = None) -> None:
    """Accept an offer: its tariff becomes the contract's from its day on. Example: gridtally offer accept 17 --as ann"""
    _decide(offer_no, data_dir, config, who, accepts=True)


@offer_app.command("decline")
def decline_command(offer_no: OfferNo, *, who: As, data_dir: DataDir = None, config: Config = None) -> None:
    """Decline an offer. Example: gridtally offer decline 17 --as ann"""
    _decide(offer_no, data_dir, config, who, accepts=False)


def _decide(offer_no: int, data_dir: Any, config: Any, who: str, *, accepts: bool) -> None:
    from storage.offer import OfferError, decide_offer

    with connect(settings_of(data_dir, config)) as conn:
        try:
            notices = decide_offer(conn, offer_no, _now(), who, accepts=accepts)
        except OfferError as error:
            fail(f"{error}; nothing was changed", EXIT_FAILED)
    print(f"offer {offer_no} is {'accepted' if accepts else 'declined'}")
    for notice in notices:
        print(f"  {notice}")
