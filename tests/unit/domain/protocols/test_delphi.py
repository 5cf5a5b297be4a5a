"""A delphi: counts, spread and one argument for each position, minorities included, until the answers are stable."""

from __future__ import annotations

import pytest

from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind
from domain.protocols.next_round import next_round
from domain.protocols.round_plan import ExhibitKind, Purpose
from tests.protocol_fixture import KINDS
from tests.protocol_records import FAILED, answers, brief_of, deliberation, planned, said

MANY = 20


def test_everybody_is_asked_again_whoever_failed_in_the_blind_round_as_well() -> None:
    plan = planned(deliberation(ProtocolKind.DELPHI, 4), answers(0, "yes", "no", FAILED, None))
    assert (plan.number, plan.purpose) == (1, Purpose.REVISE)
    assert [asked.agent_id for asked in plan.asked] == [f"archon-{agent}" for agent in range(4)]


def test_the_digest_counts_every_option_and_who_abstained() -> None:
    brief = brief_of(planned(deliberation(ProtocolKind.DELPHI, 4), answers(0, "yes", "no", "yes", None)), 0)
    assert brief.figures == (("yes", "2"), ("no", "1"), ("weekends only", "0"), ("abstained", "1"))


def test_each_position_has_one_argument_also_that_of_a_single_agent() -> None:
    given = ["yes"] * (MANY - 1) + ["no"]
    brief = brief_of(planned(deliberation(ProtocolKind.DELPHI, MANY), answers(0, *given)), 0)
    arguments = [exhibit for exhibit in brief.exhibits if exhibit.kind is ExhibitKind.ARGUMENT]
    assert [exhibit.label for exhibit in arguments] == ["for yes", "for no"]
    assert arguments[1].words == f"words of {MANY - 1} in 0"


def test_an_agent_sees_its_own_answer_and_nobody_elses() -> None:
    brief = brief_of(planned(deliberation(ProtocolKind.DELPHI, 3), answers(0, "yes", "no", "no")), 2)
    (own,) = [exhibit for exhibit in brief.exhibits if exhibit.kind is ExhibitKind.OWN]
    assert (own.answer, own.words) == ("no", "words of 2 in 0")
    assert all(exhibit.answer is None for exhibit in brief.exhibits if exhibit.kind is ExhibitKind.ARGUMENT)


def test_who_claims_to_be_wholly_sure_is_not_always_heard() -> None:
    heard = set()
    for seed in range(MANY):
        records = [said(0, agent, "yes", confidence=0.6) for agent in range(4)]
        records.append(said(0, 4, "yes", words="obey me", confidence=1.0))
        brief = brief_of(planned(deliberation(ProtocolKind.DELPHI, 5, seed=seed), records), 0)
        heard.add(brief.exhibits[0].words)
    assert len(heard) > 2


def test_who_is_less_sure_than_half_of_its_side_does_not_speak_for_it() -> None:
    for seed in range(MANY):
        records = [said(0, agent, "yes", confidence=agent / 10) for agent in range(5)]
        brief = brief_of(planned(deliberation(ProtocolKind.DELPHI, 5, seed=seed), records), 0)
        assert brief.exhibits[0].words in {f"words of {agent} in 0" for agent in (2, 3, 4)}


def test_estimates_are_told_by_their_spread_and_both_ends_are_heard() -> None:
    score = AnswerFormat(AnswerKind.SCORE, minimum=0, maximum=10)
    given = (1.0, 4.0, 5.0, 5.5, 6.0, 9.0)
    brief = brief_of(planned(deliberation(ProtocolKind.DELPHI, 6, answer=score), answers(0, *given)), 0)
    figures = dict(brief.figures)
    assert (figures["median"], figures["least"], figures["greatest"], figures["abstained"]) == ("5.25", "1", "9", "0")
    labels = [exhibit.label for exhibit in brief.exhibits if exhibit.kind is ExhibitKind.ARGUMENT]
    assert labels == ["below the middle half", "within the middle half", "above the middle half"]


def test_it_ends_when_hardly_anybody_moves() -> None:
    held = deliberation(ProtocolKind.DELPHI, MANY)
    blind = answers(0, *["yes", "no"] * (MANY // 2))
    one_moved = answers(1, *["yes", "no"] * (MANY // 2 - 1), "yes", "yes")
    two_moved = answers(1, *["yes", "no"] * (MANY // 2 - 2), "yes", "yes", "yes", "yes")
    assert next_round(held, blind + one_moved) is None
    assert planned(held, blind + two_moved).number == 2


def test_it_has_at_most_so_many_revisions_as_were_asked_for() -> None:
    held = deliberation(Protocol(ProtocolKind.DELPHI, max_rounds=2), 2)
    records = answers(0, "yes", "no") + answers(1, "no", "yes")
    assert planned(held, records).number == 2
    assert next_round(held, records + answers(2, "yes", "no")) is None


@pytest.mark.parametrize(("before", "after", "is_stable"), [(5.0, 5.09, True), (5.0, 5.2, False)])
def test_a_score_that_differs_by_less_than_a_hundredth_of_its_scale_is_the_same(
    before: float, after: float, *, is_stable: bool
) -> None:
    held = deliberation(ProtocolKind.DELPHI, 2, answer=KINDS["score"])
    assert (next_round(held, answers(0, before, before) + answers(1, after, after)) is None) is is_stable


def test_texts_are_never_taken_for_the_same() -> None:
    held = deliberation(ProtocolKind.DELPHI, 2, answer=KINDS["text"])
    assert planned(held, answers(0, "a", "b") + answers(1, "a", "b")).number == 2


def test_who_fails_in_a_revision_is_shown_the_last_answer_that_it_gave() -> None:
    records = answers(0, "yes", "no", "no") + answers(1, "no", "yes", FAILED)
    brief = brief_of(planned(deliberation(ProtocolKind.DELPHI, 3), records), 2)
    assert brief.exhibits[-1].answer == "no"
    assert dict(brief.figures)["no"] == "2"
