"""REST of cases of suspected theft under /api/v1: they are read here; what changes them is on the command line."""

import dataclasses
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query

from console.answer import Problem
from console.web import Console
from metering.theft.field_words import field_words
from storage.case import LISTED_MAX, CaseError, CaseRow, fetch_case, fetch_cases

CaseNo = Annotated[int, Path(ge=1, le=2**63 - 1)]


def case_rest_router(console: Console) -> APIRouter:
    """Return the routes."""
    problems: dict[int | str, dict[str, Any]] = {
        404: {"model": Problem, "description": "There is none of that number"},
        422: {"model": Problem, "description": "A value cannot be used"},
        503: {"model": Problem, "description": "The database does not answer; nothing is lost, try again"},
    }
    router = APIRouter(prefix="/api/v1", responses=problems)

    @router.get("/cases", summary="Cases of suspected theft, most money at stake first; by default the open ones")
    def get_cases(
        state: Annotated[list[str] | None, Query(max_length=5)] = None,
        limit: Annotated[int, Query(ge=1, le=LISTED_MAX)] = 200,
    ) -> list[dict[str, Any]]:
        with console.database() as conn:
            try:
                found = fetch_cases(conn, states=state, limit=limit)
            except CaseError as error:
                raise HTTPException(422, f"state: {error}") from None
        return [_document(case) for case in found]

    @router.get("/cases/{case_no}", summary="One case: evidence as of its opening, history, what to check in the field")
    def get_case(case_no: CaseNo) -> dict[str, Any]:
        with console.database() as conn:
            found = fetch_case(conn, case_no)
        if found is None:
            raise HTTPException(404, f"there is no case {case_no}")
        case, events = found
        return _document(case) | {
            "evidence": case.evidence,
            "history": [dataclasses.asdict(event) for event in events],
            "field": {language: field_words(case.kind, language) for language in ("en", "zh")},
        }

    return router


def _document(case: CaseRow) -> dict[str, Any]:
    values = {name: str(value) if isinstance(value, Decimal) else value for name, value in vars(case).items()}
    del values["evidence"]
    return values
