"""Payloads as plain JSON where nothing has to be wrapped, with the package that writes it fastest."""

from __future__ import annotations

import math
from collections.abc import Iterable

import orjson

from domain.models.message import Payload

__all__ = ["quick_json"]

_MAX_DEPTH = 64
_SCALARS = frozenset({str, int, float, bool, type(None)})
_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def quick_json(payload: Payload) -> bytes | None:
    """The payload as plain JSON in UTF-8, in a tenth of the time of `encode_payload`; None where that would not come back as it went."""
    if not _is_quick(payload, 0):
        return None
    try:
        data = orjson.dumps(payload, option=_OPTIONS)
    except TypeError:
        # A number of more than 64 bits, half a character, or a key that is no text.
        return None
    # NaN and the infinities are written as null as well.
    return data if b"null" not in data or _is_finite(payload) else None


def _is_quick(value: object, depth: int) -> bool:
    if value.__class__ is dict:
        children: Iterable[object] = value.values()
    elif value.__class__ is list:
        children = value
    else:
        return value.__class__ in _SCALARS
    if depth > _MAX_DEPTH:
        return False
    for child in children:  # noqa: SIM110 - twice as fast
        if child.__class__ not in _SCALARS and not _is_quick(child, depth + 1):
            return False
    return True


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, list) else True
