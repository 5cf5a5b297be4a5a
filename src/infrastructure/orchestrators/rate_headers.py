"""Reads how much a provider says is left of its limits, in the dialects that providers have for it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

__all__ = ["Remainder", "remainders"]

_REQUESTS, _TOKENS = "requests", "tokens"
# Name in lower case -> (which limit, whether it tells what is left or when that is renewed).
_KNOWN: Mapping[str, tuple[str, bool]] = {
    "x-ratelimit-remaining-requests": (_REQUESTS, True),
    "x-ratelimit-reset-requests": (_REQUESTS, False),
    "x-ratelimit-remaining-tokens": (_TOKENS, True),
    "x-ratelimit-reset-tokens": (_TOKENS, False),
    "anthropic-ratelimit-requests-remaining": (_REQUESTS, True),
    "anthropic-ratelimit-requests-reset": (_REQUESTS, False),
    "anthropic-ratelimit-tokens-remaining": (_TOKENS, True),
    "anthropic-ratelimit-tokens-reset": (_TOKENS, False),
    "x-ratelimit-remaining": (_REQUESTS, True),
    "x-ratelimit-reset": (_REQUESTS, False),
    "ratelimit-remaining": (_REQUESTS, True),
    "ratelimit-reset": (_REQUESTS, False),
}
_PARTS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|us|µs|ns|d|h|m|s)")
_UNITS_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_LONGEST = 64
_MOST_DIGITS = 15
# A larger number of seconds is a time of day: 2001 as seconds since 1970.
_EPOCH_FROM = 1e9
_EPOCH_MS_FROM = 1e12


class Remainder(NamedTuple):
    """`left` requests or tokens until they are renewed in `reset_s` seconds."""

    left: int
    reset_s: float


def remainders(headers: Mapping[str, str], *, now: Callable[[], datetime]) -> tuple[Remainder | None, Remainder | None]:
    """What is left of requests and of tokens; None of each that is not told whole and readably.

    Understands `x-ratelimit-remaining-requests` and `-reset-requests` with durations (`6m0s`, `120ms`), `anthropic-ratelimit-*`
    with times of day (RFC 3339), and `x-ratelimit-*` and `ratelimit-*` without a kind as requests, in seconds or since 1970.
    """
    left: dict[str, int] = {}
    reset: dict[str, float] = {}
    for name, value in headers.items():
        meaning = _KNOWN.get(name) or _KNOWN.get(name.lower())
        if meaning is None or len(value) > _LONGEST:
            continue
        which, is_left = meaning
        told = value.strip()
        if is_left:
            if which not in left and _is_whole(told):
                left[which] = int(told)
        elif which not in reset and (seconds := _seconds(told, now)) is not None:
            reset[which] = seconds
    return _both(left, reset, _REQUESTS), _both(left, reset, _TOKENS)


def _both(left: Mapping[str, int], reset: Mapping[str, float], which: str) -> Remainder | None:
    return Remainder(left[which], reset[which]) if which in left and which in reset else None


def _is_whole(text: str) -> bool:
    return text.isdigit() and text.isascii() and len(text) <= _MOST_DIGITS


def _seconds(value: str, now: Callable[[], datetime]) -> float | None:
    # What most send, read without a pattern: this is done for every reply.
    if value.endswith("ms") and _is_whole(value[:-2]):
        return int(value[:-2]) / 1000
    if value.endswith("s") and _is_whole(value[:-1].replace(".", "", 1)):
        return float(value[:-1])
    if _is_whole(value.replace(".", "", 1)):
        number = float(value)
        if number < _EPOCH_FROM:
            return number
        since_1970 = number / 1000 if number >= _EPOCH_MS_FROM else number
        return max(0.0, since_1970 - now().timestamp())
    parts = _PARTS.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return math.fsum(float(number) * _UNITS_S[unit] for number, unit in parts)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    at = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, (at - now()).total_seconds())
