"""The web console: pages drawn by the server, one stream of live figures, and REST under /api/v1."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.alarm_rest import alarm_rest_router
from console.billing_rest import billing_rest_router
from console.case_rest import case_rest_router
from console.error_page import add_error_pages
from console.pages import page_router
from console.rest import rest_router
from console.stream import Broadcast, stream_router
from console.web import SECURITY_HEADERS, Console, Paper
from monitoring.metrics import CONNECTED, Health, serve_metrics
from schemas.addresses import Addresses
from schemas.settings import Settings

HERE = Path(__file__).parent


class SecurityHeaders:
    """Puts the security headers on every answer, without touching its body: a stream stays a stream."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-cache")  # of the static files: ask whether they changed
            await send(message)

        await self._app(scope, receive, send_with_headers)


def create_app(settings: Settings, addresses: Addresses, paper: Paper | None = None) -> FastAPI:
    """Return the console's application."""
    console = Console(settings, addresses, paper)
    broadcast = Broadcast(console.feed)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        broadcast.attach()
        console.feed.start()
        yield
        broadcast.detach()
        console.feed.stop()

    app = FastAPI(
        title="gridtally",
        version="1",
        description="Smart-meter readings, running charges and alarms. Energies are whole Wh; kWh and money are text.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.console = console
    app.state.broadcast = broadcast
    app.add_middleware(SecurityHeaders)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.include_router(page_router(console))
    app.include_router(stream_router(broadcast))
    app.include_router(rest_router(console))
    app.include_router(billing_rest_router(console))
    app.include_router(alarm_rest_router(console))
    app.include_router(case_rest_router(console))
    add_error_pages(app, console)

    @app.get("/health", include_in_schema=False)
    def show_health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def run(settings: Settings, addresses: Addresses, name: str = "console", paper: Paper | None = None) -> None:
    """Serve the console until SIGTERM or SIGINT."""
    health: Health = serve_metrics(name, settings.run_dir, settings.metrics)
    app = create_app(settings, addresses, paper)
    place = urlsplit(addresses.console)
    host = settings.console.host
    port = place.port or settings.console.port

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
