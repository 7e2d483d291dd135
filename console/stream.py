"""The stream of live figures: server-sent events, one snapshot a second, rendered once for all who watch.

Every event is the whole state, so nothing has to be replayed after a break: a browser that comes back with the number of
what it saw last gets the newest snapshot at once, and alarms it has not shown yet by their ids.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from console.board import Snapshot
from console.live import LiveFeed
from monitoring.metrics import QUEUE_DEPTH

HEARTBEAT_S = 15.0
WATCHERS_MAX = 200


class Broadcast:
    """Wakes all who wait for the next snapshot; lives on the event loop."""

    def __init__(self, feed: LiveFeed) -> None:
        """Listen to the feed once `attach` is called."""
        self.feed = feed
        self.watchers = 0
        self._next: asyncio.Event | None = None

    def attach(self) -> None:
        """Take the running loop; the feed's thread wakes it from then on."""
        loop = asyncio.get_running_loop()
        self._next = asyncio.Event()

        def on_snapshot() -> None:
            loop.call_soon_threadsafe(self._wake)

        self.feed.on_snapshot = on_snapshot

    def detach(self) -> None:
        """Hear the feed no more: the loop is about to end."""
        self.feed.on_snapshot = lambda: None
        self._wake()

    def _wake(self) -> None:
        assert self._next is not None
        woken, self._next = self._next, asyncio.Event()
        woken.set()

    async def newer_than(self, number: int) -> Snapshot | None:
        """Return the newest snapshot once it is another than the one with a number; None when a heartbeat is due."""
        assert self._next is not None
        if self.feed.snapshot.number == number:
            try:
                await asyncio.wait_for(self._next.wait(), HEARTBEAT_S)
            except TimeoutError:
                return None
        found = self.feed.snapshot
        return found if found.number != number else None

    async def events(self, request: Request, number: int, meter_id: str | None) -> AsyncIterator[str]:
        """Yield the events of one watcher until it goes; of a meter's page also that meter's figures."""
        while not await request.is_disconnected():
            found = await self.newer_than(number)
            if found is None:
                yield ": heartbeat\n\n"
                continue
            number = found.number
            yield f"id: {number}\nevent: figures\ndata: {found.text}\n\n"
            if meter_id is not None:
                yield f"event: meter\ndata: {json.dumps(self.feed.board.meter(meter_id))}\n\n"

    def count(self, change: int) -> None:
        """Count watchers that come and go."""
        self.watchers += change
        QUEUE_DEPTH.labels("console_watchers").set(self.watchers)


class WatcherResponse(StreamingResponse):
    """A stream that counts as a watcher from before its first event until it is over, however it ends."""

    def __init__(self, broadcast: Broadcast, events: AsyncIterator[str]) -> None:
        """Prepare the answer."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._broadcast = broadcast

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        self._broadcast.count(1)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._broadcast.count(-1)


def stream_router(broadcast: Broadcast) -> APIRouter:
    """Return the route of the stream."""
    router = APIRouter(include_in_schema=False)

    @router.get("/stream")
    async def stream(
        request: Request,
        number: Annotated[int, Query(alias="from", ge=-1, le=2**53)] = -1,
        meter: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        if broadcast.watchers >= WATCHERS_MAX:
            detail = f"{WATCHERS_MAX} pages are open already; close one, or run a second console"
            return JSONResponse({"detail": detail}, 503, {"Retry-After": "30"})
        return WatcherResponse(broadcast, broadcast.events(request, number, meter))

    return router
