"""What a deliberation leaves behind for whoever was not there: its verification bundle, its minutes and its report."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from api.rest.callers import Observer, OpenConclave
from api.rest.deliberations import find_deliberation
from api.rest.json_response import JsonResponse
from api.rest.operation import describe
from api.shown import shown_report

__all__ = ["add_records"]


def add_records(app: FastAPI) -> None:
    """Put the resources into `app`."""
    path = "/v1/deliberations/{deliberation_id}"
    app.add_api_route(
        f"{path}/bundle",
        bundle,
        methods=["GET"],
        **describe(
            "deliberations",
            "getBundle",
            "Everything that verifies a deliberation offline",
            {200: "Bundle"},
            (401, 403, 404, 503),
        ),
    )
    app.add_api_route(
        f"{path}/minutes",
        minutes,
        methods=["GET"],
        **describe(
            "deliberations",
            "getMinutes",
            "Read the procedural record as Markdown",
            {200: ""},
            (401, 403, 404, 503),
            media_type="text/markdown",
        ),
    )
    app.add_api_route(
        f"{path}/report",
        report,
        methods=["GET"],
        **describe(
            "deliberations",
            "getReport",
            "Read everything about a deliberation as one page",
            {200: ""},
            (401, 403, 404, 503),
            media_type="text/html",
        ),
    )


async def bundle(deliberation_id: str, caller: Observer, conclave: OpenConclave) -> Response:
    """The entries of a deliberation with proofs, a signed checkpoint, and the texts that are not erased."""
    found = await find_deliberation(deliberation_id, caller, conclave)
    return JsonResponse(await conclave.witness.bundle(found.id))


async def minutes(deliberation_id: str, caller: Observer, conclave: OpenConclave) -> Response:
    """The minutes, written from the witnessed entries and their disclosures alone."""
    found = await find_deliberation(deliberation_id, caller, conclave)
    text = await conclave.witness.minutes(found.id)
    return Response(text, headers={"Content-Type": "text/markdown; charset=utf-8"})


async def report(deliberation_id: str, caller: Observer, conclave: OpenConclave) -> Response:
    """The deliberation as it stands, as a page that needs nothing else; its own policy allows its one style and nothing more."""
    found = await find_deliberation(deliberation_id, caller, conclave)
    made = await shown_report(conclave, found)
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": made.policy}
    return Response(made.html, headers=headers)
