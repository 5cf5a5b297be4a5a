"""Answers a browser's refused request for a page with a page, and one that is signed in nowhere with the way to sign in."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import quote

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.dashboard.rendering import render, render_fragment

__all__ = ["answer_problems_as_pages", "is_page"]

_Handler = Callable[[Request, Exception], Awaitable[Response]]

_MACHINES = ("/v1/", "/static/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/session")
_KEPT_HEADERS = ("retry-after", "allow")


def answer_problems_as_pages(app: FastAPI) -> None:
    """Wrap the handlers of problems that `app` has: what they say stays the same, and a page says it to whoever asked for one."""
    for raised, handler in list(app.exception_handlers.items()):
        app.add_exception_handler(raised, _as_page(cast("_Handler", handler)))


def is_page(path: str) -> bool:
    """Whether people look at what is at that path, and not programs."""
    return path != "/v1" and not path.startswith(_MACHINES)


def _as_page(answer: _Handler) -> _Handler:
    async def answered(request: Request, error: Exception) -> Response:
        response = await answer(request, error)
        if not is_page(request.url.path):
            return response
        in_part = "hx-request" in request.headers
        if response.status_code == 401:
            return _sign_in(request, in_part=in_part)
        if not in_part and "text/html" not in request.headers.get("accept", ""):
            return response
        found: dict[str, Any] = json.loads(bytes(response.body))
        if in_part:
            page = render_fragment(request, "problem_notice.html", problem=found)
            page.status_code = response.status_code
        else:
            page = render(
                request, "problem.html", title=found["title"], status_code=response.status_code, problem=found
            )
        page.headers.update({name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers})
        return page

    return answered


def _sign_in(request: Request, *, in_part: bool) -> Response:
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    # A change is not made by going there again, so the way back leads to where pages begin.
    way = f"/sign-in?next={quote(asked, safe='/')}" if request.method == "GET" and not in_part else "/sign-in"
    return (
        Response(status_code=401, headers={"HX-Redirect": way}) if in_part else RedirectResponse(way, status_code=303)
    )
