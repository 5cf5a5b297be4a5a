"""The stream that a page of the chamber follows: what a broadcaster tells, to one reader, for as long as it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.dashboard.live_feed import LatestWatch, LiveFeed, Viewer, frame
from api.rest.event_stream import PING_S, SIGNED_OUT, Reader, StreamPlaces, reading

__all__ = ["FeedStream"]

_HINT = b"retry: 1000\n\n"
_TO_BE_CONTINUED = b": not the end: come back\n\n"


class FeedStream(Response):
    """`text/event-stream` (HTML, section 9.2): `snapshot` first, then `change`, and `ended` in the end; `alive` breaks the silence.
    `halt` says what the banner of the page is to say, after the first and whenever that is another.

    Of `deliberation_id` it ends after that; without one it follows the latest that the reader `sees`, says `latest` when it is
    another, and ends only with the service. It ends early where the store goes away, and its last comment asks the reader to come back;
    and with `SIGNED_OUT` once `until` has returned.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        feed: LiveFeed,
        *,
        places: StreamPlaces,
        deliberation_id: str | None = None,
        sees: str | None = None,
        until: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._feed = feed
        self._places = places
        self._deliberation_id = deliberation_id
        self._sees = sees
        self._until = until

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Stream to the end (ASGI)."""
        with self._places.place(), reading(receive, self._until) as reader:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            telling = _Telling(self._feed, send, reader)
            await telling.tell(self._deliberation_id, self._sees)


class _Telling:
    """One reader, from its first byte to its last."""

    def __init__(self, feed: LiveFeed, send: Send, reader: Reader) -> None:
        self._feed = feed
        self._send = send
        self._reader = reader
        self._wake = reader.wake
        self._banner: str | None = None

    async def tell(self, deliberation_id: str | None, sees: str | None) -> None:
        await self._say(_HINT)
        banner = self._feed.banner
        with nullcontext() if banner is None else banner.watching(self._wake):
            if deliberation_id is not None:
                has_ended = await self._follow(deliberation_id, lambda: True, stays=False)
            else:
                with self._feed.watching(sees, self._wake) as watch:
                    await self._follow_latest(watch)
                has_ended = False
        if not has_ended:
            await self._say(SIGNED_OUT if self._reader.is_signed_out() else _TO_BE_CONTINUED)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow_latest(self, watch: LatestWatch) -> None:
        shown: str | None = None
        while not (self._reader.is_over() or watch.is_over):
            self._wake.clear()
            latest = watch.latest
            if latest is None:
                if watch.ready.is_set():
                    await self._tell_banner()
                await self._wait(lambda: frame("alive", 0, {"sequence": 0}))
                continue
            if shown is not None:
                await self._say(frame("latest", 0, {"deliberation_id": latest}))
            shown = latest
            followed = await self._follow(latest, partial(_is_latest, watch, latest), stays=True)
            # Either another is the latest, or the store is away, which the reader is not kept waiting for.
            if not followed and watch.latest == latest:
                return

    async def _follow(self, deliberation_id: str, is_wanted: Callable[[], bool], *, stays: bool) -> bool:
        """Tell everything of one deliberation; whether it was told to its end. Who `stays` waits there until it is not wanted any more."""
        viewer = Viewer(self._wake)
        with self._feed.viewing(deliberation_id, viewer) as broadcaster:
            while not self._reader.is_over():
                self._wake.clear()
                while not self._reader.is_over() and (content := broadcaster.next_frame(viewer)) is not None:
                    await self._say(content)
                if not viewer.wants_all:
                    await self._tell_banner()
                if not is_wanted():
                    return False
                if broadcaster.is_over:
                    has_ended = broadcaster.state is not None and broadcaster.state.has_ended
                    if not (stays and has_ended):
                        return has_ended
                await self._wait(broadcaster.alive)
        return False

    async def _wait(self, alive: Callable[[], bytes]) -> None:
        try:
            async with asyncio.timeout(PING_S):
                await self._wake.wait()
        except TimeoutError:
            await self._say(alive())

    async def _tell_banner(self) -> None:
        if self._feed.banner is None or self._banner == (shown := self._feed.banner.html()):
            return
        self._banner = shown
        await self._say(frame("halt", 0, {"html": shown}))

    async def _say(self, content: bytes) -> None:
        message: dict[str, Any] = {"type": "http.response.body", "body": content, "more_body": True}
        await self._send(message)


def _is_latest(watch: LatestWatch, deliberation_id: str) -> bool:
    return watch.latest == deliberation_id and not watch.is_over
