"""Requests whose words a proxy in front could read in another way than this server: told apart before anything reads them."""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.types import Scope

__all__ = ["ambiguity", "has_encoded_slash", "in_origin_form"]

_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?", re.IGNORECASE)
# Clients that are generated from the OpenAPI document encode the slashes in a tile's name.
_TILES = b"/v1/witness/tile/"
_ONCE = frozenset({b"content-length", b"transfer-encoding", b"origin", b"sec-fetch-site"})


def ambiguity(scope: Scope) -> str | None:
    """Why it is not clear where the request ends or who sends it (RFC 9112, 6.1 and 3.2.2); None for every honest one."""
    names = [name for name, _ in scope["headers"] if name in _ONCE]
    if len(names) > len(set(names)):
        return "Content-Length, Transfer-Encoding, Origin and Sec-Fetch-Site may come once."
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            return "Content-Length and Transfer-Encoding may not come together."
        if scope["http_version"] == "1.0":
            return "HTTP/1.0 knows no Transfer-Encoding."
    absolute = _ABSOLUTE.match(scope["raw_path"])
    if (
        absolute is not None
        and absolute["authority"].lower() != dict(scope["headers"]).get(b"host", b"").strip().lower()
    ):
        return "The address and Host name different servers."
    return None


def in_origin_form(scope: Scope) -> Scope:
    """The same request with nothing but its path where the whole address was sent, as callers of proxies do."""
    absolute = _ABSOLUTE.match(scope["raw_path"])
    if absolute is None:
        return scope
    raw_path = absolute["path"] or b"/"
    return {**scope, "raw_path": raw_path, "path": unquote(raw_path.decode("ascii"))}


def has_encoded_slash(scope: Scope) -> bool:
    """Whether a slash in the path is meant as a part of a name. No name here has one but that of a tile; elsewhere the router would
    divide there.
    """
    raw_path: bytes = scope["raw_path"]
    return b"%2f" in raw_path.lower() and not raw_path.startswith(_TILES)
