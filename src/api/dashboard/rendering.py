"""Makes pages out of templates: escaped throughout, text from outside made visible, and nothing that a page may run inline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jinja2
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.conclave import Conclave
from api.dashboard.fitting import fitted
from api.rest.callers import session_of, visitor
from api.rest.sessions import SESSION_S, Session, Sessions
from application.pages.visible_text import visible, visible_lines
from application.services.api_keys import Role
from domain.counted import counted

__all__ = ["PAGE_CSP", "Viewing", "give_cookie", "open_templates", "prepare_templates", "render", "render_fragment"]

PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HTML = "text/html; charset=utf-8"
_SHOWN_CHARACTERS = 4000
# Bytes of HTML for a character that may be shown: enough for any script, not for texts of what has to be spelt out or escaped.
_BYTES_A_CHARACTER = 3
# What a search is shown with: the page with the hardest limit on its time, and most of what the first view of any other needs.
_FIRST_NEEDED = ("layout.html", "halt_banner.html", "macros.html", "archive.html", "archive_hits.html")


@dataclass(frozen=True, slots=True)
class Viewing:
    """Who looks at a page, as templates see it; with `keyless` there is no sign-in, and whoever looks may do everything."""

    name: str
    role: str
    keyless: bool
    signed_in: bool
    may_operate: bool
    may_admin: bool


def open_templates(app: FastAPI) -> None:
    """Load what `render` needs into `app`."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("api.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters["visible"] = _visible
    templates.filters["visible_lines"] = _visible_lines
    templates.globals["counted"] = counted
    app.state.templates = templates


def prepare_templates(app: FastAPI) -> None:
    """Compile what is needed first, so that the first search of a server's life need not wait for it."""
    for name in _FIRST_NEEDED:
        app.state.templates.get_template(name)


def render(
    request: Request,
    template: str,
    *,
    title: str,
    status_code: int = 200,
    fits: int | None = None,
    **context: object,
) -> Response:
    """A whole page. `nav` in the context names its section; `caller`, `csrf_token` and the state of the halt are added.

    One that `fits` into so many bytes takes as much of the texts of others as `fit` in its context says.
    """
    return _rendered(request, template, status_code=status_code, fits=fits, **{"nav": "", **context, "title": title})


def render_fragment(request: Request, template: str, *, fits: int | None = None, **context: object) -> Response:
    """A part of a page that is put into one."""
    return _rendered(request, template, status_code=200, fits=fits, **{"nav": "", **context})


def give_cookie(request: Request, response: Response, value: str) -> None:
    """Have the browser keep this session's cookie: from no script, to this host alone, and over https where the page came by it."""
    sessions: Sessions = request.app.state.sessions
    response.set_cookie(
        sessions.cookie,
        value,
        max_age=SESSION_S,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def _rendered(request: Request, template: str, *, status_code: int, fits: int | None, **context: Any) -> Response:
    conclave: Conclave = request.app.state.conclave
    sessions: Sessions = request.app.state.sessions
    session = session_of(request)
    cookie = None
    if session is None and not conclave.keys:
        # Nobody signs in here, and yet a change has to come from a page that was read.
        session, cookie = sessions.open()
    caller = _viewing(request, session)
    halt = conclave.halt.status()
    found = request.app.state.templates.get_template(template)
    whole: dict[str, Any] = {
        "caller": caller,
        "csrf_token": "" if session is None else sessions.token(session),
        "halt": halt,
        "simulated": conclave.simulated,
        "banner": conclave.banner,
        "path": request.url.path,
        **context,
    }
    page = found.render(whole) if fits is None else fitted(lambda fit: found.render({**whole, "fit": fit}), most=fits)
    # With the policy of every other answer, no-referrer, browsers would send `Origin: null` with the page's own forms.
    headers = {"Content-Type": _HTML, "Content-Security-Policy": PAGE_CSP, "Referrer-Policy": "same-origin"}
    response = Response(page, status_code=status_code, headers=headers)
    if cookie is not None:
        give_cookie(request, response, cookie)
    return response


def _viewing(request: Request, session: Session | None) -> Viewing:
    caller = visitor(request)
    keyless = not request.app.state.conclave.keys
    if caller is None:
        return Viewing("", "", keyless=False, signed_in=False, may_operate=False, may_admin=False)
    return Viewing(
        caller.name or "",
        caller.role.value,
        keyless=keyless,
        signed_in=session is not None and session.key is not None,
        may_operate=caller.role.covers(Role.OPERATOR),
        may_admin=caller.role.covers(Role.ADMIN),
    )


def _visible(text: object, limit: int | None = None) -> str:
    return visible(str(text), limit=limit, size=None if limit is None else limit * _BYTES_A_CHARACTER)


def _visible_lines(text: object, limit: int | None = _SHOWN_CHARACTERS) -> list[str]:
    return visible_lines(str(text), limit=limit, size=None if limit is None else limit * _BYTES_A_CHARACTER)
