"""Payloads and messages as bytes: JSON that also carries `bytes`, checked both ways, and never anything that could run."""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable
from typing import Any

from domain.errors.bus import InvalidMessageError, PayloadTooLargeError, UnreadableMessageError
from domain.models.message import Message, Payload, Priority

__all__ = [
    "decode_message",
    "decode_payload",
    "encode_message",
    "encode_payload",
    "fits",
    "measure",
]

MAX_DEPTH = 64
# An object with this one key stands for bytes, in base64; one with the other key for the object within, so that a payload of the
# caller's own may have either key.
_BYTES = "$bytes"
_OBJECT = "$object"
_SCALARS = frozenset({str, int, float, bool, type(None)})
_MARK = b'"$'
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_decode = json.JSONDecoder().decode
_PRIORITIES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)


def encode_payload(payload: Payload, *, limit: int) -> bytes:
    """The payload as ASCII JSON of at most `limit` bytes. Raises `InvalidMessageError` and `PayloadTooLargeError`.

    NaN and the infinities are written as JavaScript names them; half a character survives.
    """
    if isinstance(payload, str | bytes) and len(payload) > limit:
        raise PayloadTooLargeError(size=len(payload), limit=limit)
    try:
        data = _encode(payload if _is_plain(payload, 0) else _wrapped(payload)).encode("ascii")
    except ValueError as error:
        if isinstance(error, InvalidMessageError):
            raise
        raise InvalidMessageError(field="payload", problem=f"cannot be written ({error})") from None
    if len(data) > limit:
        raise PayloadTooLargeError(size=len(data), limit=limit)
    return data


def decode_payload(data: bytes | memoryview) -> Payload:
    """What `encode_payload` was given. Raises `UnreadableMessageError`."""
    data = bytes(data)
    try:
        found = _decode(data.decode("ascii"))
        return _unwrapped(found) if _MARK in data else found  # type: ignore[no-any-return]
    except (ValueError, NotBase64, RecursionError) as error:
        raise UnreadableMessageError(problem=f"is not JSON as this bus writes it ({error})") from None


def encode_message(message: Message, payload: bytes) -> bytes:
    """The whole message as one JSON array; `payload` is its payload, encoded already, so that a broadcast encodes it once."""
    header = _encode(
        [
            message.sender,
            message.recipient,
            message.type,
            int(message.priority),
            message.correlation_id,
            message.expires_at,
            message.id,
            message.attempt,
        ]
    )
    return b"%b,%b]" % (header[:-1].encode("ascii"), payload)


def decode_message(data: bytes | memoryview) -> Message:
    """What `encode_message` was given. Raises `UnreadableMessageError` for anything else."""
    found = decode_payload_list(data)
    try:
        sender, recipient, kind, priority, correlation_id, expires_at, message_id, attempt, payload = found
    except ValueError:
        raise UnreadableMessageError(problem="has another number of fields") from None
    if not (
        sender.__class__ is recipient.__class__ is kind.__class__ is message_id.__class__ is str
        and priority.__class__ is attempt.__class__ is int
        and 0 <= priority <= 2
        and attempt > 0
        and (correlation_id is None or correlation_id.__class__ is str)
        and (expires_at is None or (expires_at.__class__ in (int, float) and not math.isnan(expires_at)))
    ):
        raise UnreadableMessageError(problem="has fields of another kind")
    return Message(
        sender, recipient, kind, payload, _PRIORITIES[priority], correlation_id, expires_at, message_id, attempt
    )


def decode_payload_list(data: bytes | memoryview) -> list[Any]:
    """A JSON array, its elements unwrapped. Raises `UnreadableMessageError`."""
    found = decode_payload(data)
    if not isinstance(found, list):
        raise UnreadableMessageError(problem="is no array")
    return found


def measure(payload: Payload) -> int:
    """Bytes of a str or a bytes; 0 for anything else, which a bus that hands payloads over does not look into."""
    if isinstance(payload, str):
        return len(payload) if payload.isascii() else len(payload.encode("utf-8", "surrogatepass"))
    return len(payload) if isinstance(payload, bytes) else 0


def fits(payload: Payload, limit: int) -> None:
    """Raises `PayloadTooLargeError` when `measure` is over the limit."""
    size = measure(payload)
    if size > limit:
        raise PayloadTooLargeError(size=size, limit=limit)


def _is_plain(value: object, depth: int) -> bool:
    """Whether JSON writes this as it is; raises where nothing can carry it."""
    if value.__class__ in _SCALARS:
        return True
    if depth > MAX_DEPTH:
        raise InvalidMessageError(field="payload", problem=f"is nested more than {MAX_DEPTH} deep")
    children: Iterable[object]
    plain = True
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InvalidMessageError(field="payload", problem=f"has the key {key!r}, which is no text")
        if _BYTES in value or _OBJECT in value:
            plain = False
        children = value.values()
    elif isinstance(value, list):
        children = value
    elif isinstance(value, bytes):
        return False
    elif isinstance(value, str | int | float):
        return True
    else:
        raise InvalidMessageError(field="payload", problem=f"holds a {type(value).__name__}, which no bus carries")
    for child in children:
        if child.__class__ not in _SCALARS and not _is_plain(child, depth + 1):
            plain = False
    return plain


def _wrapped(value: Any) -> Any:
    if isinstance(value, bytes):
        return {_BYTES: b64encode(value).decode("ascii")}
    if isinstance(value, list):
        return [_wrapped(each) for each in value]
    if isinstance(value, dict):
        inner = {key: _wrapped(each) for key, each in value.items()}
        return {_OBJECT: inner} if _BYTES in value or _OBJECT in value else inner
    return value


def _unwrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unwrapped(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        if _BYTES in value and isinstance(value[_BYTES], str):
            return b64decode(value[_BYTES], validate=True)
        inner = value.get(_OBJECT)
        if isinstance(inner, dict):
            return {key: _unwrapped(each) for key, each in inner.items()}
    return {key: _unwrapped(each) for key, each in value.items()}
