"""The simulated orchestrator: seeded, truthful about being simulated, and as slow or broken as it is told to be."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

import infrastructure.stubs
from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot_reader import read_ballot
from infrastructure.stubs.agent_orchestrator_stub import SIMULATED_MODEL, AgentOrchestratorStub, log_normal_latency

CONTEXT = ContextBundle(topic_id="t-1", topic_content="Should the city centre be closed to private cars?")
FORMATS = [
    AnswerFormat(AnswerKind.CHOICE, ("yes", "no", "weekends only")),
    AnswerFormat(AnswerKind.APPROVAL, ("a", "b", "c")),
    AnswerFormat(AnswerKind.RANKING, ("a", "b", "c")),
    AnswerFormat(AnswerKind.VERDICT),
    AnswerFormat(AnswerKind.SCORE, minimum=1, maximum=10),
    AnswerFormat(AnswerKind.PROBABILITY),
    AnswerFormat(AnswerKind.NUMBER, unit="km"),
    AnswerFormat(AnswerKind.TEXT),
]


def request(number: int = 1, expected: AnswerFormat | None = None, seed: int | None = None) -> AgentRequest:
    return AgentRequest(agent_id=f"archon-{number}", context=CONTEXT, expected=expected, seed=seed)


async def test_the_default_latency_is_one_millisecond() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await AgentOrchestratorStub().invoke(request())
    assert loop.time() - began == pytest.approx(0.001)


async def test_the_latency_can_be_a_number_or_a_distribution() -> None:
    loop = asyncio.get_running_loop()
    await AgentOrchestratorStub(latency_seconds=3.5).invoke(request())
    assert loop.time() == pytest.approx(3.5)
    drawn = log_normal_latency(0.5, 1.0)
    stub = AgentOrchestratorStub(latency_seconds=drawn)
    began = loop.time()
    await stub.invoke(request())
    first = loop.time() - began
    began = loop.time()
    await stub.invoke(request())
    assert loop.time() - began == pytest.approx(first)
    middle = sorted(drawn(random.Random(n)) for n in range(999))[499]
    assert middle == pytest.approx(0.5, rel=0.15)


async def test_an_output_carries_the_request_and_says_that_it_is_simulated() -> None:
    asked = request()
    output = await AgentOrchestratorStub().invoke(asked)
    assert (output.agent_id, output.request_id, output.model) == ("archon-1", asked.request_id, SIMULATED_MODEL)
    assert output.simulated
    assert output.content.startswith("[simulated]")


@pytest.mark.parametrize("expected", FORMATS, ids=lambda expected: expected.kind.value)
async def test_every_kind_of_answer_reads_as_a_ballot_that_says_simulated(expected: AnswerFormat) -> None:
    stub = AgentOrchestratorStub(latency_seconds=0, abstaining_fraction=0)
    for number in range(20):
        output = await stub.invoke(request(number, expected))
        ballot = read_ballot(output.agent_id, output.content, expected)
        assert not ballot.abstains
        assert (ballot.reasoning or "").startswith("[simulated]")


async def test_seventy_two_answers_make_a_sensible_tally() -> None:
    stub = AgentOrchestratorStub(latency_seconds=0)
    outputs = [await stub.invoke(request(number, FORMATS[0])) for number in range(72)]
    tally = Counter(read_ballot(o.agent_id, o.content, FORMATS[0]).answer for o in outputs)
    assert len([option for option in FORMATS[0].options if tally[option]]) >= 2
    assert tally[None] < 15


async def test_the_same_seed_repeats_every_answer_and_another_seed_does_not() -> None:
    async def answers(seed: int) -> list[str]:
        stub = AgentOrchestratorStub(latency_seconds=0, seed=seed)
        return [(await stub.invoke(request(number, FORMATS[3]))).content for number in range(72)]

    assert await answers(7) == await answers(7)
    assert await answers(7) != await answers(8)


async def test_the_seed_of_the_request_comes_before_that_of_the_stub() -> None:
    one = await AgentOrchestratorStub(seed=1).invoke(request(1, FORMATS[4], seed=9))
    two = await AgentOrchestratorStub(seed=2).invoke(request(1, FORMATS[4], seed=9))
    assert one.content == two.content


async def test_agents_that_are_told_to_fail_fail_and_others_do_not() -> None:
    stub = AgentOrchestratorStub(failing={"archon-3"})
    with pytest.raises(AgentInvocationError) as failed:
        await stub.invoke(request(3))
    assert (failed.value.agent_id, failed.value.kind) == ("archon-3", "simulated_failure")
    assert (await stub.invoke(request(4))).agent_id == "archon-4"


async def test_an_agent_can_be_given_the_very_error_to_raise() -> None:
    stub = AgentOrchestratorStub(failing={"archon-3": ZeroDivisionError("third party")})
    with pytest.raises(ZeroDivisionError, match="third party"):
        await stub.invoke(request(3))


async def test_a_cancelled_call_is_no_longer_active() -> None:
    stub = AgentOrchestratorStub(hanging={"archon-1"})
    call = asyncio.create_task(stub.invoke(request()))
    await asyncio.sleep(0)
    assert stub.active_count == 1
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert (stub.active_count, stub.peak_active_count, stub.invocations) == (0, 1, 1)


def test_the_stubs_are_exported_by_name() -> None:
    for name in infrastructure.stubs.__all__:
        assert getattr(infrastructure.stubs, name).__name__ == name
