"""Routes of the pages of bills and accounts."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import HTMLResponse, Response

from console.account_page import account_page
from console.bill_page import bill_page, bills_page
from console.web import Console, words_for
from storage.bill import BillError
from storage.bill_paper import fetch_on_paper
from storage.billing_overview import fetch_account

INT8_MAX = 2**63 - 1
ACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,64}")


def add_billing_pages(router: APIRouter, console: Console) -> None:
    """Add the routes to the router of pages."""
    _add_sheets(router, console)

    @router.get("/bills")
    def bills(
        request: Request,
        q: Annotated[str, Query(max_length=64)] = "",
        state: Annotated[str, Query(max_length=20)] = "",
        month: Annotated[str, Query(max_length=7)] = "",
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    ) -> Response:
        asked = {"q": q.strip(), "state": state, "month": month, "offset": offset}
        with console.database() as conn:
            values = bills_page(conn, asked, words_for(request))
        following = values.pop("next_offset")
        values["next"] = (
            None if following is None else "?" + str(request.url.include_query_params(offset=following).query)
        )
        return console.page(request, "bills.html", values)

    @router.get("/bills/{bill_id}")
    def bill(
        request: Request,
        bill_id: Annotated[int, Path(ge=1, le=INT8_MAX)],
        line: Annotated[int | None, Query(ge=1, le=10_000)] = None,
    ) -> Response:
        with console.database() as conn:
            try:
                values = bill_page(conn, bill_id, line, words_for(request))
            except BillError:
                return _nothing(request, console, "no_bill")
        return console.page(request, "bill.html", values)

    @router.get("/accounts/{account_id}")
    def account(request: Request, account_id: str) -> Response:
        if not ACCOUNT.fullmatch(account_id):
            return _nothing(request, console, "no_account", account=account_id[:64])
        with console.database() as conn:
            found = fetch_account(conn, account_id)
            if found is None:
                return _nothing(request, console, "no_account", account=account_id)
            values = account_page(conn, found, words_for(request))
        return console.page(request, "account.html", values)


def _add_sheets(router: APIRouter, console: Console) -> None:
    @router.get("/bills/{bill_id}/{name}")
    def paper(
        request: Request,
        bill_id: Annotated[int, Path(ge=1, le=INT8_MAX)],
        name: Annotated[str, Path(pattern=r"^bill\.(pdf|html)$")],
    ) -> Response:
        with console.database() as conn:
            try:
                found = fetch_on_paper(conn, f"#{bill_id}")
            except BillError:
                return _nothing(request, console, "no_bill")
        if console.paper is None:
            return _nothing(request, console, "no_bill")
        file_name = f"{found.document.bill_no or f'draft-{bill_id}'}.{name.removeprefix('bill.')}"
        headers = {"Content-Disposition": f'inline; filename="{file_name}"'}
        if name.endswith("html"):
            text, headers["Content-Security-Policy"] = console.paper.html(found)
            return HTMLResponse(text, headers=headers)
        return Response(console.paper.pdf(found), media_type="application/pdf", headers=headers)


def _nothing(request: Request, console: Console, what: str, **named: Any) -> Response:
    words = words_for(request)
    return console.page(request, "problem.html", {"title": words.say(what, **named), "do": words[f"{what}_do"]}, 404)
