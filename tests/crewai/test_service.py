"""Whole deliberations through CrewAI on a real SQLite file, judged from the far end of the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.bootstrap import Purpose, open_conclave
from api.conclave import Conclave
from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Limits
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.voting.rule import Rule, RuleKind
from infrastructure.settings import load_settings
from tests.llm_server.handle import LlmServer

CHOICE = AnswerFormat(AnswerKind.CHOICE, ("yes", "no", "weekends only"))
MEMBERS = [Agent(f"archon-{n}", Persona(f"viewpoint number {n}, plain and short")) for n in range(72)]
FAULTS = {
    "500": (AgentState.FAILED, "server_error"),
    "empty": (AgentState.INVALID, "empty_reply"),
    "reset": (AgentState.FAILED, "connection_lost"),
    "hang": (AgentState.TIMED_OUT, "agent_timeout"),
}


def specification(members: list[Agent] = MEMBERS, *, limits: Limits | None = None) -> Specification:
    return Specification(
        Question("Should the {city} centre be closed to private cars?", None, CHOICE),
        Roster.assemble("test", members),
        Rule(RuleKind.PLURALITY),
        limits=limits or Limits(agent_timeout_s=30),
    )


@asynccontextmanager
async def conclave_on(server: LlmServer, folder: Path, **settings: str) -> AsyncIterator[Conclave]:
    environ = {
        "CONCLAVE_DATA_DIR": str(folder),
        "CONCLAVE_ORCHESTRATOR": "crewai",
        "CONCLAVE_LLM_BASE_URL": server.base_url,
        **{f"CONCLAVE_{name}": value for name, value in settings.items()},
    }
    async with open_conclave(load_settings(environ, None), purpose=Purpose.SERVE) as conclave:
        yield conclave


async def finished(conclave: Conclave, spec: Specification) -> Deliberation:
    accepted = await conclave.deliberations.submit(spec)
    return await conclave.deliberations.wait(accepted.id, timeout_s=60)


async def test_all_seventy_two_are_in_flight_at_once_and_recorded(server: LlmServer, tmp_path: Path) -> None:
    server.configure(fault="hold")
    async with conclave_on(server, tmp_path) as conclave:
        accepted = await conclave.deliberations.submit(specification())
        await server.until(in_flight_at_least=72, timeout_seconds=20)
        server.configure(fault=None)
        server.release()
        ended = await conclave.deliberations.wait(accepted.id, timeout_s=60)
        outputs = await conclave.outputs.outputs(ended.id)
    assert (ended.status, ended.orchestrator, ended.simulated) == (DeliberationStatus.COMPLETED, "crewai", False)
    assert (ended.roll_call.asked, ended.roll_call[AgentState.ANSWERED], len(outputs)) == (72, 72, 72)
    assert ended.usage.calls == server.stats()["requests"] == 72


def prompts(server: LlmServer) -> list[str]:
    return sorted(entry["prompt_sha256"] for entry in server.journal() if entry["prompt_sha256"])


async def test_members_are_told_what_the_direct_client_tells_them(server: LlmServer, tmp_path: Path) -> None:
    async with conclave_on(server, tmp_path / "crewai") as conclave:
        await finished(conclave, specification(MEMBERS[:3]))
    told = prompts(server)
    server.reset()
    async with conclave_on(server, tmp_path / "direct", ORCHESTRATOR="openai") as conclave:
        await finished(conclave, specification(MEMBERS[:3]))
    assert prompts(server) == told
    assert len(set(told)) == 3


async def test_every_fault_is_named_and_the_others_are_unharmed(server: LlmServer, tmp_path: Path) -> None:
    faulty = {f"archon-{n}": fault for n, fault in enumerate(FAULTS)}
    server.configure(
        agents={agent.id: agent.persona.text for agent in MEMBERS},
        faults=[{"fault": fault, "agent": [agent_id]} for agent_id, fault in faulty.items()],
    )
    async with conclave_on(server, tmp_path) as conclave:
        ended = await finished(conclave, specification(limits=Limits(agent_timeout_s=5, max_attempts=1)))
    named = {failure.agent_id: (failure.state, failure.failure and failure.failure.kind) for failure in ended.failures}
    assert named == {agent_id: FAULTS[fault] for agent_id, fault in faulty.items()}
    assert ended.roll_call[AgentState.ANSWERED] == 68


@pytest.mark.parametrize("stop", ["halt", "cancel"])
async def test_a_stop_reaches_the_socket(server: LlmServer, tmp_path: Path, stop: str) -> None:
    server.configure(fault="hang")
    async with conclave_on(server, tmp_path) as conclave:
        accepted = await conclave.deliberations.submit(specification())
        await server.until(in_flight_at_least=72, timeout_seconds=20)
        if stop == "halt":
            await conclave.halt.set("the test", key_name=None)
        else:
            await conclave.deliberations.cancel(accepted.id)
        await server.until(in_flight_at_most=0, timeout_seconds=2)
        ended = await conclave.deliberations.wait(accepted.id, timeout_s=10)
    wanted = AgentState.HALTED if stop == "halt" else AgentState.CANCELLED
    assert {failure.state for failure in ended.failures} == {wanted}
    assert len(ended.failures) == 72
    assert server.stats()["disconnects"] == 72


ROSTER = """
[[agents]]
id = "plain"
persona = "You look twice."

[[agents]]
id = "crewed"
persona = "You have others look."
crew = "crews/board.py:crew"
"""
CREW = """
from crewai import Agent, Crew, Task

one = Agent(role="Researcher", goal="Find out", backstory="You look things up.")
crew = Crew(agents=[one], tasks=[Task(description="What matters in {question}?", expected_output="a list", agent=one)])
"""


@pytest.fixture
def board_dir(crews_dir: Path) -> Path:
    (crews_dir / "crews").mkdir()
    (crews_dir / "board.toml").write_text(ROSTER)
    (crews_dir / "crews" / "board.py").write_text(CREW)
    return crews_dir


async def test_a_crew_of_a_roster_file_answers_for_its_member_and_every_call_is_counted(
    server: LlmServer, tmp_path: Path, board_dir: Path
) -> None:
    async with conclave_on(server, tmp_path / "data", ROSTERS_DIR=str(board_dir)) as conclave:
        roster = conclave.rosters.get("board")
        ended = await finished(conclave, specification(list(roster.agents)))
        outputs = await conclave.outputs.outputs(ended.id)
    assert (ended.status, ended.roll_call[AgentState.ANSWERED]) == (DeliberationStatus.COMPLETED, 2)
    assert ended.usage.calls == server.stats()["requests"] == 3
    assert {output.record.agent_id: output.record.attempts for output in outputs} == {"plain": 1, "crewed": 2}
    assert ended.usage.input_tokens == sum(entry["prompt_tokens"] for entry in server.journal() if entry["counted"])
