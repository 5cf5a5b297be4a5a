"""The behaviours of the first load test, against the public Python API in real time."""

from __future__ import annotations

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from domain.errors.agent import AgentPoolExhaustedError
from domain.errors.halt import SystemHaltedError
from domain.models.agent_pool import MAX_CONCURRENT_AGENTS, AgentPool
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.virtual_time import run_in_virtual_time


def requests(count: int, prefix: str = "archon") -> list[AgentRequest]:
    context = ContextBundle(topic_id="t-1", topic_content="Should the city centre be closed to private cars?")
    return [AgentRequest(agent_id=f"{prefix}-{n}", context=context) for n in range(count)]


def make_service(
    orchestrator: AgentOrchestratorStub | None = None, halt: HaltCheckerStub | None = None
) -> ConcurrentDeliberationService:
    return ConcurrentDeliberationService(
        orchestrator=orchestrator or AgentOrchestratorStub(),
        halt_checker=halt or HaltCheckerStub(),
        pool=AgentPool(max_concurrent=MAX_CONCURRENT_AGENTS),
    )


async def test_72_agents_complete_without_blocking() -> None:
    orchestrator = AgentOrchestratorStub(latency_seconds=0.02)
    result = await make_service(orchestrator).invoke_concurrent(requests(72))
    assert (result.success_count, result.failure_count, len(result.outputs)) == (72, 0, 72)
    assert orchestrator.peak_active_count == 72


async def test_72_agents_produce_72_distinct_outputs() -> None:
    result = await make_service().invoke_concurrent(requests(72))
    assert len({output.output_id for output in result.outputs}) == 72
    assert {output.agent_id for output in result.outputs} == {f"archon-{n}" for n in range(72)}


def test_concurrent_beats_sequential() -> None:
    async def elapsed() -> float:
        return (
            await make_service(AgentOrchestratorStub(latency_seconds=0.01)).invoke_concurrent(requests(72))
        ).total_ms

    assert run_in_virtual_time(elapsed()) == pytest.approx(10)


async def test_the_pool_is_free_after_success() -> None:
    service = make_service()
    await service.invoke_concurrent(requests(50))
    assert (service.pool.active_count, service.pool.available_count) == (0, 72)


async def test_the_pool_is_free_after_partial_failure() -> None:
    service = make_service(AgentOrchestratorStub(failing={"archon-2", "archon-5", "archon-8"}))
    result = await service.invoke_concurrent(requests(10))
    assert (result.success_count, result.failure_count) == (7, 3)
    assert (service.pool.active_count, service.pool.available_count) == (0, 72)


async def test_a_pool_is_used_again_by_the_next_batch() -> None:
    service = make_service()
    first = await service.invoke_concurrent(requests(72, "first"))
    second = await service.invoke_concurrent(requests(72, "second"))
    assert (first.success_count, second.success_count) == (72, 72)
    assert first.batch_id != second.batch_id


async def test_73_raise_agent_pool_exhausted_error() -> None:
    with pytest.raises(AgentPoolExhaustedError, match="FR10"):
        await make_service().invoke_concurrent(requests(73))


async def test_a_halt_prevents_invocation() -> None:
    orchestrator, halt = AgentOrchestratorStub(), HaltCheckerStub()
    service = make_service(orchestrator, halt)
    await halt.set_halted("integration test halt")
    with pytest.raises(SystemHaltedError, match="integration test halt"):
        await service.invoke_concurrent(requests(10))
    with pytest.raises(SystemHaltedError):
        await service.invoke_single(requests(1)[0])
    assert (orchestrator.invocations, service.pool.active_count) == (0, 0)
    await halt.clear()
    assert (await service.invoke_concurrent(requests(10))).success_count == 10


@pytest.mark.parametrize("failing", [3, 10])
async def test_failures_are_reported_and_never_raise(failing: int) -> None:
    agents = [f"archon-{n}" for n in range(failing)]
    result = await make_service(AgentOrchestratorStub(failing=agents)).invoke_concurrent(requests(10))
    assert (result.success_count, result.failure_count) == (10 - failing, failing)
    assert list(result.failed_agents) == agents
    assert all(failure.kind and failure.message and failure.attempts == 1 for failure in result.failures)


async def test_the_result_tells_how_long_it_took() -> None:
    result = await make_service().invoke_concurrent(requests(10))
    assert result.total_ms > 0
    assert result.completed_at >= result.started_at
