"""What all routes share: settings, the live feed, the templates, a connection for one request, a page in the visitor's language."""

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import psycopg
from fastapi import Request
from fastapi.responses import Response
from fastapi.templating import Jinja2Templates

from console.board import PRIORITIES
from console.figure import MISSING, count_text, epoch_ms, kilo_text, moment_text, span_text
from console.live import LiveFeed
from console.words import LANGUAGES, Words, words_of
from monitoring.clock import now_us
from monitoring.log import get_logger
from schemas.addresses import Addresses
from schemas.ids import is_meter_id
from schemas.settings import Settings
from storage.bill_paper import BillOnPaper
from storage.registry import Registry, load_registry, refresh_registry

HERE = Path(__file__).parent
REQUEST_TIMEOUT_MS = 10_000
WRITE_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 5_000
YEAR_S = 365 * 86_400
THEMES = ("light", "dark")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}

log = get_logger("console.web")


class DatabaseAwayError(RuntimeError):
    """The database did not answer a request; it is answered with 503."""


class KafkaAwayError(RuntimeError):
    """Kafka did not answer a request; it is answered with 503."""


class Paper(Protocol):
    """Prints bills; given by who starts the console, which is no neighbour of the printer's."""

    def html(self, bill: BillOnPaper) -> tuple[str, str]:
        """Return a bill as a page of its own, and the Content-Security-Policy that it needs."""

    def pdf(self, bill: BillOnPaper) -> bytes:
        """Return a bill as a PDF."""


class Console:
    """What the routes share."""

    def __init__(self, settings: Settings, addresses: Addresses, paper: Paper | None = None) -> None:
        """Prepare the feed; the application's lifespan starts it. Without paper, bills cannot be had as sheets."""
        self.settings = settings
        self.paper = paper
        self.addresses = addresses
        self.zone = ZoneInfo(settings.console.zone)
        self.feed = LiveFeed(settings, addresses)
        self._templates = Jinja2Templates(HERE / "templates")
        self._templates.env.filters |= {
            "kilo": kilo_text,
            "count": count_text,
            "span": span_text,
            "ms": epoch_ms,
            "is_meter": lambda text: bool(text) and is_meter_id(text),
        }
        self._templates.env.globals |= {"MISSING": MISSING, "PRIORITIES": PRIORITIES, "has_paper": paper is not None}
        self._registry: Registry | None = None

    def registry(self, conn: psycopg.Connection) -> Registry:
        """Return the master data, loaded anew when they changed."""
        kept = self._registry
        self._registry = load_registry(conn) if kept is None else refresh_registry(conn, kept)
        return self._registry

    @contextlib.contextmanager
    def database(self, *, writes: bool = False) -> Iterator[psycopg.Connection]:
        """Give a connection for one request: read-only, unless it is to write.

        Raises:
            DatabaseAwayError: It does not answer, or not in time.
        """
        options = f"-c statement_timeout={REQUEST_TIMEOUT_MS} -c default_transaction_read_only=on"
        if writes:
            options = f"-c statement_timeout={WRITE_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
        try:
            with psycopg.connect(
                self.addresses.database,
                autocommit=True,
                options=options,
                connect_timeout=5,
                application_name="console",
            ) as conn:
                yield conn
        except psycopg.OperationalError as error:
            log.warning("database_away", error=str(error)[:300])
            raise DatabaseAwayError("the database does not answer") from error

    def page(self, request: Request, template: str, values: dict[str, Any], code: int = 200) -> Response:
        """Return a page in the visitor's language and theme; `values` may name another `zone` for its times."""
        asked, language = request.query_params, language_of(request)
        theme = asked.get("theme") or request.cookies.get("theme")
        theme = theme if theme in THEMES else ""
        now = dt.datetime.fromtimestamp(now_us() / 1e6, dt.UTC)
        zone = values.get("zone", self.zone)
        snapshot = self.feed.snapshot
        context = {
            "w": words_of(language),
            "lang": language,
            "theme": theme,
            "now": now,
            "path": request.url.path,
            "link": lambda **change: _link(request, change),
            "clock": lambda moment: moment_text(moment, zone, now),
            "live": snapshot.figures,
            "text": snapshot.figures["text"],
            "alarms_open": snapshot.alarms,
            "still": request.cookies.get("still") == "1",
            "keys_off": request.cookies.get("keys") == "0",
            "is_live": True,
            "zone": zone,
            **values,
        }
        response = self._templates.TemplateResponse(request, template, context, status_code=code)
        response.headers["Cache-Control"] = "no-store"
        response.headers.update(SECURITY_HEADERS)  # the middleware does not see the page of an unforeseen error
        if asked.get("lang") in LANGUAGES:
            response.set_cookie("lang", asked["lang"], max_age=YEAR_S, samesite="strict")
        if asked.get("theme") in THEMES:
            response.set_cookie("theme", asked["theme"], max_age=YEAR_S, samesite="strict")
        return response


def _link(request: Request, change: dict[str, Any]) -> str:
    """Return the query of the present page with some values changed, so that a switch keeps the rest."""
    return "?" + str(request.url.include_query_params(**change).query)


def language_of(request: Request) -> str:
    """Return the language that was asked for, chosen before, or first among those the browser accepts; else Chinese."""
    for value in (request.query_params.get("lang"), request.cookies.get("lang")):
        if value in LANGUAGES:
            return value
    for part in request.headers.get("accept-language", "").lower().split(",")[:20]:
        if part.strip()[:2] in LANGUAGES:
            return part.strip()[:2]
    return LANGUAGES[0]


def words_for(request: Request) -> Words:
    """Return the words in the visitor's language."""
    return words_of(language_of(request))
