"""A deliberation that is accepted always fits into the entries that record it."""

from dataclasses import replace

import pytest

from domain.analysis.decision import decide
from domain.errors.deliberation import InvalidSpecificationError
from domain.models.agent import Agent, Persona, Roster
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause
from domain.voting.ballot import Answer
from domain.voting.rule import Rule, RuleKind, default_rule
from domain.witness.entry import MAX_ENTRY_BYTES, accepted, deliberation_ended, round_started
from infrastructure.witness.canonical_json import canonical_json
from tests.deliberation_specimens import NOON


def largest() -> Specification:
    """As much of everything as is accepted."""
    options = tuple(f"{number:02}" + '"' * 77 for number in range(50))
    agents = [Agent(f"{number:02}" + "é" * 63, Persona("x"), f"{number:02}" + '"' * 205) for number in range(72)]
    return Specification(
        Question("?", None, AnswerFormat(AnswerKind.CHOICE, options)),
        Roster.assemble("r", agents),
        Rule(RuleKind.PLURALITY),
        metadata={"origin": "é" * 512},
        seed=2**63 - 1,
    )


def test_the_largest_deliberation_that_is_accepted_can_be_recorded() -> None:
    new = Deliberation.accept(largest(), at=NOON, orchestrator="o", simulated=True, key_name=None)
    options = new.specification.question.answer.options
    records = [
        AgentRecord(0, agent.id, AgentState.ANSWERED, 1, NOON, NOON, content="", answer=options[place % 50])
        for place, agent in enumerate(new.specification.roster.agents)
    ]
    rounds, outcome = decide(new, records)
    ended = new.start(at=NOON).end(DeliberationStatus.COMPLETED, at=NOON, rounds=rounds, outcome=outcome)
    for entry in (accepted(new), deliberation_ended(ended)):
        assert 30_000 < len(canonical_json(entry.document)) <= MAX_ENTRY_BYTES - 64


@pytest.mark.parametrize("kind", [AnswerKind.CHOICE, AnswerKind.RANKING, AnswerKind.NUMBER])
def test_the_largest_of_ten_rounds_can_be_recorded_when_all_changed_and_then_failed(kind: AnswerKind) -> None:
    options = tuple(f"{number:02}" + '"' * 37 for number in range(50)) if kind.has_options else ()
    specification = replace(
        largest(),
        question=Question("?", None, AnswerFormat(kind, options)),
        protocol=Protocol(ProtocolKind.DELPHI, max_rounds=9),
        rule=default_rule(kind),
    )
    new = Deliberation.accept(specification, at=NOON, orchestrator="o", simulated=True, key_name=None)

    def answer(number: int, place: int) -> Answer:
        turn = place + number
        if kind is AnswerKind.NUMBER:
            return 1.23456e-101 * (1 + turn)
        return options[turn % 50] if kind is AnswerKind.CHOICE else options[turn % 50 :] + options[: turn % 50]

    agents = list(enumerate(new.specification.roster.agents))
    records = [
        AgentRecord(number, agent.id, AgentState.ANSWERED, 1, NOON, NOON, content="", answer=answer(number, place))
        for number in range(9)
        for place, agent in agents
    ]
    records += [
        AgentRecord(9, agent.id, AgentState.FAILED, 1, NOON, NOON, failure=FailureCause("k", "m"))
        for _, agent in agents
    ]
    rounds, outcome = decide(new, records)
    assert (len(rounds), len(rounds[-1].kept), len(outcome.changed)) == (10, 72, 72)
    ended = new.start(at=NOON).end(DeliberationStatus.COMPLETED, at=NOON, rounds=rounds, outcome=outcome)
    started = round_started(new.id, 9, [agent.id for _, agent in agents], at=NOON, previous=rounds[-1])
    for entry in (accepted(new), started, deliberation_ended(ended)):
        assert len(canonical_json(entry.document)) <= MAX_ENTRY_BYTES - 64


@pytest.mark.parametrize(
    ("options", "model", "pointer"),
    [
        (tuple(f"{number:02}" + "x" * 200 for number in range(50)), None, "/answer/options"),
        (("a", "b"), '"' * 256, "/agents"),
    ],
    ids=["options", "models"],
)
def test_what_would_not_fit_into_an_entry_is_refused_with_its_place(
    options: tuple[str, ...], model: str | None, pointer: str
) -> None:
    agents = [Agent(f"{number:02}" + "é" * 63, Persona("x"), model) for number in range(72)]
    question = Question("?", None, AnswerFormat(AnswerKind.CHOICE, options))
    with pytest.raises(InvalidSpecificationError) as refusal:
        Deliberation.accept(
            Specification(question, Roster.assemble("r", agents), Rule(RuleKind.PLURALITY)),
            at=NOON,
            orchestrator="o",
            simulated=True,
            key_name=None,
        )
    assert [problem.pointer for problem in refusal.value.problems] == [pointer]
