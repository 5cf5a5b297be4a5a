"""The resources `/v1/quotes` and `/v1/usage`: what a deliberation would take, and what calls took."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query
from starlette.requests import Request
from starlette.responses import Response

from api.documents import quote_document, usage_item_document
from api.rest.bodies import read_submission
from api.rest.callers import Observer, OpenConclave
from api.rest.json_response import JsonResponse
from api.rest.operation import describe
from application.ports.usage_reader import MAX_USAGE_ITEMS, UsageBy

__all__ = ["add_money"]

By = Annotated[
    UsageBy, Query(description=f"What the calls are summed up by; at most {MAX_USAGE_ITEMS} items are answered.")
]


def add_money(app: FastAPI) -> None:
    """Put the resources into `app`."""
    app.add_api_route(
        "/v1/quotes",
        quote,
        methods=["POST"],
        **describe(
            "money",
            "quoteDeliberation",
            "What a deliberation would take, expected and at most",
            {200: "Quote"},
            refusals=(400, 401, 403, 408, 413, 415, 422),
            body="DeliberationRequest",
        ),
    )
    app.add_api_route(
        "/v1/usage",
        usage,
        methods=["GET"],
        **describe("money", "getUsage", "What calls took", {200: "UsagePage"}, (401, 403, 422, 503)),
    )


async def quote(request: Request, caller: Observer, conclave: OpenConclave) -> Response:
    """What the deliberation of the same body would take. Nothing is accepted and nobody is called."""
    body = await read_submission(request, conclave.rosters)
    specification = body.asked.specification(conclave.rosters)
    return JsonResponse(quote_document(conclave.quotes.quote(specification, key_name=caller.name)))


async def usage(caller: Observer, conclave: OpenConclave, by: By) -> Response:
    """The sums over the calls of the caller's key; over everybody's for admins."""
    items = await conclave.usage.usage(by, key_name=caller.sees)
    return JsonResponse({"items": [usage_item_document(item) for item in items]})
