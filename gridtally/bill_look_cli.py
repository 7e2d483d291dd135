"""`gridtally bill list`, `show` and `held`; `release`, `issue` and `delete` of what is not issued yet."""

import datetime as dt
import json
from decimal import Decimal
from typing import Annotated, Any

import typer

from gridtally.bill_options import BillName, money_of, print_json, some_day
from gridtally.options import (
    EXIT_FAILED,
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
from monitoring.clock import local_today


def bill_list(  # options
    data_dir: DataDir = None,
    config: Config = None,
    *,
    customer: Annotated[str | None, typer.Option(help="Id of a customer, or part of the name.")] = None,
    account: Annotated[str | None, typer.Option(help="Id of an account.")] = None,
    meter: Annotated[str | None, typer.Option(help="Id of a meter that measured in the period.")] = None,
    number: Annotated[str | None, typer.Option(help="Number, or how it begins.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Periods that reach beyond this day.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Periods that begin before this day.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="State. May be repeated.")] = None,
    run: Annotated[int | None, typer.Option(help="Of a bill run.")] = None,
    min_: Annotated[str | None, typer.Option("--min", help="Smallest amount.")] = None,
    max_: Annotated[str | None, typer.Option("--max", help="Largest amount.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_known_at: Annotated[
        str | None, typer.Option("--as-known-at", help="As they stood then; only with --account and --limit.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find bills, newest period first. Example: gridtally bill list --customer Wang --state overdue"""
    import dataclasses

    from storage.bill import BillQuery, fetch_bills
    from storage.payment import refresh_overdue

    if as_known_at is not None:
        others = (customer, meter, number, from_, to, state, run, min_, max_)
        if any(one is not None for one in others):
            fail("--as-known-at goes with --account and --limit only", EXIT_USAGE)
        _list_known((data_dir, config), instant_of(as_known_at, "--as-known-at"), account, limit, as_json)
        return
    query = BillQuery(
        customer=customer,
        account_id=account,
        meter_id=meter,
        bill_no=number,
        from_on=some_day(from_, "--from"),
        to_on=some_day(to, "--to"),
        states=tuple(state or ()),
        amount_min=money_of(min_, "--min"),
        amount_max=money_of(max_, "--max"),
        bill_run_no=run,
        limit=limit,
    )
    loaded = settings_of(data_dir, config)
    with connect(loaded) as conn:
        refresh_overdue(conn, local_today(loaded.settings.console.zone))
        rows = fetch_bills(conn, query)
    if as_json:
        print_json([dataclasses.asdict(row) for row in rows])
        return
    for row in rows:
        print(
            f"{row.name:14} {row.kind:12} {row.state:10} {row.start_on} {row.end_on} {row.total:>12} {row.currency}"
            f" {row.account_id:16} {row.customer_name}"
        )


def _list_known(where: tuple[Any, Any], at: dt.datetime, account: str | None, limit: int, as_json: bool) -> None:
    import dataclasses

    from storage.known import bills_known_at

    with connect(settings_of(*where)) as conn:
        rows = bills_known_at(conn, at, account_id=account, limit=limit)
    if as_json:
        print_json([dataclasses.asdict(row) for row in rows])
        return
    for row in rows:
        print(
            f"{row.bill_no or f'#{row.bill_id}':14} {row.kind:12} {row.state:10} {row.start_on} {row.end_on}"
            f" {row.total:>12} {row.currency} {row.account_id}"
        )


def bill_show(bill: BillName, data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show a bill with its lines, and why it is held. Example: gridtally bill show 2026-000123"""
    from schemas.bill import encode_bill
    from storage.bill import BillError, fetch_bill, fetch_holds

    with connect(settings_of(data_dir, config)) as conn:
        try:
            row, document = fetch_bill(conn, bill)
        except BillError as error:
            fail(str(error), EXIT_FAILED)
        holds = fetch_holds(conn, [row.bill_id])
    if as_json:
        print_json({"state": row.state, "document": json.loads(encode_bill(document)), "holds": holds})
        return
    print(
        f"{row.name} {row.kind} {row.state}: {row.customer_name}, account {row.account_id}, contract {row.contract_id}"
    )
    print(
        f"{row.start_on} to {row.end_on}, {Decimal(row.energy_wh) / 1000} kWh"
        + (f", due {row.due_on}" * bool(row.due_on))
    )
    for line in document.lines:
        print(
            f"{line.line_no:3} {line.kind:10} {line.label:32.32} {line.quantity:>14} {line.unit:10} {line.price:>12}"
            f" {line.amount:>12}  {line.reason}"
        )
    print(f"{'total':>88} {document.total} {document.currency}")
    for hold in holds:
        released = f", released by {hold['released_by']}: {hold['release_note']}" if hold["released_at"] else ""
        print(f"held: {hold['reason']} {hold['value']} (bound {hold['bound']}){released}")


def bill_held(
    data_dir: DataDir = None,
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 1000,
    as_json: AsJson = False,
) -> None:
    """List held bills with what was found and its bound, largest first. Example: gridtally bill held"""
    from storage.bill import fetch_holds

    with connect(settings_of(data_dir, config)) as conn:
        rows = fetch_holds(conn, limit=limit)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print(
            f"#{row['bill_id']:<10} {row['account_id']:16} {row['start_on']} {row['total']:>12} {row['currency']}"
            f" {row['reason']:22} {row['value']:34} {row['bound']}"
        )


def bill_release(  # options
    bill: BillName,
    reason: Annotated[str, typer.Option(help="Why it is right.")],
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
    check: Annotated[str | None, typer.Option(help="Only this check, such as zero_use.")] = None,
) -> None:
    """Let a held bill go on. Example: gridtally bill release '#17' --reason 'house is empty' --as ann"""
    from storage.bill import BillError, release_bill

    with connect(settings_of(data_dir, config)) as conn:
        try:
            row = release_bill(conn, bill, note=reason, who=who, reason=check)
        except BillError as error:
            fail(str(error), EXIT_FAILED)
    print(f"bill {row.name} is {row.state}")


def bill_issue(
    who: As,
    bills: Annotated[list[str] | None, typer.Argument(help="Drafts, # and id.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    run: Annotated[int | None, typer.Option(help="All checked bills of a run.")] = None,
) -> None:
    """Give checked bills their numbers, without gaps, and freeze them. Example: gridtally bill issue --run 3 --as ann"""
    from storage.bill import BillError, checked_ids, fetch_bill, issue_bills

    if (run is None) == (not bills):
        fail("give drafts, or --run RUN", EXIT_USAGE)
    loaded = settings_of(data_dir, config)
    today = local_today(loaded.settings.console.zone)
    with connect(loaded) as conn:
        try:
            ids = (
                checked_ids(conn, run)
                if run is not None
                else [fetch_bill(conn, name)[0].bill_id for name in bills or ()]
            )
            numbers = issue_bills(conn, ids, who=who, on=today, due_days=loaded.settings.billing.due_days)
        except BillError as error:
            fail(str(error), EXIT_FAILED)
    print(f"issued {len(numbers)} bills" + (f": {numbers[0]} to {numbers[-1]}" if numbers else ""))


def bill_delete(
    bill: BillName,
    reason: Annotated[str, typer.Option(help="Why.")],
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Delete a bill that was never issued. Example: gridtally bill delete '#17' --reason 'wrong tariff' --as ann"""
    from storage.bill import BillError, delete_draft

    with connect(settings_of(data_dir, config)) as conn:
        try:
            row = delete_draft(conn, bill, who=who, reason=reason)
        except BillError as error:
            fail(str(error), EXIT_FAILED)
    print(f"bill {row.name} is deleted")
