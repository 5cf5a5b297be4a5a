"""How the ballots of a deliberation become the beginnings of communities."""

from __future__ import annotations

import pytest

from domain.errors.population import InvalidPopulationError
from domain.models.archetype import Archetype, archetypes_of, rows_of_archetypes
from domain.models.population import PopulationSpecification
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer, Ballot


@pytest.mark.parametrize(
    ("form", "answers", "opinions"),
    [
        (AnswerFormat(AnswerKind.VERDICT), ("yes", "no", None), [1.0, 0.0]),
        (AnswerFormat(AnswerKind.CHOICE, ("a", "b", "c")), ("a", "b", "c", "elsewhere"), [0.0, 0.5, 1.0]),
        (AnswerFormat(AnswerKind.RANKING, ("a", "b")), (("b", "a"), ("a", "b"), ()), [1.0, 0.0]),
        (AnswerFormat(AnswerKind.SCORE, minimum=0, maximum=10), (2.5, 10.0, 0.0), [0.25, 1.0, 0.0]),
        (AnswerFormat(AnswerKind.PROBABILITY), (0.3, 1.0), [0.3, 1.0]),
        (AnswerFormat(AnswerKind.NUMBER), (100.0, 300.0, 150.0), [0.0, 1.0, 0.25]),
        (AnswerFormat(AnswerKind.NUMBER), (100.0, 100.0), [0.5, 0.5]),
    ],
)
def test_an_answer_has_a_place_between_the_others(
    form: AnswerFormat, answers: tuple[Answer, ...], opinions: list[float]
) -> None:
    ballots = [Ballot(f"archon-{number}", answer) for number, answer in enumerate(answers)]
    assert [archetype.opinion for archetype in archetypes_of(form, ballots)] == pytest.approx(opinions)


def test_confidence_and_reasons_come_along() -> None:
    (found,) = archetypes_of(AnswerFormat(), [Ballot("archon-7", "yes", 0.8, "Quieter streets.")])
    assert found == Archetype("archon-7", "yes", 1.0, 0.8, reason="Quieter streets.")
    assert found.spread == pytest.approx(0.1)


def test_texts_have_no_place_and_nobody_begins_with_them() -> None:
    with pytest.raises(InvalidPopulationError):
        archetypes_of(AnswerFormat(AnswerKind.TEXT), [Ballot("archon-1", "trams")])


@pytest.mark.parametrize(("agents", "sizes"), [(7_200, [1_800, 5_400]), (10, [3, 7]), (1, [0, 1])])
def test_communities_share_all_agents_by_quota(agents: int, sizes: list[int]) -> None:
    pair = (Archetype("a", "yes", 1.0), Archetype("b", "no", 0.0, quota=3))
    rows = rows_of_archetypes(pair, agents, locality=100)
    assert rows[0].start == 0
    assert rows[0].stop == rows[1].start
    assert [len(part) for part in rows] == pytest.approx(sizes, abs=1)
    assert rows[1].stop == agents


def test_a_seeded_population_is_the_same_after_its_document_is_read() -> None:
    spec = PopulationSpecification(agents=50, archetypes=(Archetype("a", "yes", 1.0, 0.5, 2, "because"),))
    assert PopulationSpecification.from_document(spec.document()) == spec


@pytest.mark.parametrize("wrong", [{"opinion": 1.5}, {"confidence": -0.1}, {"quota": 0}, {"opinion": float("nan")}])
def test_an_archetype_without_a_place_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidPopulationError) as caught:
        PopulationSpecification(archetypes=(Archetype(**{"name": "a", "answer": "yes", "opinion": 1.0, **wrong}),))  # type: ignore[arg-type]
    assert caught.value.problems[0].pointer == "/archetypes/0"
