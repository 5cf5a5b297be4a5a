"""Simulated agents in later rounds: most keep to their answers, some change their minds, and every form is answered."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.models.question import AnswerFormat, AnswerKind
from domain.protocols.round_plan import Brief, Purpose
from domain.voting.ballot import Answer
from domain.voting.ballot_reader import read_ballot
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub

LABELS = ("statement 1", "statement 2", "statement 3")
FORMS = {
    Purpose.REVIEW: AnswerFormat(AnswerKind.APPROVAL, LABELS),
    Purpose.RANK: AnswerFormat(AnswerKind.RANKING, LABELS),
    Purpose.DRAFT: AnswerFormat(AnswerKind.TEXT),
    Purpose.CRITIQUE: AnswerFormat(AnswerKind.TEXT),
    Purpose.REDRAFT: AnswerFormat(AnswerKind.TEXT),
}
CHOICE = AnswerFormat(AnswerKind.CHOICE, ("yes", "no", "weekends only"))


def _asked(agent: int, number: int, purpose: Purpose, expected: AnswerFormat = CHOICE) -> AgentRequest:
    return AgentRequest(
        f"archon-{agent}",
        ContextBundle("t", "Why?"),
        expected=expected,
        seed=7,
        round_number=number,
        brief=Brief(purpose, "0" * 16) if number else None,
    )


async def _answer(request: AgentRequest) -> Answer:
    stub = AgentOrchestratorStub(latency_seconds=0, abstaining_fraction=0)
    output = await stub.invoke(request)
    assert request.expected is not None
    return read_ballot(request.agent_id, output.content, request.expected).answer


async def test_most_keep_to_their_answer_and_some_change_their_mind() -> None:
    blind = [await _answer(_asked(agent, 0, Purpose.ANSWER)) for agent in range(72)]
    later = [await _answer(_asked(agent, 1, Purpose.REVISE)) for agent in range(72)]
    changed = sum(before != after for before, after in zip(blind, later, strict=True))
    assert 1 <= changed <= 18


async def test_who_changed_its_mind_stays_with_that_until_it_changes_again() -> None:
    by_round = [[await _answer(_asked(agent, n, Purpose.REVISE)) for agent in range(72)] for n in range(4)]
    moves = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairwise(by_round)]
    assert max(moves) <= 18


@pytest.mark.parametrize("purpose", FORMS)
async def test_every_form_of_a_later_round_is_answered(purpose: Purpose) -> None:
    for agent in range(8):
        answer = await _answer(_asked(agent, 1, purpose, FORMS[purpose]))
        assert answer is not None


async def test_labels_are_liked_by_what_they_stand_for_and_not_by_their_order() -> None:
    forward = [await _answer(_asked(agent, 2, Purpose.RANK, FORMS[Purpose.RANK])) for agent in range(40)]
    turned = replace(FORMS[Purpose.RANK], options=LABELS[::-1])
    backward = [await _answer(_asked(agent, 2, Purpose.RANK, turned)) for agent in range(40)]
    first = [max(LABELS, key=[each[0] for each in found if each].count) for found in (forward, backward)]  # type: ignore[index]
    assert first[0] == first[1]
