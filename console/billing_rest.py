"""REST of accounts and bills under /api/v1. What changes anything names its user in the header X-Gridtally-User.

The header is asked for because a page of another site cannot set it: until the console has sign-in, that and the loopback
address keep strangers out.
"""

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Header, HTTPException, Path, Query
from pydantic import BaseModel, Field

from console.answer import Problem
from console.billing_desk import desk_of
from console.web import Console
from metering.pricing.indexed import MissingPriceError
from metering.terms import RatingError
from schemas.bill import encode_bill
from storage.audit import fetch_audit
from storage.bill import BillError, BillQuery, BillRow, fetch_bill, fetch_bills, fetch_holds, issue_bills, release_bill
from storage.bill_explain import explain_bill
from storage.contract import ContractError
from storage.known import (
    BillKnown,
    bills_known_at,
    fetch_service_points,
    fetch_usage_known,
    find_service_point,
    usage_as_json,
)
from storage.payment import Entry, Payment, PaymentError, record_payment, statement
from storage.projection import fetch_projection, projection_as_json
from storage.proposal import Proposal, approve, fetch_proposals, propose, reject

Value = TypeVar("Value")
RANGE_DAYS_MAX = 400
USER = r"^[\w.@+-]{1,64}$"

User = Annotated[
    str, Header(alias="X-Gridtally-User", pattern=USER, description="who makes the change; kept in the audit")
]
BillId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Then = Annotated[dt.datetime | None, Query(description="as it was known then, RFC 3339 with offset")]
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Asked(BaseModel, extra="forbid"):
    """What is proposed about an issued bill."""

    action: str = Field(pattern="^(amend|cancel|rebill)$")
    reason: str = Field(min_length=1, max_length=500)
    amount: Decimal | None = Field(None, description="of an amendment: what the customer owes more, or less")


class Decision(BaseModel, extra="forbid"):
    """What is said with a decision."""

    note: str = Field("", max_length=500)


class Release(BaseModel, extra="forbid"):
    """Why a held bill may go on."""

    note: str = Field(min_length=1, max_length=500)
    reason: str | None = Field(None, description="only this check")


class Issue(BaseModel, extra="forbid"):
    """Which checked bills are to be issued."""

    bill_ids: list[int] = Field(min_length=1, max_length=10_000)


class Received(BaseModel, extra="forbid"):
    """A payment."""

    amount: Decimal
    received_on: dt.date
    reference: str = Field(min_length=1, max_length=200)


def billing_rest_router(console: Console) -> APIRouter:
    """Return the routes."""
    problems: dict[int | str, dict[str, Any]] = {
        404: {"model": Problem, "description": "There is none of that name"},
        409: {"model": Problem, "description": "It cannot be done, and why"},
        422: {"model": Problem, "description": "A value cannot be used"},
        503: {"model": Problem, "description": "The database does not answer; nothing is lost, try again"},
    }
    router = APIRouter(prefix="/api/v1", responses=problems)
    _add_charges(router, console)
    _add_bills(router, console)
    _add_changes(router, console)
    _add_payments(router, console)
    return router


def _add_charges(router: APIRouter, console: Console) -> None:
    @router.get("/accounts/{name}/charge", summary="Charge so far with its lines and projection")
    def get_charge(name: Name, as_known_at: Then = None) -> dict[str, Any]:
        with console.database() as conn:
            at = _aware(as_known_at)
            points = _answer(lambda: fetch_service_points(conn, name))
            found = [(point, _answer(partial(fetch_projection, conn, number, at))) for number, point in points]
        rows = [{"service_point": point, **projection_as_json(one)} for point, one in found if one is not None]
        return {"account": name, "as_known_at": as_known_at, "charges": rows}

    @router.get(
        "/service-points/{name}/usage", summary="Quarter-hours of a service point, or of a meter's, in [start, end)"
    )
    def get_usage(name: Name, start: dt.datetime, end: dt.datetime, as_known_at: Then = None) -> dict[str, Any]:
        low, high = _aware(start), _aware(end)
        assert low is not None and high is not None  # noqa: PT018  # both are required
        if not low < high <= low + dt.timedelta(days=RANGE_DAYS_MAX):
            raise HTTPException(422, f"start: must lie before end, by at most {RANGE_DAYS_MAX} days")
        with console.database() as conn:
            number = _answer(lambda: find_service_point(conn, name))
            found = fetch_usage_known(conn, number, low, high, _aware(as_known_at))
        return {"name": name, "as_known_at": as_known_at, **usage_as_json(found)}


def _add_bills(router: APIRouter, console: Console) -> None:
    @router.get("/bills", summary="Bills, newest period first")
    def get_bills(  # noqa: PLR0913, PLR0917  # a filter each
        customer: str | None = None,
        account: str | None = None,
        meter: str | None = None,
        number: str | None = None,
        period_from: dt.date | None = None,
        period_to: dt.date | None = None,
        state: Annotated[list[str] | None, Query()] = None,
        amount_min: Decimal | None = None,
        amount_max: Decimal | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    ) -> list[BillRow]:
        query = BillQuery(
            customer=customer,
            account_id=account,
            meter_id=meter,
            bill_no=number,
            from_on=period_from,
            to_on=period_to,
            states=tuple(state or ()),
            amount_min=amount_min,
            amount_max=amount_max,
            limit=limit,
            offset=offset,
        )
        with console.database() as conn:
            return fetch_bills(conn, query)

    @router.get("/bills/known", summary="Bills as they stood at an instant")
    def get_bills_known(as_known_at: dt.datetime, account: str | None = None) -> list[BillKnown]:
        at = _aware(as_known_at)
        assert at is not None
        with console.database() as conn:
            return bills_known_at(conn, at, account_id=account)

    @router.get("/bills/{bill_id}", summary="A bill with its document, its history and why it is held")
    def get_bill(bill_id: BillId) -> dict[str, Any]:
        with console.database() as conn:
            row, document = _answer(lambda: fetch_bill(conn, f"#{bill_id}"))
            holds = fetch_holds(conn, [bill_id])
            history = fetch_audit(conn, f"bill {row.bill_no}" if row.bill_no else f"bill #{bill_id}")
        kept = json.loads(encode_bill(document))
        return {"bill": row, "holds": holds, "history": history, "document": kept}

    @router.get("/bills/{bill_id}/explain", summary="From each amount down to the raw messages")
    def get_explanation(bill_id: BillId, line: Annotated[str | None, Query(max_length=64)] = None) -> dict[str, Any]:
        with console.database() as conn:
            found = _answer(lambda: explain_bill(conn, f"#{bill_id}", line))
        values: dict[str, Any] = msgspec.to_builtins(found)
        return values

    @router.get("/proposals", summary="What waits for a second pair of eyes, newest first")
    def get_proposals(
        state: Annotated[str | None, Query(pattern="^(pending|approved|rejected|void)$")] = "pending",
    ) -> list[Proposal]:
        with console.database() as conn:
            return fetch_proposals(conn, state)


def _add_changes(router: APIRouter, console: Console) -> None:
    @router.post("/bills/issue", summary="Issue checked bills; answers with their numbers")
    def issue(asked: Issue, user: User) -> list[str]:
        desk = desk_of(console.settings)
        with console.database(writes=True) as conn:
            return _answer(lambda: issue_bills(conn, asked.bill_ids, who=user, on=desk.today, due_days=desk.due_days))

    @router.post("/bills/{bill_id}/release", summary="Let a held bill go on")
    def release(bill_id: BillId, asked: Release, user: User) -> BillRow:
        with console.database(writes=True) as conn:
            return _answer(lambda: release_bill(conn, f"#{bill_id}", note=asked.note, who=user, reason=asked.reason))

    @router.post(
        "/bills/{bill_id}/proposals", summary="Propose to amend, cancel or rebill an issued bill", status_code=201
    )
    def add_proposal(bill_id: BillId, asked: Asked, user: User) -> Proposal:
        if (asked.amount is None) == (asked.action == "amend"):
            raise HTTPException(422, "amount: is given with an amendment, and with nothing else")
        with console.database(writes=True) as conn:
            row, _ = _answer(lambda: fetch_bill(conn, f"#{bill_id}"))
            return _answer(
                lambda: propose(
                    conn,
                    asked.action,
                    row.name,
                    reason=asked.reason,
                    who=user,
                    desk=desk_of(console.settings),
                    amount=asked.amount,
                )
            )

    @router.post(
        "/proposals/{proposal_id}/approve", summary="Do what another user proposed; answers with the numbers made"
    )
    def approve_proposal(proposal_id: BillId, asked: Decision, user: User) -> list[str]:
        with console.database(writes=True) as conn:
            return _answer(
                lambda: approve(conn, proposal_id, who=user, desk=desk_of(console.settings), note=asked.note)
            )

    @router.post("/proposals/{proposal_id}/reject", summary="Send a proposal back, or take back one's own")
    def reject_proposal(proposal_id: BillId, asked: Decision, user: User) -> Proposal:
        with console.database(writes=True) as conn:
            return _answer(lambda: reject(conn, proposal_id, who=user, note=asked.note))


def _add_payments(router: APIRouter, console: Console) -> None:
    @router.post("/accounts/{name}/payments", summary="Record a payment; a reference counts once", status_code=201)
    def add_payment(name: Name, asked: Received, user: User) -> dict[str, int]:
        payment = Payment(name, asked.amount, asked.received_on, asked.reference)
        with console.database(writes=True) as conn:
            return {"payment_no": _answer(lambda: record_payment(conn, payment, user, desk_of(console.settings).today))}

    @router.get("/accounts/{name}/statement", summary="Opening balance, bills and payments")
    def get_statement(name: Name, start: dt.date | None = None, end: dt.date | None = None) -> dict[str, Any]:
        with console.database() as conn:
            opening, entries = _answer(lambda: statement(conn, name, start, end))
        return {"opening": opening, "entries": [_entry(item) for item in entries]}


def _entry(item: Entry) -> dict[str, Any]:
    return {
        "on": item.on,
        "what": item.what,
        "reference": item.reference,
        "amount": item.amount,
        "balance": item.balance,
    }


def _aware(at: dt.datetime | None) -> dt.datetime | None:
    if at is not None and at.tzinfo is None:
        raise HTTPException(422, f"{at.isoformat()}: a time needs its offset, such as +08:00")
    return at


def _answer(call: Callable[[], Value]) -> Value:
    """Return what a call gives, or answer 404 where something is not there and 409 where it cannot be."""
    try:
        return call()
    except LookupError as error:
        raise HTTPException(404, str(error.args[0])) from None
    except (BillError, PaymentError, ContractError, RatingError, MissingPriceError) as error:
        text = str(error)
        raise HTTPException(404 if text.startswith("no ") else 409, text) from None
