"""Whole deliberations over real HTTP on a real SQLite file, judged from the far end of the wire."""

from __future__ import annotations

import asyncio
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
FAULTY = "the viewpoint of a night watchman"


@asynccontextmanager
async def conclave_on(server: LlmServer, folder: Path, **settings: str) -> AsyncIterator[Conclave]:
    environ = {
        "CONCLAVE_DATA_DIR": str(folder),
        "CONCLAVE_LLM_BASE_URL": server.base_url,
        "CONCLAVE_LLM_API_KEY": "a-secret-of-some-length",
        **{f"CONCLAVE_{name}": value for name, value in settings.items()},
    }
    async with open_conclave(load_settings(environ, None), purpose=Purpose.SERVE) as conclave:
        yield conclave


def specification(agents: int = 72, *, limits: Limits | None = None) -> Specification:
    members = [Agent(f"archon-{n}", Persona(f"viewpoint number {n}, plain and short")) for n in range(agents - 1)]
    members.append(Agent("watchman", Persona(FAULTY)))
    return Specification(
        Question("Should the city centre be closed to private cars?", None, CHOICE),
        Roster.assemble("test", members),
        Rule(RuleKind.PLURALITY),
        limits=limits or Limits(agent_timeout_s=30),
    )


async def finished(conclave: Conclave, spec: Specification) -> Deliberation:
    accepted = await conclave.deliberations.submit(spec)
    return await conclave.deliberations.wait(accepted.id, timeout_s=60)


async def test_seventy_two_asked_are_seventy_two_in_flight_at_the_far_end(
    llm_server: LlmServer, tmp_path: Path
) -> None:
    llm_server.configure(fault="hold")
    async with conclave_on(llm_server, tmp_path) as conclave:
        accepted = await conclave.deliberations.submit(specification())
        await llm_server.until(in_flight_at_least=72)
        assert (conclave.pool.active_count, conclave.pool.available_count) == (72, 0)
        llm_server.release()
        ended = await conclave.deliberations.wait(accepted.id, timeout_s=60)
        assert conclave.pool.active_count == 0
    assert (ended.status, ended.roll_call.asked) == (DeliberationStatus.COMPLETED, 72)
    assert llm_server.stats()["peak_in_flight"] == 72


async def test_never_more_in_flight_than_slots_however_many_deliberations_run(
    llm_server: LlmServer, tmp_path: Path
) -> None:
    llm_server.configure(latency_seconds=0.01)
    async with conclave_on(llm_server, tmp_path, MAX_CONCURRENT_AGENTS="10") as conclave:
        ended = await asyncio.gather(*(finished(conclave, specification(30)) for _ in range(4)))
    assert {deliberation.roll_call.asked for deliberation in ended} == {30}
    assert llm_server.stats()["peak_in_flight"] == 10


# The fault at the far end, how the roll call names the agent, the kind, and how many calls it cost.
FAULTS: list[tuple[dict[str, object], AgentState, str, int]] = [
    ({"fault": "429", "retry_after": 0}, AgentState.THROTTLED, "rate_limited", 2),
    ({"fault": "429", "retry_after": 900}, AgentState.THROTTLED, "rate_limited", 1),
    ({"fault": "500"}, AgentState.FAILED, "server_error", 2),
    ({"fault": "503"}, AgentState.FAILED, "server_error", 2),
    ({"fault": "reset"}, AgentState.FAILED, "connection_lost", 2),
    ({"fault": "truncated"}, AgentState.FAILED, "connection_lost", 2),
    ({"fault": "bad_status_line"}, AgentState.FAILED, "connection_lost", 2),
    ({"fault": "401"}, AgentState.FAILED, "unauthorised", 1),
    ({"fault": "redirect"}, AgentState.FAILED, "redirect_refused", 1),
    ({"fault": "error_object"}, AgentState.FAILED, "provider_error", 2),
    ({"fault": "endless"}, AgentState.FAILED, "reply_too_large", 1),
    ({"fault": "huge"}, AgentState.FAILED, "reply_too_large", 1),
    ({"fault": "empty"}, AgentState.INVALID, "empty_reply", 1),
    ({"fault": "null_content"}, AgentState.INVALID, "empty_reply", 1),
    ({"fault": "empty_body"}, AgentState.INVALID, "unreadable_reply", 1),
    ({"fault": "garbage"}, AgentState.INVALID, "unreadable_reply", 1),
    ({"fault": "html"}, AgentState.INVALID, "unreadable_reply", 1),
    ({"fault": "not_ballot"}, AgentState.INVALID, "unreadable_reply", 1),
    ({"fault": "unknown_option"}, AgentState.INVALID, "wrong_answer", 1),
    ({"fault": "cut_off"}, AgentState.INVALID, "unreadable_reply", 1),
    ({"fault": "nul_content"}, AgentState.INVALID, "unreadable_reply", 1),
    ({"fault": "hang"}, AgentState.TIMED_OUT, "agent_timeout", 1),
    ({"fault": "drip", "interval_seconds": 0.2}, AgentState.TIMED_OUT, "agent_timeout", 1),
    ({"fault": "slow_start", "delay_seconds": 30}, AgentState.TIMED_OUT, "agent_timeout", 1),
]


@pytest.mark.parametrize(
    ("fault", "state", "kind", "calls"),
    FAULTS,
    ids=lambda value: getattr(value, "get", str)("fault") if isinstance(value, dict) else None,
)
async def test_a_fault_is_named_as_what_it_was_and_touches_nobody_else(
    llm_server: LlmServer, tmp_path: Path, fault: dict[str, object], state: AgentState, kind: str, calls: int
) -> None:
    llm_server.configure(faults=[{"contains": FAULTY, **fault}])
    limits = Limits(agent_timeout_s=1.5 if state is AgentState.TIMED_OUT else 30)
    async with conclave_on(llm_server, tmp_path) as conclave:
        ended = await finished(conclave, specification(24, limits=limits))
        outputs = await conclave.outputs.outputs(ended.id)
    assert [(f.agent_id, f.state, f.failure and f.failure.kind, f.attempts) for f in ended.failures] == [
        ("watchman", state, kind, calls)
    ]
    assert (ended.roll_call.asked, ended.roll_call[state], ended.roll_call.took_part) == (24, 1, 23)
    assert len({output.record.agent_id for output in outputs}) == 24
    assert ended.usage.calls == 23 + calls == llm_server.stats()["requests"]
    assert ended.failures[0].failure is not None
    assert "a-secret" not in ended.failures[0].failure.message


@pytest.mark.parametrize("fault", ["prose", "nul", "negative_usage", "absurd_usage"])
async def test_what_is_odd_but_readable_is_read(llm_server: LlmServer, tmp_path: Path, fault: str) -> None:
    llm_server.configure(faults=[{"contains": FAULTY, "fault": fault}])
    async with conclave_on(llm_server, tmp_path) as conclave:
        ended = await finished(conclave, specification(8))
    assert (ended.roll_call.took_part, ended.failures) == (8, ())
    assert 0 <= ended.usage.total_tokens < 1_000_000


async def test_a_provider_without_schemas_is_asked_again_without_one(llm_server: LlmServer, tmp_path: Path) -> None:
    llm_server.configure(fault="400_response_format")
    async with conclave_on(llm_server, tmp_path) as conclave:
        await finished(conclave, specification(4))
        llm_server.configure(fault=None)
        ended = await finished(conclave, specification(4))
    assert ended.roll_call.took_part == 4
    assert not any(request["response_format"] for request in llm_server.journal()[-4:])


async def test_a_failure_that_passes_is_mended_by_the_second_attempt(llm_server: LlmServer, tmp_path: Path) -> None:
    llm_server.configure(faults=[{"fault": "500", "times": 1}])
    async with conclave_on(llm_server, tmp_path) as conclave:
        ended = await finished(conclave, specification(12))
        outputs = await conclave.outputs.outputs(ended.id)
    assert (ended.roll_call.took_part, ended.usage.calls) == (12, 24)
    assert {output.record.attempts for output in outputs} == {2}


async def test_cancelling_closes_the_sockets(llm_server: LlmServer, tmp_path: Path) -> None:
    llm_server.configure(fault="hang")
    async with conclave_on(llm_server, tmp_path) as conclave:
        accepted = await conclave.deliberations.submit(specification(20))
        await llm_server.until(in_flight_at_least=20)
        await conclave.deliberations.cancel(accepted.id)
        ended = await conclave.deliberations.wait(accepted.id, timeout_s=10)
        await llm_server.until(disconnects_at_least=20)
    assert (ended.status, ended.roll_call[AgentState.CANCELLED]) == (DeliberationStatus.CANCELLED, 20)
    assert llm_server.stats()["in_flight"] == 0


async def test_members_bring_their_own_models(llm_server: LlmServer, tmp_path: Path) -> None:
    members = [
        Agent("a", Persona("one"), "model-a"),
        Agent("b", Persona("two"), "model-b"),
        Agent("c", Persona("three")),
    ]
    spec = Specification(Question("Is it so?"), Roster.assemble("", members), Rule(RuleKind.THRESHOLD, 0.5))
    async with conclave_on(llm_server, tmp_path) as conclave:
        ended = await finished(conclave, spec)
    asked = {request["model"] for request in llm_server.journal() if request["path"].endswith("completions")}
    assert asked == {"model-a", "model-b", "test-model"}
    assert set(ended.models) == asked
