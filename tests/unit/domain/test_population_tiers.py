"""What may be asked of the tiers of states, on the command line and over REST."""

from __future__ import annotations

import pytest

from domain.errors.population import InvalidPopulationError
from domain.models.population import PopulationSpecification, arguments_from_rest, command_line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tiers", 1),
        ("tiers", "yes"),
        ("warm", "bath"),
        ("cold", "/etc"),
        ("hot_percent", 0),
        ("hot_percent", True),
        ("warm_percent", 99),
        ("warm_percent", 1.5),
        ("warm_percent", 90),
    ],
)
def test_what_cannot_be_had_is_refused_by_its_field(name: str, value: object) -> None:
    with pytest.raises(InvalidPopulationError) as caught:
        PopulationSpecification.from_document({"agents": 100, name: value})
    assert [problem.pointer for problem in caught.value.problems] == [f"/{name}"]


def test_a_behaviour_of_ones_own_keeps_its_bytes_itself() -> None:
    with pytest.raises(InvalidPopulationError) as caught:
        PopulationSpecification(agents=100, tiers=True, behaviour="minds:Mine")
    assert [problem.pointer for problem in caught.value.problems] == ["/tiers"]


def test_an_old_document_has_no_tiers() -> None:
    document = PopulationSpecification(agents=100).document()
    for name in ("tiers", "warm", "cold", "hot_percent", "warm_percent"):
        del document[name]
    assert PopulationSpecification.from_document(document) == PopulationSpecification(agents=100)


def test_tiers_can_be_asked_for_over_rest_and_become_a_flag() -> None:
    arguments, problems = arguments_from_rest({"agents": 50, "tiers": True})
    assert not problems
    assert "--tiers" in command_line(arguments)
    arguments, problems = arguments_from_rest({"agents": 50, "tiers": False})
    assert not [word for word in command_line(arguments) if word.startswith("--tiers")]


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"tiers": "yes"}, "/arguments/tiers"),
        ({"warm": "redis"}, "/arguments/warm"),
        ({"cold": "lmdb"}, "/arguments/cold"),
        ({"hot_percent": 99}, "/arguments/hot_percent"),
    ],
)
def test_rest_says_whether_there_are_tiers_and_not_what_keeps_them(document: dict[str, object], pointer: str) -> None:
    _, problems = arguments_from_rest(document)
    assert [problem.pointer for problem in problems] == [pointer]
