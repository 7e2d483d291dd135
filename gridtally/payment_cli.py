"""`gridtally payment`, `statement` and `audit`: money received, what is open, and who changed what."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from gridtally.bill_options import money_of, print_json, some_day
from gridtally.options import EXIT_FAILED, EXIT_USAGE, As, AsJson, Config, DataDir, connect, fail, settings_of
from monitoring.clock import local_today

payment_app = typer.Typer(help="Record payments.", no_args_is_help=True)
Account = Annotated[str, typer.Argument(help="Id of an account.")]
FILE_BYTES_MAX = 50_000_000


@payment_app.command("record")
def payment_record(  # options
    account: Account,
    amount: Annotated[str, typer.Option(help="Received; with a minus paid back.")],
    reference: Annotated[str, typer.Option(help="Of the bank; one of each account is taken once.")],
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
    on: Annotated[str | None, typer.Option(help="Day received. Default: today")] = None,
) -> None:
    """Record a payment and set it off against the oldest open bills.

    Example: gridtally payment record a-17 --amount 120.50 --on 2026-11-20 --reference B4711 --as ann
    """
    from storage.payment import Payment, PaymentError, record_payment

    loaded = settings_of(data_dir, config)
    today = local_today(loaded.settings.console.zone)
    money = money_of(amount, "--amount")
    assert money is not None
    with connect(loaded) as conn:
        try:
            number = record_payment(conn, Payment(account, money, some_day(on, "--on") or today, reference), who, today)
        except PaymentError as error:
            fail(str(error), EXIT_FAILED)
    print(f"payment {number} is recorded")


@payment_app.command("import")
def payment_import(  # options
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV: account,amount,on,reference.")],
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look for faults.")] = False,
) -> None:
    """Record all payments of a file, or none when any line has a fault.

    Example: gridtally payment import bank.csv --dry-run --as ann
    """
    from storage.payment import import_payments, parse_payments

    if file.stat().st_size > FILE_BYTES_MAX:
        fail(f"{file} has over {FILE_BYTES_MAX} bytes: split it", EXIT_USAGE)
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError:
        fail(f"{file} is not UTF-8 text", EXIT_FAILED)
    payments, faults = parse_payments(text)
    loaded = settings_of(data_dir, config)
    if not faults:
        with connect(loaded) as conn:
            today = local_today(loaded.settings.console.zone)
            faults = import_payments(conn, payments, who, today, dry_run=dry_run)
    for fault in faults:
        print(fault)
    if faults:
        fail(f"{len(faults)} faults, nothing is recorded", EXIT_FAILED)
    print(f"{len(payments)} payments {'would be' if dry_run else 'are'} recorded")


def statement_command(  # options
    account: Account,
    data_dir: DataDir = None,
    config: Config = None,
    *,
    from_: Annotated[str | None, typer.Option("--from", help="First day.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Day after the last.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print bills and payments of an account with the balance, and what is open. Example: gridtally statement a-17"""
    from storage.payment import PaymentError, account_of, open_items, refresh_states, statement

    loaded = settings_of(data_dir, config)
    with connect(loaded) as conn:
        try:
            opening, entries = statement(conn, account, some_day(from_, "--from"), some_day(to, "--to"))
        except PaymentError as error:
            fail(str(error), EXIT_FAILED)
        number, currency = account_of(conn, account)
        refresh_states(conn, [number], local_today(loaded.settings.console.zone))
        items, balance = open_items(conn, number)
    unpaid = [item for item in items if item.open]
    if as_json:
        rows = [dataclasses.asdict(entry) for entry in entries]
        left = [dataclasses.asdict(item) for item in unpaid]
        shown = {"account": account, "currency": currency, "opening": opening, "entries": rows}
        print_json({**shown, "open": left, "balance": balance})
        return
    print(f"{'balance before':58} {opening:>12} {currency}")
    for entry in entries:
        print(f"{entry.on} {entry.what:12} {entry.reference:20} {entry.amount:>12} {entry.balance:>12}")
    for item in unpaid:
        print(f"open: {item.bill_no} {item.open} of {item.total}, due {item.due_on}, {item.state}")
    print(f"{'balance':58} {balance:>12} {currency}")


def audit_command(
    subject: Annotated[str, typer.Argument(help="Such as 'bill 2026-000123', or 2026-000123 alone.")],
    data_dir: DataDir = None,
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 200,
    as_json: AsJson = False,
) -> None:
    """Print who changed something, newest first. Example: gridtally audit 2026-000123"""
    import json

    from storage.audit import fetch_audit

    with connect(settings_of(data_dir, config)) as conn:
        rows = fetch_audit(conn, subject, limit)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        detail = json.dumps(row["detail"], ensure_ascii=False)
        print(f"{row['at']:%Y-%m-%d %H:%M:%S} {row['who']:16} {row['action']:20} {row['subject']:24} {detail}")
