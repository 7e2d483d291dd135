"""Pages of theft cases: the leads by the money at stake, and one case with its evidence as pictures."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from console.web import Console, language_of, words_for
from metering.theft.field_words import field_words
from storage.case import STATES, CaseRow, fetch_case, fetch_cases, fetch_precision

WIDTH, HEIGHT = 640, 150
Numbers = Sequence[int | float | None]


def add_case_pages(router: APIRouter, console: Console) -> None:
    """Add the routes to the router of pages."""

    @router.get("/cases")
    def cases(request: Request) -> Response:
        with console.database() as conn:
            rows, precision = fetch_cases(conn, states=STATES), fetch_precision(conn)
        return console.page(request, "cases.html", {"cases": [_values(row) for row in rows], "precision": precision})

    @router.get("/cases/{case_no}")
    def case(request: Request, case_no: Annotated[int, Path(ge=1, le=2**63 - 1)]) -> Response:
        with console.database() as conn:
            found = fetch_case(conn, case_no)
        words = words_for(request)
        if found is None:
            said = {"title": words.say("no_case", no=case_no), "do": words["no_case_do"]}
            return console.page(request, "problem.html", said, 404)
        row, events = found
        values = {
            "case": _values(row),
            "events": events,
            "field": field_words(row.kind, language_of(request)),
            "pictures": pictures_of(row.evidence),
        }
        return console.page(request, "case.html", values)


def _values(row: CaseRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in vars(row) if name != "evidence"} | {
        "seen": list(row.evidence.get("events", ()))[:20],
        "detail": row.evidence.get("detail", ""),
        "node": row.evidence.get("node"),
    }


def pictures_of(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the pictures that the evidence has numbers for: weeks beside the neighbours', and the day before and after."""
    found: list[dict[str, Any]] = []
    weeks = [_day(text) for text in evidence.get("weeks", ())]
    own, beside = evidence.get("own_week_wh", ()), evidence.get("neighbours_week_wh", ())
    if weeks and len(own) == len(weeks):
        found.append({
            "title": "own_weeks", "labels": weeks,
            "lines": [_line("this_meter", own, 0), *([_line("neighbours", beside, 1)] if len(beside) == len(weeks) else [])],
        })  # fmt: skip
    before, after = evidence.get("own_hour_before_wh", ()), evidence.get("own_hour_after_wh", ())
    if before and len(before) == len(after):
        hours = [f"{24 * hour // len(before):02d}" for hour in range(len(before))]
        lines = [_line("day_before", before, 1), _line("day_after", after, 0)]
        found.append({"title": "own_day", "labels": hours, "lines": lines})
    for picture in found:
        most = (
            max((value for line in picture["lines"] for value in line["values"] if value is not None), default=0) or 1
        )
        for line in picture["lines"]:
            line["points"] = points_of(line["values"], most)
        picture["most"] = most
    return found


def _line(name: str, values: Numbers, style: int) -> dict[str, Any]:
    return {"name": name, "values": list(values), "style": style}


def _day(text: str) -> str:
    return dt.date.fromisoformat(text).strftime("%m-%d")


def points_of(values: Numbers, most: float) -> list[str]:
    """Return the stretches of a line as SVG points; what is missing is a gap, never 0."""
    step = WIDTH / max(len(values) - 1, 1)
    stretches: list[list[str]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            stretches.append([])
        else:
            stretches[-1].append(f"{place * step:.1f},{HEIGHT * (1 - max(value, 0) / most):.1f}")
    return [" ".join(stretch) for stretch in stretches if stretch]
