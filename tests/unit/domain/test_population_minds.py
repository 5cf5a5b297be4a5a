"""What may be asked of the minds of a population, over REST and on the command line."""

from __future__ import annotations

import pytest

from domain.models.population import PopulationSpecification, arguments_from_rest, command_line


@pytest.mark.parametrize("kind", ["none", "policy"])
def test_rest_may_choose_the_network(kind: str) -> None:
    arguments, problems = arguments_from_rest({"inference": kind})
    assert not problems
    assert f"--inference={kind}" in command_line(arguments)


@pytest.mark.parametrize(
    "document",
    [
        {"inference": "openai"},
        {"inference": "torch"},
        {"inference": ["policy"]},
        {"inference_weights": "weights.npz"},
        {"thinker": "mine:Class"},
        {"thinkers": 3},
    ],
)
def test_rest_may_name_no_model_no_file_and_no_code(document: dict[str, object]) -> None:
    arguments, problems = arguments_from_rest(document)
    assert not arguments
    assert [problem.pointer for problem in problems] == [f"/arguments/{next(iter(document))}"]


@pytest.mark.parametrize(
    ("given", "asks"),
    [
        ({}, False),
        ({"inference": "policy"}, False),
        ({"inference": "openai"}, True),
        ({"thinkers": 1}, True),
        ({"thinkers": 1, "thinker": "roster/archons"}, True),
        ({"thinkers": 1, "thinker": "mine:Class"}, False),
        ({"thinkers": 0, "thinker": "roster"}, False),
    ],
)
def test_a_provider_is_needed_only_where_models_are_asked(given: dict[str, object], asks: bool) -> None:
    assert PopulationSpecification.from_document(given).asks_models is asks


def test_all_agents_ask_a_network_and_a_few_a_model_of_text() -> None:
    found = [
        PopulationSpecification.from_document(given).asking_agents
        for given in ({"inference": "policy"}, {"inference": "openai"}, {"inference": "openai", "inference_agents": 3})
    ]
    assert found == [0, 8, 3]
