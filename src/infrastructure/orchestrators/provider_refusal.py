"""Tells what a provider means when it does not answer: too fast, broken, not allowed, unknown, or not understood."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.retry_after import retry_after_s, seconds_in

__all__ = ["NAMES_OF_ONE", "SettingNames", "complaint_in", "error_object_refusal", "refusal"]

_MAX_COMPLAINT = 200
# A gateway that gave up waiting (504, and 524 of Cloudflare) says nothing of the model, which may have written its answer.
_MAY_BE_PAID = frozenset({504, 524})

_DAILY = "PerDay"
_MONEY_MARKS = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_hard_limit_reached",
        "billing_error",
        "enforced_spend_limit_reached",
        "quota_exceeded",
        "payment_required",
        _DAILY,
    }
)
_THROTTLED_MARKS = frozenset({"429", "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"})
_KEY_MARKS = frozenset({"API_KEY_INVALID", "invalid_api_key", "authentication_error"})
_UNKNOWN_MODEL_MARKS = frozenset({"model_not_found", "invalid_model"})
# Where a provider has no word for it. Only how a message begins or ends: what stands in its middle may be a user's own text.
_MONEY_BEGINNINGS = (
    "your credit balance is too low",
    "you have reached your specified api usage limits",
    "your newly created team doesn't have any credits",
    "insufficient balance",
    "insufficient credits",
)
_KEY_BEGINNINGS = ("incorrect api key provided", "api key not valid")
_UNKNOWN_MODEL_ENDINGS = ("is not a valid model id",)


@dataclass(frozen=True, slots=True)
class SettingNames:
    """Where the address, the key and the model of a provider are set, as messages name it."""

    base_url: str
    api_key: str
    model: str


NAMES_OF_ONE = SettingNames("CONCLAVE_LLM_BASE_URL", "CONCLAVE_LLM_API_KEY", "CONCLAVE_LLM_MODEL")


def _now() -> datetime:
    return datetime.now(UTC)


def refusal(
    status: int,
    *,
    headers: Mapping[str, str],
    body: bytes,
    host: str,
    names: SettingNames = NAMES_OF_ONE,
    now: Callable[[], datetime] = _now,
) -> AgentInvocationError:
    """What an answer other than 2xx means for the agent, as an error to raise; its usage is nothing unless a gateway gave up.

    `headers` has to find names whatever their case. The text of a 401 or 403 is not repeated: some providers put the key in it.
    """
    error = _meaning(status, headers=headers, body=body, host=host, names=names, now=now)
    error.usage = None if status in _MAY_BE_PAID else Usage()
    return error


def _meaning(
    status: int,
    *,
    headers: Mapping[str, str],
    body: bytes,
    host: str,
    names: SettingNames,
    now: Callable[[], datetime],
) -> AgentInvocationError:
    complaint = complaint_in(body)
    said = f"{host} answered {status}{f': {complaint}' if complaint else ''}"
    marks = _marks_in(body)
    if status == 402 or (status in {400, 403, 429} and _speaks_of_money(complaint, marks)):
        return _out_of_credit(f"{host} answered {status}" if status == 403 else said)
    if status == 429:
        asked = retry_after_s(headers, now=now)
        return _throttled(said, _wait_in(body) if asked is None else asked)
    if status >= 500:
        return _failed(said, "server_error", retry=True, after=retry_after_s(headers, now=now))
    if 300 <= status < 400:
        return _failed(
            f"{host} answered {status}, a redirect, and a key is not carried elsewhere: set {names.base_url} to where it points",
            "redirect_refused",
        )
    if status in {400, 403, 404} and (
        not marks.isdisjoint(_UNKNOWN_MODEL_MARKS)
        or complaint.lower().endswith(_UNKNOWN_MODEL_ENDINGS)
        or (status == 404 and _speaks_of_a_model(body))
    ):
        return _failed(f"{said} (set {names.model}, or the member's model, to one that it offers)", "unknown_model")
    if status in {401, 403} or (status == 400 and _speaks_of_the_key(complaint, marks)):
        return _failed(f"{host} answered {status}: check {names.api_key} and what it may be used for", "unauthorised")
    if status == 404:
        return _failed(f"{said} (check that {names.base_url} ends as the provider wants it, often in /v1)", "not_found")
    if status == 408:
        return _failed(said, "server_error", retry=True, after=retry_after_s(headers, now=now))
    return _failed(said, "refused_by_provider")


def error_object_refusal(error: object, *, host: str) -> AgentInvocationError:
    """What an error object means that came in a reply with status 200; what the reply took is left to who read the rest of it."""
    code = error.get("code") if isinstance(error, dict) else None
    marks = _marks_of(error)
    complaint = _one_line(_message(error))
    said = f"{host} answered with an error{f': {complaint}' if complaint else ''}"
    if code == 402 or _speaks_of_money(complaint, marks):
        return _out_of_credit(said)
    if code == 429 or not marks.isdisjoint(_THROTTLED_MARKS):
        return _throttled(said, None)
    if code in (401, 403) or _speaks_of_the_key(complaint, marks):
        return _failed(f"{host} answered with an error: it does not accept the key", "unauthorised")
    if not marks.isdisjoint(_UNKNOWN_MODEL_MARKS):
        return _failed(said, "unknown_model")
    return _failed(said, "provider_error", retry=not (isinstance(code, int) and 400 <= code < 500))


def complaint_in(body: bytes) -> str:
    """What a provider says is wrong, on one line of at most 200 printable characters; empty where it says nothing readable."""
    if body.lstrip().startswith(b"<"):
        return "a page of HTML, as proxies and sign-in pages send it"
    return _one_line(_message(_document(body)))


def _document(body: bytes) -> Any:
    """The body as JSON, out of the list that Gemini wraps its errors in; as text where it is none."""
    text = body.decode(errors="replace").strip()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(document, list) and len(document) == 1 and isinstance(document[0], dict):
        return document[0]
    return document


def _message(document: Any) -> str:
    for _ in range(3):
        if not isinstance(document, dict):
            break
        document = next((document[key] for key in ("error", "message", "detail", "code") if document.get(key)), "")
    return str(document) if isinstance(document, str | int | float) else ""


def _marks_in(body: bytes) -> frozenset[str]:
    document = _document(body)
    inner = document.get("error") if isinstance(document, dict) else None
    return _marks_of(document) | _marks_of(inner)


def _marks_of(error: object) -> frozenset[str]:
    """The short words by which providers tell errors apart: never the message, which may repeat what somebody wrote."""
    if not isinstance(error, dict):
        return frozenset()
    details = error.get("details")
    places = [error, *(details if isinstance(details, list) else [details])]
    found = {
        str(place[name])
        for place in places
        if isinstance(place, dict)
        for name in ("code", "type", "status", "reason", "error_code")
        if isinstance(place.get(name), str | int)
    }
    if any(_DAILY in str(violation.get("quotaId", "")) for violation in _violations(places)):
        found.add(_DAILY)
    return frozenset(found)


def _violations(places: list[Any]) -> list[dict[str, Any]]:
    lists = [place.get("violations") for place in places if isinstance(place, dict)]
    return [violation for each in lists if isinstance(each, list) for violation in each if isinstance(violation, dict)]


def _wait_in(body: bytes) -> float | None:
    """Seconds in the `RetryInfo` of a Google error, which stand in no header."""
    document = _document(body)
    error = document.get("error") if isinstance(document, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else []:
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        seconds = seconds_in(delay[:-1]) if isinstance(delay, str) and delay.endswith("s") else None
        if seconds is not None:
            return seconds
    return None


def _speaks_of_money(complaint: str, marks: frozenset[str]) -> bool:
    return not marks.isdisjoint(_MONEY_MARKS) or complaint.lower().startswith(_MONEY_BEGINNINGS)


def _speaks_of_the_key(complaint: str, marks: frozenset[str]) -> bool:
    return not marks.isdisjoint(_KEY_MARKS) or complaint.lower().startswith(_KEY_BEGINNINGS)


def _one_line(text: str) -> str:
    # Cut before it is walked through, because a body may be large; escapes of terminals and of text direction go too.
    shown = "".join(character if character.isprintable() else " " for character in text[: 4 * _MAX_COMPLAINT])
    return " ".join(shown.split())[:_MAX_COMPLAINT]


def _speaks_of_a_model(body: bytes) -> bool:
    return not body.lstrip().startswith(b"<") and b"model" in body[:2048].lower()


def _out_of_credit(said: str) -> AgentInvocationError:
    return AgentInvocationError(
        f"{said} (the account has no credit left, or not for today)",
        kind="quota_exhausted",
        state=AgentState.THROTTLED,
    )


def _throttled(said: str, after: float | None) -> AgentInvocationError:
    return AgentInvocationError(
        said, kind="rate_limited", state=AgentState.THROTTLED, retryable=True, retry_after_s=after
    )


def _failed(message: str, kind: str, *, retry: bool = False, after: float | None = None) -> AgentInvocationError:
    return AgentInvocationError(message, kind=kind, state=AgentState.FAILED, retryable=retry, retry_after_s=after)
