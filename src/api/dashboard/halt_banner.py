"""The banner of every page that says whether the system is halted: drawn once for everybody, and told whenever it is another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.dashboard.fragments import answer_if_new, tag_of, text_of
from api.rest.callers import visitor
from domain.models.halt import HaltCondition, HaltState

__all__ = ["HaltBanner", "add_halt_banner"]

_LOOK_S = 0.5
_HTML = "text/html; charset=utf-8"


class HaltBanner:
    """Draws what pages say of the halt, and looks twice a second whether it is another, for as long as anybody waits for that.

    A look asks this process alone, which knows what every channel said last.
    """

    def __init__(self, status: Callable[[], HaltState], draw: Callable[[HaltState], str]) -> None:
        self._status = status
        self._draw = draw
        self._drawn: tuple[HaltCondition, str | None, str] | None = None
        self._wakes: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None

    def html(self) -> str:
        """As it is now, in which every text is escaped; empty where nothing is halted."""
        state = self._status()
        if self._drawn is None or self._drawn[:2] != (state.condition, state.reason):
            self._drawn = state.condition, state.reason, self._draw(state).strip()
        return self._drawn[2]

    @contextmanager
    def watching(self, wake: asyncio.Event) -> Iterator[None]:
        """Within it `wake` is set whenever it is another."""
        self._wakes.add(wake)
        if self._task is None:
            self._task = asyncio.create_task(self._look_for_ever(self.html()), name="watch-halt-banner")
        try:
            yield
        finally:
            self._wakes.discard(wake)
            if not self._wakes:
                self._task.cancel()
                self._task = None

    async def _look_for_ever(self, shown: str) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if shown != (shown := self.html()):
                for wake in self._wakes:
                    wake.set()


def add_halt_banner(app: FastAPI) -> None:
    """Put it into `app`, for feeds, and for pages that follow none and ask now and then."""
    draw = partial(text_of, app, "halt_banner.html")
    app.state.halt_banner = HaltBanner(app.state.conclave.halt.status, lambda state: draw({"halt": state}))
    app.add_api_route("/room/halt", _halt, methods=["GET"], include_in_schema=False, response_model=None)


async def _halt(request: Request) -> Response:
    if visitor(request) is None:
        # Of no interest to a page whose session has ended, which finds that out by what it is used for.
        return Response(status_code=204)
    banner: HaltBanner = request.app.state.halt_banner
    content = banner.html().encode()
    return answer_if_new(request, content, media_type=_HTML, tag=tag_of(content))
