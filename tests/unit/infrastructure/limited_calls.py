"""A limiter of one provider in virtual time, and calls that ask it for leave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from domain.errors.agent import AgentInvocationError
from infrastructure.orchestrators.provider_limiter import Allowance, Place, ProviderLimiter
from infrastructure.orchestrators.shared_pacing import SharedPacing
from infrastructure.stubs.virtual_time import VirtualClock

__all__ = ["MODEL", "enter", "given_up", "limiter", "refused", "waits"]


MODEL = "openai/small"


def limiter(
    *,
    concurrency: int = 72,
    requests: int | None = None,
    tokens: int | None = None,
    memory: int | None = None,
    share: float = 1.0,
    shared: SharedPacing | None = None,
) -> ProviderLimiter:
    allowance = Allowance(concurrency, requests, tokens, memory, share)
    return ProviderLimiter(MODEL, allowance, clock=VirtualClock(), shared=shared)


async def enter(one: ProviderLimiter, tokens: int = 1, *, group: str = "key", batch: str = "batch") -> Place:
    return await one.enter(tokens, group=group, batch=batch)


def waits(one: ProviderLimiter, number: int, *, group: str = "key", batch: str = "batch") -> list[asyncio.Task[Place]]:
    return [asyncio.create_task(enter(one, group=group, batch=batch)) for _ in range(number)]


async def given_up(tasks: Sequence[asyncio.Task[Place]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def refused(one: ProviderLimiter, until: float, tokens: int = 1, *, batch: str = "batch") -> AgentInvocationError:
    with pytest.raises(AgentInvocationError) as caught:
        await one.enter(tokens, group="key", batch=batch, until=until)
    return caught.value
