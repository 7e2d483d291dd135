"""The web console: pages drawn by the server, one stream of live figures, and REST under /api/v1."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import psycopg
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates

from console.live import LiveFeed
from console.meter_page import meter_page, usage_csv
from console.room_page import room_page
from console.words import LANGUAGES, words_of
from monitoring.clock import now_us
from monitoring.log import get_logger
from monitoring.metrics import CONNECTED, QUEUE_DEPTH, Health, serve_metrics
from monitoring.status import read_status
from schemas.addresses import Addresses
from schemas.quality import Quality
from schemas.settings import Settings
from storage.alarm import fetch_alarms
from storage.dead_letter import fetch_dead_letters
from storage.query import ROWS_MAX, fetch_last_reading, fetch_meter, fetch_progress, fetch_readings
from storage.raw_record import RawMessages
from storage.registry import Registry, load_registry, refresh_registry
from storage.state import fetch_running_charge

HERE = Path(__file__).parent
CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'"
STREAM_HEARTBEAT_S = 15.0
WATCHERS_MAX = 200
REQUEST_TIMEOUT_MS = 10_000
RANGE_DAYS_MAX = 400
YEAR_S = 365 * 86_400

log = get_logger("console.app")


class Console:
    """What the routes share."""

    def __init__(self, settings: Settings, addresses: Addresses) -> None:
        """Prepare the feed; `create_app` starts it."""
        self.settings = settings
        self.addresses = addresses
        self.feed = LiveFeed(settings, addresses)
        self.templates = Jinja2Templates(HERE / "templates")
        self.watchers = 0
        self._registry: Registry | None = None

    def registry(self, conn: psycopg.Connection) -> Registry:
        """Return the master data, loaded anew when they changed."""
        kept = self._registry
        self._registry = load_registry(conn) if kept is None else refresh_registry(conn, kept)
        return self._registry

    @contextlib.contextmanager
    def database(self) -> Iterator[psycopg.Connection]:
        """Give a connection for one request; a database that is away is answered with 503."""
        options = f"-c statement_timeout={REQUEST_TIMEOUT_MS} -c default_transaction_read_only=on"
        try:
            with psycopg.connect(self.addresses.database, autocommit=True, options=options, connect_timeout=5) as conn:
                yield conn
        except psycopg.OperationalError as error:
            log.warning("database_away", error=str(error)[:200])
            raise HTTPException(503, "the database does not answer; what is shown elsewhere may be old") from error

    def page(self, request: Request, template: str, values: dict[str, Any], code: int = 200) -> Response:
        """Return a page in the visitor's language and theme."""
        language = language_of(request)
        words = words_of(language)
        theme = request.query_params.get("theme") or request.cookies.get("theme")
        context = {
            "w": words,
            "lang": language,
            "theme": theme if theme in ("light", "dark") else "",
            "now_ms": now_us() // 1000,
            "path": request.url.path,
            **values,
        }
        response = self.templates.TemplateResponse(request, template, context, status_code=code)
        for name in ("lang", "theme"):
            value = request.query_params.get(name)
            if value in (*LANGUAGES, "light", "dark"):
                response.set_cookie(name, value, max_age=YEAR_S, samesite="strict", httponly=True)
        return response


def language_of(request: Request) -> str:
    """Return the language that was asked for, chosen before, or accepted by the browser; Chinese otherwise."""
    for value in (request.query_params.get("lang"), request.cookies.get("lang")):
        if value in LANGUAGES:
            return value
    accepted = request.headers.get("accept-language", "").lower()
    return "en" if accepted.startswith("en") else "zh"


def create_app(settings: Settings, addresses: Addresses) -> FastAPI:
    """Return the console's application."""
    console = Console(settings, addresses)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        console.feed.start()
        yield
        console.feed.stop()

    app = FastAPI(
        title="gridtally",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.console = console
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = CSP
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    _add_pages(app, console)
    _add_stream(app, console)
    _add_rest(app, console)
    return app


def _add_pages(app: FastAPI, console: Console) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def room(request: Request) -> Response:
        with console.database() as conn:
            values = room_page(conn, console.feed.snapshot, words_of(language_of(request)), now_us())
        return console.page(request, "room.html", values)

    @app.get("/meters", include_in_schema=False)
    def find(q: Annotated[str, Query(max_length=64)] = "") -> Response:
        return RedirectResponse(f"/meters/{q.strip()}" if q.strip() else "/", 303)

    @app.get("/meters/{meter_id}", response_class=HTMLResponse, include_in_schema=False)
    def meter(request: Request, meter_id: str, days: Annotated[int, Query(ge=1, le=31)] = 2) -> Response:
        with console.database() as conn:
            info = fetch_meter(conn, meter_id)
            if info is None:
                return console.page(request, "missing.html", {"meter_id": meter_id}, 404)
            values = meter_page(conn, console.registry(conn), info, days, (words_of(language_of(request)), now_us()))
        return console.page(request, "meter.html", values)

    @app.get("/meters/{meter_id}/usage.csv", include_in_schema=False)
    def csv(meter_id: str, days: Annotated[int, Query(ge=1, le=31)] = 2) -> Response:
        with console.database() as conn:
            info = _known(conn, meter_id)
            text = usage_csv(conn, info, days, now_us())
        return PlainTextResponse(text, headers={"Content-Type": "text/csv; charset=utf-8"})

    @app.get("/raw/{partition}/{offset}/{index}", response_class=HTMLResponse, include_in_schema=False)
    def raw(request: Request, partition: int, offset: int, index: int) -> Response:
        messages = RawMessages(console.addresses.kafka, console.settings.kafka.topic_prefix)
        try:
            topic, payload = messages.fetch(partition, offset, index)
        finally:
            messages.close()
        values = {
            "partition": partition,
            "offset": offset,
            "index": index,
            "topic": topic,
            "payload": payload.decode(errors="backslashreplace"),
            "is_there": bool(topic),
        }
        return console.page(request, "raw.html", values)


def _add_stream(app: FastAPI, console: Console) -> None:
    feed = console.feed

    def newer_than(number: int) -> tuple[int, str] | None:
        with feed.changed:
            feed.changed.wait_for(lambda: feed.snapshot[0] != number, STREAM_HEARTBEAT_S)
            return feed.snapshot if feed.snapshot[0] != number else None

    async def events(request: Request) -> AsyncIterator[str]:
        console.watchers += 1
        QUEUE_DEPTH.labels("console_watchers").set(console.watchers)
        number = -1
        try:
            while not await request.is_disconnected():
                found = await asyncio.to_thread(newer_than, number)
                if found is None:
                    yield ": heartbeat\n\n"
                    continue
                number, text = found
                yield f"id: {number}\nevent: figures\ndata: {text}\n\n"
        finally:
            console.watchers -= 1
            QUEUE_DEPTH.labels("console_watchers").set(console.watchers)

    @app.get("/stream", include_in_schema=False)
    async def stream(request: Request) -> Response:
        if console.watchers >= WATCHERS_MAX:
            raise HTTPException(503, f"{WATCHERS_MAX} pages are open already; close one, or run a second console")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events(request), media_type="text/event-stream", headers=headers)


def _known(conn: psycopg.Connection, meter_id: str) -> dict[str, Any]:
    info = fetch_meter(conn, meter_id)
    if info is None:
        raise HTTPException(404, f"no meter {meter_id!r} in the master data; `gridtally import meters` adds meters")
    return info


def _range(start: dt.datetime | None, end: dt.datetime | None) -> tuple[dt.datetime, dt.datetime]:
    """Return a half-open range in UTC; by default the last 24 hours."""
    end = end or dt.datetime.fromtimestamp(now_us() / 1e6, dt.UTC)
    end = end if end.tzinfo else end.replace(tzinfo=dt.UTC)
    start = start or end - dt.timedelta(days=1)
    start = start if start.tzinfo else start.replace(tzinfo=dt.UTC)
    if not start < end or end - start > dt.timedelta(days=RANGE_DAYS_MAX):
        raise HTTPException(422, f"start must lie before end, by at most {RANGE_DAYS_MAX} days")
    return start, end


def _plain(value: Any) -> Any:
    """Return a value for JSON: decimals as text, so that no client reads money as a float."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


Moment = Annotated[dt.datetime | None, Query(description="RFC 3339; without an offset it is UTC")]
Limit = Annotated[int, Query(ge=1, le=ROWS_MAX)]


def _add_rest(app: FastAPI, console: Console) -> None:
    @app.get("/api/v1/meters/{meter_id}", summary="A meter: last reading and running charge")
    def get_meter(meter_id: str) -> dict[str, Any]:
        with console.database() as conn:
            info = _known(conn, meter_id)
            last = fetch_last_reading(conn, info["meter_no"])
            charge = fetch_running_charge(conn, meter_id, console.registry(conn)) if last else None
        return {
            **{name: value for name, value in info.items() if name != "meter_no"},
            "last_reading": last and {**last, "quality": Quality(last["quality"]).words},
            "running_charge": charge and charge_json(charge),
        }

    @app.get("/api/v1/meters/{meter_id}/readings", summary="Readings with an end in (start, end]")
    def get_readings(
        meter_id: str, start: Moment = None, end: Moment = None, limit: Limit = ROWS_MAX
    ) -> list[dict[str, Any]]:
        low, high = _range(start, end)
        with console.database() as conn:
            info = _known(conn, meter_id)
            rows = fetch_readings(conn, info["meter_no"], low, high, limit)
        return [{**row, "read_at": row["end_at"], "quality": Quality(row["quality"]).words} for row in rows]

    @app.get("/api/v1/meters/{meter_id}/usage", summary="Energy of each interval that ends in (start, end]")
    def get_usage(
        meter_id: str, start: Moment = None, end: Moment = None, limit: Limit = ROWS_MAX
    ) -> list[dict[str, Any]]:
        low, high = _range(start, end)
        with console.database() as conn:
            info = _known(conn, meter_id)
            rows = fetch_readings(conn, info["meter_no"], low, high, limit)
        return [
            {
                "start": row["start_at"],
                "end": row["end_at"],
                "energy_wh": row["energy_wh"],
                "quality": Quality(row["quality"]).words,
            }
            for row in rows
            if row["start_at"] < row["end_at"]
        ]

    @app.get("/api/v1/alarms", summary="Alarms, active ones first")
    def get_alarms(
        *, active: bool | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 200
    ) -> list[dict[str, Any]]:
        with console.database() as conn:
            return fetch_alarms(conn, active=active, limit=limit)

    @app.get("/api/v1/dead-letters", summary="What was refused, newest first; without the bytes")
    def get_dead_letters(
        code: str | None = None, before_id: int | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[dict[str, Any]]:
        with console.database() as conn:
            return [_plain(row) for row in fetch_dead_letters(conn, limit=limit, code=code, before_id=before_id)]

    @app.get("/api/v1/status", summary="Processes, and how far each stage has come")
    def get_status() -> dict[str, Any]:
        state = read_status(console.settings)
        state.pop("database", None)  # it may hold a password
        with console.database() as conn:
            return {**state, "progress": fetch_progress(conn)}


def charge_json(charge: Any) -> dict[str, Any]:
    """Return a running charge for REST: money and kWh as text."""
    return {
        "service_point_id": charge.service_point_id,
        "tariff_id": charge.tariff_id,
        "currency": charge.currency,
        "cycle_start": charge.cycle_start,
        "cycle_end": charge.cycle_end,
        "as_of": charge.read_at,
        "energy_wh": charge.energy_wh,
        "amount": str(charge.total),
        "amount_unrounded": str(charge.total_unrounded),
        "lines": [
            {
                "label": line.label,
                "kind": line.kind,
                "quantity_kwh": str(line.quantity_kwh),
                "price": str(line.price),
                "amount": str(line.amount),
                "amount_unrounded": str(line.amount_unrounded),
            }
            for line in charge.lines
        ],
    }


def run(settings: Settings, addresses: Addresses, name: str = "console") -> None:
    """Serve the console until SIGTERM or SIGINT."""
    health: Health = serve_metrics(name, settings.run_dir, settings.metrics)
    app = create_app(settings, addresses)
    place = urlsplit(addresses.console)
    host = settings.console.host
    port = place.port or settings.console.port

    @app.get("/health", include_in_schema=False)
    def show_health() -> dict[str, str]:
        return {"status": "ok"}

    class Server(uvicorn.Server):
        async def on_tick(self, counter: int) -> bool:
            health.turned()
            health.ready = app.state.console.feed.is_ready
            CONNECTED.labels("live_feed").set(health.ready)
            return await super().on_tick(counter)

    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=1, server_header=False
    )
    Server(config).run()
