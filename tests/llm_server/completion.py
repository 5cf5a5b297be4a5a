"""Reads chat-completion requests and renders chat completions, whole or as server-sent events."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast

from tests.llm_server.dialects import OPENAI, Dialect
from tests.llm_server.wire import chunk, render, render_chunked_head

PIECE_CHARACTERS = 24
# Filled in by `%`, because a thousand answers at once would spend more time on dumping this than on all the rest.
COMPLETION = (
    '{"id": "%s", "object": "chat.completion", "created": %d, "model": %s, "choices": [{"index": 0, "message": '
    '{"role": "assistant", "content": %s, "refusal": null}, "logprobs": null, "finish_reason": "%s"}], '
    '"usage": %s}'
)

USAGE = '{"prompt_tokens": %d, "completion_tokens": %d, "total_tokens": %d}'


class UnreadableChatError(Exception):
    """A body that is no chat-completion request; `reason` says what is missing."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a chat-completion request: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request; `text` is all message texts joined by newlines, `prompt_sha256` (hex) is over its UTF-8."""

    body: Mapping[str, Any]
    model: str
    text: str
    prompt_sha256: str
    has_response_format: bool
    schema: Mapping[str, Any] | None
    stream: bool
    include_usage: bool
    user: str | None

    @classmethod
    def read(cls, data: bytes) -> "ChatRequest":
        """Read a request body; raises UnreadableChatError."""
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise UnreadableChatError("the body is not JSON") from error
        if not isinstance(body, dict):
            raise UnreadableChatError("the body is no JSON object")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise UnreadableChatError("`messages` must be a list with at least one message")
        model = body.get("model")
        if not isinstance(model, str):
            raise UnreadableChatError("`model` must be a string")
        text = "\n".join(_message_text(message) for message in messages)
        response_format = body.get("response_format")
        options = body.get("stream_options")
        user = body.get("user")
        return cls(
            body=body,
            model=model,
            text=text,
            prompt_sha256=prompt_sha256(text),
            has_response_format=response_format is not None,
            schema=_schema(response_format),
            stream=body.get("stream") is True,
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            user=user if isinstance(user, str) else None,
        )


def prompt_sha256(text: str) -> str:
    """Return the SHA-256 (hex) of message texts joined by newlines, lone surrogates included."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _message_text(message: object) -> str:
    if not isinstance(message, dict):
        raise UnreadableChatError("each message must be an object")
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        raise UnreadableChatError("each message needs `content`")
    return content


def _schema(response_format: object) -> Mapping[str, Any] | None:
    """Find the schema where OpenAI has it (`json_schema.schema`) or where llama.cpp also takes it (`schema`)."""
    if not isinstance(response_format, dict):
        return None
    nested = response_format.get("json_schema")
    schema = nested.get("schema") if isinstance(nested, dict) else response_format.get("schema")
    return schema if isinstance(schema, dict) else None


@dataclass(frozen=True, slots=True)
class Completion:
    """One model answer, ready to be put on the wire."""

    identity: str
    model: str
    content: str | None
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str = "stop"
    thinking_tokens: int = 0
    dialect: Dialect = OPENAI
    tells_usage: bool = True

    def usage(self) -> dict[str, Any] | None:
        """Return the token counts as the dialect tells them, None where it is not to."""
        if not self.tells_usage:
            return None
        return self.dialect.usage(self.prompt_tokens, self.completion_tokens, self.thinking_tokens)

    def _usage_text(self) -> str:
        if self.thinking_tokens or not self.tells_usage:
            return json.dumps(self.usage())
        return USAGE % (self.prompt_tokens, self.completion_tokens, self.prompt_tokens + self.completion_tokens)

    def document(self) -> dict[str, Any]:
        """Return the completion as the API's `chat.completion` object."""
        return cast("dict[str, Any]", json.loads(self._text()))

    def _text(self) -> str:
        return COMPLETION % (
            self.identity,
            int(time.time()),
            json.dumps(self.model),
            json.dumps(self.content),
            self.finish_reason,
            self._usage_text(),
        )

    def response(self, request: ChatRequest, *, headers: Mapping[str, str] | None = None) -> bytes:
        """Render the whole HTTP response, as events when the request wants a stream."""
        if not request.stream:
            return render(200, self._text().encode(), headers=headers)
        head = render_chunked_head(content_type="text/event-stream", headers=headers)
        return head + b"".join(self.events(include_usage=request.include_usage)) + chunk(b"")

    def events(self, *, include_usage: bool) -> list[bytes]:
        """Return the events of a stream, each as one chunk: role, pieces of content, finish, usage if wanted, `[DONE]`."""
        content = self.content or ""
        pieces = [content[at : at + PIECE_CHARACTERS] for at in range(0, len(content), PIECE_CHARACTERS)]
        deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces)]
        events = [self._event([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
        told: dict[str, Any] = {"usage": self.usage()} if include_usage and self.tells_usage else {}
        finish = [{"index": 0, "delta": {}, "finish_reason": self.finish_reason}]
        if self.dialect.usage_with_finish:
            events.append(self._event(finish, **told))
        else:
            events.append(self._event(finish))
            events += [self._event([], **told)] if told else []
        return [*events, chunk(b"data: [DONE]\n\n")]

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        document = {
            "id": self.identity,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self.model,
            "choices": choices,
            **more,
        }
        return chunk(f"data: {json.dumps(document)}\n\n".encode())
