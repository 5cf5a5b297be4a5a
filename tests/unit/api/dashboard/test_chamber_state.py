"""What the chamber shows while it is told: every seat, and every count."""

from __future__ import annotations

from dataclasses import replace

import pytest

from application.services.deliberation_output_service import WitnessedOutput
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.rule import default_rule
from tests.service_fixture import specification
from tests.unit.api.dashboard.chamber_story import Story, record_of


def test_a_seat_waits_thinks_and_then_shows_by_a_letter_what_its_agent_said() -> None:
    story = Story(4)
    assert story.kinds == ["waiting"] * 4
    story.begin()
    assert story.kinds == ["asked"] * 4
    story.hear("weekends only", None, AgentState.TIMED_OUT)
    assert (story.kinds, story.signs) == (["answered", "abstained", "timed_out", "asked"], ["C", "", "", ""])
    assert story.state.shown.seats[0].label == "Seat 1, archon-0: answered, C: weekends only"
    assert story.state.shown.seats[2].symbol == "state-timed_out"


@pytest.mark.parametrize("state", [each for each in AgentState if not each.took_part])
def test_each_way_to_fail_has_a_sign_of_its_own_and_its_place_in_the_roll_call(state: AgentState) -> None:
    story = Story(2)
    story.begin()
    story.hear("yes", state)
    mark = story.state.shown.seats[1]
    assert (mark.style, mark.symbol) == (f"seat is-{state.value}", f"state-{state.value}")
    assert mark.label.endswith(f": {state.value.replace('_', ' ')}")
    texts = story.state.shown.texts
    assert (texts["asked"], texts[f"roll-{state.value}"], texts["roll-answered"]) == ("2", "1", "1")


def test_the_tally_counts_while_they_answer_and_says_the_share_of_all_who_were_asked() -> None:
    story = Story(5)
    story.begin()
    story.hear("yes", "yes", "no")
    texts, bars = story.state.shown.texts, story.state.shown.bars
    assert [texts[f"count-{place}"] for place in range(3)] == ["2", "1", "0"]
    assert (texts["share-0"], bars["bar-0"], texts["margin"]) == ("40.0 %", 40.0, "1")
    assert (texts["progress"], texts["quorum"]) == ("3 of 5 have ended, 2 are thinking", "3 took part, 3 needed")


def test_in_a_later_round_who_fails_keeps_its_ballot_and_who_abstains_has_none() -> None:
    story = Story(3, protocol=Protocol(ProtocolKind.DELPHI))
    story.begin()
    story.hear("yes", "no", "no")
    story.begin(1, "revise")
    assert (story.kinds, story.signs) == (["asked"] * 3, ["A", "B", "B"])
    story.hear(AgentState.FAILED, None, "yes", number=1)
    assert (story.kinds, story.signs) == (["failed", "abstained", "answered"], ["A", "", "A"])
    assert story.state.shown.seats[0].label.endswith("failed, A: yes from an earlier round")
    assert story.state.shown.texts["count-0"] == "2"


def test_what_is_said_in_a_review_is_no_ballot() -> None:
    story = Story(2, protocol=Protocol(ProtocolKind.PEER_REVIEW))
    story.begin()
    story.hear("yes", "no")
    story.begin(1, "review")
    story.hear(("answer 2",), ("answer 1",), number=1)
    assert story.signs == ["A", "B"]


def test_each_approval_counts_and_the_seat_shows_the_first() -> None:
    answer = AnswerFormat(AnswerKind.APPROVAL, ("yes", "no", "weekends only"))
    question = replace(specification(2).question, answer=answer)
    story = Story(2, question=question, rule=default_rule(AnswerKind.APPROVAL))
    story.begin()
    story.hear(("no", "weekends only"), ("weekends only",))
    assert story.signs == ["B", "C"]
    assert [story.state.shown.texts[f"count-{place}"] for place in range(3)] == ["0", "1", "2"]


def test_numbers_are_told_apart_by_fifths_of_their_range() -> None:
    question = replace(specification(3).question, answer=AnswerFormat(AnswerKind.PROBABILITY))
    story = Story(3, question=question, rule=default_rule(AnswerKind.PROBABILITY))
    story.begin()
    story.hear(0.0, 0.5, 1.0)
    assert story.signs == ["A", "C", "E"]
    assert story.state.shown.texts["name-2"] == "0.4 to 0.6"


def test_an_outcome_that_was_committed_after_the_events_were_read_is_shown_with_its_event() -> None:
    story = Story(2)
    story.begin()
    early = record_of(0, "archon-1", "no", "because")
    story.tell(outputs=[WitnessedOutput(early, 0, bytes(32), erased=False)])
    assert story.kinds == ["asked", "asked"]
    story.tell(("agent.ended", {"round": 0, "agent_id": "archon-1", "state": "answered"}))
    assert (story.kinds, story.signs) == (["asked", "answered"], ["", "B"])


def test_a_change_names_only_what_looks_different() -> None:
    story = Story(5)
    story.begin()
    before = story.state.shown
    story.hear("yes")
    change = story.state.change_since(before)
    assert list(change.seats) == [0]
    assert {"count-0", "share-0", "progress", "roll-answered"} <= change.texts.keys()
    assert "cost" not in change.texts
    assert story.state.change_since(story.state.shown).is_empty


def test_after_the_end_those_of_a_position_sit_side_by_side_and_who_failed_at_the_end() -> None:
    story = Story(5)
    story.begin()
    story.hear("no", AgentState.FAILED, "yes", "no", "yes")
    assert list(story.state.order) == [0, 1, 2, 3, 4]
    story.end()
    assert list(story.state.order) == [2, 4, 0, 3, 1]
