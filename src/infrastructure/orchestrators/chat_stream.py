"""Puts the pieces of a streamed chat completion together into the one document that an unstreamed one is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.chat_completion import told_usage
from infrastructure.orchestrators.provider_refusal import error_object_refusal

__all__ = ["ChatStream", "looks_like_events"]

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
# An event says a few characters in some hundred bytes.
_RAW_TO_CONTENT = 64
_UNREADABLE = "stream_unreadable"


def looks_like_events(content_type: str, begin: bytes) -> bool:
    """Whether a body is a stream of server-sent events: as it is announced, or as it begins where that is wrong."""
    return content_type == "text/event-stream" or begin.lstrip().startswith(_FIELDS)


class ChatStream:
    """Reads server-sent events (HTML Living Standard, 9.2) as they come, each a `chat.completion.chunk`, `[DONE]` at the end.

    Lines end in LF or CR LF; no provider ends them in CR alone.
    Knows no sockets and no time: bytes go in however they were cut, and a document comes out, of at most `most` bytes of text.
    """

    def __init__(self, *, host: str, most: int, redact: Callable[[bytes], bytes] = bytes) -> None:
        """`redact` is given each line before anything of it is kept."""
        self._host = host
        self._most = most
        self._redact = redact
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._raw_bytes = 0
        self._text_bytes = 0
        self._pieces: list[str] = []
        self._refusals: list[str] = []
        self._model: object = None
        self._finish_reason: object = None
        self._usage: object = None
        self._is_done = False

    @property
    def is_done(self) -> bool:
        """Whether the stream said that it is over: what comes after that is no part of it."""
        return self._is_done

    @property
    def is_whole(self) -> bool:
        """Whether the model had finished by the last piece, even if the stream broke off after it."""
        return self._is_done or self._finish_reason is not None

    def feed(self, received: bytes) -> bool:
        """Take bytes as they came; whether a line became whole by them. Raises `AgentInvocationError`."""
        self._raw_bytes += len(received)
        head, line_end, tail = received.rpartition(b"\n")
        lines: list[bytes] = []
        if line_end:
            lines = b"".join([*self._rest, head]).split(b"\n")
            self._rest, self._rest_bytes = [], 0
        self._rest.append(tail)
        self._rest_bytes += len(tail)
        for line in lines:
            if self._is_done:
                break
            self._take(self._redact(line.removesuffix(b"\r")))
        if self._rest_bytes > self._most or self._raw_bytes > self._most * _RAW_TO_CONTENT:
            raise self._too_large()
        return bool(lines)

    def end(self) -> None:
        """No more bytes come. Raises `AgentInvocationError` where the model had not finished."""
        if not self._is_done:
            try:
                self._take(self._redact(b"".join(self._rest).removesuffix(b"\r")))
                self._take(b"")
            except AgentInvocationError as error:
                # The last event without its end may be half of one.
                if error.kind != _UNREADABLE:
                    raise
        if not self.is_whole:
            raise AgentInvocationError(
                f"{self._host} ended its stream before the model had finished",
                kind="stream_truncated",
                retryable=True,
            )

    def document(self) -> dict[str, Any]:
        """What has come so far, as one chat completion."""
        refusal = "".join(self._refusals)
        message = {"content": "".join(self._pieces), **({"refusal": refusal} if refusal else {})}
        return {
            "model": self._model,
            "choices": [{"message": message, "finish_reason": self._finish_reason}],
            "usage": self._usage,
        }

    def _take(self, line: bytes) -> None:
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
                self._data_bytes += len(value)
                if self._data_bytes > self._most:
                    raise self._too_large()
            return
        data = b"\n".join(self._data)
        self._data, self._data_bytes = [], 0
        if data.strip() == b"[DONE]":
            self._is_done = True
        elif data.strip():
            self._event(data)

    def _event(self, data: bytes) -> None:
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, list) and len(event) == 1:
            event = event[0]
        if not isinstance(event, dict):
            raise AgentInvocationError(f"{self._host} sent an event that is no JSON object", kind=_UNREADABLE)
        if isinstance(event.get("usage"), dict):
            self._usage = event["usage"]
        if self._model is None:
            self._model = event.get("model")
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        for place in (event, choice):
            if place.get("error"):
                raise self._failed(place["error"])
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._add(self._pieces, delta.get("content"))
            self._add(self._refusals, delta.get("refusal"))
        if choice.get("finish_reason") is not None:
            self._finish_reason = choice["finish_reason"]

    def _add(self, pieces: list[str], text: object) -> None:
        if not isinstance(text, str):
            return
        self._text_bytes += len(text)
        if self._text_bytes > self._most:
            raise self._too_large()
        pieces.append(text)

    def _failed(self, error: object) -> AgentInvocationError:
        failure = error_object_refusal(error, host=self._host)
        if not self._pieces and failure.state is AgentState.THROTTLED:
            failure.usage = Usage()
        elif self.is_whole:
            failure.usage = told_usage(self._usage)
        return failure

    def _too_large(self) -> AgentInvocationError:
        return AgentInvocationError(
            f"{self._host} sends a reply of more than {self._most} bytes: it was not read further",
            kind="reply_too_large",
        )
