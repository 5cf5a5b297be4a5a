"""Logging: one line an event, as text or JSON, in which nothing that was logged can pass for another line or leak a secret."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from structlog.processors import format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import Processor

from application.services.log_ids import present_log_ids

__all__ = ["configure_logging"]

_Event = MutableMapping[str, Any]

_REDACTED = "[redacted]"
_SHORTEST_PART = 6
_MAX_DEPTH = 6
_BEARER = re.compile(r"(?i)\b(bearer\s+)[^\s\"',;]{8,}")
_USER_INFO = re.compile(r"(?<=://)[^/\s@:]{0,256}:[^/\s]{0,256}@")

# C0 and C1 controls and DEL, line and paragraph separators, marks that reorder or hide text (UAX 9), lone surrogates.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PLAIN_VALUE = re.compile(r"[^\s\"'=\\]+")
_FOLDED_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access")
_FIRST = ("timestamp", "level", "logger", "event")
_MULTILINE = ("exception", "stack")
# What formatters of others leave in a record, and what uvicorn says twice.
_NOT_SHOWN = ("_record", "asctime", "message", "taskName", "color_message")


def configure_logging(
    format: Literal["text", "json"],  # noqa: A002 - the word of the setting
    level: str,
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send everything that is logged, from `level` up, to `stream` (stderr unless given); may be called again.

    What a call passes as `extra` becomes fields, and so do the ids that `log_ids` binds around it. `secrets` are replaced
    wherever they appear, as are bearer tokens and the passwords of addresses. The loggers of uvicorn are folded in: start it with
    `log_config=None`.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[_described, format_exc_info],
            processors=[ProcessorFormatter.remove_processors_meta, _redactor(secrets), _RENDERERS[format]],
        )
    )
    root = logging.getLogger()
    for earlier in [known for known in root.handlers if isinstance(known.formatter, ProcessorFormatter)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Each step of a migration is for whoever looks for a fault, and not what a first start has to say.
    logging.getLogger("alembic").setLevel(logging.NOTSET if level == "debug" else logging.WARNING)
    for name in _FOLDED_LOGGERS:
        folded = logging.getLogger(name)
        folded.handlers.clear()
        folded.propagate = True


def _described(logger: Any, method: str, event: _Event) -> _Event:
    """The event with when, where and how grave it was, and its extras, none of which can take the place of those."""
    record: logging.LogRecord = event["_record"]
    described: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        **event,
    }
    if "stack_info" in described:
        described["stack"] = described.pop("stack_info")
    extras = ExtraAdder()(logger, method, {"_record": record})
    # What a call says itself stands before what holds around it: it may speak of another agent than the one at work.
    for key, value in {**present_log_ids(), **extras}.items():
        # Libraries put marks of their own on every record of the process (Ray does, once it is imported).
        if key not in _NOT_SHOWN and not key.startswith("_"):
            described[f"{key}_" if key in described or key in _MULTILINE else key] = value
    return described


def _redactor(secrets: Iterable[str]) -> Processor:
    """Replaces each secret that stands alone, and within a text those long enough not to stand there by chance."""
    known = frozenset(secret for secret in secrets if secret)
    # The longest first: a secret may begin with another.
    parts = sorted((secret for secret in known if len(secret) >= _SHORTEST_PART), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, parts))) if parts else None

    def redacted(value: Any, depth: int = 0) -> Any:
        if isinstance(value, str):
            if value in known:
                return _REDACTED
            text = pattern.sub(_REDACTED, value) if pattern is not None else value
            return _USER_INFO.sub(f"{_REDACTED}@", _BEARER.sub(rf"\1{_REDACTED}", text))
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if depth < _MAX_DEPTH:
            if isinstance(value, Mapping):
                return {redacted(str(key)): redacted(item, depth + 1) for key, item in value.items()}
            if isinstance(value, list | tuple):
                return [redacted(item, depth + 1) for item in value]
            if isinstance(value, set | frozenset):
                return [redacted(item, depth + 1) for item in sorted(value, key=str)]
        return redacted(str(value))

    def redact(_: object, __: str, event: _Event) -> _Event:
        return {key: redacted(value) for key, value in event.items()}

    return redact


def _visible(text: str) -> str:
    return _INVISIBLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    code = ord(character)
    return _SHORT_ESCAPES.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _as_json(_: object, __: str, event: _Event) -> str:
    # Pure ASCII: JSON's own escapes keep the line whole and the terminal untouched, and a reader gets the text as it was.
    return json.dumps({**{key: event[key] for key in _FIRST}, **event}, ensure_ascii=True)


def _as_text(_: object, __: str, event: _Event) -> str:
    fields = (
        f"{_visible(key)}={_value(value)}"
        for key, value in event.items()
        if key not in _FIRST and key not in _MULTILINE
    )
    line = f"{event['timestamp']} {event['level']:<8} {_visible(event['logger'])}: {_visible(str(event['event']))}"
    following = (
        # Indented, so that no line of a message within a traceback begins as an event does.
        f"\n    {_visible(text)}"
        for key in _MULTILINE
        if key in event
        for text in str(event[key]).split("\n")
    )
    return " ".join((line, *fields)) + "".join(following)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _visible(text if _PLAIN_VALUE.fullmatch(text) else json.dumps(text, ensure_ascii=False))


_RENDERERS: Mapping[str, Processor] = {"text": _as_text, "json": _as_json}
