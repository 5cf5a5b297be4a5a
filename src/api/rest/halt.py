"""The resource `/v1/halt`: whether the system is halted, and the way to halt it and to end the halt."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.documents import halt_document
from api.request_shape import unknown_fields
from api.rest.bodies import read_small_document
from api.rest.callers import Admin, Observer, OpenConclave
from api.rest.json_response import JsonResponse
from api.rest.operation import describe
from api.rest.problems import RequestRefusedError
from domain.errors.deliberation import FieldProblem

__all__ = ["add_halt"]

_MAX_BODY_BYTES = 16 * 1024


def add_halt(app: FastAPI) -> None:
    """Put the resource into `app`."""
    path = "/v1/halt"
    refusals = (400, 401, 403, 408, 413, 415, 422, 503)
    app.add_api_route(
        path,
        show,
        methods=["GET"],
        **describe("operations", "getHalt", "Whether the system is halted", {200: "Halt"}, (401, 403)),
    )
    app.add_api_route(
        path,
        halt,
        methods=["POST"],
        **describe("operations", "setHalt", "Halt the system", {200: "Halt"}, refusals, body="HaltReason"),
    )
    app.add_api_route(
        path,
        clear,
        methods=["DELETE"],
        **describe("operations", "clearHalt", "End the halt", {200: "Halt"}, (*refusals, 409), body="HaltReason"),
    )


async def show(_caller: Observer, conclave: OpenConclave) -> Response:
    """What this process knows, no older than a second."""
    return JsonResponse(halt_document(conclave.halt.status()))


async def halt(request: Request, caller: Admin, conclave: OpenConclave) -> Response:
    """Halted when this answers: no call begins in this process any more, nor 250 ms later in any other."""
    reason = await _reason(request)
    return JsonResponse(halt_document(await conclave.halt.set(reason, key_name=caller.name)))


async def clear(request: Request, caller: Admin, conclave: OpenConclave) -> Response:
    """Open again when this answers. 409 while a channel is away, and when there is no halt."""
    reason = await _reason(request)
    return JsonResponse(halt_document(await conclave.halt.clear(reason, key_name=caller.name)))


async def _reason(request: Request) -> str:
    """The one field of the body; its length is the use case's to judge."""
    document: Any = await read_small_document(request, max_bytes=_MAX_BODY_BYTES)
    if not isinstance(document, dict):
        problems = [FieldProblem("", "must be an object")]
    else:
        problems = unknown_fields(document, {"reason"})
        if not isinstance(document.get("reason"), str):
            problems.append(FieldProblem("/reason", "must be a text: say why"))
    if problems:
        raise RequestRefusedError.of("field", problems)
    return str(document["reason"])
