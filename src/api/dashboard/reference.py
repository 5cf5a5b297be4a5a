"""The page about the REST interface, which draws itself from the OpenAPI document; it needs no key."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.dashboard.rendering import render

__all__ = ["add_reference"]


def add_reference(app: FastAPI) -> None:
    """Put the page into `app`."""
    app.add_api_route("/docs", reference, methods=["GET"], include_in_schema=False, response_model=None)


async def reference(request: Request) -> Response:
    """The page, with the way back to the room for whoever is in it and to the sign-in for the others."""
    return render(request, "reference.html", title="The REST interface", nav="docs")
