"""72 agents through CrewAI, each call answered after 200 ms: wall, calls in flight, how long it holds up our loop, and others.

    python -m benchmarks.crewai_fan_out [--repetitions 9] [--latency-ms 200] [--out FILE]

It runs where the extra `crewai` is (`scripts/environment.sh crewai`). The test LLM servers are processes of their own, one
for each of two deliberations side by side: one on the direct client, and beside it one that only waits, another direct one,
then one through CrewAI.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from benchmarks.fan_out import AGENTS, requests
from benchmarks.measurement import Contender, alternate, report
from domain.models.agent_pool import AgentPool
from infrastructure.event_loop import run
from infrastructure.orchestrators.crewai_orchestrator import CrewAIAdapter
from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.llm_server.handle import LlmServer


class LongestBlock:
    """Feels the loop's pulse every millisecond while it is entered; `ms` is the longest time in which it did not beat."""

    def __init__(self) -> None:
        self.ms = 0.0

    async def __aenter__(self) -> LongestBlock:
        self._pulse = asyncio.create_task(self._feel())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pulse.cancel()

    async def _feel(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.ms = max(self.ms, (time.perf_counter() - before) * 1e3 - 1)


class Waiting:
    """Models that answer after so many seconds, without a connection or a thread: what any deliberation beside costs at the least."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """An answer."""
        await asyncio.sleep(self._latency_s)
        return AgentOutput(request.agent_id, request.request_id, "yes")


def deliberation(orchestrator: AgentOrchestratorProtocol) -> Callable[[], Awaitable[None]]:
    """72 agents asked at once by a service of their own, all of whom answer."""

    async def deliberate() -> None:
        service = ConcurrentDeliberationService(
            orchestrator=orchestrator, halt_checker=HaltCheckerStub(), pool=AgentPool()
        )
        result = await service.invoke_concurrent(requests(), agent_timeout_s=30)
        assert result.success_count == AGENTS, result.failures[:1]

    return deliberate


async def measure(*, repetitions: int, latency_s: float, out: Path | None) -> None:
    """All of it."""
    with LlmServer() as server, LlmServer() as others_server:
        server.configure(latency_seconds=latency_s)
        others_server.configure(latency_seconds=latency_s)
        async with (
            OpenAIOrchestrator(base_url=server.base_url, max_connections=AGENTS) as direct,
            OpenAIOrchestrator(base_url=others_server.base_url, max_connections=AGENTS) as models,
        ):
            adapter = CrewAIAdapter(models=models)
            began = time.perf_counter()
            async with LongestBlock() as at_start:
                await adapter.start()
            print(
                f"start: {time.perf_counter() - began:.1f} s, in which our loop stood still for at most {at_start.ms:.0f} ms"
            )
            directly, through_crewai = deliberation(direct), deliberation(adapter)
            contenders = [Contender("direct client", directly), Contender("through CrewAI", through_crewai)]
            await alternate(contenders, repetitions=repetitions)
            report("72 agents", contenders, agents=AGENTS, ideal_ms=latency_s * 1e3, out=out)
            peaks, block = [], LongestBlock()
            for _ in range(repetitions):
                others_server.reset()
                others_server.configure(latency_seconds=latency_s)
                async with block:
                    await through_crewai()
                peaks.append(others_server.stats()["peak_in_flight"])
            print(f"\nin flight at the server at once: {min(peaks)} to {max(peaks)}")
            print(f"our loop stood still for at most {block.ms:.0f} ms")
            neighbours = {
                "beside one that waits as long in memory": deliberation(Waiting(latency_s)),
                "beside a direct one": deliberation(models),
                "beside one through CrewAI": through_crewai,
            }
            await measure_beside(directly, neighbours, repetitions=3 * repetitions)
            await adapter.close()


async def measure_beside(
    directly: Callable[[], Awaitable[None]],
    neighbours: Mapping[str, Callable[[], Awaitable[None]]],
    *,
    repetitions: int,
) -> None:
    """A deliberation on the direct client alone, and beside another one of each kind."""
    others = {"alone": None, **neighbours}
    walls: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(repetitions + 1):
        for name, other in others.items():
            neighbour = None if other is None else asyncio.ensure_future(other())
            began = time.perf_counter()
            await directly()
            walls[name].append((time.perf_counter() - began) * 1e3)
            if neighbour is not None:
                await neighbour
    print("\n| a deliberation on the direct client | median ms | x alone, in the same round |\n|---|---|---|")
    for name, times in walls.items():
        ratios = [time_ms / alone for time_ms, alone in zip(times[1:], walls["alone"][1:], strict=True)]
        print(f"| {name} | {statistics.median(times[1:]):.0f} | {statistics.median(ratios):.2f} |")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--latency-ms", type=float, default=200.0)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    run(measure(repetitions=arguments.repetitions, latency_s=arguments.latency_ms / 1e3, out=arguments.out))


if __name__ == "__main__":
    main()
