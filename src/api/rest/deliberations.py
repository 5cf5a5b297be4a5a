"""The resource `/v1/deliberations`: put a question, follow it, read what came of it, stop it."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator
from typing import Annotated, cast

from fastapi import FastAPI, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from api.conclave import Conclave
from api.documents import deliberation_document, output_document
from api.hindsight_document import topics_document
from api.rest.bodies import discard_body, read_submission
from api.rest.callers import Caller, Observer, OpenConclave, Operator, end_of_session
from api.rest.event_stream import EventStream, StreamPlaces, last_event_id
from api.rest.idempotency import IDEMPOTENCY_KEY, key_of, read_idempotency_key
from api.rest.json_response import JsonResponse
from api.rest.operation import describe, describe_stream
from api.rest.query import ABSENT_WHEN_EMPTY, held_to
from api.rest.searching import Wanted
from api.shown import shown_deliberation
from domain.errors.deliberation import DeliberationNotFoundError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.event import Event
from domain.page_cursor import position_of

__all__ = [
    "MAX_PAGE",
    "MAX_WAIT_S",
    "Cursor",
    "Limit",
    "Status",
    "add_deliberations",
    "find_deliberation",
]

_logger = logging.getLogger(__name__)

MAX_PAGE = 200
MAX_WAIT_S = 60
_DEFAULT_PAGE = 50
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


# The bounds stand on the inner types: on the outer ones they would be held against the None of an absent value.
_Seconds = Annotated[float, Field(ge=0, le=MAX_WAIT_S, allow_inf_nan=False)]
_PageSize = Annotated[int, Field(ge=1, le=MAX_PAGE)]
_PageCursor = Annotated[str, Field(max_length=512), held_to(position_of)]
_Number = Annotated[int, Field(ge=0, le=1000)]
Wait = Annotated[_Seconds | None, ABSENT_WHEN_EMPTY, Query(description="Seconds to wait for the end before answering.")]
Status = Annotated[DeliberationStatus | None, ABSENT_WHEN_EMPTY, Query(description="Only deliberations in this state.")]
Limit = Annotated[
    _PageSize | None, ABSENT_WHEN_EMPTY, Query(description=f"Items a page; {_DEFAULT_PAGE} when not given.")
]
Cursor = Annotated[
    _PageCursor | None, ABSENT_WHEN_EMPTY, Query(description="`next_cursor` of the page before, word for word.")
]
UnusedLimit = Annotated[
    _PageSize | None, ABSENT_WHEN_EMPTY, Query(description="Taken as on other pages; this one is never cut.")
]
Origin = Annotated[
    Annotated[str, Field(max_length=1024)] | None,
    ABSENT_WHEN_EMPTY,
    Query(description="Only those whose topic came from there: autonomous, petition, scheduled, api or another name."),
]
RoundNumber = Annotated[
    _Number | None, ABSENT_WHEN_EMPTY, Query(alias="round", description="Only this round; 0 is the blind one.")
]


def add_deliberations(app: FastAPI) -> None:
    """Put the resource into `app`."""
    path = "/v1/deliberations"
    app.add_api_route(
        path,
        submit,
        methods=["POST"],
        **describe(
            "deliberations",
            "submitDeliberation",
            "Put a question to a roster",
            {202: "Deliberation", 200: "Deliberation"},
            refusals=(400, 401, 403, 408, 409, 413, 415, 422, 429, 503),
            body="DeliberationRequest",
            headers=IDEMPOTENCY_KEY,
        ),
    )
    app.add_api_route(
        path,
        page,
        methods=["GET"],
        **describe(
            "deliberations",
            "listDeliberations",
            "List deliberations, newest first, or search them",
            {200: "DeliberationPage"},
            (401, 403, 422, 503),
        ),
    )
    app.add_api_route(
        f"{path}/{{deliberation_id}}",
        show,
        methods=["GET"],
        **describe(
            "deliberations", "getDeliberation", "Read a deliberation", {200: "Deliberation"}, (401, 403, 404, 503)
        ),
    )
    app.add_api_route(
        f"{path}/{{deliberation_id}}/outputs",
        outputs,
        methods=["GET"],
        **describe(
            "deliberations", "listOutputs", "Read every agent's outcome", {200: "OutputPage"}, (401, 403, 404, 422, 503)
        ),
    )
    app.add_api_route(
        f"{path}/{{deliberation_id}}/events",
        events,
        methods=["GET"],
        **describe_stream("deliberations", "streamEvents", "Follow a deliberation as server-sent events", "Event"),
    )
    app.add_api_route(
        f"{path}/{{deliberation_id}}/cancel",
        cancel,
        methods=["POST"],
        **describe(
            "deliberations",
            "cancelDeliberation",
            "Stop a deliberation",
            {202: "Deliberation"},
            (401, 403, 404, 409, 413, 503),
        ),
    )


async def submit(request: Request, caller: Operator, conclave: OpenConclave, wait: Wait = None) -> Response:
    """Accept a deliberation: 202 once it is stored, 200 when `wait` was given and it has ended by then.

    One that is sent again under its `Idempotency-Key` is answered with the deliberation that was accepted first, as it is by now.
    """
    key = read_idempotency_key(request)
    body = await read_submission(request, conclave.rosters)

    def specify() -> Specification:
        specification = body.asked.specification(conclave.rosters)
        conclave.require_models(specification, key_name=caller.name)
        return specification

    deliberation = await conclave.acceptance.accept(
        specify,
        key_name=caller.name,
        idempotency=key_of(caller.name, key, body_sha256=body.sha256),
    )
    if wait and not deliberation.status.is_terminal:
        deliberation = await _wait(conclave, deliberation, wait)
    status = 200 if wait and deliberation.status.is_terminal else 202
    headers = {"Location": f"/v1/deliberations/{deliberation.id}"}
    return JsonResponse(await shown_deliberation(conclave, deliberation), status_code=status, headers=headers)


async def page(
    caller: Observer,
    conclave: OpenConclave,
    wanted: Wanted,
    status: Status = None,
    limit: Limit = None,
    cursor: Cursor = None,
    origin: Origin = None,
) -> Response:
    """One page of the deliberations that the caller sees, of those that match all of it."""
    found = await conclave.deliberations.page(
        status=status,
        key_name=caller.sees,
        limit=limit or _DEFAULT_PAGE,
        cursor=cursor,
        origin=origin,
        search=wanted,
    )
    items = [deliberation_document(deliberation) for deliberation in found.items]
    shares = await conclave.topics.look(key_name=caller.sees)
    topics = {} if shares is None else {"topics": topics_document(shares)}
    return JsonResponse({"items": items, "next_cursor": found.next_cursor, **topics})


async def show(deliberation_id: str, caller: Observer, conclave: OpenConclave) -> Response:
    """The deliberation as it is committed."""
    found = await find_deliberation(deliberation_id, caller, conclave)
    return JsonResponse(await shown_deliberation(conclave, found))


async def outputs(
    deliberation_id: str,
    caller: Observer,
    conclave: OpenConclave,
    round_number: RoundNumber = None,
    limit: UnusedLimit = None,
    cursor: Cursor = None,
) -> Response:
    """Every committed outcome, on one page that is never cut."""
    del limit, cursor
    await find_deliberation(deliberation_id, caller, conclave)
    records = await conclave.outputs.outputs(deliberation_id, round_number=round_number)
    return JsonResponse({"items": [output_document(record) for record in records], "next_cursor": None})


async def events(request: Request, deliberation_id: str, caller: Observer, conclave: OpenConclave) -> Response:
    """The events from `Last-Event-ID` on, as they are committed, up to the terminal one."""
    after = last_event_id(request)
    found = await find_deliberation(deliberation_id, caller, conclave)
    stream = conclave.deliberations.events(deliberation_id, after=after)
    places: StreamPlaces = request.app.state.stream_places
    had_ended = found.status.is_terminal
    return EventStream(
        cast("AsyncGenerator[Event | None, None]", stream),
        places=places,
        had_ended=had_ended,
        until=end_of_session(request),
    )


async def cancel(request: Request, deliberation_id: str, caller: Operator, conclave: OpenConclave) -> Response:
    """Ask for the end of a deliberation: 202 says that it was asked for, 409 that it has ended, and as what.

    One that another process works on hears of it within a second, and may come to its own end before.
    """
    await discard_body(request)
    _check_id(deliberation_id)
    deliberation = await conclave.deliberations.cancel(deliberation_id, key_name=caller.sees)
    return JsonResponse(deliberation_document(deliberation), status_code=202)


async def find_deliberation(deliberation_id: str, caller: Caller, conclave: Conclave) -> Deliberation:
    """The deliberation, if the caller sees it. Raises `DeliberationNotFoundError`."""
    _check_id(deliberation_id)
    return await conclave.deliberations.get(deliberation_id, key_name=caller.sees)


def _check_id(deliberation_id: str) -> None:
    """Keep from the store what no id looks like: a NUL, for one, is an error to some databases and not to others."""
    if not _ID.fullmatch(deliberation_id):
        raise DeliberationNotFoundError(deliberation_id=deliberation_id)


async def _wait(conclave: Conclave, accepted: Deliberation, wait_s: float) -> Deliberation:
    """The deliberation as it is after at most `wait_s` seconds; that it was accepted stays true if the store goes away."""
    try:
        return await conclave.deliberations.wait(accepted.id, timeout_s=wait_s)
    except DependencyUnavailableError as error:
        _logger.warning("nobody can see how deliberation %s goes on: %s", accepted.id, error)
        return accepted
