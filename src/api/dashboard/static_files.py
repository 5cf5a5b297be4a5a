"""Serves the files that pages are made with, as they were when the server started."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.rest.problems import problem

__all__ = ["add_static_files"]

_KINDS: Mapping[str, str] = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "LICENSE": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    packed: bytes
    kind: str
    tag: str


def add_static_files(app: FastAPI) -> None:
    """Put `/static/...` into `app`; it needs no key, and a browser asks each time whether its copy is still the one."""
    app.state.static_files = dict(_read(files("api.dashboard").joinpath("static"), ""))
    app.add_api_route("/static/{path:path}", static_file, methods=["GET"], include_in_schema=False, response_model=None)


async def static_file(request: Request, path: str) -> Response:
    """One of the files."""
    found: _File | None = request.app.state.static_files.get(path)
    if found is None:
        return problem("not-found", "There is no such file.")
    is_packed = len(found.packed) < len(found.content) and _takes_gzip(request.headers.get("accept-encoding", ""))
    # Two representations of one file: a copy of the one is no copy of the other.
    tag = f'"{found.tag}-gzip"' if is_packed else f'"{found.tag}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if tag in {known.strip().removeprefix("W/") for known in request.headers.get("if-none-match", "").split(",")}:
        return Response(status_code=304, headers=headers)
    headers["Content-Type"] = found.kind
    if is_packed:
        headers["Content-Encoding"] = "gzip"
    return Response(found.packed if is_packed else found.content, headers=headers)


def _takes_gzip(accepted: str) -> bool:
    """Whether an `Accept-Encoding` (RFC 9110, section 12.5.3) names gzip and does not rule it out."""
    for part in accepted.lower().split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def _read(folder: Traversable, prefix: str) -> Iterator[tuple[str, _File]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
            continue
        kind = _KINDS.get(entry.name.rpartition(".")[2])
        if kind is not None:
            content = entry.read_bytes()
            # The same bytes at every start: without a time of their making.
            packed = gzip.compress(content, compresslevel=9, mtime=0)
            yield f"{prefix}{entry.name}", _File(content, packed, kind, hashlib.sha256(content).hexdigest()[:32])
