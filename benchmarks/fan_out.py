"""Fan-out of 72 agents over a fake model: ours, in memory and stored, beside a bare TaskGroup and the peers that are installed.

python -m benchmarks.fan_out [--repetitions 15] [--peers langgraph,autogen] [--out FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import operator
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from benchmarks.measurement import Contender, Run, alternate, report
from benchmarks.stored_deliberation import stored_deliberation
from domain.models.agent_pool import AgentPool
from infrastructure.event_loop import run
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub

AGENTS = 72
REPLY = '{"answer": "yes", "confidence": 0.5, "reasoning": "' + "x" * 150 + '"}'
CONTEXT = ContextBundle(topic_id="t", topic_content="Should the city centre be closed to private cars?")


@dataclass
class FakeModel:
    """The call that every contender makes."""

    delay_s: float = 0.0

    async def answer(self) -> str:
        """The same reply after the same time."""
        await asyncio.sleep(self.delay_s)
        return REPLY

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """The reply as an output of ours."""
        await asyncio.sleep(self.delay_s)
        return AgentOutput(request.agent_id, request.request_id, REPLY)


def bare(model: FakeModel) -> Run:
    """A TaskGroup around the model and nothing else: the floor."""
    asked = requests()

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(model.invoke(request)) for request in asked]
        assert len({task.result().agent_id for task in tasks}) == AGENTS

    return run


def ours(model: FakeModel) -> Run:
    """The fan-out service in memory."""
    service = ConcurrentDeliberationService(orchestrator=model, halt_checker=HaltCheckerStub(), pool=AgentPool(AGENTS))
    asked = requests()

    async def run() -> None:
        assert (await service.invoke_concurrent(asked)).success_count == AGENTS

    return run


def requests() -> list[AgentRequest]:
    """One request for each of the 72 agents."""
    return [AgentRequest(agent_id=f"archon-{n}", context=CONTEXT) for n in range(AGENTS)]


class _State(TypedDict):
    answers: Annotated[list[str], operator.add]


def _langgraph(model: FakeModel, saver: Any = None) -> Run:
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import Send

    async def agent(_: dict[str, int]) -> dict[str, list[str]]:
        return {"answers": [await model.answer()]}

    graph: Any = StateGraph(_State)
    graph.add_node("agent", agent)
    graph.add_conditional_edges(START, lambda _: [Send("agent", {"i": i}) for i in range(AGENTS)], ["agent"])
    graph.add_edge("agent", END)
    compiled = graph.compile(checkpointer=saver)
    turn = 0

    async def run() -> None:
        nonlocal turn
        turn += 1
        options = {"durability": "sync"} if saver else {}
        config = {"configurable": {"thread_id": str(turn)}} if saver else None
        state = await compiled.ainvoke({"answers": []}, config, **options)
        assert len(state["answers"]) == AGENTS

    return run


@asynccontextmanager
async def langgraph(model: FakeModel) -> AsyncIterator[Run]:
    """LangGraph's Send, nothing stored."""
    yield _langgraph(model)


@asynccontextmanager
async def langgraph_sqlite(model: FakeModel) -> AsyncIterator[Run]:
    """LangGraph's Send with its SQLite checkpointer, durable at every step."""
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    with tempfile.TemporaryDirectory() as folder:
        async with AsyncSqliteSaver.from_conn_string(str(Path(folder) / "checkpoints.db")) as saver:
            await saver.setup()
            yield _langgraph(model, saver)


@asynccontextmanager
async def autogen(model: FakeModel) -> AsyncIterator[Run]:
    """autogen-core: one message sent to each of 72 agents."""
    from benchmarks import autogen_panel as panel

    runtime = panel.SingleThreadedAgentRuntime()
    await panel.Panelist.register(runtime, "panelist", lambda: panel.Panelist(model.answer))
    runtime.start()

    async def run() -> None:
        sends = (runtime.send_message(panel.Ask("q"), panel.AgentId("panelist", str(i))) for i in range(AGENTS))
        assert len(await asyncio.gather(*sends)) == AGENTS

    yield run
    await runtime.stop()


@asynccontextmanager
async def crewai(model: FakeModel) -> AsyncIterator[Run]:
    """CrewAI: 72 crews of one agent, kicked off at once."""
    os.environ.update(
        CREWAI_DISABLE_TELEMETRY="true", CREWAI_TRACING_ENABLED="false", CREWAI_DISABLE_VERSION_CHECK="true"
    )
    from crewai import Agent, BaseLLM, Crew, Task

    class Canned(BaseLLM):  # type: ignore[misc]
        def call(self, *_: object, **__: object) -> str:
            raise RuntimeError("only the asynchronous call is measured")

        async def acall(self, *_: object, **__: object) -> str:
            return "Thought: I now can give a great answer\nFinal Answer: " + await model.answer()

    def crew(number: int) -> Any:
        agent = Agent(role=f"panelist {number}", goal="answer", backstory="b", llm=Canned(model="canned"))
        return Crew(agents=[agent], tasks=[Task(description="answer", expected_output="text", agent=agent)])

    crews = [crew(number) for number in range(AGENTS)]

    async def run() -> None:
        assert len(await asyncio.gather(*(each.akickoff() for each in crews))) == AGENTS

    yield run


PEERS: dict[str, tuple[str, Callable[[FakeModel], Any]]] = {
    "LangGraph Send": ("langgraph", langgraph),
    "LangGraph + SQLite checkpointer": ("langgraph.checkpoint.sqlite", langgraph_sqlite),
    "autogen-core send": ("autogen_core", autogen),
    "CrewAI akickoff": ("crewai", crewai),
}


def is_installed(package: str) -> bool:
    """Whether a peer can be measured here."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


async def main(repetitions: int, peers: str | None, out: Path | None) -> None:
    """Measure at 10 ms and at 0 ms."""
    logging.disable(logging.WARNING)
    model = FakeModel()
    async with AsyncExitStack() as stack:
        runs: list[tuple[str, Run | Awaitable[Run]]] = [
            ("bare TaskGroup", bare(model)),
            ("Conclave, in memory", ours(model)),
        ]
        stored = await stack.enter_async_context(stored_deliberation(model, agents=AGENTS))
        runs.append(("Conclave, every outcome committed to SQLite", stored))
        for name, (package, peer) in PEERS.items():
            wanted = peers is None or any(part in name.lower() for part in peers.lower().split(","))
            if wanted and is_installed(package):
                runs.append((name, await stack.enter_async_context(peer(model))))
        for delay_ms in (10, 0):
            model.delay_s = delay_ms / 1000
            contenders = [Contender(name, run) for name, run in runs]  # type: ignore[arg-type]
            await alternate(contenders, repetitions=repetitions)
            report(
                f"Fan-out of {AGENTS} agents at {delay_ms} ms", contenders, agents=AGENTS, ideal_ms=delay_ms, out=out
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--peers", help="parts of names, comma-separated; default all that are installed")
    parser.add_argument("--out", type=Path, help="append the results to this file, one JSON document a line")
    arguments = parser.parse_args()
    run(main(arguments.repetitions, arguments.peers, arguments.out))
