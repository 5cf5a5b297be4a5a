"""Reads the body of a request: counted while it streams in, bounded in time, and nothing but strict JSON."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from api.requests import DeliberationRequest
from api.rest.problems import RequestRefusedError
from api.rest.strict_json import MalformedJsonError, UnusableValuesError, read_strict_json
from application.ports.roster_source import RosterSource

__all__ = [
    "BODY_TIMEOUT_S",
    "MAX_BODY_BYTES",
    "Submission",
    "discard_body",
    "read_bytes",
    "read_small_document",
    "read_submission",
    "sha256_of",
]

MAX_BODY_BYTES = 1024 * 1024
BODY_TIMEOUT_S = 30.0
_INLINE_BYTES = 32 * 1024
_JSON_CHARSETS = frozenset({"utf-8", "utf8"})


@dataclass(frozen=True, slots=True)
class Submission:
    """The deliberation that a body asks for, and SHA-256 (hex) of what it says, however it is spaced, ordered and escaped."""

    asked: DeliberationRequest
    sha256: str


async def read_submission(request: Request, rosters: RosterSource) -> Submission:
    """What the body says.

    Raises `RequestRefusedError` (400, 408, 413, 415, 422) and `InvalidSpecificationError`; at most 1 MiB is ever held.
    """
    _check_media_type(request)
    raw = await read_bytes(request)
    try:
        if len(raw) <= _INLINE_BYTES:
            return _parse(raw, rosters)
        # A hostile body of 1 MiB takes a good part of a second to look through, which nobody else should wait for.
        return await asyncio.to_thread(_parse, raw, rosters)
    except MalformedJsonError as error:
        raise RequestRefusedError("malformed-json", f"The body cannot be read as JSON: {error}.") from None
    except UnusableValuesError as error:
        raise RequestRefusedError("invalid-request", f"{error}.", errors=error.problems) from None


async def read_small_document(request: Request, *, max_bytes: int) -> Any:
    """The strict JSON in a body of at most `max_bytes`, few enough to be read without a thread. Raises like `read_submission`."""
    _check_media_type(request)
    try:
        return read_strict_json(await read_bytes(request, max_bytes=max_bytes))
    except MalformedJsonError as error:
        raise RequestRefusedError("malformed-json", f"The body cannot be read as JSON: {error}.") from None
    except UnusableValuesError as error:
        raise RequestRefusedError("invalid-request", f"{error}.", errors=error.problems) from None


async def discard_body(request: Request) -> None:
    """Take in the body of a request that needs none, within the same bounds. Raises `RequestRefusedError` (408, 413)."""
    await read_bytes(request)


def _parse(raw: bytes, rosters: RosterSource) -> Submission:
    document: Any = read_strict_json(raw)
    asked = DeliberationRequest.read(document, rosters)
    return Submission(asked, sha256_of(document))


def sha256_of(document: Any) -> str:
    """SHA-256 (hex) of what a body says, however it is spaced, ordered and escaped."""
    said = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(said.encode()).hexdigest()


async def read_bytes(request: Request, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The whole body, of which no more than `max_bytes` are ever held. Raises `RequestRefusedError` (408, 413)."""
    too_large = RequestRefusedError("body-too-large", f"At most {max_bytes} bytes are taken.")
    # Believed only where it announces too much: what is really sent is counted all the same.
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 15 or int(announced) > max_bytes):
        raise too_large
    raw = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                if len(raw) + len(chunk) > max_bytes:
                    raise too_large
                raw += chunk
    except TimeoutError:
        raise RequestRefusedError(
            "body-timeout", f"The whole body has to arrive within {BODY_TIMEOUT_S:g} s."
        ) from None
    return bytes(raw)


def _check_media_type(request: Request) -> None:
    refusal = RequestRefusedError(
        "unsupported-media-type",
        "Send it uncompressed with Content-Type: application/json, in UTF-8.",
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise refusal
    declared = request.headers.getlist("content-type")
    if len(declared) != 1:
        raise refusal
    media_type, *parameters = (part.strip() for part in declared[0].lower().split(";"))
    if media_type != "application/json":
        raise refusal
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in _JSON_CHARSETS:
            raise refusal
