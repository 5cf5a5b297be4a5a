"""A poll in waves stops once the others cannot change the decision, and never before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.analysis.decision import decide
from domain.models.budget import Quorum, Usage
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState, RollCall
from domain.models.round import AgentRecord, FailureCause
from domain.protocols.poll import Savings, is_settled, savings_of
from domain.voting.ballot import Answer
from domain.voting.rule import Rule, RuleKind
from tests.protocol_fixture import asked_for

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
OPTIONS = ("yes", "no", "weekends only")
FAILED = "failed"


def _record(number: int, answer: Answer) -> AgentRecord:
    agent_id = f"archon-{number}"
    if answer == FAILED:
        failure = FailureCause("refused", "no")
        return AgentRecord(0, agent_id, AgentState.FAILED, 1, NOON, NOON, failure=failure)
    state = AgentState.ABSTAINED if answer is None else AgentState.ANSWERED
    return AgentRecord(0, agent_id, state, 1, NOON, NOON, answer=answer, usage=Usage(1, cost_usd=0.5))


def _said(*answers: Answer) -> list[AgentRecord]:
    return [_record(number, answer) for number, answer in enumerate(answers)]


def _poll(
    agents: int, *, quorum: float = 0.5, rule: Rule | None = None, kind: AnswerKind = AnswerKind.CHOICE
) -> Deliberation:
    options = OPTIONS if kind.has_options else ()
    asked = asked_for(ProtocolKind.POLL, agents, answer=AnswerFormat(kind, options), rule=rule, quorum=Quorum(quorum))
    return Deliberation("d", replace(asked, protocol=Protocol(wave_size=1)), NOON).start(at=NOON)


@pytest.mark.parametrize(
    ("answers", "is_over"),
    [
        (("yes", "yes", "yes"), True),
        (("yes", "yes"), False),
        (("yes", "yes", "no"), False),
        (("yes", "yes", "yes", "no"), True),
        (("yes", "yes", None), False),
        (("yes", "no", "yes", "no"), False),
    ],
)
def test_a_lead_counts_only_where_it_is_larger_than_all_that_is_missing(
    answers: tuple[Answer, ...], *, is_over: bool
) -> None:
    assert is_settled(_poll(5).specification, _said(*answers)) is is_over


def test_it_goes_on_while_the_quorum_could_still_be_missed() -> None:
    assert not is_settled(_poll(5, quorum=0.7).specification, _said("yes", "yes", "yes"))
    assert is_settled(_poll(5, quorum=0.6).specification, _said("yes", "yes", "yes"))


def test_a_threshold_counts_all_agents_also_those_not_asked_yet() -> None:
    rule = Rule(RuleKind.THRESHOLD, 0.75)
    assert not is_settled(_poll(8, rule=rule).specification, _said(*["yes"] * 5))
    assert is_settled(_poll(8, rule=rule).specification, _said(*["yes"] * 6))


def test_it_ends_where_nobody_can_reach_the_threshold_any_more() -> None:
    specification = _poll(8, rule=Rule(RuleKind.THRESHOLD, 0.75)).specification
    assert not is_settled(specification, _said("yes", "no", "yes", "no"))
    assert is_settled(specification, _said("yes", "no", "yes", "no", "yes", "no"))


@pytest.mark.parametrize("kind", [RuleKind.BORDA, RuleKind.IRV])
def test_rules_whose_winner_the_last_ballots_may_change_ask_everybody(kind: RuleKind) -> None:
    poll = _poll(5, rule=Rule(kind), kind=AnswerKind.RANKING)
    assert not is_settled(poll.specification, _said(*[OPTIONS] * 4))


def test_estimates_and_weighted_ballots_ask_everybody() -> None:
    weighted = Rule(RuleKind.PLURALITY, weighted_by="confidence")
    assert not is_settled(_poll(5, rule=weighted).specification, _said(*["yes"] * 4))
    assert not is_settled(_poll(5, kind=AnswerKind.PROBABILITY).specification, _said(*[0.5] * 4))


def _decision(poll: Deliberation, records: list[AgentRecord]) -> tuple[object, ...]:
    if not poll.specification.quorum.is_met(RollCall.of(record.state for record in records)):
        return ("inquorate",)
    outcome = decide(poll, records)[1]
    return outcome.status, outcome.decision


ANSWERS = {
    AnswerKind.CHOICE: ("yes", "no", "weekends only", None, FAILED),
    AnswerKind.APPROVAL: (("yes",), ("no",), ("yes", "no"), (), None, FAILED),
    AnswerKind.RANKING: (OPTIONS, ("no", "yes"), ("weekends only",), None, FAILED),
}
RULES = {
    AnswerKind.CHOICE: (Rule(RuleKind.PLURALITY), Rule(RuleKind.THRESHOLD, 0.5), Rule(RuleKind.THRESHOLD, 0.7)),
    AnswerKind.APPROVAL: (Rule(RuleKind.APPROVAL),),
    AnswerKind.RANKING: (Rule(RuleKind.SCHULZE), Rule(RuleKind.COPELAND), Rule(RuleKind.MINIMAX)),
}
RULED = [(kind, rule) for kind, rules in RULES.items() for rule in rules]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_early_end_decides_what_everybody_would_have_whatever_the_others_say_or_fail_to(data: st.DataObject) -> None:
    kind, rule = data.draw(st.sampled_from(RULED))
    agents = data.draw(st.integers(2, 6))
    poll = _poll(agents, rule=rule, kind=kind, quorum=data.draw(st.sampled_from((0.0, 0.5, 0.8))))
    # Most agree, because else hardly any poll ends early.
    usual = data.draw(st.sampled_from(ANSWERS[kind]))
    answers = data.draw(st.lists(st.sampled_from((usual, usual, *ANSWERS[kind])), min_size=agents, max_size=agents))
    for asked in range(1, agents):
        early = _said(*answers[:asked])
        if is_settled(poll.specification, early):
            expected = _decision(poll, early)
            for rest in product(ANSWERS[kind], repeat=min(agents - asked, 3)):
                whole = _said(*answers[:asked], *rest, *answers[asked + len(rest) :])
                assert _decision(poll, whole) == expected
            return


def test_what_was_saved_is_who_was_not_asked_at_what_the_others_cost() -> None:
    poll = _poll(5)
    rounds, outcome = decide(poll, _said("yes", "yes", "yes"))
    ended = poll.end(DeliberationStatus.COMPLETED, at=NOON, rounds=rounds, outcome=outcome)
    assert savings_of(ended) == Savings(agents=2, calls=2, cost_usd=1.0)


def test_nothing_was_saved_where_everybody_was_asked_or_it_was_stopped() -> None:
    poll = _poll(3)
    rounds, outcome = decide(poll, _said("yes", "yes", "yes"))
    assert savings_of(poll.end(DeliberationStatus.COMPLETED, at=NOON, rounds=rounds, outcome=outcome)) is None
    rounds, _ = decide(poll, _said("yes"))
    assert savings_of(poll.end(DeliberationStatus.CANCELLED, at=NOON, rounds=rounds)) is None
