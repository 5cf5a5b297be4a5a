"""Says in which words a provider speaks: what it refuses, how its errors, usage and models look, which headers tell its limits."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["DIALECTS", "OPENAI", "Dialect", "Standing"]

_REASONING = ("o1", "o3", "o4", "gpt-5")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit stands after a request: `reset_s` seconds from now it is as if nothing had been asked."""

    unit: str
    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to speak the chat-completions API, as far as providers differ in it.

    `refused` tells the complaint about a request body, None where it is taken; `error` makes the JSON of an error, `statuses` the
    status it comes with where that is another; `limits` makes headers; `says` puts a ballot as a model there would when it was
    asked for a schema. `usage_apart` is set where tokens of thinking stand in the total alone.
    """

    name: str
    refused: Callable[[Mapping[str, Any]], str | None]
    error: Callable[[int, str, str, str | None, float | None], Any]
    limits: Callable[[Sequence[Standing]], Mapping[str, str]]
    retry_headers: Callable[[float], Mapping[str, str]]
    models: Callable[[Sequence[str]], dict[str, Any]]
    statuses: Mapping[int, int]
    says: Callable[[str], str] = lambda content: content
    usage_apart: bool = False
    usage_with_finish: bool = False

    def usage(self, prompt_tokens: int, completion_tokens: int, thinking_tokens: int = 0) -> dict[str, Any]:
        """The token counts as a reply tells them."""
        told = completion_tokens if self.usage_apart else completion_tokens + thinking_tokens
        found: dict[str, Any] = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": told,
            "total_tokens": prompt_tokens + completion_tokens + thinking_tokens,
        }
        if thinking_tokens and not self.usage_apart:
            found["completion_tokens_details"] = {"reasoning_tokens": thinking_tokens}
        return found


def _openai_refused(body: Mapping[str, Any]) -> str | None:
    if not str(body.get("model")).startswith(_REASONING):
        return None
    if "max_tokens" in body:
        return (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
    if body.get("temperature", 1) != 1:
        return "Unsupported value: 'temperature' does not support this value with this model."
    return None


def _openai_error(status: int, message: str, kind: str, code: str | None, retry_after_s: float | None) -> Any:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _openai_limits(standings: Sequence[Standing]) -> Mapping[str, str]:
    return _limit_headers(standings, prefix="x-ratelimit-{part}-{unit}", reset=_duration)


def _openai_retry(seconds: float) -> Mapping[str, str]:
    return {"Retry-After": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}


def _openai_models(names: Sequence[str]) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in names],
    }


_ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def _anthropic_error(status: int, message: str, kind: str, code: str | None, retry_after_s: float | None) -> Any:
    inner = {"type": _ANTHROPIC_KINDS.get(status, "api_error"), "message": message}
    return {"type": "error", "error": inner, "request_id": "req_test"}


def _anthropic_limits(standings: Sequence[Standing]) -> Mapping[str, str]:
    return {
        **_limit_headers(standings, prefix="anthropic-ratelimit-{unit}-{part}", reset=_moment),
        **_limit_headers(standings, prefix="x-ratelimit-{part}-{unit}", reset=_moment),
    }


def _whole_seconds(seconds: float) -> Mapping[str, str]:
    return {"Retry-After": str(math.ceil(seconds))}


def _anthropic_models(names: Sequence[str]) -> dict[str, Any]:
    data = [{"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"} for name in names]
    return {"data": data, "has_more": False, "first_id": names[0] if names else None}


def _in_a_fence(content: str) -> str:
    return f"Having weighed it, this is my ballot:\n\n```json\n{content}\n```"


_GEMINI_STATUSES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def _gemini_refused(body: Mapping[str, Any]) -> str | None:
    unknown = next((name for name in ("seed", "user", "logit_bias") if name in body), None)
    return None if unknown is None else f'Invalid JSON payload received. Unknown name "{unknown}": Cannot find field.'


def _gemini_error(status: int, message: str, kind: str, code: str | None, retry_after_s: float | None) -> Any:
    inner: dict[str, Any] = {"code": status, "message": message, "status": _GEMINI_STATUSES.get(status, "UNKNOWN")}
    if retry_after_s is not None:
        inner["details"] = [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{math.ceil(retry_after_s)}s"}
        ]
    return [{"error": inner}]


def _gemini_models(names: Sequence[str]) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"id": f"models/{name}", "object": "model", "owned_by": "tests"} for name in names],
    }


def _local_refused(body: Mapping[str, Any]) -> str | None:
    wanted = body.get("response_format")
    if isinstance(wanted, Mapping) and wanted.get("type") == "json_schema":
        return "'response_format.type' must be 'json_object' or 'text'"
    return None


def _local_error(status: int, message: str, kind: str, code: str | None, retry_after_s: float | None) -> Any:
    return {"error": message}


def _local_models(names: Sequence[str]) -> dict[str, Any]:
    return {
        "models": [{"name": name, "model": name} for name in names],
        "object": "list",
        "data": [{"id": name} for name in names],
    }


def _limit_headers(standings: Sequence[Standing], *, prefix: str, reset: Callable[[float], str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for standing in standings:
        for part, value in (
            ("limit", str(standing.limit)),
            ("remaining", str(standing.remaining)),
            ("reset", reset(standing.reset_s)),
        ):
            found[prefix.format(part=part, unit=standing.unit)] = value
    return found


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.3f}s" if minutes else f"{rest:.3f}s"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


OPENAI = Dialect(
    name="openai",
    refused=_openai_refused,
    error=_openai_error,
    limits=_openai_limits,
    retry_headers=_openai_retry,
    models=_openai_models,
    statuses={},
)

DIALECTS: Mapping[str, Dialect] = {
    "openai": OPENAI,
    # Takes any schema and keeps none.
    "anthropic": Dialect(
        name="anthropic",
        refused=lambda body: None,
        error=_anthropic_error,
        limits=_anthropic_limits,
        retry_headers=_whole_seconds,
        models=_anthropic_models,
        statuses={503: 529},
        says=_in_a_fence,
    ),
    # Tells the wait in the body alone, and a wrong key as a bad request.
    "gemini": Dialect(
        name="gemini",
        refused=_gemini_refused,
        error=_gemini_error,
        limits=lambda standings: {},
        retry_headers=lambda seconds: {},
        models=_gemini_models,
        statuses={401: 400},
        usage_apart=True,
        usage_with_finish=True,
    ),
    "local": Dialect(
        name="local",
        refused=_local_refused,
        error=_local_error,
        limits=lambda standings: {},
        retry_headers=_whole_seconds,
        models=_local_models,
        statuses={},
    ),
}
