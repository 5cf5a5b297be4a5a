"""What an ended deliberation is said to be worth."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from domain.analysis.past import PastAnswer, PastBallots
from domain.analysis.worth import assess
from domain.models.deliberation import DeliberationStatus
from domain.models.question import AnswerFormat, AnswerKind
from tests.simulated_jury import VERDICT, hear
from tests.unit.domain.analysis.sessions import CHOICE, GONE, held

_AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_full_house_raises_no_warning() -> None:
    assert assess(held(["yes"] * 5 + ["no"] * 3)).warnings == ()


def test_a_degraded_result_says_so_first() -> None:
    found = assess(held(["yes"] * 5 + ["no"] * 3 + [GONE] * 2))
    assert found.warnings == ("Degraded: 2 of 10 did not take part.",)


def test_drop_out_of_one_model_is_a_warning_with_its_numbers() -> None:
    said = [GONE if number % 3 == 0 and number < 36 else "yes" for number in range(72)]
    found = assess(held(said, models=["slow", "fast", "other"]))
    assert found.warnings[0] == "Degraded: 12 of 72 did not take part."
    assert found.warnings[1].startswith(
        "Drop-out is not random: 12 of 24 agents of the model 'slow' are missing, and 0 of 48 others (p = "
    )


def test_agents_without_a_model_of_their_own_are_of_one_model_whoever_answered_for_them() -> None:
    over = held([GONE] * 2 + ["yes"] * 40, models=[None])
    answered = [
        replace(each, model=None if each.answer is None else "the one that answered") for each in over.rounds[0].records
    ]
    found = assess(replace(over, rounds=(replace(over.rounds[0], records=tuple(answered)),)))
    assert [each.group for each in found.drop_out] == []


def test_drop_out_of_one_persona_group_is_a_warning() -> None:
    said = [GONE if number % 2 == 0 and number < 20 else "yes" for number in range(40)]
    (found,) = assess(held(said, personas=["Nurse.", "Judge."])).drop_out
    assert (found.kind, found.group, found.missing) == ("persona", "that of a0", 10)


def test_drop_out_is_told_where_there_is_no_outcome_too() -> None:
    said = [GONE if number % 2 == 0 else "yes" for number in range(40)]
    found = assess(held(said, models=["slow", "fast"], status=DeliberationStatus.INQUORATE))
    assert [each.group for each in found.drop_out] == ["slow"]
    assert (found.winners, found.effective_votes) == ((), None)


def test_drop_out_by_chance_is_no_more_than_degraded() -> None:
    said = [GONE if number in (4, 17, 36, 55) else "yes" for number in range(72)]
    assert assess(held(said, models=["a", "b", "c"])).warnings == ("Degraded: 4 of 72 did not take part.",)


def test_the_division_is_that_of_the_answers() -> None:
    found = assess(held(["yes", "yes", "no", "later"]))
    assert found.final.entropy_bits == pytest.approx(1.5)
    assert found.final == found.blind


def test_one_round_has_no_movement() -> None:
    assert assess(held(["yes", "no"])).movement is None


def test_a_second_round_shows_who_moved_and_whether_to_the_leader() -> None:
    found = assess(held(["yes", "yes", "no", "later"], ["yes", "yes", "yes", "no"])).movement
    assert found is not None
    assert (found.changeable, found.changed, found.blind_leader, found.conformity) == (4, 2, "yes", 0.5)


def test_whoever_fails_in_the_last_round_did_not_change() -> None:
    found = assess(held(["yes", "yes", "no"], ["yes", "yes", GONE])).movement
    assert found is not None
    assert (found.changeable, found.changed) == (3, 0)


def test_estimates_conform_by_coming_nearer_to_the_blind_median() -> None:
    score = AnswerFormat(AnswerKind.SCORE, (), 0.0, 10.0)
    found = assess(held([1.0, 5.0, 9.0], [4.0, 5.0, 10.0], answer=score))
    assert found.movement is not None
    assert (found.movement.changed, found.movement.blind_leader, found.movement.conformity) == (2, "5", 0.5)


def test_debate_that_drives_two_camps_apart_shows_as_polarisation() -> None:
    score = AnswerFormat(AnswerKind.SCORE, (), 0.0, 10.0)
    found = assess(held([4.0, 5.0, 5.0, 6.0], [0.0, 0.0, 10.0, 10.0], answer=score))
    assert found.blind.polarisation is not None
    assert found.blind.polarisation < 0.1
    assert found.final.polarisation == pytest.approx(1)


def test_every_rule_that_fits_is_applied() -> None:
    found = assess(held(["yes"] * 4 + ["no"] * 3 + ["later"] * 2))
    assert [(each.rule, each.decision) for each in found.winners] == [("plurality", "yes"), ("threshold", None)]


def test_whoever_decides_alone_is_named() -> None:
    found = assess(held(["yes", "yes", "yes", "no", "no"], models=["a", "b"]))
    assert found.pivotal_agents is not None
    assert found.pivotal_agents.pivotal == ("a0", "a1", "a2")
    assert found.pivotal_models is not None
    assert found.pivotal_models.pivotal == ("a",)


def test_personas_that_are_all_different_are_left_out_with_their_agents_only() -> None:
    assert assess(held(["yes", "yes", "no"])).pivotal_personas is None


def test_a_single_deliberation_gives_no_number_of_effective_votes() -> None:
    found = assess(held(["yes"] * 5))
    assert found.effective_votes is None
    assert found.within is not None
    assert (found.within.low, found.within.high) == (1, 5)


def test_earlier_deliberations_give_the_number() -> None:
    voices = tuple((f"a{number}", "m") for number in range(24))
    found = assess(
        held(["yes"] * 15 + ["no"] * 9, answer=VERDICT), hear(voices, questions=200, correlation=0.3, resolved=True)
    )
    assert found.effective_votes == pytest.approx(24 / (1 + 23 * 0.3), rel=0.2)


def test_copies_are_a_warning() -> None:
    voices = tuple((f"a{number}", "m") for number in range(24))
    past = [
        replace(each, blind={**each.blind, voices[5]: each.blind[voices[2]]})
        for each in hear(voices, questions=60, correlation=0.0)
    ]
    found = assess(held(["yes"] * 15 + ["no"] * 9, answer=VERDICT), past)
    assert found.copies[0].agents == ("a2", "a5")
    assert found.warnings == ("Copies: 2 of 24 agents answer like another of them more often than chance allows.",)


def test_the_same_reason_word_for_word_is_a_warning() -> None:
    found = assess(held(["yes", "yes", "no"], reasons={0: "It is cheap.", 1: "it is  cheap.", 2: "It is far."}))
    assert found.same_words == (("a0", "a1"),)
    assert found.warnings[0].startswith("Echoes: 2 of 3 agents")


def test_ten_deliberations_in_agreement_are_groupthink() -> None:
    past = [PastBallots(f"p{number}", _AT, CHOICE, {}, 0.95) for number in range(9)]
    assert assess(held(["yes"] * 10), past).warnings[0].startswith("Groupthink: in 10 deliberations in a row")
    assert assess(held(["yes"] * 10), past[1:]).warnings == ()
    assert assess(held(["yes"] * 8 + ["no"] * 2), past).warnings == ()


def test_past_ballots_take_the_blind_answer_and_the_last_one() -> None:
    given = [
        PastAnswer(0, "a", "m", "yes"),
        PastAnswer(0, "b", "m", "no"),
        PastAnswer(1, "b", "m", "yes"),
        PastAnswer(1, "a", "m", ("answer 1",)),
    ]
    found = PastBallots.of("p", _AT, CHOICE, given)
    assert found.blind == {("a", "m"): "yes", ("b", "m"): "no"}
    assert found.final_agreement == 1


def test_texts_are_worth_what_can_be_said_without_counting() -> None:
    text = AnswerFormat(AnswerKind.TEXT)
    found = assess(held(["Build it.", "Leave it.", GONE], answer=text))
    assert (found.winners, found.pivotal_agents, found.within) == ((), None, None)
    assert found.warnings == ("Degraded: 1 of 3 did not take part.",)


def test_personas_that_are_not_known_are_not_one_group() -> None:
    whole = held([GONE, GONE, *["yes"] * 10])
    agents = [
        replace(agent, persona=replace(agent.persona, text="")) if place < 2 else agent
        for place, agent in enumerate(whole.specification.roster.agents)
    ]
    roster = replace(whole.specification.roster, agents=tuple(agents))
    assert assess(replace(whole, specification=replace(whole.specification, roster=roster))).drop_out == ()
