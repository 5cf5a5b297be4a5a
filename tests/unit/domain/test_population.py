"""What may be asked of a population, and how it is named over REST and on the command line."""

from __future__ import annotations

import pytest

from domain.errors.population import InvalidPopulationError
from domain.models.archetype import Decision
from domain.models.population import PopulationSpecification, arguments_from_rest, command_line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agents", 0),
        ("agents", 10_000_001),
        ("agents", True),
        ("agents", 2.0),
        ("ticks", -1),
        ("shards", 1_025),
        ("bound", float("nan")),
        ("bound", 1.1),
        ("susceptibility", -0.1),
        ("activity", float("inf")),
        ("degree", 0),
        ("degree", 100),
        ("behaviour", "os.system"),
        ("behaviour", "a b:C"),
        ("graph", ""),
        ("graph", "a\0b"),
        ("messages", 101),
        ("state_bytes", 255),
        ("state_bytes", 16_385),
        ("state_bytes", 257),
        ("seed", 2**63),
        ("tick_interval_s", float("nan")),
        ("engine", "magic"),
        ("kernel", "fortran"),
        ("workers", "elves"),
    ],
)
def test_what_cannot_be_run_is_refused_by_its_field(name: str, value: object) -> None:
    with pytest.raises(InvalidPopulationError) as caught:
        PopulationSpecification.from_document({"agents": 100, name: value})
    assert [problem.pointer for problem in caught.value.problems] == [f"/{name}"]


def test_all_bad_fields_are_named_at_once() -> None:
    with pytest.raises(InvalidPopulationError) as caught:
        PopulationSpecification(agents=0, ticks=-1, bound=2.0)
    assert {problem.pointer for problem in caught.value.problems} == {"/agents", "/ticks", "/bound"}


def test_priorities_are_no_more_than_everybody() -> None:
    with pytest.raises(InvalidPopulationError):
        PopulationSpecification(high_priority=60, low_priority=50)


def test_a_population_is_the_same_after_its_document_is_read() -> None:
    spec = PopulationSpecification(agents=7, degree=2, behaviour="minds:Quiet", graph="who knows whom.txt", seed=5)
    assert PopulationSpecification.from_document(spec.document()) == spec


def test_a_document_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(InvalidPopulationError):
        PopulationSpecification.from_document({"agents": 7, "colour": "red"})


def test_arguments_from_rest_have_defaults() -> None:
    arguments, problems = arguments_from_rest({"agents": 500})
    assert not problems
    assert arguments["agents"] == 500
    assert arguments["ticks"] == 100
    assert arguments["behaviour"] == "bounded_confidence"


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"behaviour": "mine:Class"}, "/arguments/behaviour"),
        ({"graph": "/etc/passwd"}, "/arguments/graph"),
        ({"out": "/tmp"}, "/arguments/out"),  # noqa: S108 - refused
        ({"kernel": "fortran"}, "/arguments/kernel"),
        ({"seeds": 101}, "/arguments/seeds"),
        ({"seeds": 0}, "/arguments/seeds"),
        ({"seed": 2**63 - 1, "seeds": 2}, "/arguments/seeds"),
        ({"snapshot_every": -1}, "/arguments/snapshot_every"),
        ({"from": 7}, "/arguments/from"),
        ({"from": ""}, "/arguments/from"),
        ({"from": "../etc/passwd"}, "/arguments/from"),
        ({"archetypes": []}, "/arguments/archetypes"),
        ({"decision": {"answer": "yes"}}, "/arguments/decision"),
        ({"agents": 1_000_001}, "/arguments/agents"),
        ({"agents": "many"}, "/arguments/agents"),
        ({"ticks": 100_001}, "/arguments/ticks"),
        ({"tick_interval": -1}, "/arguments/tick_interval"),
        ({"": 1}, "/arguments"),
        ({"a/b": 1}, "/arguments"),
        ({"bound": None}, "/arguments/bound"),
        ({"behaviour": ["voter"]}, "/arguments/behaviour"),
        ({"command": ["3:pause", "never"]}, "/arguments/command/1"),
        ({"command": "3:pause"}, "/arguments/command"),
        ({"command": [7]}, "/arguments/command/0"),
        ({"command": [["3:pause"]]}, "/arguments/command/0"),
    ],
)
def test_rest_may_name_neither_code_nor_files_nor_more_than_its_share(
    document: dict[str, object], pointer: str
) -> None:
    arguments, problems = arguments_from_rest(document)
    assert not arguments
    assert [problem.pointer for problem in problems] == [pointer]


def test_a_seeded_population_keeps_what_was_decided() -> None:
    spec = PopulationSpecification(agents=50, decision=Decision("yes", 1.0), seeds=3)
    assert PopulationSpecification.from_document(spec.document()) == spec
    with pytest.raises(InvalidPopulationError):
        PopulationSpecification(decision=Decision("yes", float("nan")))


def test_every_option_that_names_neither_code_nor_files_may_be_set_over_rest() -> None:
    arguments, problems = arguments_from_rest(
        {
            "agents": 500,
            "kernel": "numpy",
            "workers": "threads",
            "susceptibility": 0.25,
            "activity": 0.5,
            "high_priority": 10,
            "low_priority": 20,
            "inbox_limit": 5,
            "seeds": 3,
            "snapshot_every": 7,
            "from": "dlb_1-a",
            "command": ["3:pause:0", "9:wake"],
            "tiers": True,
            "hot_percent": 5,
            "warm_percent": 15,
        }
    )
    assert problems == []
    words = set(command_line(arguments))
    assert {"--from=dlb_1-a", "--seeds=3", "--snapshot-every=7", "--kernel=numpy", "--activity=0.5"} <= words
    assert {"--high-priority=10", "--low-priority=20", "--inbox-limit=5", "--workers=threads"} <= words
    assert {"--command=3:pause:0", "--command=9:wake", "--hot-percent=5", "--warm-percent=15"} <= words


def test_nobody_is_begun_with_unless_named() -> None:
    arguments, _ = arguments_from_rest({})
    assert arguments["from"] is None
    assert not any(word.startswith("--from") for word in command_line(arguments))


def test_the_command_line_of_arguments_says_each_in_one_word() -> None:
    arguments, _ = arguments_from_rest({"agents": 50, "ticks": 3, "tick_interval": 0.5, "graph": "mixed"})
    words = command_line(arguments)
    assert words[:2] == ["population", "run"]
    assert {"--agents=50", "--ticks=3", "--tick-interval=0.5", "--graph=mixed"} < set(words)
    assert not any(word.startswith("--shards") for word in words)
