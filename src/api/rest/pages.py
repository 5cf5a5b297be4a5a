"""The OpenAPI document, and what draws it in a browser, served from here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.resources import files

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.rest.json_response import JsonResponse
from api.rest.openapi import describe_application

__all__ = ["PAGE_CSP", "add_pages"]

PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES: Mapping[str, tuple[str, str]] = {
    "/static/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/static/docs.css": ("docs.css", "text/css; charset=utf-8"),
}


def add_pages(app: FastAPI) -> None:
    """Put the OpenAPI document and the files of its page into `app`; they need no key."""
    folder = files("api.rest").joinpath("static")
    app.state.pages = {path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
    for path in _FILES:
        app.add_api_route(path, page, methods=["GET"], include_in_schema=False, response_model=None)
    app.add_api_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False, response_model=None)


async def page(request: Request) -> Response:
    """One of the files, as it was when the server started."""
    content, media_type = request.app.state.pages[request.scope["path"]]
    headers = {"Content-Type": media_type, "Content-Security-Policy": PAGE_CSP, "Cache-Control": "no-cache"}
    return Response(content, headers=headers)


async def openapi(request: Request) -> Response:
    """The OpenAPI document."""
    # The first time it takes longer to make than an event loop should be held.
    document = await asyncio.to_thread(describe_application, request.app)
    return JsonResponse(document, headers={"Cache-Control": "no-cache"})
