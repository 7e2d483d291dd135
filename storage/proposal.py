"""Four eyes: what is to happen to an issued bill is proposed by one clerk and decided by another; the bill itself stays.

An amendment is an adjustment of its own, a cancelled bill has a credit note, a rebilled one a credit note and a new bill. A
proposal is about the bill as it was: when that changed meanwhile, or rating it gives another sum, the proposal is void.
"""

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import psycopg

from schemas.bill import BillDocument, BillLine
from storage.audit import write_audit
from storage.bill import BillError, BillRow, fetch_bill, issue_bills
from storage.bill_make import BillMaker, Draft, Rules
from storage.bill_past import OPEN_STATES
from storage.bill_write import write_document, write_drafts
from storage.contract import fetch_contracts
from storage.ledger_time import Position, position_now
from storage.payment import refresh_states

ACTIONS = ("amend", "cancel", "rebill")


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A row of `proposal`."""

    proposal_id: int
    action: str
    bill_id: int
    bill_no: str
    bill_row_version: int
    content: Mapping[str, Any]
    effect: Mapping[str, Any]
    """What it comes to: ``change`` of what the customer owes, and how."""
    reason: str
    proposed_by: str
    proposed_at: dt.datetime
    state: str
    decided_by: str | None
    decided_at: dt.datetime | None
    decision_note: str | None


@dataclasses.dataclass(frozen=True)
class Desk:
    """What deciding needs of the settings and the day."""

    today: dt.date
    due_days: int = 21
    rules: Rules = dataclasses.field(default_factory=Rules)


_SELECT = (
    "select p.proposal_id, p.action, p.bill_id, b.bill_no, p.bill_row_version, p.content, p.effect, p.reason, p.proposed_by,"
    " p.proposed_at, p.state, p.decided_by, p.decided_at, p.decision_note from proposal p join bill b using (bill_id)"
)


def fetch_proposals(conn: psycopg.Connection[Any], state: str | None = "pending", limit: int = 200) -> list[Proposal]:
    """Return proposals, newest first; all of them when no state is given."""
    rows = conn.execute(
        f"{_SELECT} where %(state)s::text is null or p.state = %(state)s order by 1 desc limit %(limit)s",
        {"state": state, "limit": limit},
    ).fetchall()
    return [Proposal(*row) for row in rows]


def propose(  # what a proposal is made of
    conn: psycopg.Connection[Any],
    action: str,
    bill_no: str,
    *,
    reason: str,
    who: str,
    desk: Desk,
    amount: Decimal | None = None,
) -> Proposal:
    """Propose something about an issued bill, and return the proposal with what it would come to.

    Args:
        conn: In autocommit.
        action: Of ACTIONS.
        bill_no: Of the bill.
        reason: For the customer and the auditor.
        who: Name of the clerk.
        desk: Settings and day.
        amount: Of an amendment: what the customer owes more, or less.

    Raises:
        BillError: It cannot be, or another proposal about the bill waits to be decided.
    """
    if not reason.strip():
        raise BillError("a proposal needs a reason: give --reason TEXT")
    with conn.transaction():
        bill, document = fetch_bill(conn, bill_no, lock=True)
        _refuse_unfit(bill, action)
        waiting = conn.execute(f"{_SELECT} where p.bill_id = %s and p.state = 'pending'", (bill.bill_id,)).fetchone()
        if waiting is not None:
            raise BillError(_told(Proposal(*waiting)))
        content = {} if amount is None else {"amount": str(_amount(amount, document.digits))}
        effect = _effect(conn, action, bill, document, (content, reason, who, desk))
        row = conn.execute(
            "insert into proposal (action, bill_id, bill_row_version, content, effect, reason, proposed_by)"
            " values (%s, %s, %s, %s, %s, %s, %s) returning proposal_id",
            (action, bill.bill_id, bill.row_version, json.dumps(content), json.dumps(effect), reason, who),
        ).fetchone()
        assert row is not None
        detail = {"proposal_id": row[0], "reason": reason, **content, "effect": effect}
        write_audit(conn, who, f"bill.propose-{action}", f"bill {bill.name}", detail)
    return fetch_proposal(conn, int(row[0]))


def _amount(amount: Decimal, digits: int) -> Decimal:
    if not amount.is_finite() or amount == 0:
        raise BillError("an amendment needs an amount: give --amount")
    rounded = amount.quantize(Decimal(1).scaleb(-digits))
    if rounded != amount:
        raise BillError(f"{amount} has more decimals than the bill's currency: {digits}")
    return rounded


def _told(other: Proposal) -> str:
    what = f"{other.action} by {other.content['amount']}" if other.content else other.action
    return (
        f"bill {other.bill_no} has a proposal that waits to be decided: {other.proposal_id}, {what}, by {other.proposed_by}"
        f" at {other.proposed_at:%Y-%m-%d %H:%M} ({other.reason}). Have it approved or rejected first"
    )


def _refuse_unfit(bill: BillRow, action: str) -> None:
    if action not in ACTIONS:
        raise BillError(f"{action!r} is none of {', '.join(ACTIONS)}")
    if bill.state not in OPEN_STATES:
        way = "it is deleted or released" if bill.bill_no is None else "nothing more can happen to it"
        raise BillError(f"bill {bill.name} is {bill.state}: {way}")
    fits = {"amend": ("invoice",), "rebill": ("invoice",), "cancel": ("invoice", "adjustment")}[action]
    if bill.kind not in fits:
        raise BillError(f"bill {bill.name} is of kind {bill.kind}, which cannot have: {action}")


def _refuse_open_draft(conn: psycopg.Connection[Any], bill: BillRow) -> None:
    """Refuse to take a bill back while a draft corrects it: the draft may be issued or deleted, and only one fits."""
    draft = conn.execute(
        "select o.bill_id from bill_line l join bill o using (bill_id) where l.corrects = %s and o.bill_no is null limit 1",
        (bill.bill_id,),
    ).fetchone()
    if draft is not None:
        raise BillError(f"draft #{draft[0]} has a correction of bill {bill.name}: issue or delete it first")


def fetch_proposal(conn: psycopg.Connection[Any], proposal_id: int) -> Proposal:
    """Return a proposal.

    Raises:
        BillError: There is none of that number.
    """
    row = conn.execute(f"{_SELECT} where p.proposal_id = %s", (proposal_id,)).fetchone()
    if row is None:
        raise BillError(f"no proposal {proposal_id}: `gridtally bill proposals` lists them")
    return Proposal(*row)


def reject(conn: psycopg.Connection[Any], proposal_id: int, *, who: str, note: str = "") -> Proposal:
    """Reject a proposal; its maker may take it back so, too.

    Raises:
        BillError: It is decided already.
    """
    with conn.transaction():
        proposal = _pending(conn, proposal_id)
        state = "void" if proposal.proposed_by == who else "rejected"
        _decide(conn, proposal, state, who if state == "rejected" else None, note or "taken back" * (state == "void"))
        detail = {"proposal_id": proposal_id, "note": note}
        write_audit(conn, who, f"bill.{state}-{proposal.action}", f"bill {proposal.bill_no}", detail)
    return fetch_proposal(conn, proposal_id)


def approve(conn: psycopg.Connection[Any], proposal_id: int, *, who: str, desk: Desk, note: str = "") -> list[str]:
    """Do what was proposed, and return the numbers of the bills that it made.

    Args:
        conn: In autocommit.
        proposal_id: Which.
        who: Name of the clerk, another than who proposed it.
        desk: Settings and day.
        note: Kept with the decision.

    Raises:
        BillError: It is decided already, is one's own, or is void since the bill or its ledger changed.
    """
    with conn.transaction():
        proposal = _pending(conn, proposal_id)
        if proposal.proposed_by == who:
            raise BillError(f"proposal {proposal_id} is {who}'s own: another user has to decide it")
        bill, document = fetch_bill(conn, proposal.bill_no, lock=True)
        how = (proposal.content, proposal.reason, who, desk)
        stale = f"bill {bill.name} has changed since" if bill.row_version != proposal.bill_row_version else ""
        if not stale and _effect(conn, proposal.action, bill, document, how) != proposal.effect:
            stale = f"rating bill {bill.name} again comes to another sum than when it was proposed"
        if stale:
            _decide(conn, proposal, "void", None, stale)
            detail = {"proposal_id": proposal_id, "why": stale}
            write_audit(conn, who, f"bill.void-{proposal.action}", f"bill {bill.name}", detail)
            numbers = []
        else:
            numbers = _carry_out(conn, proposal.action, bill, document, how)
            _decide(conn, proposal, "approved", who, note)
            detail = {"proposal_id": proposal_id, "proposed_by": proposal.proposed_by, "made": numbers, "note": note}
            write_audit(conn, who, f"bill.{proposal.action}", f"bill {bill.name}", detail)
    if stale:
        raise BillError(f"proposal {proposal_id} is void: {stale}; propose anew")
    return numbers


def _pending(conn: psycopg.Connection[Any], proposal_id: int) -> Proposal:
    conn.execute("select from proposal where proposal_id = %s for update", (proposal_id,))
    proposal = fetch_proposal(conn, proposal_id)
    if proposal.state != "pending":
        by = f" by {proposal.decided_by}" if proposal.decided_by else ""
        raise BillError(f"proposal {proposal_id} is {proposal.state}{by} already")
    return proposal


def _decide(conn: psycopg.Connection[Any], proposal: Proposal, state: str, who: str | None, note: str) -> None:
    conn.execute(
        "update proposal set state = %s, decided_by = %s, decided_at = now(), decision_note = %s where proposal_id = %s",
        (state, who, note, proposal.proposal_id),
    )


How = tuple[Mapping[str, Any], str, str, Desk]
"""Content, reason, who, desk."""


def _effect(
    conn: psycopg.Connection[Any], action: str, bill: BillRow, document: BillDocument, how: How
) -> dict[str, Any]:
    """Return what an action would come to, by doing it and taking it back."""
    with conn.transaction(force_rollback=True):
        _carry_out(conn, action, bill, document, how)
        row = conn.execute(
            "select coalesce(sum(total), 0), coalesce(jsonb_agg(jsonb_build_array(kind, total::text) order by bill_id), '[]')"
            " from bill where corrects = %s and issued_at = now()",
            (bill.bill_id,),
        ).fetchone()
    assert row is not None
    return {"change": str(row[0]), "bills": row[1]}


def _carry_out(
    conn: psycopg.Connection[Any], action: str, bill: BillRow, document: BillDocument, how: How
) -> list[str]:
    content, reason, who, desk = how
    position = position_now(conn)
    if action == "amend":
        ids = [_write(conn, bill, adjustment(document, Decimal(content["amount"]), reason), who, position)]
        conn.execute("update bill set row_version = row_version + 1 where bill_id = %s", (bill.bill_id,))
    else:
        _refuse_open_draft(conn, bill)
        later = conn.execute(
            "select coalesce(sum(l.amount), 0) from bill_line l join bill o using (bill_id) where l.corrects = %s"
            " and l.kind = 'correction' and o.kind = 'invoice' and o.state <> 'cancelled'",
            (bill.bill_id,),
        ).fetchone()
        assert later is not None
        ids = [_write(conn, bill, credit_note(document, reason, later[0]), who, position)]
        conn.execute(
            "update bill set state = 'cancelled', cancelled_at = now(), row_version = row_version + 1 where bill_id = %s",
            (bill.bill_id,),
        )
    if action == "rebill":
        ids.append(_rebill(conn, bill, reason, (who, desk, position)))
    numbers = issue_bills(conn, ids, who=who, on=desk.today, due_days=desk.due_days)
    refresh_states(conn, [bill.account_no], desk.today)
    return numbers


def _write(conn: psycopg.Connection[Any], bill: BillRow, document: BillDocument, who: str, position: Position) -> int:
    return write_document(
        conn,
        document,
        contract_no=bill.contract_no,
        account_no=bill.account_no,
        corrects=bill.bill_id,
        who=who,
        position=position,
    )


def _rebill(conn: psycopg.Connection[Any], bill: BillRow, reason: str, by: tuple[str, Desk, Position]) -> int:
    who, desk, position = by
    (contract,) = fetch_contracts(conn, contract_nos=[bill.contract_no])
    maker = BillMaker(conn, desk.rules, known=position, refresh_no=None)
    drafts, problems = maker.make([(contract, contract.cycle_of(bill.start_on))])
    if problems:
        raise BillError(f"bill {bill.name} cannot be made again: {problems[0].text}")
    document = msgspec.structs.replace(drafts[0].document, corrects_bill_no=bill.bill_no, reason=reason)
    draft: Draft = dataclasses.replace(drafts[0], document=document, holds=())  # whoever approves it has looked at it
    (bill_id,) = write_drafts(
        conn, [draft], who=who, position=position, refresh_no=_newest_refresh(conn), known_at=maker.known_at
    )
    conn.execute("update bill set corrects = %s where bill_id = %s", (bill.bill_id, bill_id))
    return bill_id


def _newest_refresh(conn: psycopg.Connection[Any]) -> int:
    """Return the newest refresh there can be so far: what later ones bring was perhaps known, and rates to nothing then."""
    row = conn.execute("select case when is_called then last_value else 0 end from usage_refresh_no").fetchone()
    assert row is not None
    return int(row[0])


def adjustment(document: BillDocument, amount: Decimal, reason: str) -> BillDocument:
    """Return the adjustment of a bill by an amount."""
    line = _line(document, "adjustment", amount, reason)
    return _derived(document, "adjustment", (line,), amount, reason)


def credit_note(document: BillDocument, reason: str, corrected: Decimal) -> BillDocument:
    """Return the credit note of a whole bill, with what later bills charged for its cycle as corrections."""
    lines = [
        msgspec.structs.replace(
            line,
            kind="credit",
            quantity=-line.quantity,
            amount=-line.amount,
            amount_unrounded=-line.amount_unrounded,
            included=None if line.included is None else -line.included,
        )
        for line in document.lines
    ]
    if corrected:
        taken_back = _line(document, "credit", -corrected, "corrections of it on later bills")
        lines.append(msgspec.structs.replace(taken_back, line_no=len(lines) + 1))
    note = _derived(document, "credit_note", tuple(lines), -document.total - corrected, reason)
    return msgspec.structs.replace(note, total_unrounded=-document.total_unrounded - corrected)


def _line(document: BillDocument, kind: str, amount: Decimal, reason: str) -> BillLine:
    return BillLine(
        line_no=1,
        line_id=kind,
        kind=kind,
        label=reason,
        quantity=Decimal(1),
        unit=kind,
        price=amount,
        amount=amount,
        amount_unrounded=amount,
        start_on=document.start_on,
        end_on=document.end_on,
        corrects_bill_no=document.bill_no,
        reason=reason,
    )


def _derived(
    document: BillDocument, kind: str, lines: tuple[BillLine, ...], total: Decimal, reason: str
) -> BillDocument:
    return BillDocument(
        kind=kind,
        bill_no=None,
        issuer=document.issuer,
        party=document.party,
        start_on=document.start_on,
        end_on=document.end_on,
        zone=document.zone,
        currency=document.currency,
        digits=document.digits,
        lines=lines,
        total=total,
        total_unrounded=total,
        corrects_bill_no=document.bill_no,
        reason=reason,
    )
