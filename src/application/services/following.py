"""Follows deliberations as they are committed: waits for their end, and gives what happens in them, event after event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

from application.ports.deliberation_repository import DeliberationReader
from application.services.deliberation_run import DeliberationRun
from application.services.deliberation_worker import DeliberationWorker
from application.services.event_feed import EventFeed
from domain.errors.deliberation import DeliberationNotFoundError
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.event import Event

__all__ = ["Following"]

_HEARTBEAT_S = 1.0
# Where others do the work nothing announces it here, so it is looked for more often.
_LOOK_S = 0.25
_EVENT_PAGE = 500
# What a run that ended like this holds is what is stored; one that was stopped may have been asked to cancel elsewhere.
_SHOWN_AS_ENDED = frozenset({DeliberationStatus.COMPLETED, DeliberationStatus.INQUORATE})


class Following:
    """Looks into the store when the feed has news, and each heartbeat, since another process may have written without announcing.

    Ends what it gives once `is_stopping` says so, which is announced to the feed.
    """

    def __init__(
        self,
        reader: DeliberationReader,
        feed: EventFeed,
        *,
        worker: DeliberationWorker | None,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._reader = reader
        self._feed = feed
        self._worker = worker
        self._is_stopping = is_stopping

    async def wait(self, deliberation_id: str, *, timeout_s: float | None) -> Deliberation:
        """The deliberation once it ended, or as it is after `timeout_s` seconds. Raises `DeliberationNotFoundError`."""
        run: DeliberationRun | None = None
        with self._feed.listen(deliberation_id) as news:
            try:
                async with asyncio.timeout(timeout_s):
                    while True:
                        news.clear()
                        here = False
                        if self._worker is not None:
                            run = self._worker.run_of(deliberation_id) or run
                            here = self._worker.is_here(deliberation_id)
                        # Reading a deliberation is dear beside an event of it, so nothing is read while it is known to run.
                        if not here:
                            ended = None if run is None else run.deliberation
                            # Where the news of its commit was lost, only the store knows where its record stands.
                            if ended is not None and ended.status in _SHOWN_AS_ENDED and ended.witness is not None:
                                return ended
                            found = await self._get(deliberation_id)
                            if found.status.is_terminal or self._is_stopping():
                                return found
                        await self._next_news(news)
            except TimeoutError:
                return await self._get(deliberation_id)

    async def events(self, deliberation_id: str, *, after: int = 0) -> AsyncIterator[Event | None]:
        """Every event with a greater sequence than `after`, as it is committed, up to the terminal one.

        Yields None when nothing happened for a heartbeat (1 s), so that a caller can notice a reader that has gone away. Ends
        early when the service stops.
        """
        async with aclosing(self.gathered_events(deliberation_id, after=after)) as pages:
            async for page in pages:
                for event in page:
                    yield event
                if not page:
                    yield None

    async def gathered_events(
        self, deliberation_id: str, *, after: int = 0, gather: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncGenerator[Sequence[Event], None]:
        """The same events, each list all that is committed by then; an empty one where nothing happened for a heartbeat.

        `gather` is waited for between news and the look that it leads to, so that what happens meanwhile is read at once.
        """
        with self._feed.listen(deliberation_id) as news:
            while True:
                news.clear()
                found: list[Event] = []
                while page := await self._reader.events(deliberation_id, after=after, limit=_EVENT_PAGE):
                    found += page
                    after = found[-1].sequence
                    if len(page) < _EVENT_PAGE:
                        break
                if found:
                    yield found
                    if found[-1].is_terminal:
                        return
                if self._is_stopping() or (not found and await self._has_ended_before(deliberation_id, after)):
                    return
                if not await self._next_news(news):
                    yield []
                elif gather is not None:
                    await gather()

    async def _has_ended_before(self, deliberation_id: str, after: int) -> bool:
        """Whether a reader that asks for more after the terminal event would wait for ever."""
        found = await self._reader.get(deliberation_id)
        if found is None or not found.status.is_terminal:
            return False
        return not await self._reader.events(deliberation_id, after=after, limit=1)

    async def _next_news(self, news: asyncio.Event) -> bool:
        """Wait for an announcement, or for one heartbeat; whether there was one."""
        try:
            async with asyncio.timeout(_LOOK_S if self._worker is None else _HEARTBEAT_S):
                await news.wait()
        except TimeoutError:
            return False
        return True

    async def _get(self, deliberation_id: str) -> Deliberation:
        found = await self._reader.get(deliberation_id)
        if found is None:
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        return found
