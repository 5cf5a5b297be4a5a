"""The resource `/v1/runs`: start a run of any kind in a process of its own, follow it, read what came of it, stop it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, cast

from fastapi import FastAPI, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from api.conclave import Conclave
from api.documents import run_document, run_event_document
from api.request_shape import unknown_fields
from api.rest.bodies import discard_body, read_small_document, sha256_of
from api.rest.callers import Caller, Observer, OpenConclave, Operator, end_of_session
from api.rest.deliberations import Limit, Status, find_deliberation
from api.rest.event_stream import EventStream, StreamPlaces, last_event_id
from api.rest.idempotency import RUN_IDEMPOTENCY_KEY, key_of, read_idempotency_key
from api.rest.json_response import JsonResponse
from api.rest.operation import describe, describe_stream
from api.rest.query import ABSENT_WHEN_EMPTY, held_to
from application.services.run_acceptance import RunAcceptance
from domain.errors.deliberation import DeliberationNotFoundError, FieldProblem, InvalidSpecificationError
from domain.errors.run import InvalidRunError, RunNotFoundError
from domain.models.run import RunKind
from domain.models.run_event import RunEvent, is_run_id

__all__ = ["RunCursor", "add_runs"]

_MAX_BODY_BYTES = 64 * 1024
_DEFAULT_PAGE = 50


def _check_cursor(text: str) -> None:
    if not is_run_id(text):
        raise InvalidSpecificationError.at("/cursor", "is none that a page came with: begin without one")


RunCursor = Annotated[
    Annotated[str, Field(max_length=512), held_to(_check_cursor)] | None,
    ABSENT_WHEN_EMPTY,
    Query(description="`next_cursor` of the page before, word for word."),
]


def add_runs(app: FastAPI) -> None:
    """Put the resource into `app`."""
    app.state.run_acceptance = RunAcceptance(app.state.conclave.runs)
    path = "/v1/runs"
    app.add_api_route(
        path,
        start,
        methods=["POST"],
        **describe(
            "runs",
            "startRun",
            "Start a run in a process of its own",
            {202: "Run"},
            (400, 401, 403, 408, 409, 413, 415, 422, 429, 503),
            body="RunRequest",
            headers=RUN_IDEMPOTENCY_KEY,
        ),
    )
    app.add_api_route(
        path,
        page,
        methods=["GET"],
        **describe("runs", "listRuns", "List runs, newest first", {200: "RunPage"}, (401, 403, 422, 503)),
    )
    app.add_api_route(
        f"{path}/{{run_id}}",
        show,
        methods=["GET"],
        **describe("runs", "getRun", "Read a run", {200: "Run"}, (401, 403, 404, 503)),
    )
    app.add_api_route(
        f"{path}/{{run_id}}/events",
        events,
        methods=["GET"],
        **describe_stream("runs", "streamRunEvents", "Follow a run as server-sent events", "RunEvent"),
    )
    app.add_api_route(
        f"{path}/{{run_id}}/cancel",
        cancel,
        methods=["POST"],
        **describe("runs", "cancelRun", "Stop a run", {202: "Run"}, (401, 403, 404, 409, 413, 503)),
    )


async def start(request: Request, caller: Operator, conclave: OpenConclave) -> Response:
    """202 once it is registered and its process has begun.

    One that is sent again under its `Idempotency-Key` is answered with the run that was started first, as it is by now.
    """
    key = read_idempotency_key(request)
    kind, arguments, body_sha256 = await _asked(request)

    async def check() -> None:
        if kind is RunKind.POPULATION:
            await _check_source(arguments.get("from"), caller, conclave)

    acceptance: RunAcceptance = request.app.state.run_acceptance
    run = await acceptance.start(
        kind,
        arguments,
        check=check,
        key_name=caller.name,
        idempotency=key_of(caller.name, key, body_sha256=body_sha256),
    )
    return JsonResponse(run_document(run), status_code=202, headers={"Location": f"/v1/runs/{run.id}"})


async def page(
    caller: Observer, conclave: OpenConclave, status: Status = None, limit: Limit = None, cursor: RunCursor = None
) -> Response:
    """One page of the runs that the caller sees."""
    found = await conclave.runs.page(status=status, key_name=caller.sees, limit=limit or _DEFAULT_PAGE, cursor=cursor)
    return JsonResponse({"items": [run_document(run) for run in found.items], "next_cursor": found.next_cursor})


async def show(run_id: str, caller: Observer, conclave: OpenConclave) -> Response:
    """The run as it is recorded."""
    _check_id(run_id)
    return JsonResponse(run_document(await conclave.runs.get(run_id, key_name=caller.sees)))


async def events(request: Request, run_id: str, caller: Observer, conclave: OpenConclave) -> Response:
    """The events from `Last-Event-ID` on, as they are written, up to the terminal one."""
    after = last_event_id(request)
    _check_id(run_id)
    found = await conclave.runs.get(run_id, key_name=caller.sees)
    stream = cast("AsyncGenerator[RunEvent | None, None]", conclave.runs.events(run_id, after=after))
    places: StreamPlaces = request.app.state.stream_places
    return EventStream(
        stream,
        places=places,
        document=run_event_document,
        had_ended=found.status.is_terminal,
        until=end_of_session(request),
    )


async def cancel(request: Request, run_id: str, caller: Operator, conclave: OpenConclave) -> Response:
    """Ask for the end of a run, also of one of the command line in the same data folder."""
    await discard_body(request)
    _check_id(run_id)
    return JsonResponse(run_document(await conclave.runs.cancel(run_id, key_name=caller.sees)), status_code=202)


async def _asked(request: Request) -> tuple[RunKind, Mapping[str, Any], str]:
    """The kind, the arguments, and SHA-256 (hex) of what the body says."""
    document: Any = await read_small_document(request, max_bytes=_MAX_BODY_BYTES)
    if not isinstance(document, dict):
        raise InvalidRunError([FieldProblem("", "must be an object")])
    problems = unknown_fields(document, {"kind", "arguments"})
    kind, arguments = document.get("kind"), document.get("arguments", {})
    if not isinstance(kind, str) or kind not in set(RunKind):
        problems.append(FieldProblem("/kind", f"must be one of {', '.join(RunKind)}"))
    if not isinstance(arguments, dict):
        problems.append(FieldProblem("/arguments", "must be an object"))
    if problems:
        raise InvalidRunError(problems)
    return RunKind(str(kind)), arguments, sha256_of(document)


async def _check_source(named: object, caller: Caller, conclave: Conclave) -> None:
    """Refuse a deliberation to begin with that the caller does not see, in the words for one that is not there."""
    if not isinstance(named, str):
        # Whatever else it is, the check of the arguments says so.
        return
    try:
        await find_deliberation(named, caller, conclave)
    except DeliberationNotFoundError:
        wrong = FieldProblem("/arguments/from", "names no deliberation that this key sees")
        raise InvalidRunError([wrong]) from None


def _check_id(run_id: str) -> None:
    if not is_run_id(run_id):
        raise RunNotFoundError(run_id=run_id)
