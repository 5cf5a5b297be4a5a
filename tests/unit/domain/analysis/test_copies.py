"""Copies are found, and independent agents are not taken for copies."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from domain.analysis.copies import groups_of_copies, same_words
from domain.analysis.past import PastBallots
from domain.models.question import AnswerFormat, AnswerKind
from tests.simulated_jury import hear, jurors


def _copying(past: list[PastBallots], *pairs: tuple[int, int], slips: float = 0.0) -> list[PastBallots]:
    """The same, but that the second juror of each pair says what the first says, with so many slips."""
    draw, changed = random.Random(5), []
    for each in past:
        blind = dict(each.blind)
        for one, other in pairs:
            if draw.random() >= slips:
                blind[f"juror-{other}", "m"] = blind[f"juror-{one}", "m"]
        changed.append(replace(each, blind=blind))
    return changed


def test_an_agent_that_repeats_another_is_found() -> None:
    voices = jurors(24)
    past = _copying(hear(voices, questions=60, correlation=0.0), (3, 17))
    (group,) = groups_of_copies(voices, past)
    assert group.agents == ("juror-3", "juror-17")
    assert (group.agreement, group.questions) == (1.0, 60)


def test_a_copy_that_slips_now_and_then_is_found_all_the_same() -> None:
    voices = jurors(24)
    past = _copying(hear(voices, questions=150, correlation=0.0), (3, 17), slips=0.1)
    (group,) = groups_of_copies(voices, past)
    assert group.agents == ("juror-3", "juror-17")
    assert 0.9 < group.agreement < 1


def test_copies_of_one_agent_are_one_group() -> None:
    voices = jurors(24)
    past = _copying(hear(voices, questions=80, correlation=0.0), (3, 17), (3, 20))
    (group,) = groups_of_copies(voices, past)
    assert group.agents == ("juror-3", "juror-17", "juror-20")


@pytest.mark.parametrize("correlation", [0.0, 0.1, 0.3, 0.5])
def test_independent_agents_are_no_copies_however_much_their_questions_make_them_agree(correlation: float) -> None:
    voices = jurors(36)
    for seed in range(5):
        past = hear(voices, questions=120, correlation=correlation, seed=seed)
        assert groups_of_copies(voices, past) == ()


def test_a_few_questions_cannot_tell_a_copy() -> None:
    voices = jurors(24)
    assert groups_of_copies(voices, _copying(hear(voices, questions=10, correlation=0.0), (3, 17))) == ()


def test_questions_that_only_one_of_them_answered_do_not_count() -> None:
    voices = jurors(24)
    past = _copying(hear(voices, questions=60, correlation=0.0), (3, 17))
    absent = ("juror-17", "m")
    gone = [
        replace(each, blind={voice: said for voice, said in each.blind.items() if place < 40 or voice != absent})
        for place, each in enumerate(past)
    ]
    (group,) = groups_of_copies(voices, gone)
    assert (group.questions, group.agreement) == (40, 1.0)


def test_another_model_is_another_voice() -> None:
    past = _copying(hear(jurors(24), questions=60, correlation=0.0), (3, 17))
    assert groups_of_copies(jurors(24, models=["another"]), past) == ()


def test_the_first_of_a_ranking_is_what_is_compared() -> None:
    voices = jurors(6)
    ranking = AnswerFormat(AnswerKind.RANKING, tuple("abcdefgh"))
    draw = random.Random(2)
    past = []
    for each in hear(voices, questions=40, correlation=0.0):
        said = {voice: tuple(draw.sample("abcdefgh", 3)) for voice in voices}
        said[voices[4]] = (said[voices[1]][0], "h" if said[voices[1]][0] != "h" else "a")
        past.append(replace(each, answer=ranking, blind=said))
    (group,) = groups_of_copies(voices, past)
    assert group.agents == ("juror-1", "juror-4")


def test_without_earlier_questions_nobody_is_a_copy() -> None:
    assert groups_of_copies(jurors(3), []) == ()


def test_reasons_that_are_the_same_word_for_word_are_found() -> None:
    said = {"a": "Too  dear.", "b": "too dear.", "c": "Too far.", "d": None, "e": ""}
    assert same_words(said) == (("a", "b"),)
