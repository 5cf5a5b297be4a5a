"""What one faulty agent costs the other 71: their time beside that of a batch without a fault, for each fault in turn.

python -m benchmarks.fault_isolation [--repetitions 7] [--latency-ms 200]
"""

from __future__ import annotations

import argparse
import logging
import statistics

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from domain.models.agent_pool import AgentPool
from infrastructure.event_loop import run
from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.llm_server.handle import LlmServer

AGENTS = 72
FAULTY = "the viewpoint of a night watchman"
CONTEXT = ContextBundle(topic_id="t", topic_content="Should the city centre be closed to private cars?")
FAULTS: list[dict[str, object]] = [
    {"fault": "429", "retry_after": 0},
    {"fault": "500"},
    {"fault": "reset"},
    {"fault": "empty"},
    {"fault": "garbage"},
    {"fault": "wrong_schema"},
    {"fault": "prose"},
    {"fault": "hang"},
    {"fault": "drip", "interval_seconds": 10},
    {"fault": "endless"},
    {"fault": "huge"},
    {"fault": "nul"},
    {"fault": "slow_start", "delay_seconds": 30},
]


async def slowest_of_the_others(service: ConcurrentDeliberationService) -> float:
    """Milliseconds until the last of the agents without a fault had answered."""
    requests = [AgentRequest(f"archon-{n}", CONTEXT, persona=f"viewpoint {n}") for n in range(AGENTS - 1)]
    requests.append(AgentRequest("watchman", CONTEXT, persona=FAULTY))
    result = await service.invoke_concurrent(requests, agent_timeout_s=2.0)
    others = [output.duration_seconds for output in result.outputs if output.agent_id != "watchman"]
    assert len(others) == AGENTS - 1
    return max(others) * 1e3


async def main(repetitions: int, latency_ms: float) -> None:
    """Alternate a batch without and one with each fault."""
    logging.disable(logging.WARNING)
    print(f"| fault | without, ms | with, ms | ratio |  ({AGENTS} agents, {latency_ms:g} ms each)")
    print("|---|---|---|---|")
    with LlmServer() as server:
        async with OpenAIOrchestrator(base_url=server.base_url, max_connections=AGENTS) as client:
            service = ConcurrentDeliberationService(
                orchestrator=client, halt_checker=HaltCheckerStub(), pool=AgentPool(AGENTS)
            )
            for fault in FAULTS:
                without: list[float] = []
                with_it: list[float] = []
                for _ in range(repetitions):
                    server.configure(latency_seconds=latency_ms / 1000, faults=[])
                    without.append(await slowest_of_the_others(service))
                    server.configure(faults=[{"contains": FAULTY, **fault}])
                    with_it.append(await slowest_of_the_others(service))
                before, after = statistics.median(without), statistics.median(with_it)
                print(f"| {fault['fault']} | {before:.1f} | {after:.1f} | {after / before:.3f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--latency-ms", type=float, default=200)
    arguments = parser.parse_args()
    run(main(arguments.repetitions, arguments.latency_ms))
