"""Reads the body of a chat completion: what the model said, which one it was, and what it took."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.provider_refusal import complaint_in, error_object_refusal
from infrastructure.orchestrators.token_estimate import most_tokens

__all__ = [
    "MAX_PLAUSIBLE_TOKENS",
    "ChatCompletion",
    "completion_of",
    "model_name",
    "read_completion",
    "read_models",
    "told_usage",
]

MAX_PLAUSIBLE_TOKENS = 10_000_000
_MAX_MODEL_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """One answer of a model. `cut_off` says that it ran into the token limit; `model` is None where the reply names none.

    Token counts that the provider left out or made up are estimated, and rather too high than too low: see `most_tokens`.
    """

    content: str
    model: str | None
    cut_off: bool
    input_tokens: int
    output_tokens: int


def read_completion(body: bytes, *, host: str, request_body: bytes) -> ChatCompletion:
    """The completion in `body`, which answers `request_body`.

    Raises `AgentInvocationError`: `unreadable_reply` and `empty_reply` (counted as invalid), or what an error object means that
    came with status 200. Its usage is what the reply told, None where it told nothing that can be believed.
    """
    return completion_of(_object(body, host), host=host, request_body=request_body)


def completion_of(document: dict[str, Any], *, host: str, request_body: bytes) -> ChatCompletion:
    """The completion in a document already read. Raises as `read_completion` does."""
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    for place in (document, choice):
        if place.get("error"):
            error, told = error_object_refusal(place["error"], host=host), told_usage(document.get("usage"))
            # Nothing was written yet where the provider only says that it takes no more.
            refused = place is document and error.state is AgentState.THROTTLED
            error.usage = told if told is not None else Usage() if refused else None
            raise error
    message = choice.get("message")
    finish_reason = choice.get("finish_reason")
    content = _content(message) if isinstance(message, dict) else ""
    if not content.strip():
        raise _invalid(
            "empty_reply",
            f"{host} answered without a text{_why_empty(finish_reason)}",
            usage=told_usage(document.get("usage")),
        )
    usage = document.get("usage")
    input_tokens, output_tokens = _counts(usage if isinstance(usage, dict) else {})
    return ChatCompletion(
        content,
        model_name(document.get("model")),
        finish_reason == "length",
        most_tokens(request_body) if input_tokens is None else input_tokens,
        most_tokens(content) if output_tokens is None else output_tokens,
    )


def read_models(body: bytes, *, host: str) -> list[str]:
    """The ids in a list of models, in its order. Raises `AgentInvocationError` for anything else."""
    document = _object(body, host)
    if document.get("error"):
        raise error_object_refusal(document["error"], host=host)
    data = document.get("data")
    listed = data if isinstance(data, list) else []
    names = (model_name(item.get("id")) for item in listed if isinstance(item, dict))
    return [name for name in names if name is not None]


def model_name(value: object) -> str | None:
    """`value` if it can be the name of a model: printable and at most 256 characters long."""
    if isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= len(value) <= _MAX_MODEL_CHARACTERS:
        return value
    return None


def told_usage(usage: object) -> Usage | None:
    """What one call took as the reply tells it, None unless both counts can be believed."""
    input_tokens, output_tokens = _counts(usage) if isinstance(usage, dict) else (None, None)
    return None if input_tokens is None or output_tokens is None else Usage(1, input_tokens, output_tokens)


def _counts(usage: dict[str, Any]) -> tuple[int | None, int | None]:
    """Tokens in and out; None for each that no call can have taken.

    Gemini and Grok count what a model thought in `total_tokens` alone, and it is paid for like what it wrote.
    """
    input_tokens, output_tokens = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    total = _count(usage.get("total_tokens"))
    if input_tokens is not None and output_tokens is not None and total is not None:
        output_tokens = max(output_tokens, total - input_tokens)
    return input_tokens, output_tokens


def _count(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_PLAUSIBLE_TOKENS:
        return value
    return None


def _object(body: bytes, host: str) -> dict[str, Any]:
    if not body.strip():
        raise _invalid("unreadable_reply", f"{host} answered with an empty body")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, list) and len(document) == 1:
        # Gemini wraps its errors so.
        document = document[0]
    if not isinstance(document, dict):
        seen = complaint_in(body)
        raise _invalid("unreadable_reply", f"{host} answered with no JSON object{f': {seen}' if seen else ''}")
    return document


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    if isinstance(content, str) and content.strip():
        return content
    refusal = message.get("refusal")
    return refusal if isinstance(refusal, str) else ""


def _part(part: object) -> str:
    if isinstance(part, dict):
        part = part.get("text", part.get("refusal"))
    return part if isinstance(part, str) else ""


def _why_empty(finish_reason: object) -> str:
    if finish_reason == "length":
        return ": it ran into the token limit before its first word; raise max_output_tokens"
    if isinstance(finish_reason, str) and finish_reason.startswith("content_filter"):
        return ": its content filter held it back"
    if finish_reason in ("tool_calls", "function_call"):
        return ": it called a tool that nobody offered"
    return ""


def _invalid(kind: str, message: str, *, usage: Usage | None = None) -> AgentInvocationError:
    return AgentInvocationError(message, kind=kind, state=AgentState.INVALID, usage=usage)
