"""A peer review: a balanced design in which nobody reviews himself, and orders and names that nobody can guess."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerKind
from domain.protocols.next_round import next_round
from domain.protocols.peer_review import reviewers
from domain.protocols.proceedings import Proceedings
from domain.protocols.round_plan import ExhibitKind, Purpose
from domain.voting.ballot import Answer
from tests.protocol_records import FAILED, answers, brief_of, deliberation, planned, said


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(("yes", "no", None, FAILED)), min_size=2, max_size=30), st.integers(1, 71), st.integers()
)
def test_each_answer_is_reviewed_by_as_many_as_each_agent_reviews_and_by_nobody_twice(
    given_: list[Answer], wanted: int, seed: int
) -> None:
    protocol = Protocol(ProtocolKind.PEER_REVIEW, reviewers_per_answer=wanted)
    design = reviewers(Proceedings(deliberation(protocol, len(given_), seed=seed), answers(0, *given_)))
    answered = [f"archon-{agent}" for agent, answer in enumerate(given_) if answer in {"yes", "no"}]
    each = max(min(wanted, len(answered) - 1), 0)
    assert sorted(design) == sorted(answered)
    assert all(author not in those and len(set(those)) == len(those) == each for author, those in design.items())
    loads = Counter(reviewer for those in design.values() for reviewer in those)
    assert set(loads.values()) <= {each}


def test_reviewers_see_answers_without_names_in_an_order_of_their_own() -> None:
    held = deliberation(Protocol(ProtocolKind.PEER_REVIEW, reviewers_per_answer=7), 8)
    plan = planned(held, answers(0, *["yes", "no"] * 4))
    assert (plan.purpose, plan.answers.kind) == (Purpose.REVIEW, AnswerKind.APPROVAL)
    orders = set()
    for agent in range(8):
        exhibits = brief_of(plan, agent).exhibits
        assert {exhibit.kind for exhibit in exhibits} == {ExhibitKind.ANSWER}
        assert plan.asked[agent].expected.options == tuple(exhibit.label for exhibit in exhibits)
        assert f"words of {agent} in 0" not in {exhibit.words for exhibit in exhibits}
        orders.add(tuple(exhibit.label for exhibit in exhibits))
    assert len(orders) == 8


def test_labels_tell_nobody_whose_answer_it_is() -> None:
    by_seed = set()
    for seed in range(6):
        held = deliberation(Protocol(ProtocolKind.PEER_REVIEW, reviewers_per_answer=1), 3, seed=seed)
        plan = planned(held, answers(0, "yes", "no", "yes"))
        shown = {exhibit.words: exhibit.label for agent in range(3) for exhibit in brief_of(plan, agent).exhibits}
        by_seed.add(shown["words of 0 in 0"])
    assert len(by_seed) > 1


def test_only_who_answered_reviews_and_everybody_revises() -> None:
    held = deliberation(ProtocolKind.PEER_REVIEW, 5)
    blind = answers(0, "yes", FAILED, "no", None, "yes")
    review = planned(held, blind)
    assert [asked.agent_id for asked in review.asked] == ["archon-0", "archon-2", "archon-4"]
    reviewed = [said(1, agent, ()) for agent in (0, 2, 4)]
    revision = planned(held, blind + reviewed)
    assert len(revision.asked) == 5
    assert brief_of(revision, 1).exhibits == ()


def test_an_author_is_told_how_his_answer_was_found_and_under_which_name() -> None:
    held = deliberation(Protocol(ProtocolKind.PEER_REVIEW, reviewers_per_answer=2), 3)
    blind = answers(0, "yes", "no", "no")
    review = planned(held, blind)
    label = next(exhibit.label for exhibit in brief_of(review, 1).exhibits if exhibit.words == "words of 0 in 0")
    reviewed = [said(1, 0, None), said(1, 1, (label,)), said(1, 2, ())]
    brief = brief_of(planned(held, blind + reviewed), 0)
    assert brief.figures == (("the reviewers knew your answer as", label),)
    told = {exhibit.words: exhibit.label.partition(", ")[2] for exhibit in brief.exhibits[:2]}
    assert told == {
        "words of 1 in 1": "who finds that it holds up",
        "words of 2 in 1": "who finds that it does not hold up",
    }
    assert brief.exhibits[-1].kind is ExhibitKind.OWN


def test_it_ends_after_the_revision() -> None:
    held = deliberation(ProtocolKind.PEER_REVIEW, 2)
    records = answers(0, "yes", "no") + answers(1, (), ()) + answers(2, "yes", "yes")
    assert next_round(held, records) is None


@pytest.mark.parametrize("given_", [("yes", FAILED), (None, None), ("yes", None)])
def test_a_single_answer_is_not_reviewed(given_: tuple[Answer, ...]) -> None:
    assert next_round(deliberation(ProtocolKind.PEER_REVIEW, 2), answers(0, *given_)) is None
