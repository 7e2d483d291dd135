"""`gridtally bill amend`, `cancel`, `rebill`: proposed by one clerk, decided by another."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridtally.bill_options import BillName, money_of, print_json
from gridtally.options import EXIT_FAILED, As, AsJson, Config, DataDir, connect, fail, settings_of
from monitoring.clock import local_today

if TYPE_CHECKING:
    from decimal import Decimal

    from schemas.settings import Loaded
    from storage.proposal import Desk, Proposal

Reason = Annotated[str, typer.Option(help="For the customer and the auditor.")]
Number = Annotated[int, typer.Argument(min=1, help="Number of a proposal.")]
Note = Annotated[str, typer.Option(help="Kept with the decision.")]


def desk_of(loaded: "Loaded") -> "Desk":
    """Return what deciding needs of the settings and the day."""
    from storage.bill_make import Rules
    from storage.proposal import Desk

    settings = loaded.settings.billing
    return Desk(local_today(loaded.settings.console.zone), settings.due_days, Rules.of(settings))


def _propose(
    action: str, bill: str, reason: str, who: str, where: tuple[Any, Any], amount: "Decimal | None" = None
) -> None:
    from storage.bill import BillError
    from storage.proposal import propose

    loaded = settings_of(*where)
    with connect(loaded) as conn:
        try:
            made = propose(conn, action, bill, reason=reason, who=who, desk=desk_of(loaded), amount=amount)
        except BillError as error:
            fail(str(error), EXIT_FAILED)
    print(f"proposal {made.proposal_id}: {action} bill {made.bill_no}, changes what is owed by {made.effect['change']}")
    print(f"another user decides: gridtally bill approve {made.proposal_id} --as NAME")


def bill_amend(  # options
    bill: BillName,
    amount: Annotated[str, typer.Option(help="What the customer owes more; less with a minus.")],
    reason: Reason,
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Propose an adjustment of an issued bill.

    Example: gridtally bill amend 2026-000123 --amount=-12.50 --reason goodwill --as ann
    """
    _propose("amend", bill, reason, who, (data_dir, config), money_of(amount, "--amount"))


def bill_cancel(bill: BillName, reason: Reason, who: As, data_dir: DataDir = None, config: Config = None) -> None:
    """Propose to cancel an issued bill by a credit note.

    Example: gridtally bill cancel 2026-000123 --reason 'wrong customer' --as ann
    """
    _propose("cancel", bill, reason, who, (data_dir, config))


def bill_rebill(bill: BillName, reason: Reason, who: As, data_dir: DataDir = None, config: Config = None) -> None:
    """Propose to cancel an issued bill and make it again from what is known now.

    Example: gridtally bill rebill 2026-000123 --reason 'meter data arrived' --as ann
    """
    _propose("rebill", bill, reason, who, (data_dir, config))


def bill_proposals(
    data_dir: DataDir = None,
    config: Config = None,
    every: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what waits to be decided. Example: gridtally bill proposals"""
    from storage.proposal import fetch_proposals

    with connect(settings_of(data_dir, config)) as conn:
        rows = fetch_proposals(conn, None if every else "pending")
    if as_json:
        print_json([dataclasses.asdict(row) for row in rows])
        return
    for row in rows:
        decided = f" by {row.decided_by}" if row.decided_by else ""
        print(
            f"{row.proposal_id:6} {row.action:7} {row.bill_no:14} {row.effect['change']:>12} {row.state}{decided}"
            f"  proposed by {row.proposed_by} {row.proposed_at:%Y-%m-%d %H:%M}: {row.reason}"
        )


def bill_approve(number: Number, who: As, data_dir: DataDir = None, config: Config = None, note: Note = "") -> None:
    """Do what another user proposed. Example: gridtally bill approve 4 --as ben"""
    from storage.bill import BillError
    from storage.proposal import approve

    loaded = settings_of(data_dir, config)
    with connect(loaded) as conn:
        try:
            made = approve(conn, number, who=who, desk=desk_of(loaded), note=note)
        except BillError as error:
            fail(str(error), EXIT_FAILED)
    print(f"proposal {number} is approved; issued {', '.join(made)}")


def bill_reject(number: Number, who: As, data_dir: DataDir = None, config: Config = None, note: Note = "") -> None:
    """Reject a proposal, or take one's own back. Example: gridtally bill reject 4 --note 'not due' --as ben"""
    from storage.bill import BillError
    from storage.proposal import reject

    with connect(settings_of(data_dir, config)) as conn:
        try:
            row: Proposal = reject(conn, number, who=who, note=note)
        except BillError as error:
            fail(str(error), EXIT_FAILED)
    print(f"proposal {number} is {row.state}")
