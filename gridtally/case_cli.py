"""`gridtally case`: leads of theft with what they are worth, who looks into them, and what came of it."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridtally.dead_letters import plain
from gridtally.options import EXIT_FAILED, EXIT_USAGE, As, AsJson, Config, DataDir, connect, fail, settings_of

if TYPE_CHECKING:
    from storage.case import CaseRow

case_app = typer.Typer(help="Cases of suspected theft: see, take, conclude, recover.", no_args_is_help=True)

CaseNo = Annotated[int, typer.Argument(min=1, max=2**63 - 1, help="Number of the case.")]
Outcome = Annotated[str, typer.Option("--outcome", help="What was found; a wrong word lists the right ones.")]
Note = Annotated[str, typer.Option("--note", help="What was seen.")]


def _document(case: "CaseRow", *, with_evidence: bool) -> dict[str, Any]:
    document = dataclasses.asdict(case)
    if not with_evidence:
        del document["evidence"]
    return document


def _line(case: "CaseRow") -> str:
    money = "-" if case.money is None else f"{case.money} {case.currency}"
    return (
        f"{case.case_no:6} {case.state:13} {case.meter_id:20} {case.kind:21} {case.fall_on}"
        f" {case.missing_wh / 1000:10.1f} kWh {money:>16} {plain(case.assigned_to or '')}"
    )


def _print(case: "CaseRow", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_document(case, with_evidence=False), indent=1, default=str, ensure_ascii=False))
    else:
        print(_line(case))


@case_app.command("list")
def list_command(
    data_dir: DataDir = None,
    config: Config = None,
    state: Annotated[list[str] | None, typer.Option("--state", help="May be repeated; default: the open ones.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 200,
    as_json: AsJson = False,
) -> None:
    """List cases, most money at stake first. Example: gridtally case list --state new --json"""
    from storage.case import CaseError, fetch_cases

    with connect(settings_of(data_dir, config)) as conn:
        try:
            cases = fetch_cases(conn, states=state, limit=limit)
        except CaseError as error:
            fail(str(error), EXIT_USAGE)
    if as_json:
        shown = [_document(case, with_evidence=False) for case in cases]
        print(json.dumps(shown, indent=1, default=str, ensure_ascii=False))
        return
    for case in cases:
        print(_line(case))


@case_app.command("show")
def show_command(case_no: CaseNo, data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show a case: its evidence as it was known when it was opened, and its history. Example: gridtally case show 17"""
    from metering.theft.field_words import field_words
    from storage.case import fetch_case

    with connect(settings_of(data_dir, config)) as conn:
        found = fetch_case(conn, case_no)
    if found is None:
        fail(f"there is no case {case_no}", EXIT_FAILED)
    case, events = found
    if as_json:
        document = _document(case, with_evidence=True) | {"history": [dataclasses.asdict(event) for event in events]}
        print(json.dumps(document, indent=1, default=str, ensure_ascii=False))
        return
    for name, value in _document(case, with_evidence=False).items():
        print(f"{name:16} {plain(str('-' if value is None else value))}")
    print("evidence")
    for name, value in case.evidence.items():
        print(f"  {name:24} {plain(str(value))}")
    print(f"in the field     {field_words(case.kind, 'en')}")
    print("history")
    for event in events:
        print(f"  {event.at:%Y-%m-%d %H:%M} {plain(event.who)}: {event.to_state} {plain(event.note)}")


@case_app.command("take")
def take_command(
    case_no: CaseNo,
    *,
    who: As,
    note: Annotated[str, typer.Option("--note")] = "",
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take a new case to look into it. Example: gridtally case take 17 --as ann"""
    from storage.case import CaseError, take

    with connect(settings_of(data_dir, config)) as conn:
        try:
            case = take(conn, case_no, who=who, note=note)
        except CaseError as error:
            fail(str(error), EXIT_FAILED)
    _print(case, as_json=as_json)


@case_app.command("confirm")
def confirm_command(
    case_no: CaseNo,
    *,
    outcome: Outcome,
    note: Note,
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say that it was theft. Example: gridtally case confirm 17 --outcome bypass --note "wire before the meter" --as ann"""
    _conclude(case_no, (outcome, note, who), data_dir, config, is_confirmed=True, as_json=as_json)


@case_app.command("reject")
def reject_command(
    case_no: CaseNo,
    *,
    outcome: Outcome,
    note: Note,
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say that it was no theft. Example: gridtally case reject 17 --outcome empty_home --note "moved out" --as ann"""
    _conclude(case_no, (outcome, note, who), data_dir, config, is_confirmed=False, as_json=as_json)


def _conclude(
    case_no: int, said: tuple[str, str, str], data_dir: Any, config: Any, *, is_confirmed: bool, as_json: bool
) -> None:
    from storage.case import CaseError, conclude

    outcome, note, who = said
    with connect(settings_of(data_dir, config)) as conn:
        try:
            case = conclude(conn, case_no, who=who, outcome=outcome, note=note, is_confirmed=is_confirmed)
        except CaseError as error:
            fail(str(error), EXIT_FAILED)
    _print(case, as_json=as_json)


@case_app.command("recover")
def recover_command(
    case_no: CaseNo,
    *,
    who: As,
    amount: Annotated[str | None, typer.Option("--amount", help="Instead of the case's likely sum.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Propose to bill what is missing; a second person approves it. Example: gridtally case recover 17 --as ann"""
    from decimal import Decimal, InvalidOperation

    from gridtally.bill_change_cli import desk_of
    from storage.case import CaseError, recover

    try:
        wanted = None if amount is None else Decimal(amount)
    except InvalidOperation:
        wanted = Decimal("nan")
    if wanted is not None and not wanted.is_finite():
        fail(f"--amount {amount}: expected a sum such as 125.30", EXIT_USAGE)
    loaded = settings_of(data_dir, config)
    with connect(loaded) as conn:
        try:
            case, proposal = recover(conn, case_no, who=who, desk=desk_of(loaded), amount=wanted)
        except CaseError as error:
            fail(str(error), EXIT_FAILED)
    _print(case, as_json=as_json)
    if not as_json:
        print(
            f"proposal {proposal.proposal_id} waits for a second person: gridtally bill approve {proposal.proposal_id} --as NAME"
        )


@case_app.command("figures")
def figures_command(data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """Say how often each kind of lead was right. Example: gridtally case figures --json"""
    from storage.case import fetch_precision

    with connect(settings_of(data_dir, config)) as conn:
        rows = fetch_precision(conn)
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return
    for row in rows:
        percent = "-" if row.percent is None else f"{row.percent} %"
        print(
            f"{row.kind:22} {row.opened:6} opened {row.confirmed:6} of {row.concluded:6} concluded right {percent:>6}"
        )
