"""Whoever is counted as invoked is counted as ended too, or active still, at every moment."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from application.ports.metrics import NullMetrics
from application.services.batch import Batch, StopCause
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from domain.models.agent_pool import AgentPool
from domain.models.roll_call import AgentState
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.unit.application.scripted_fan_out import Scripted, hanging, requests
from tests.virtual_time import pass_time


class Ledger(NullMetrics):
    """Counts what the metrics count."""

    def __init__(self) -> None:
        self.invoked = 0
        self.ended: Counter[AgentState] = Counter()

    def agent_invoked(self) -> None:
        self.invoked += 1

    def agent_ended(self, state: AgentState, duration_seconds: float) -> None:
        self.ended[state] += 1


async def test_invoked_is_ended_plus_active_at_every_step_of_the_loop() -> None:
    ledger = Ledger()
    orchestrator = AgentOrchestratorStub(
        latency_seconds=lambda g: g.choice([0, 0.5, 1]), failing={"archon-3"}, hanging={"archon-5"}
    )
    pool = AgentPool(8)
    fan_out = ConcurrentDeliberationService(
        orchestrator=orchestrator, halt_checker=HaltCheckerStub(), pool=pool, metrics=ledger
    )
    looks = 0

    async def look() -> None:
        nonlocal looks
        while True:
            looks += 1
            assert ledger.invoked == ledger.ended.total() + pool.active_count
            await pass_time(0 if looks % 50 else 0.25)

    batch = Batch("stopped", agent_timeout_s=4)
    looking = asyncio.create_task(look())
    running = [
        asyncio.create_task(fan_out.run_batch(Batch("whole", agent_timeout_s=4), requests(72), max_attempts=1)),
        asyncio.create_task(fan_out.run_batch(batch, requests(72), max_attempts=1)),
        asyncio.create_task(fan_out.run_batch(Batch("given up", agent_timeout_s=4), requests(72), max_attempts=1)),
    ]
    await pass_time(3)
    batch.stop(StopCause.CANCELLED)
    running[2].cancel()
    results = await asyncio.gather(*running, return_exceptions=True)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert isinstance(results[2], asyncio.CancelledError)
    assert (pool.active_count, looks > 100) == (0, True)
    assert ledger.invoked == ledger.ended.total()
    assert ledger.ended[AgentState.CANCELLED] > 0


async def test_a_suspended_agent_counts_only_where_it_held_a_slot() -> None:
    ledger = Ledger()
    pool = AgentPool(2)
    fan_out = ConcurrentDeliberationService(
        orchestrator=Scripted(archon_0=hanging, archon_1=hanging),
        halt_checker=HaltCheckerStub(),
        pool=pool,
        metrics=ledger,
    )
    batch = Batch("b", agent_timeout_s=99)
    running = asyncio.create_task(fan_out.run_batch(batch, requests(5), max_attempts=1))
    await pass_time(1)
    batch.stop(StopCause.SUSPENDED)
    result = await running
    assert {(failure.kind, failure.state) for failure in result.failures} == {("suspended", AgentState.CANCELLED)}
    assert (ledger.invoked, ledger.ended, pool.active_count) == (2, {AgentState.CANCELLED: 2}, 0)
