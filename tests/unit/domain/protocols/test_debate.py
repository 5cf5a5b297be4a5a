"""A debate: few neighbours, always the same ones, and a vote in any case."""

from __future__ import annotations

import pytest

from domain.models.protocol import Protocol, ProtocolKind
from domain.models.round import AgentRecord
from domain.protocols.next_round import next_round
from domain.protocols.round_plan import ExhibitKind, Purpose
from tests.protocol_records import FAILED, answers, brief_of, deliberation, planned


def _purposes(rounds: int, *given: tuple[str, ...]) -> list[Purpose]:
    """What the rounds were for in which these answers were given, and the one after them."""
    held = deliberation(Protocol(ProtocolKind.DEBATE, rounds=rounds), len(given[0]))
    records: list[AgentRecord] = []
    found = []
    for number, each in enumerate(given):
        plan = planned(held, records)
        assert plan.number == number
        found.append(plan.purpose)
        records += answers(number, *each)
    plan_after = next_round(held, records)
    return found if plan_after is None else [*found, plan_after.purpose]


RESTLESS = [("yes", "no"), ("no", "yes")] * 5


def test_it_is_assessed_stated_examined_and_voted() -> None:
    assert _purposes(2, *RESTLESS[:4]) == [Purpose.ANSWER, Purpose.POSITION, Purpose.CROSS_EXAMINE, Purpose.VOTE]


@pytest.mark.parametrize("rounds", range(1, 9))
def test_it_has_so_many_exchanges_between_the_blind_round_and_the_vote(rounds: int) -> None:
    found = _purposes(rounds, *RESTLESS[: rounds + 2])
    assert (len(found), found[0], found[-1]) == (rounds + 2, Purpose.ANSWER, Purpose.VOTE)


def test_an_examination_that_moves_nobody_is_a_deadlock_after_which_is_voted() -> None:
    stuck = ("yes", "no")
    assert _purposes(5, stuck, stuck, stuck) == [
        Purpose.ANSWER,
        Purpose.POSITION,
        Purpose.CROSS_EXAMINE,
        Purpose.VOTE,
    ]
    assert _purposes(5, stuck, stuck, ("yes", "yes"))[-1] is Purpose.CROSS_EXAMINE


def test_after_the_vote_it_is_over_whatever_was_voted() -> None:
    stuck = ("yes", "no")
    assert len(_purposes(5, stuck, stuck, stuck, ("no", "yes"))) == 4


def test_each_hears_so_many_neighbours_and_not_himself() -> None:
    held = deliberation(Protocol(ProtocolKind.DEBATE, neighbours=3), 10)
    plan = planned(held, answers(0, *["yes", "no"] * 5))
    heard = []
    for agent in range(10):
        near = [each for each in brief_of(plan, agent).exhibits if each.kind is ExhibitKind.NEIGHBOUR]
        assert [each.label for each in near] == ["neighbour 1", "neighbour 2", "neighbour 3"]
        assert f"words of {agent} in 0" not in {each.words for each in near}
        heard += [each.words for each in near]
    assert {heard.count(words) for words in heard} == {3}


def test_the_neighbours_stay_the_same_so_that_objections_can_be_met() -> None:
    held = deliberation(Protocol(ProtocolKind.DEBATE, neighbours=2), 6)
    records = answers(0, *["yes", "no"] * 3)
    first = planned(held, records)
    second = planned(held, records + answers(1, *["yes", "no"] * 3))
    for agent in range(6):
        before = [(each.words or "").split(" in ")[0] for each in brief_of(first, agent).exhibits]
        after = [(each.words or "").split(" in ")[0] for each in brief_of(second, agent).exhibits]
        assert before == after


def test_who_has_nothing_to_show_is_passed_over_for_the_next_one() -> None:
    held = deliberation(Protocol(ProtocolKind.DEBATE, neighbours=2), 5)
    plan = planned(held, answers(0, "yes", FAILED, None, "no", "yes"))
    for agent in range(5):
        near = [each for each in brief_of(plan, agent).exhibits if each.kind is ExhibitKind.NEIGHBOUR]
        assert len(near) == 2
        assert all(each.answer is not None for each in near)


def test_before_the_vote_each_is_shown_what_its_neighbours_object() -> None:
    held = deliberation(Protocol(ProtocolKind.DEBATE, rounds=1), 3)
    plan = planned(held, answers(0, "yes", "no", "no") + answers(1, "yes", "no", "yes"))
    kinds = {each.kind for each in brief_of(plan, 0).exhibits}
    assert (plan.purpose, kinds) == (Purpose.VOTE, {ExhibitKind.OBJECTION, ExhibitKind.OWN})
