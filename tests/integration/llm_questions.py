"""Questions put to the test LLM server over bare HTTP, and what came back."""

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.llm_server.handle import LlmServer

__all__ = [
    "CHAT",
    "CHOICE",
    "OPTIONS",
    "SOCKET_SECONDS",
    "Answer",
    "ask",
    "ask_concurrently",
    "asking",
    "request_body",
    "response_format",
    "send",
]

CHAT = "/v1/chat/completions"
OPTIONS = ["yes", "no", "weekends only"]
CHOICE: dict[str, Any] = {"type": "string", "enum": OPTIONS}
SOCKET_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def content(self) -> Any:
        return self.document["choices"][0]["message"]["content"]

    @property
    def ballot(self) -> dict[str, Any]:
        ballot: dict[str, Any] = json.loads(self.content)
        return ballot


def response_format(answer: Mapping[str, Any], **definitions: Any) -> dict[str, Any]:
    properties = {
        "answer": answer,
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "reasoning": {"type": "string", "maxLength": 60},
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **definitions,
    }
    return {"type": "json_schema", "json_schema": {"name": "ballot", "strict": True, "schema": schema}}


def request_body(prompt: str = "Should it be done?", **more: Any) -> bytes:
    document = {
        "model": "test-model",
        "messages": [{"role": "user", "content": prompt}],
        "response_format": response_format(CHOICE),
        **more,
    }
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


def send(
    server: LlmServer, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=SOCKET_SECONDS)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def ask(
    server: LlmServer, prompt: str = "Should it be done?", *, headers: Mapping[str, str] | None = None, **more: Any
) -> Answer:
    return send(server, "POST", CHAT, request_body(prompt, **more), headers)


@contextlib.contextmanager
def asking(server: LlmServer, prompt: str = "Should it be done?") -> Iterator[socket.socket]:
    """A bare socket on which one question has been asked and nothing has been read."""
    body = request_body(prompt)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((server.host, server.port), SOCKET_SECONDS) as connected:
        connected.sendall(head.encode() + body)
        yield connected


async def ask_concurrently(server: LlmServer, prompts: list[str]) -> list[Answer]:
    async def one(prompt: str) -> Answer:
        body = request_body(prompt)
        reader, writer = await asyncio.open_connection(server.host, server.port)
        try:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        start, _, rest = answer.partition(b"\r\n\r\n")
        return Answer(int(start.split()[1]), {}, rest)

    return await asyncio.gather(*(one(prompt) for prompt in prompts))
