"""Proves that a recorded deliberation comes out the same again without its provider, and says that it is replayed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from api.bootstrap import Purpose, open_conclave, replay_bundle
from domain.models.agent import Agent, Persona, Roster
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.voting.rule import Rule, RuleKind
from infrastructure.settings import load_settings
from tests.llm_server.handle import LlmServer

CHOICE = AnswerFormat(AnswerKind.CHOICE, ("yes", "no", "weekends only"))


def specification(question: str = "Should the city centre be closed to private cars?") -> Specification:
    members = [Agent(f"archon-{n}", Persona(f"viewpoint number {n}, plain and short")) for n in range(24)]
    return Specification(Question(question, None, CHOICE), Roster.assemble("test", members), Rule(RuleKind.PLURALITY))


async def test_a_run_with_a_provider_is_replayed_with_its_prompts_and_without_its_key(
    llm_server: LlmServer, tmp_path: Path
) -> None:
    llm_server.configure(faults=[{"fault": "503", "nth": [5, 9]}, {"fault": "empty", "contains": "number 7,"}])
    environ = {"CONCLAVE_DATA_DIR": str(tmp_path), "CONCLAVE_LLM_BASE_URL": llm_server.base_url}
    async with open_conclave(load_settings(environ, None), purpose=Purpose.SERVE) as conclave:
        accepted = await conclave.deliberations.submit(
            replace(specification(), protocol=Protocol(ProtocolKind.DELPHI, max_rounds=1))
        )
        ended = await conclave.deliberations.wait(accepted.id, timeout_s=60)
        bundle = await conclave.witness.bundle(ended.id)
    requests = llm_server.stats()["requests"]
    report = await asyncio.to_thread(replay_bundle, bundle)
    assert report.differences == ()
    assert (report.prompts, report.prompts_taken) == (ended.usage.calls, 0)
    assert report.prompts > 24
    assert llm_server.stats()["requests"] == requests


async def deliberated(folder: Path, spec: Specification, **variables: str) -> tuple[Deliberation, str]:
    environ = {f"CONCLAVE_{name}": value for name, value in variables.items()} | {"CONCLAVE_DATA_DIR": str(folder)}
    async with open_conclave(load_settings(environ, None), purpose=Purpose.SERVE) as conclave:
        accepted = await conclave.deliberations.submit(spec)
        ended = await conclave.deliberations.wait(accepted.id, timeout_s=60)
    return ended, ended.orchestrator


async def test_a_recorded_deliberation_comes_out_the_same_without_its_provider(
    llm_server: LlmServer, tmp_path: Path
) -> None:
    recording = str(tmp_path / "recording")
    # Faults are part of what is repeated: a refused schema, two servers that were away, an answer without a text.
    llm_server.configure(
        faults=[
            {"fault": "400_response_format", "nth": 1},
            {"fault": "503", "nth": [5, 9]},
            {"fault": "empty", "contains": "number 7,"},
        ]
    )
    first, asked = await deliberated(
        tmp_path / "a", specification(), LLM_BASE_URL=llm_server.base_url, RECORD_DIR=recording
    )
    requests = llm_server.stats()["requests"]
    again, replayed = await deliberated(tmp_path / "b", specification(), REPLAY_DIR=recording)
    assert llm_server.stats()["requests"] == requests
    assert (asked, replayed) == ("openai", "replay")
    assert first.status is again.status is DeliberationStatus.COMPLETED
    assert again.outcome == first.outcome
    assert again.roll_call == first.roll_call
    assert first.roll_call[AgentState.INVALID] >= 1
    assert again.usage == first.usage
    assert not again.simulated


async def test_another_question_was_not_recorded(llm_server: LlmServer, tmp_path: Path) -> None:
    recording = str(tmp_path / "recording")
    await deliberated(tmp_path / "a", specification(), LLM_BASE_URL=llm_server.base_url, RECORD_DIR=recording)
    other, _ = await deliberated(tmp_path / "b", specification("Another one?"), REPLAY_DIR=recording)
    assert other.roll_call[AgentState.FAILED] == 24
    assert {record.failure.kind for record in other.failures if record.failure} == {"not_recorded"}
    assert (other.usage.input_tokens, other.usage.uncertain_tokens) == (0, 0)
