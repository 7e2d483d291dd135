"""`gridtally contract`: tariffs over time, the end of a contract, and what is agreed."""

import json
from decimal import Decimal
from typing import Annotated, Any

import typer

from gridtally.options import (
    EXIT_FAILED,
    EXIT_USAGE,
    As,
    AsJson,
    Config,
    DataDir,
    connect,
    day_of,
    fail,
    settings_of,
)

contract_app = typer.Typer(help="Contracts: their tariffs over time, and their end.", no_args_is_help=True)

ContractId = Annotated[str, typer.Argument(help="As in the file of contracts.")]
Terms = Annotated[
    list[str] | None, typer.Option("--term", help="NAME=DECIMAL, such as contract_kw=20. May be repeated.")
]


def terms_of(pairs: list[str] | None) -> dict[str, Decimal]:
    """Return the terms of the command line, or end the command."""
    from storage.master_cell import read_decimal, read_name

    terms: dict[str, Decimal] = {}
    for pair in pairs or []:
        name, _, value = pair.partition("=")
        try:
            if read_name(name) in terms:
                fail(f"--term {pair}: {name} is there twice", EXIT_USAGE)
            terms[name] = read_decimal(value)
        except ValueError:
            fail(f"--term {pair}: expected NAME=DECIMAL, such as contract_kw=20", EXIT_USAGE)
    return terms


def text_of(terms: dict[str, Any] | None) -> str:
    """Return terms for people."""
    return " ".join(f"{name}={value}" for name, value in sorted((terms or {}).items()))


@contract_app.command("tariff")
def tariff_command(
    contract: ContractId,
    *,
    tariff: Annotated[str, typer.Option("--tariff", help="Which; `gridtally import tariff` brings one.")],
    start_on: Annotated[str, typer.Option("--start-on", help="First local day, such as 2026-12-01.")],
    who: As,
    term: Terms = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Give a contract a tariff from a day on, until its next one; what was entered for that day before is kept.

    Example: gridtally contract tariff k-00042 --tariff county-commercial --start-on 2026-12-01 --term contract_kw=20 --as ann
    """
    from storage.contract import ContractError, set_contract_tariff

    day, terms = day_of(start_on, "--start-on"), terms_of(term)
    with connect(settings_of(data_dir, config)) as conn:
        try:
            notices = set_contract_tariff(conn, contract, tariff, day, terms, who)
        except ContractError as error:
            fail(f"{error}; nothing was changed", EXIT_FAILED)
    print(f"{contract}: {tariff} from {day} on")
    for notice in notices:
        print(f"  {notice}")


@contract_app.command("end")
def end_command(
    contract: ContractId,
    *,
    on: Annotated[str, typer.Option("--on", help="First local day that it does not cover, such as 2026-12-01.")],
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """End a contract. Usage after it is kept, and charged when another contract is entered for it.

    Example: gridtally contract end k-00042 --on 2026-12-01 --as ann
    """
    from storage.contract import ContractError, end_contract

    day = day_of(on, "--on")
    with connect(settings_of(data_dir, config)) as conn:
        try:
            notices = end_contract(conn, contract, day, who)
        except ContractError as error:
            fail(f"{error}; nothing was changed", EXIT_FAILED)
    print(f"{contract} ends on {day}")
    for notice in notices:
        print(f"  {notice}")


@contract_app.command("list")
def list_command(
    account: Annotated[str | None, typer.Option("--account", help="Only of this account.")] = None,
    service_point: Annotated[str | None, typer.Option("--service-point", help="Only at this service point.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List contracts. Example: gridtally contract list --account a-00042 --json"""
    from storage.contract import fetch_contract_list

    with connect(settings_of(data_dir, config)) as conn:
        rows = fetch_contract_list(conn, account_id=account, service_point_id=service_point, limit=limit)
    if as_json:
        print(json.dumps(rows, indent=1, default=str, ensure_ascii=False))
        return
    for row in rows:
        print(
            f"{row['contract_id']:16} {row['account_id']:16} {row['service_point_id']:16} {row['start_on']}"
            f" {row['end_on'] or '-':10} {row['tariff_id'] or '-':24} {text_of(row['terms'])}"
        )


@contract_app.command("show")
def show_command(
    contract: ContractId, data_dir: DataDir = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Show the tariffs of a contract, with those that were replaced. Example: gridtally contract show k-00042"""
    from storage.contract import ContractError, fetch_tariff_history

    with connect(settings_of(data_dir, config)) as conn:
        try:
            rows = fetch_tariff_history(conn, contract)
        except ContractError as error:
            fail(str(error), EXIT_FAILED)
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
        return
    for row in rows:
        state = "" if row["replaced_at"] is None else f"  replaced {row['replaced_at']:%Y-%m-%d %H:%M}"
        print(f"{row['start_on']} {row['tariff_id']:24} {text_of(row['terms'])}  by {row['entered_by']}{state}")
