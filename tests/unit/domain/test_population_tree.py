"""The tree of a population on paper: its levels, its messages, the factor that is claimed for it, and the commands that go down."""

from __future__ import annotations

from typing import Any

import pytest

from domain.errors.population import InvalidPopulationError
from domain.models.population import PopulationSpecification, arguments_from_rest, command_line
from domain.models.population_tree import FAN_IN, Command, TreeShape


def test_a_million_workers_have_ten_thousand_localities_a_hundred_regions_and_one_coordinator() -> None:
    shape = TreeShape.of(1_000_000)
    assert shape.levels == (1, 100, 10_000, 1_000_000)
    assert shape.links == 1_010_100
    assert shape.regions == 100


@pytest.mark.parametrize("agents", [1, 99, 100, 101, 9_999, 10_001, 1_000_001, 10_000_000])
def test_no_node_has_more_than_a_hundred_children(agents: int) -> None:
    shape = TreeShape.of(agents)
    for nodes, children in zip(shape.levels, shape.levels[1:], strict=False):
        assert -(-children // nodes) <= FAN_IN
    assert shape.fan_in <= FAN_IN
    assert shape.levels[0] == 1
    assert shape.levels[-1] == agents


def test_the_factor_stands_beside_its_definition_and_the_known_claim() -> None:
    document: Any = TreeShape.of(1_000_000).document()
    rounds, factor = document["a_round_up_and_down"], document["factor"]
    assert rounds["tree"] == {"messages": 2_020_200, "fan_in": 100, "hops": 3}
    assert rounds["flat"] == {"messages": 2_000_000, "fan_in": 1_000_000, "hops": 1}
    assert rounds["full_mesh"] == {"messages": 999_999_000_000, "fan_in": 999_999, "hops": 1}
    assert factor["own"] == pytest.approx(495_000.0)
    assert factor["known_claim"] == 101.53
    # So many messages less would be those of a tree without levels between, of 203 agents.
    assert factor["own_at_as_many_agents"] == pytest.approx(203 * 202 / (2 * (203 + 3 + 1)))
    assert "n (n - 1)" in str(factor["definition"])


def test_a_command_says_when_what_and_where() -> None:
    assert Command.parsed("50:bound=0.1:0,3-7", regions=100) == Command(50, "bound", 0.1, ((0, 1), (3, 8)))
    assert Command.parsed("1:pause", regions=4) == Command(1, "pause", None, ((0, 4),))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bound=0.1", "must be TICK:WHAT"),
        ("5:explode", "must be TICK:WHAT"),
        ("0:pause", "from 1 on"),
        ("5:pause=1", "must not give a value"),
        ("5:bound", "value from 0 to 1"),
        ("5:bound=nan", "value from 0 to 1"),
        ("5:activity=1.5", "value from 0 to 1"),
        ("5:wake:7-3", "lower one first"),
        ("5:wake:10", "from 0 to 9"),
        ("5:wake:-", "numbers and ranges"),
    ],
)
def test_a_command_that_is_none_says_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Command.parsed(text, regions=10)


@pytest.mark.parametrize(
    ("name", "value", "pointer"),
    [
        ("dormancy", 1, "/dormancy"),
        ("commands", ("3:pause", "4:sing"), "/commands/1"),
        ("commands", ("101:pause",), "/commands/0"),
        ("commands", "3:pause", "/commands"),
        ("commands", ["3:pause", 4], "/commands/1"),
        ("fold_ticks", -1, "/fold_ticks"),
        ("begin_with", 101, "/begin_with"),
        ("arrivals", float("nan"), "/arrivals"),
        ("departures", 1.01, "/departures"),
        ("memory_bytes", 12, "/memory_bytes"),
        ("memory_bytes", 84 * 1_024, "/memory_bytes"),
        ("metrics", 84 * 1_024 // 8, "/memory_bytes"),
        ("peers", True, "/peers"),
        ("external", 101, "/external"),
        ("external_to", "a,,b", "/external_to"),
        ("external_to", "a,a", "/external_to"),
        ("external_to", "population", "/external_to"),
        ("external_deadline_s", float("inf"), "/external_deadline_s"),
        ("bus", "pigeon", "/bus"),
        ("bus_name", "../x", "/bus_name"),
    ],
)
def test_what_no_tree_can_do_is_refused_by_its_field(name: str, value: object, pointer: str) -> None:
    with pytest.raises(InvalidPopulationError) as caught:
        PopulationSpecification.from_document({"agents": 100, name: value})
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


def test_what_only_the_engine_local_does_is_not_asked_of_another() -> None:
    with pytest.raises(InvalidPopulationError) as caught:
        PopulationSpecification(engine="ray", dormancy=True, arrivals=0.1)
    assert {problem.pointer for problem in caught.value.problems} == {"/dormancy", "/arrivals"}


def test_a_population_with_commands_is_the_same_after_its_document_is_read() -> None:
    spec = PopulationSpecification(agents=1_000, commands=("3:pause:0", "4:bound=.3"), arrivals=0.01, peers=3)
    assert PopulationSpecification.from_document(spec.document()) == spec


def test_rest_names_no_bus_and_its_flags_are_said_without_a_value() -> None:
    _, problems = arguments_from_rest({"external": 5, "bus": "redis://somewhere"})
    assert {problem.pointer for problem in problems} == {"/arguments/external", "/arguments/bus"}
    arguments, problems = arguments_from_rest({"dormancy": True, "arrivals": 0.5, "fold_every": 3})
    assert not problems
    words = command_line(arguments)
    assert {"--dormancy", "--arrivals=0.5", "--fold-every=3"} < set(words)
    arguments, _ = arguments_from_rest({})
    assert not any(word.startswith("--dormancy") for word in command_line(arguments))
