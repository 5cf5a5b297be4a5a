"""Answers whoever asks again and again: nothing where nothing is new, and never from a cache that asks nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["answer_if_new", "tag_of", "text_of"]


def tag_of(content: bytes) -> str:
    """The entity tag of that content (RFC 9110, 8.8.3)."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def answer_if_new(request: Request, content: bytes, *, media_type: str, tag: str) -> Response:
    """304 to whoever has it already, else the content."""
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Cookie, Authorization"}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, "Content-Type": media_type})


def text_of(app: FastAPI, template: str, context: Mapping[str, object]) -> str:
    """What the template makes of that context alone, the same for whoever it is shown to: of the caller it knows nothing."""
    text: str = app.state.templates.get_template(template).render(context)
    return text
