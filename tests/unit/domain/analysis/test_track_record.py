"""Track records: who was right before, shrunk towards a whole vote as long as little is known."""

from __future__ import annotations

from fractions import Fraction

import pytest

from domain.analysis.scoring import Given
from domain.analysis.track_record import Resolved, TrackRecord
from domain.models.question import AnswerFormat, AnswerKind

VERDICT = AnswerFormat(AnswerKind.VERDICT)
PROBABILITY = AnswerFormat(AnswerKind.PROBABILITY)


def resolved(number: int, right: list[str], wrong: list[str], *, model: str | None = None) -> Resolved:
    given = [Given(agent, model, "yes") for agent in right] + [Given(agent, model, "no") for agent in wrong]
    return Resolved(f"d-{number}", VERDICT, "yes", tuple(given))


def history(questions: int, *, model: str | None = None) -> TrackRecord:
    return TrackRecord.of([resolved(number, ["good"], ["bad"], model=model) for number in range(questions)])


def test_whoever_is_not_known_has_a_whole_vote() -> None:
    assert TrackRecord().weight("anybody", "any model") == 100
    assert history(50).weight("somebody else", None) == 100


@pytest.mark.parametrize(("questions", "good", "bad"), [(1, 109, 91), (10, 150, 50), (90, 190, 10)])
def test_weights_leave_one_as_more_becomes_known(questions: int, good: int, bad: int) -> None:
    record = history(questions)
    assert (record.weight("good", None), record.weight("bad", None)) == (good, bad)


def test_whoever_is_as_good_as_chance_keeps_a_whole_vote() -> None:
    found = TrackRecord.of([resolved(n, ["a"] if n % 2 else [], [] if n % 2 else ["a"]) for n in range(40)])
    assert found.agents["a"].skill == 0
    assert found.weight("a", None) == 100


def test_an_agent_without_a_record_has_the_weight_of_its_model() -> None:
    record = TrackRecord.of([resolved(n, ["a", "b", "c"], [], model="wise") for n in range(10)])
    assert record.weight("new", "wise") == 150
    assert record.weight("new", "other") == 100


def test_an_agent_is_shrunk_towards_its_model() -> None:
    record = history(10, model="mixed")
    one = TrackRecord.of([resolved(n, ["a"], [], model="wise") for n in range(10)])
    assert record.weight("good", "mixed") == 150
    assert one.weight("a", "wise") == 175


def test_a_model_counts_a_question_once_however_many_agents_it_speaks_for() -> None:
    record = TrackRecord.of([resolved(0, [f"a{n}" for n in range(72)], [], model="wise")])
    assert record.models["wise"].questions == 1
    assert record.models["wise"].weight == 109


def test_a_sure_wrong_answer_costs_more_than_a_doubtful_one() -> None:
    doubtful = Resolved("d", VERDICT, "yes", (Given("a", None, "no", 0.6), Given("b", None, "no", 0.95)))
    found = TrackRecord.of([doubtful])
    assert found.weight("a", None) > found.weight("b", None)


def test_a_truth_that_is_as_likely_as_not_leaves_nobody_ahead() -> None:
    even = Resolved("d", PROBABILITY, 0.5, (Given("a", None, 0.5), Given("b", None, 0.9)))
    found = TrackRecord.of([even])
    assert found.agents["a"].skill == 0
    assert found.agents["b"].skill == -1


def test_confidence_is_held_against_what_was_right_in_ten_bins() -> None:
    given = tuple(Given(f"a{n}", None, "yes" if n < 3 else "no", 0.75) for n in range(4))
    found = TrackRecord.of([Resolved("d", VERDICT, "yes", given)])
    held = [each for each in found.calibration if each.count]
    assert len(found.calibration) == 10
    assert [(each.low, each.high, each.count, each.stated, each.right) for each in held] == [(0.7, 0.8, 4, 0.75, 0.75)]


def test_a_probability_is_its_own_confidence_and_one_belongs_to_the_last_bin() -> None:
    given = (Given("a", None, 1.0), Given("b", None, 0.0))
    found = TrackRecord.of([Resolved("d", PROBABILITY, 1.0, given)])
    assert [(each.low, each.count, each.right) for each in found.calibration if each.count] == [
        (0.0, 1, 1.0),
        (0.9, 1, 1.0),
    ]


def test_a_skill_is_exact() -> None:
    found = TrackRecord.of([Resolved("d", VERDICT, "yes", (Given("a", None, "yes", 0.8),))])
    assert found.agents["a"].skill == Fraction(84, 100)
