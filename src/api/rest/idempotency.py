"""Reads what a caller calls its request: the header `Idempotency-Key`, beside what the body said."""

from __future__ import annotations

from starlette.requests import Request

from api.rest.problems import RequestRefusedError
from application.ports.idempotency import IdempotencyKey
from domain.errors.deliberation import FieldProblem

__all__ = ["IDEMPOTENCY_KEY", "MAX_KEY_CHARACTERS", "RUN_IDEMPOTENCY_KEY", "key_of", "read_idempotency_key"]

MAX_KEY_CHARACTERS = 255
_HEADER = (
    f"Any text of 1 to {MAX_KEY_CHARACTERS} printable ASCII characters, taken as it stands. Sent again under the same key within "
    "24 h, the same body is answered with the same {what}, and another body is refused (422); while the first request is "
    "still being accepted the answer is 409. Keys are the caller's own: those of another API key's name never clash."
)
IDEMPOTENCY_KEY = {"Idempotency-Key": _HEADER.format(what="deliberation")}
"""The header as the OpenAPI document describes it."""

RUN_IDEMPOTENCY_KEY = {"Idempotency-Key": _HEADER.format(what="run")}
"""The same where a run is started."""


def read_idempotency_key(request: Request) -> str | None:
    """The value of the header, None without it. Raises `RequestRefusedError` (422) for one that cannot name a request."""
    sent = request.headers.getlist("idempotency-key")
    if not sent:
        return None
    wrong = None
    if len(sent) > 1:
        wrong = "was sent more than once"
    elif not 1 <= len(sent[0]) <= MAX_KEY_CHARACTERS:
        wrong = f"must have 1 to {MAX_KEY_CHARACTERS} characters"
    elif not (sent[0].isascii() and sent[0].isprintable()):
        wrong = "must be made of printable ASCII characters"
    if wrong is None:
        return sent[0]
    found = FieldProblem("/header/idempotency-key", wrong)
    raise RequestRefusedError.of("header", [found])


def key_of(caller_name: str | None, key: str | None, *, body_sha256: str) -> IdempotencyKey | None:
    """The key as it is remembered: the caller's own, beside SHA-256 (hex) of its body."""
    return None if key is None else IdempotencyKey(caller_name or "", key, body_sha256)
