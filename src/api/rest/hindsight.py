"""What is made of deliberations after their end: recounts by other rules, how questions turned out, and who was right."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.hindsight_document import recount_document, resolution_document, track_record_document
from api.requests import RecountRequest, ResolutionRequest
from api.rest.bodies import read_small_document
from api.rest.callers import Observer, OpenConclave, Operator
from api.rest.deliberations import find_deliberation
from api.rest.json_response import JsonResponse
from api.rest.operation import describe

__all__ = ["add_hindsight"]

_MAX_BODY_BYTES = 64 * 1024


def add_hindsight(app: FastAPI) -> None:
    """Put the resources into `app`."""
    path = "/v1/deliberations/{deliberation_id}"
    refusals = (400, 401, 403, 404, 408, 409, 413, 415, 422, 503)
    app.add_api_route(
        f"{path}/recount",
        recount,
        methods=["POST"],
        **describe(
            "deliberations",
            "recountDeliberation",
            "Count the recorded ballots by another rule",
            {200: "Recount"},
            refusals,
            body="RecountRequest",
        ),
    )
    app.add_api_route(
        f"{path}/resolution",
        resolve,
        methods=["POST"],
        **describe(
            "deliberations",
            "resolveDeliberation",
            "Say how the question turned out",
            {200: "Resolution"},
            refusals,
            body="ResolutionRequest",
        ),
    )
    app.add_api_route(
        "/v1/track-record",
        track_record,
        methods=["GET"],
        **describe(
            "deliberations",
            "getTrackRecord",
            "Who was right where the truth is known",
            {200: "TrackRecord"},
            (401, 403, 503),
        ),
    )


async def recount(request: Request, deliberation_id: str, caller: Operator, conclave: OpenConclave) -> Response:
    """What the rule makes of the ballots, once that is recorded."""
    asked = RecountRequest.read(await read_small_document(request, max_bytes=_MAX_BODY_BYTES))
    found = await find_deliberation(deliberation_id, caller, conclave)
    rule = asked.rule.of(found.specification.counted_answers)
    counted = await conclave.recounts.recount(found, rule, key_name=caller.name)
    return JsonResponse(recount_document(counted))


async def resolve(request: Request, deliberation_id: str, caller: Operator, conclave: OpenConclave) -> Response:
    """Everybody's score, once the truth is recorded."""
    asked = ResolutionRequest.read(await read_small_document(request, max_bytes=_MAX_BODY_BYTES))
    found = await find_deliberation(deliberation_id, caller, conclave)
    resolution = await conclave.resolutions.resolve(found, asked.answer, key_name=caller.name)
    return JsonResponse(resolution_document(resolution))


async def track_record(caller: Observer, conclave: OpenConclave) -> Response:
    """The record of the caller's own key, by which votes can be weighed."""
    return JsonResponse(track_record_document(await conclave.record.of(key_name=caller.name)))
