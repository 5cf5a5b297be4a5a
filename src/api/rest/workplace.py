"""The front of a worker, which has no REST: health and metrics for those who watch it, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from fastapi import FastAPI

from api.conclave import Conclave
from api.rest.health import add_health
from api.rest.problems import answer_problems
from api.rest.server import HttpServer, Stoppable, run_until_signal

__all__ = ["work"]

_DRAIN_S = 10.0


class _WatchedWorkplace(HttpServer):
    """Answers `/healthz`, `/readyz` and `/metrics`, which hold no text, while the worker works."""

    def __init__(self, conclave: Conclave, *, host: str, port: int, drain_s: float) -> None:
        super().__init__(_create_app(conclave), host=host, port=port, local_only=False)
        self._conclave = conclave
        self._drain_s = drain_s

    async def _wind_up(self) -> None:
        await self._conclave.deliberations.stop(drain_s=self._drain_s)


class _Workplace:
    """Where nobody watches."""

    def __init__(self, conclave: Conclave, *, drain_s: float) -> None:
        self._conclave = conclave
        self._drain_s = drain_s
        self._told = asyncio.Event()

    async def run(self, *, on_listening: Callable[[tuple[str, ...]], None] | None = None) -> None:
        """Return once it was stopped and the worker has ended."""
        if on_listening is not None:
            on_listening(())
        await self._told.wait()
        await self._conclave.deliberations.stop(drain_s=self._drain_s)

    def stop(self) -> None:
        """Begin to stop."""
        self._told.set()


async def work(
    conclave: Conclave,
    *,
    host: str,
    metrics_port: int | None,
    on_listening: Callable[[tuple[str, ...]], None] | None = None,
) -> signal.Signals | None:
    """Work until SIGTERM or SIGINT, and return which one it was. Raises `ConfigurationError` when the port is taken.

    Calls in flight get 10 s to be finished; what is left then is gone on with by other workers.
    """
    place: Stoppable
    if metrics_port is None:
        place = _Workplace(conclave, drain_s=_DRAIN_S)
    else:
        place = _WatchedWorkplace(conclave, host=host, port=metrics_port, drain_s=_DRAIN_S)
    return await run_until_signal(place, on_listening=on_listening)


def _create_app(conclave: Conclave) -> FastAPI:
    app = FastAPI(title="Conclave worker", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.conclave = conclave
    answer_problems(app)
    add_health(app)
    return app
