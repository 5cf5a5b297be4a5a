"""A provider's client at a server that writes given bytes, and what came of a call."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import cast

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.chat_request import Dialect
from infrastructure.orchestrators.provider_client import ProviderClient, ReplyFacts

__all__ = [
    "FAILED",
    "INVALID",
    "KEY",
    "THROTTLED",
    "TIMED_OUT",
    "VERDICT",
    "asking",
    "client_at",
    "failure_of",
    "saying",
    "whole",
    "wired",
]

KEY = "sk-test-0123456789abcdef"
CONTEXT = ContextBundle("t-1", "Should the city centre be closed to private cars?")
VERDICT = AnswerFormat(AnswerKind.VERDICT)
FAILED, INVALID, THROTTLED, TIMED_OUT = (
    AgentState.FAILED,
    AgentState.INVALID,
    AgentState.THROTTLED,
    AgentState.TIMED_OUT,
)


def asking(agent_id: str = "archon-1") -> AgentRequest:
    return AgentRequest(agent_id, CONTEXT, persona=f"You are {agent_id}.", expected=VERDICT)


def whole(status: int, body: bytes, **headers: str) -> bytes:
    reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Odd"
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def saying(text: str) -> bytes:
    return whole(200, json.dumps({"choices": [{"message": {"content": text}}]}).encode())


class Wire:
    """A server that reads requests and writes whatever `answer` gives for the nth of a connection; counts connections."""

    def __init__(self, answer: Callable[[int, int], bytes]) -> None:
        self.answer = answer
        self.connections = 0
        self.heads: list[bytes] = []
        self.present: asyncio.StreamWriter | None = None
        self.handlers: list[asyncio.Task[None]] = []
        self.base_url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.handlers.append(cast("asyncio.Task[None]", asyncio.current_task()))
        connection, self.present = self.connections, writer
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for turn in range(100):
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                writer.write(self.answer(connection, turn))
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def wired(answer: Callable[[int, int], bytes]) -> AsyncIterator[Wire]:
    wire = Wire(answer)
    listener = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    async with listener:
        wire.base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        yield wire
        await asyncio.gather(*wire.handlers)


@asynccontextmanager
async def client_at(
    base_url: str, *, stream: bool = False, heard: list[tuple[str, ReplyFacts]] | None = None, patience_s: float = 30.0
) -> AsyncIterator[ProviderClient]:
    client = ProviderClient(
        base_url=base_url,
        api_key=KEY,
        max_connections=8,
        dialect=Dialect(stream=stream),
        first_byte_timeout_s=patience_s,
        idle_timeout_s=patience_s,
        heard=None if heard is None else lambda model, facts: heard.append((model, facts)),
    )
    async with client:
        yield client


async def failure_of(client: ProviderClient) -> AgentInvocationError:
    with pytest.raises(AgentInvocationError) as caught:
        await client.complete(asking(), model="m-1")
    return caught.value
