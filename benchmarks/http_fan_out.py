"""72 real HTTP calls, each answered after 50 ms: ours, in memory and stored, beside a bare TaskGroup and the peers.

    python -m benchmarks.http_fan_out [--repetitions 11] [--latency-ms 50] [--out FILE]

Every contender asks the same test LLM server, which runs in a process of its own, through aiohttp; the peers call it from
inside their agents. The last table is ten deliberations at a time through the whole service, beside as many bare calls of which no more
are in flight than the pool of 72 lets be: what a machine needs for those is out of reach for whoever records anything.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from benchmarks.fan_out import AGENTS, PEERS, FakeModel, is_installed, requests
from benchmarks.measurement import Contender, Run, alternate, report
from benchmarks.stored_deliberation import stored_deliberation
from domain.models.agent_pool import AgentPool
from infrastructure.event_loop import run
from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.llm_server.handle import LlmServer

DELIBERATIONS = 10
_BODY = {
    "model": "test-model",
    "messages": [
        {"role": "system", "content": "You are a panelist. " + "s" * 300},
        {"role": "user", "content": "Should the city centre be closed? " + "q" * 500},
    ],
}


@dataclass
class HttpModel(FakeModel):
    """The fake model of the peers, with a real call in place of the sleep."""

    session: aiohttp.ClientSession | None = None
    url: str = ""

    async def answer(self) -> str:
        """What the far end answers."""
        assert self.session is not None
        async with self.session.post(self.url, json=_BODY) as response:
            document = await response.json()
        return str(document["choices"][0]["message"]["content"])


def bare(model: HttpModel) -> Run:
    """A TaskGroup around aiohttp and nothing else: the floor."""

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(model.answer()) for _ in range(AGENTS)]
        assert all(task.result() for task in tasks)

    return run


def bare_in_turn(model: HttpModel, *, at_once: int) -> Run:
    """As many calls as ten deliberations make, at most `at_once` of them in flight: the floor for a pool of that size."""
    leave = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with leave:
            assert await model.answer()

    async def run() -> None:
        await asyncio.gather(*(one() for _ in range(AGENTS * DELIBERATIONS)))

    return run


def ours(orchestrator: OpenAIOrchestrator) -> Run:
    """The fan-out service in memory, over the shipped orchestrator."""
    service = ConcurrentDeliberationService(
        orchestrator=orchestrator, halt_checker=HaltCheckerStub(), pool=AgentPool(AGENTS)
    )
    asked = requests()

    async def run() -> None:
        assert (await service.invoke_concurrent(asked)).success_count == AGENTS

    return run


@asynccontextmanager
async def _session(connections: int) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        yield session


async def main(repetitions: int, latency_ms: float, out: Path | None) -> None:
    """Measure one batch of 72, then ten deliberations at a time."""
    logging.disable(logging.WARNING)
    with LlmServer() as server:
        server.configure(latency_seconds=latency_ms / 1000)
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(_session(AGENTS))
            model = HttpModel(session=session, url=f"{server.base_url}/chat/completions")
            client = OpenAIOrchestrator(base_url=server.base_url, max_connections=AGENTS)
            await stack.enter_async_context(client)
            runs: list[tuple[str, Run]] = [
                ("bare TaskGroup on aiohttp", bare(model)),
                ("Conclave, in memory", ours(client)),
            ]
            stored = await stack.enter_async_context(stored_deliberation(client, agents=AGENTS))
            runs.append(("Conclave, every outcome committed to SQLite", stored))
            for name, (package, peer) in PEERS.items():
                if is_installed(package):
                    runs.append((name, await stack.enter_async_context(peer(model))))
            contenders = [Contender(name, run) for name, run in runs]
            await alternate(contenders, repetitions=repetitions)
            title = f"{AGENTS} HTTP calls answered after {latency_ms:g} ms"
            report(title, contenders, agents=AGENTS, ideal_ms=latency_ms, out=out)
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(_session(AGENTS))
            model = HttpModel(session=session, url=f"{server.base_url}/chat/completions")
            name = f"bare calls on aiohttp, {AGENTS} at a time"
            ten = [Contender(name, bare_in_turn(model, at_once=AGENTS))]
            for slots in (AGENTS, AGENTS * DELIBERATIONS):
                client = OpenAIOrchestrator(base_url=server.base_url, max_connections=slots)
                await stack.enter_async_context(client)
                run = await stack.enter_async_context(
                    stored_deliberation(client, agents=AGENTS, at_a_time=DELIBERATIONS, slots=slots)
                )
                ten.append(Contender(f"ten deliberations at a time, stored, pool of {slots}", run))
            await alternate(ten, repetitions=repetitions)
            report(
                "Ten deliberations of 72 at a time", ten, agents=AGENTS * DELIBERATIONS, ideal_ms=latency_ms, out=out
            )
        print(f"\nIn flight at the far end at most: {server.stats()['peak_in_flight']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=11)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--out", type=Path, help="append the results to this file, one JSON document a line")
    arguments = parser.parse_args()
    run(main(arguments.repetitions, arguments.latency_ms, arguments.out))
