"""Tells what a provider means when it does not answer: too fast, broken, not allowed, unknown, or not understood."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from domain.errors.agent import AgentInvocationError
from domain.models.roll_call import AgentState

__all__ = ["complaint_in", "error_object_refusal", "refusal", "retry_after_s"]

_MAX_COMPLAINT = 200
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")


def _now() -> datetime:
    return datetime.now(UTC)


def refusal(
    status: int, *, headers: Mapping[str, str], body: bytes, host: str, now: Callable[[], datetime] = _now
) -> AgentInvocationError:
    """What an answer other than 2xx means for the agent, as an error to raise.

    `headers` has to find names whatever their case. The text of a 401 or 403 is not repeated: some providers put the key in it.
    """
    complaint = complaint_in(body)
    said = f"{host} answered {status}{f': {complaint}' if complaint else ''}"
    if status == 429:
        return _throttled(said, body, retry_after_s(headers, now=now))
    if status >= 500:
        return _failed(said, "server_error", retry=True, after=retry_after_s(headers, now=now))
    if 300 <= status < 400:
        return _failed(
            f"{host} answered {status}, a redirect, and a key is not carried elsewhere: set CONCLAVE_LLM_BASE_URL to where it points",
            "redirect_refused",
        )
    if status in {401, 403}:
        return _failed(
            f"{host} answered {status}: check CONCLAVE_LLM_API_KEY and what it may be used for", "unauthorised"
        )
    if status == 404:
        if _speaks_of_a_model(body):
            return _failed(
                f"{said} (set CONCLAVE_LLM_MODEL, or the member's model, to one that it offers)", "unknown_model"
            )
        return _failed(
            f"{said} (check that CONCLAVE_LLM_BASE_URL ends as the provider wants it, often in /v1)", "not_found"
        )
    if status == 408:
        return _failed(said, "server_error", retry=True, after=retry_after_s(headers, now=now))
    return _failed(said, "refused_by_provider")


def error_object_refusal(error: object, *, host: str) -> AgentInvocationError:
    """What an error object means that came in a reply with status 200."""
    code = error.get("code") if isinstance(error, dict) else None
    complaint = _one_line(_message(error))
    said = f"{host} answered with an error{f': {complaint}' if complaint else ''}"
    if code in (429, "429", "rate_limit_exceeded", "insufficient_quota"):
        return _throttled(said, str(code).encode(), None)
    return _failed(said, "provider_error", retry=not (isinstance(code, int) and 400 <= code < 500))


def retry_after_s(headers: Mapping[str, str], *, now: Callable[[], datetime] = _now) -> float | None:
    """Seconds that the provider asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).

    A date is compared with the provider's own `Date` where it sends one, so that clocks need not agree.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    value = headers.get("Retry-After", "").strip()
    if _NUMBER.fullmatch(value):
        return float(value)
    moment = _date(value)
    if moment is None:
        return None
    return max(0.0, (moment - (_date(headers.get("Date", "")) or now())).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def complaint_in(body: bytes) -> str:
    """What a provider says is wrong, on one line of at most 200 printable characters; empty where it says nothing readable."""
    text = body.decode(errors="replace").strip()
    if text.startswith("<"):
        return "a page of HTML, as proxies and sign-in pages send it"
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = text
    return _one_line(_message(document))


def _message(document: Any) -> str:
    for _ in range(3):
        if not isinstance(document, dict):
            break
        document = next((document[key] for key in ("error", "message", "detail", "code") if document.get(key)), "")
    return str(document) if isinstance(document, str | int | float) else ""


def _one_line(text: str) -> str:
    # Cut before it is walked through, because a body may be large; escapes of terminals and of text direction go too.
    shown = "".join(character if character.isprintable() else " " for character in text[: 4 * _MAX_COMPLAINT])
    return " ".join(shown.split())[:_MAX_COMPLAINT]


def _speaks_of_a_model(body: bytes) -> bool:
    return not body.lstrip().startswith(b"<") and b"model" in body[:2048].lower()


def _throttled(said: str, body: bytes, after: float | None) -> AgentInvocationError:
    if b"insufficient_quota" in body:
        return AgentInvocationError(
            f"{said} (the account has no credit left)", kind="quota_exhausted", state=AgentState.THROTTLED
        )
    return AgentInvocationError(
        said, kind="rate_limited", state=AgentState.THROTTLED, retryable=True, retry_after_s=after
    )


def _failed(message: str, kind: str, *, retry: bool = False, after: float | None = None) -> AgentInvocationError:
    return AgentInvocationError(message, kind=kind, state=AgentState.FAILED, retryable=retry, retry_after_s=after)
