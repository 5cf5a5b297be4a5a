"""Reads the body of a chat completion: what the model said, which one it was, and what it took."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from domain.errors.agent import AgentInvocationError
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.provider_refusal import complaint_in, error_object_refusal

__all__ = ["MAX_PLAUSIBLE_TOKENS", "ChatCompletion", "read_completion", "read_models"]

MAX_PLAUSIBLE_TOKENS = 10_000_000
_CHARACTERS_A_TOKEN = 4
_MAX_MODEL_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """One answer of a model. `cut_off` says that it ran into the token limit; `model` is None where the reply names none.

    Token counts that the provider left out or made up are estimated at four characters a token.
    """

    content: str
    model: str | None
    cut_off: bool
    input_tokens: int
    output_tokens: int


def read_completion(body: bytes, *, host: str, prompt_characters: int) -> ChatCompletion:
    """The completion in `body`.

    Raises `AgentInvocationError`: `unreadable_reply` and `empty_reply` (counted as invalid), `provider_error` or
    `rate_limited` for an error object that came with status 200.
    """
    document = _object(body, host)
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    for place in (document, choice):
        if place.get("error"):
            raise error_object_refusal(place["error"], host=host)
    message = choice.get("message")
    finish_reason = choice.get("finish_reason")
    content = _content(message) if isinstance(message, dict) else ""
    if not content.strip():
        raise _invalid("empty_reply", f"{host} answered without a text{_why_empty(finish_reason)}")
    usage = document.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return ChatCompletion(
        content,
        model_name(document.get("model")),
        finish_reason == "length",
        _tokens(usage.get("prompt_tokens"), prompt_characters),
        _tokens(usage.get("completion_tokens"), len(content)),
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


def _object(body: bytes, host: str) -> dict[str, Any]:
    if not body.strip():
        raise _invalid("unreadable_reply", f"{host} answered with an empty body")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
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
    if finish_reason == "content_filter":
        return ": its content filter held it back"
    return ""


def _tokens(value: object, characters: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_PLAUSIBLE_TOKENS:
        return value
    return min(math.ceil(characters / _CHARACTERS_A_TOKEN), MAX_PLAUSIBLE_TOKENS)


def _invalid(kind: str, message: str) -> AgentInvocationError:
    return AgentInvocationError(message, kind=kind, state=AgentState.INVALID)
