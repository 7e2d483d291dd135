"""REST under /api/v1, described by OpenAPI; read only."""

import datetime as dt
from typing import Annotated, Any

import psycopg
from fastapi import APIRouter, HTTPException, Path, Query, Request, Response

from console.answer import (
    Alarm,
    DeadLetter,
    Meter,
    Problem,
    Progress,
    Reading,
    Status,
    Usage,
    charge_of,
    reading_of,
    safe_database,
    usage_of,
)
from console.web import Console, DatabaseAwayError
from monitoring.clock import now
from monitoring.status import read_status
from schemas.ids import METER_ID_PATTERN
from storage.alarm import fetch_alarms
from storage.charge import fetch_running_charge
from storage.dead_letter import fetch_dead_letters
from storage.query import ROWS_MAX, fetch_last_reading, fetch_meter, fetch_progress, fetch_readings

RANGE_DAYS_MAX = 400
INT8_MAX = 2**63 - 1
EARLIEST, LATEST = dt.datetime(2000, 1, 1, tzinfo=dt.UTC), dt.datetime(2100, 1, 1, tzinfo=dt.UTC)

MeterId = Annotated[str, Path(pattern=f"^{METER_ID_PATTERN.pattern}$", examples=["m-00001"])]
Moment = Annotated[dt.datetime | None, Query(description="RFC 3339; without an offset it is UTC")]
Limit = Annotated[int, Query(ge=1, le=ROWS_MAX, description="more rows follow at the address in the Link header")]
Rows = Annotated[int, Query(ge=1, le=1000)]


def rest_router(console: Console) -> APIRouter:
    """Return the routes."""
    problems: dict[int | str, dict[str, Any]] = {
        422: {"model": Problem, "description": "A value cannot be used"},
        503: {"model": Problem, "description": "The database does not answer; nothing is lost, try again"},
    }
    missing: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such meter"}}
    router = APIRouter(prefix="/api/v1", responses=problems)

    @router.get("/meters/{meter_id}", summary="A meter: last reading and running charge", responses=missing)
    def get_meter(meter_id: MeterId) -> Meter:
        with console.database() as conn:
            info = _known(conn, meter_id)
            last = fetch_last_reading(conn, info["meter_no"])
            charge = fetch_running_charge(conn, meter_id, console.registry(conn)) if last else None
        return Meter(
            **info,
            last_reading=reading_of(last) if last else None,
            running_charge=charge_of(charge) if charge else None,
        )

    def rows_of(
        request: Request, response: Response, meter_id: str, span: tuple[dt.datetime, dt.datetime], limit: int
    ) -> list[dict[str, Any]]:
        with console.database() as conn:
            info = _known(conn, meter_id)
            rows = fetch_readings(conn, info["meter_no"], *span, limit)
        if len(rows) == limit:
            url = request.url.include_query_params(start=rows[-1]["end_at"].isoformat(), end=span[1].isoformat())
            response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
        return rows

    @router.get("/meters/{meter_id}/readings", summary="Readings with an end in (start, end]", responses=missing)
    def get_readings(
        request: Request,
        response: Response,
        meter_id: MeterId,
        start: Moment = None,
        end: Moment = None,
        limit: Limit = ROWS_MAX,
    ) -> list[Reading]:
        rows = rows_of(request, response, meter_id, time_range(start, end), limit)
        return [reading_of(row) for row in rows]

    @router.get(
        "/meters/{meter_id}/usage", summary="Energy of each interval that ends in (start, end]", responses=missing
    )
    def get_usage(
        request: Request,
        response: Response,
        meter_id: MeterId,
        start: Moment = None,
        end: Moment = None,
        limit: Limit = ROWS_MAX,
    ) -> list[Usage]:
        rows = rows_of(request, response, meter_id, time_range(start, end), limit)
        return [usage_of(row) for row in rows if row["start_at"] < row["end_at"]]

    @router.get("/alarms", summary="Alarms, active ones first")
    def get_alarms(*, active: bool | None = None, limit: Rows = 200) -> list[Alarm]:
        with console.database() as conn:
            return [Alarm(**row) for row in fetch_alarms(conn, active=active, limit=limit)]

    @router.get("/dead-letters", summary="What was refused, newest first; without the bytes")
    def get_dead_letters(
        code: Annotated[str | None, Query(pattern="^[a-z_]{1,40}$", examples=["bad_json"])] = None,
        before_id: Annotated[int | None, Query(ge=1, le=INT8_MAX, description="for the next rows: the last id")] = None,
        limit: Rows = 100,
    ) -> list[DeadLetter]:
        with console.database() as conn:
            rows = fetch_dead_letters(conn, limit=limit, code=code, before_id=before_id)
        return [DeadLetter(**row) for row in rows]

    @router.get("/status", summary="Processes, and how far each stage has come")
    def get_status() -> Status:
        state = read_status(console.settings)
        state["database"] = safe_database(console.addresses.database)
        try:
            with console.database() as conn:
                progress = [Progress(**row) for row in fetch_progress(conn)]
        except DatabaseAwayError:
            return Status(**state, progress=None)  # which processes run is what one wants to know then
        return Status(**state, progress=progress)

    return router


def _known(conn: psycopg.Connection, meter_id: str) -> dict[str, Any]:
    info = fetch_meter(conn, meter_id)
    if info is None:
        raise HTTPException(404, f"no meter {meter_id!r} in the master data; `gridtally import meters` adds meters")
    return info


def time_range(start: dt.datetime | None, end: dt.datetime | None) -> tuple[dt.datetime, dt.datetime]:
    """Return a range in UTC; by default the last 24 hours.

    Raises:
        HTTPException: 422, when it is empty, too long or far from any reading.
    """
    end = end or now()
    end = end if end.tzinfo else end.replace(tzinfo=dt.UTC)
    if not EARLIEST < end < LATEST:
        raise HTTPException(422, f"end: must lie between {EARLIEST:%Y-%m-%d} and {LATEST:%Y-%m-%d}")
    start = start or end - dt.timedelta(days=1)
    start = start if start.tzinfo else start.replace(tzinfo=dt.UTC)
    if not start < end or end - start > dt.timedelta(days=RANGE_DAYS_MAX):
        raise HTTPException(422, f"start: must lie before end, by at most {RANGE_DAYS_MAX} days")
    return start, end
