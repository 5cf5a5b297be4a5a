"""Whether the server is alive, whether it can really work, and what it has counted: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.conclave import Health
from api.rest.callers import OpenConclave
from api.rest.json_response import JsonResponse
from api.rest.operation import describe
from domain.errors.dependency import DependencyUnavailableError

__all__ = ["CHECK_TIMEOUT_S", "add_health", "look_at"]

_logger = logging.getLogger(__name__)

CHECK_TIMEOUT_S = 2.0


def add_health(app: FastAPI) -> None:
    """Put the resources into `app`; they need no key."""
    app.add_api_route(
        "/healthz", healthz, methods=["GET"], **describe("operations", "isAlive", "Is it alive?", {200: "Alive"})
    )
    app.add_api_route(
        "/readyz",
        readyz,
        methods=["GET"],
        **describe("operations", "isReady", "Can it really work?", {200: "Readiness", 503: "Readiness"}),
    )
    app.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        **describe(
            "operations", "getMetrics", "What it has counted, for Prometheus", {200: ""}, media_type="text/plain"
        ),
    )


async def healthz() -> Response:
    """Answering at all is the answer."""
    return JsonResponse({"status": "ok"})


async def readyz(conclave: OpenConclave) -> Response:
    """200 when every dependency works and the service is not stopping, else 503; each dependency is named either way.

    Halted by an operator it stays 200 and says so, because reading goes on; a channel of the halt that is away makes it 503.
    """
    found = await asyncio.gather(*(look_at(name, check) for name, check in conclave.health.items()))
    works = all(health.works for health in found)
    status = "stopping" if conclave.deliberations.is_stopping else "ready" if works else "unavailable"
    dependencies = {
        name: {"works": health.works, "detail": health.detail}
        for name, health in zip(conclave.health, found, strict=True)
    }
    ready = status == "ready"
    return JsonResponse(
        {"status": status, "halted": conclave.halt.status().halted, "dependencies": dependencies},
        status_code=200 if ready else 503,
        headers={} if ready else {"Retry-After": "2"},
    )


async def metrics(request: Request, conclave: OpenConclave) -> Response:
    """The metrics in the format that `Accept` asks for."""
    try:
        await conclave.deliberations.count_queued()
    except DependencyUnavailableError as error:
        _logger.warning("the queue is not counted, its gauge stays as it was: %s", error)
    body, media_type = conclave.render_metrics(request.headers.get("accept"))
    return Response(body, headers={"Content-Type": media_type})


async def look_at(name: str, check: Callable[[], Awaitable[Health]], *, timeout_s: float = CHECK_TIMEOUT_S) -> Health:
    """What `check` found; a check that breaks, or takes longer than `timeout_s` seconds, found that it does not work."""
    try:
        async with asyncio.timeout(timeout_s):
            return await check()
    except TimeoutError:
        return Health(works=False, detail=f"did not answer within {timeout_s:g} s")
    except Exception:
        _logger.exception("the check of %s broke", name)
        return Health(works=False, detail="its check broke; the log says how")
