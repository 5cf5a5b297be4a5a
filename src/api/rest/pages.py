"""The page about the REST interface, with everything it needs served from here and nothing inline."""

from __future__ import annotations

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
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/static/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/static/docs.css": ("docs.css", "text/css; charset=utf-8"),
}


def add_pages(app: FastAPI) -> None:
    """Put the page, its files and the OpenAPI document into `app`; they need no key."""
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
    return JsonResponse(describe_application(request.app), headers={"Cache-Control": "no-cache"})
