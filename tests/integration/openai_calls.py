"""The OpenAI-compatible orchestrator at far ends of a test's own, some of which answer with given bytes or never."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.retry_policy import RetryPolicy
from domain.errors.agent import AgentInvocationError
from domain.models.agent_output import AgentFailure
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub

__all__ = [
    "FAILED",
    "INVALID",
    "KEY",
    "THROTTLED",
    "VERDICT",
    "answering",
    "asking",
    "ending_of",
    "failure_of",
    "hanging",
    "orchestrator_at",
    "service_over",
    "whole",
]

KEY = "sk-test-0123456789abcdef"
CONTEXT = ContextBundle("t-1", "Should the city centre be closed to private cars?")
VERDICT = AnswerFormat(AnswerKind.VERDICT)
FAILED, INVALID, THROTTLED = AgentState.FAILED, AgentState.INVALID, AgentState.THROTTLED


def asking(
    agent_id: str = "archon-1", *, model: str | None = None, expected: AnswerFormat | None = VERDICT
) -> AgentRequest:
    return AgentRequest(agent_id, CONTEXT, persona=f"You are {agent_id}, nobody else.", model=model, expected=expected)


def orchestrator_at(
    base_url: str, *, model: str | None = "m-1", max_reply_bytes: int = 1024 * 1024
) -> OpenAIOrchestrator:
    return OpenAIOrchestrator(
        base_url=base_url, api_key=KEY, model=model, max_connections=72, max_reply_bytes=max_reply_bytes
    )


def service_over(orchestrator: OpenAIOrchestrator) -> ConcurrentDeliberationService:
    return ConcurrentDeliberationService(
        orchestrator=orchestrator, halt_checker=HaltCheckerStub(), retries=RetryPolicy(base_s=0.001)
    )


async def failure_of(orchestrator: OpenAIOrchestrator, request: AgentRequest | None = None) -> AgentInvocationError:
    with pytest.raises(AgentInvocationError) as caught:
        await orchestrator.invoke(request or asking())
    return caught.value


async def ending_of(orchestrator: OpenAIOrchestrator, *, agent_timeout_s: float = 0.2) -> AgentFailure:
    result = await service_over(orchestrator).invoke_concurrent([asking()], agent_timeout_s=agent_timeout_s)
    assert result.outputs == ()
    return result.failures[0]


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[str]:
    """The address of a server that answers every request with exactly these bytes and closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(length[0].partition(b":")[2]) if length else 0)
            writer.write(reply)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"


@asynccontextmanager
async def hanging(begin: bytes = b"") -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """An address that never ends its answer, with events for the arrival of a request and for its being given up."""
    arrived, left = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        writer.write(begin)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", arrived, left


def whole(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
