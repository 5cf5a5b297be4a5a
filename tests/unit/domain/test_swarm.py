"""A swarm's arguments, its batches, and the coin that a seed fixes."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from domain.models.swarm import (
    HEADS,
    TAILS,
    Coin,
    SwarmPlan,
    arguments_from_rest,
    checked_arguments,
    command_line,
    is_session,
    split,
)


def test_128_agents_make_32_batches_of_4() -> None:
    batches = split(128, 4)
    assert len(batches) == 32
    assert {len(batch) for batch in batches} == {4}
    assert [number for batch in batches for number in batch] == list(range(1, 129))


def test_the_last_batch_takes_what_is_left() -> None:
    assert split(6, 4) == ((1, 2, 3, 4), (5, 6))


def test_a_seed_and_a_number_fix_a_flip() -> None:
    assert [Coin(7, number).flip() for number in range(1, 200)] == [Coin(7, number).flip() for number in range(1, 200)]


def test_another_seed_flips_otherwise() -> None:
    assert [Coin(7, number).flip() for number in range(1, 65)] != [Coin(8, number).flip() for number in range(1, 65)]


def test_the_first_flip_is_the_last_bit_of_the_hash() -> None:
    last_bit = hashlib.sha256(b"conclave coin 7 3 0").digest()[-1] & 1
    assert Coin(7, 3).flip() == (HEADS if last_bit else TAILS)


def test_a_coin_can_be_flipped_more_often_than_a_hash_has_bits() -> None:
    coin = Coin(7, 1)
    flips = [coin.flip() for _ in range(2_000)]
    assert 800 < flips.count(HEADS) < 1_200
    assert flips[:256] != flips[256:512]


def test_without_arguments_a_swarm_flips_128_coins_in_memory() -> None:
    arguments, problems = arguments_from_rest({})
    assert problems == []
    assert arguments == {
        "agents": 128,
        "task": "coin-flip",
        "transport": "memory",
        "batches": "32x4",
        "instances": 1,
    }


def test_batches_say_how_many_agents_there_are() -> None:
    arguments, problems = arguments_from_rest({"batches": "10x5"})
    assert (arguments["agents"], problems) == (50, [])


def test_a_question_is_put_to_72_unless_said_otherwise() -> None:
    arguments, problems = arguments_from_rest({"task": "question", "question": "Shall we?"})
    assert (arguments["agents"], arguments["batches"], problems) == (72, "18x4", [])


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"agents": 0}, "/agents"),
        ({"agents": 10_001}, "/agents"),
        ({"agents": True}, "/agents"),
        ({"agents": "128"}, "/agents"),
        ({"agents": 128.0}, "/agents"),
        ({"agents": 100, "batches": "32x4"}, "/batches"),
        ({"batches": "32"}, "/batches"),
        ({"batches": "0x4"}, "/batches"),
        ({"batches": 128}, "/batches"),
        ({"batches": "10001x1"}, "/batches"),
        ({"batches": "99999x4"}, "/batches"),
        ({"timeout": 0}, "/timeout"),
        ({"timeout": True}, "/timeout"),
        ({"timeout": "30"}, "/timeout"),
        ({"timeout": 86_401}, "/timeout"),
        ({"timeout": float("inf")}, "/timeout"),
        ({"task": "dice"}, "/task"),
        ({"task": "os:getcwd"}, "/task"),
        ({"task": None}, "/task"),
        ({"task": "question"}, "/question"),
        ({"task": "question", "question": " "}, "/question"),
        ({"task": "question", "question": 7}, "/question"),
        ({"task": "question", "question": "x" * 40_000}, "/question"),
        ({"question": "Shall we?"}, "/question"),
        ({"task": "question", "question": "Shall we?", "agents": 73}, "/agents"),
        ({"task": "question", "question": "Shall we?", "transport": "shm", "instances": 2}, "/instances"),
        ({"transport": "pigeon"}, "/transport"),
        ({"seed": -1}, "/seed"),
        ({"seed": 2**53}, "/seed"),
        ({"seed": "7"}, "/seed"),
        ({"instances": 0, "transport": "shm"}, "/instances"),
        ({"instances": 33, "transport": "shm"}, "/instances"),
        ({"instances": 2}, "/instances"),
        ({"instances": 3, "agents": 2, "transport": "shm"}, "/instances"),
        ({"out": "logs"}, "/out"),
        ({"items": "files"}, "/items"),
        ({"a/b~c": 1}, "/a~1b~0c"),
    ],
)
def test_a_bad_argument_is_pointed_at(document: dict[str, Any], pointer: str) -> None:
    _, problems = arguments_from_rest(document)
    assert pointer in [problem.pointer for problem in problems]


def test_too_many_batches_are_no_fault_of_the_agents() -> None:
    _, problems = arguments_from_rest({"batches": "99999x4"})
    assert [problem.pointer for problem in problems] == ["/batches"]


@pytest.mark.parametrize(
    "sentence",
    ["128 agents flip coin, aggregate Heads/Tails", "  128 AGENTS flip coin,\n aggregate heads/tails "],
)
@pytest.mark.parametrize("takes_functions", [True, False])
def test_the_earlier_sentence_means_the_coin_flip(sentence: str, takes_functions: bool) -> None:
    arguments, problems = checked_arguments({"task": sentence}, takes_functions=takes_functions)
    assert (arguments["task"], problems) == ("coin-flip", [])


def test_batches_that_do_not_fit_say_what_would() -> None:
    _, problems = arguments_from_rest({"agents": 100, "batches": "32x4"})
    assert "N times M has to be the number of agents, as 32x4 is 128" in problems[0].message


def test_a_function_is_for_the_command_line_alone() -> None:
    assert checked_arguments({"task": "package.module:function"}, takes_functions=True)[1] == []
    assert checked_arguments({"task": "package.module:"}, takes_functions=True)[1] != []
    assert checked_arguments({"task": "../x:function"}, takes_functions=True)[1] != []


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"agents": 127, "seed": 0, "transport": "shm", "instances": 2},
        {"batches": "10x5", "transport": "redis"},
        {"timeout": 12.5},
        {"task": "question", "question": "--json or not?", "agents": 3},
    ],
)
def test_a_command_line_comes_back_to_its_arguments(document: dict[str, Any]) -> None:
    arguments, problems = arguments_from_rest(document)
    assert problems == []
    words = command_line(arguments)
    assert words[:2] == ["swarm", "run"]
    read: dict[str, Any] = {}
    rest = iter(words[2:])
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        value = value if equals else next(rest)
        read[name] = int(value) if name in {"agents", "seed", "instances"} else value
        if name == "timeout":
            read[name] = float(value)
    assert arguments_from_rest(read) == (arguments, [])


def test_a_session_is_named_by_what_a_folder_may_be_named() -> None:
    assert is_session("run-1.a_B")
    assert not any(map(is_session, ["", "..", "a/b", "-a", "a b", "x" * 65]))


def test_a_plan_knows_each_agents_item() -> None:
    plan = SwarmPlan("s", "m:f", 2, 4, "memory", 1, items=("one", "two"))
    assert [plan.item_of(number) for number in (1, 2)] == ["one", "two"]
    assert SwarmPlan("s", "m:f", 2, 4, "memory", 1).item_of(1) is None
