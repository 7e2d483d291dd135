"""Pages of alarms: the list that is worked, one alarm with its history, the kinds, and how well the alarm system does."""

import dataclasses
import datetime as dt
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from console.web import Console, language_of, words_for
from metering.alarm.catalogue import KINDS
from metering.alarm.words import words_of
from monitoring.clock import now
from storage.alarm_list import (
    DAY_TARGET,
    FLOOD_TARGET,
    OPEN_STATES,
    PRIORITY_TARGET_PERCENT,
    STATES,
    TEN_MINUTES_TARGET,
    AlarmRow,
    Chosen,
    Performance,
    fetch_alarm,
    fetch_alarm_list,
    fetch_counts,
    fetch_flood,
    fetch_out_of_service,
    fetch_performance,
)

ROWS_A_PAGE = 200
DAYS = (1, 7, 30, 90)
Text = Annotated[str, Query(max_length=100)]


def add_alarm_pages(router: APIRouter, console: Console) -> None:
    """Add the routes to the router of pages."""

    @router.get("/alarms")
    def alarms(  # a filter each
        request: Request,
        state: Text = "",
        kind: Text = "",
        priority: Annotated[int, Query(ge=0, le=4)] = 0,
        area: Text = "",
        subject: Text = "",
        before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    ) -> Response:
        asked = {"state": state, "kind": kind, "priority": priority, "area": area.strip(), "subject": subject.strip()}
        chosen = Chosen(
            states=(state,) if state in STATES else None,
            kinds=(kind,) if kind in KINDS else None,
            priorities=(priority,) if priority else None,
            area=asked["area"] or None,  # type: ignore[arg-type]
            subject=asked["subject"] or None,  # type: ignore[arg-type]
        )
        with console.database() as conn:
            rows = fetch_alarm_list(conn, chosen, limit=ROWS_A_PAGE, before=before)
            counts, flood, out = fetch_counts(conn), fetch_flood(conn, now()), fetch_out_of_service(conn)
        last = rows[-1].alarm_id if len(rows) == ROWS_A_PAGE and state == "cleared" else None
        values = {
            "asked": asked,
            "states": STATES,
            "counted": OPEN_STATES,
            "kinds": sorted(KINDS),
            "counts": counts,
            "rows": [row_values(row, language_of(request)) for row in rows],
            "flood": flood,
            "out": out,
            "next": None if last is None else "?" + str(request.url.include_query_params(before=last).query),
        }
        return console.page(request, "alarms.html", values)

    @router.get("/alarms/kinds")
    def kinds(request: Request) -> Response:
        return console.page(request, "alarm_kinds.html", {"kinds": [kind_values(name, request) for name in KINDS]})

    @router.get("/alarms/performance")
    def performance(request: Request, days: Annotated[int, Query(ge=1, le=400)] = 7) -> Response:
        at = now()
        with console.database() as conn:
            found = fetch_performance(conn, at - dt.timedelta(days=days), at)
        values = {"found": found, "days": days, "choices": DAYS, "figures": figures_of(found), "bars": bars_of(found)}
        return console.page(request, "alarm_performance.html", values)

    @router.get("/alarms/{alarm_id}")
    def alarm(request: Request, alarm_id: Annotated[int, Path(ge=1, le=2**63 - 1)]) -> Response:
        with console.database() as conn:
            found = fetch_alarm(conn, alarm_id)
        words = words_for(request)
        if found is None:
            said = {"title": words.say("no_alarm", no=alarm_id), "do": words["no_alarm_do"]}
            return console.page(request, "problem.html", said, 404)
        row, changes = found
        values = {
            "row": row_values(row, language_of(request)),
            "changes": changes,
            "kind": kind_values(row.kind, request) if row.kind in KINDS else None,
        }
        return console.page(request, "alarm.html", values)


def row_values(row: AlarmRow, language: str) -> dict[str, Any]:
    """Return an alarm as a page shows it."""
    return {
        **dataclasses.asdict(row),
        "advice": words_of(row.kind, language).action,
        "is_meter": not row.kind.startswith(("gateway", "feeder")),
    }


def kind_values(name: str, request: Request) -> dict[str, Any]:
    """Return a kind with its words in the visitor's language."""
    kind = KINDS[name]
    said = dataclasses.asdict(words_of(name, language_of(request)))
    return {**dataclasses.asdict(kind), **said, "priority": kind.priority, "consequence_degree": kind.consequence}


def figures_of(found: Performance) -> list[dict[str, Any]]:
    """Return each figure with its target, and whether it is missed."""
    return [
        {"name": "alarms_a_day", "value": f"{found.per_day:.1f}", "target": f"≤ {DAY_TARGET}", "bad": found.per_day > DAY_TARGET},
        {
            "name": "ten_minutes_mean", "value": f"{found.ten_minutes_mean:.2f}", "target": f"≤ {TEN_MINUTES_TARGET}",
            "bad": found.ten_minutes_mean > TEN_MINUTES_TARGET,
        },
        {
            "name": "ten_minutes_max", "value": str(found.ten_minutes_max), "target": f"≤ {FLOOD_TARGET}",
            "bad": found.ten_minutes_max > FLOOD_TARGET,
        },
        {"name": "stale_alarms", "value": str(found.stale), "target": "0", "bad": found.stale > 0},
        {"name": "chattering_alarms", "value": str(found.chattering), "target": "0", "bad": found.chattering > 0},
        *(
            {
                "name": f"priority_{share.name}", "value": f"{share.percent} %",
                "target": f"≈ {PRIORITY_TARGET_PERCENT[int(share.name)]} %", "bad": False,
            }
            for share in found.by_priority
        ),
    ]  # fmt: skip


def bars_of(found: Performance) -> list[dict[str, Any]]:
    """Return the alarms of each day as bars of a picture 100 high; the target's height is among them as a line."""
    most = max([DAY_TARGET, *(count for _, count in found.by_day)])
    days = max(1, round((found.until - found.since) / dt.timedelta(days=1)))
    width = 100 / days
    return [
        {
            "x": round((at - found.since) / dt.timedelta(days=1) * width, 3), "w": round(width * 0.8, 3),
            "h": round(100 * count / most, 2), "y": round(100 - 100 * count / most, 2), "count": count, "at": at,
            "bad": count > DAY_TARGET, "line": round(100 - 100 * DAY_TARGET / most, 2),
        }
        for at, count in found.by_day
    ]  # fmt: skip
