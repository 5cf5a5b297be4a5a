"""The steps, the plan, and the arguments of a run of the pantheon."""

import hashlib

import pytest

from domain.models.pantheon import (
    MAX_PLAN_STEPS,
    ROW,
    STEPS,
    PantheonRequest,
    arguments_from_rest,
    command_line,
    named_steps,
    plan_digest,
    refusals_of,
)

ALLOWED = tuple(STEPS)


def test_the_nine_stand_in_their_order() -> None:
    names = "observer reasoner actor validator executor memory analyzer learner improver"
    assert " ".join(role.value for role in ROW) == names


def test_the_allow_list_holds_three_steps_and_takes_no_more() -> None:
    assert ALLOWED == ("echo", "word_count", "sha256")
    with pytest.raises(TypeError):
        STEPS["shell"] = str  # type: ignore[index]


@pytest.mark.parametrize(("task", "words"), [("one", 1), ("two  words\n", 2), ("größer als\u00a0drei", 3)])
def test_words_are_what_white_space_parts(task: str, words: int) -> None:
    assert STEPS["word_count"](task) == words


def test_sha256_is_that_of_the_task_in_utf_8() -> None:
    assert STEPS["sha256"]("größer") == hashlib.sha256("größer".encode()).hexdigest()


def test_echo_gives_the_task_back() -> None:
    assert STEPS["echo"]("as it is; $(rm)") == "as it is; $(rm)"


def test_a_plan_of_allowed_steps_is_refused_nothing() -> None:
    assert refusals_of(("sha256", "echo", "echo"), ALLOWED) == []


def test_one_unknown_step_refuses_the_whole_plan_and_stands_first() -> None:
    refused = refusals_of(("echo", "shell", "sha256"), ALLOWED)
    assert [refusal.step for refusal in refused] == ["shell", "echo", "sha256"]
    assert "echo, word_count, sha256" in refused[0].reason
    assert "'shell'" in refused[1].reason


@pytest.mark.parametrize("name", ["", " echo", "Echo", "echo\n", "echo;ls", "word-count", "еcho"])
def test_what_is_only_like_an_allowed_step_is_none(name: str) -> None:
    assert [refusal.step for refusal in refusals_of((name,), ALLOWED)] == [name]


def test_a_plan_without_steps_is_refused() -> None:
    assert [refusal.reason for refusal in refusals_of((), ALLOWED)] == ["the plan names no step"]


def test_a_plan_that_is_too_long_is_refused_whatever_it_names() -> None:
    assert len(refusals_of(("echo",) * MAX_PLAN_STEPS, ALLOWED)) == 0
    assert len(refusals_of(("echo",) * (MAX_PLAN_STEPS + 1), ALLOWED)) == MAX_PLAN_STEPS + 1


def test_cutting_names_allows_nothing_that_was_not() -> None:
    assert refusals_of(named_steps(["echo" + "x" * 1000]), ALLOWED)
    assert refusals_of(named_steps(["echo"] * 1000), ALLOWED)


def test_an_approval_is_for_one_plan_of_one_task_in_one_cycle_of_one_run() -> None:
    said = ("run", 1, "task", ("echo", "sha256"))
    others = [
        ("other", 1, "task", ("echo", "sha256")),
        ("run", 2, "task", ("echo", "sha256")),
        ("run", 1, "other", ("echo", "sha256")),
        ("run", 1, "task", ("sha256", "echo")),
        ("run", 1, "task", ("echo,sha256",)),
    ]
    assert plan_digest(*said) == plan_digest(*said)
    assert plan_digest(*said) not in {plan_digest(*other) for other in others}


def test_a_request_names_everything_that_keeps_it_from_being_run() -> None:
    assert [found.pointer for found in PantheonRequest("\x00", None, 0).problems()] == ["/task", "/cycles"]
    assert PantheonRequest("a", ("anything",), 1).problems() == []


def test_arguments_over_rest_get_their_defaults() -> None:
    assert arguments_from_rest({"task": "count me"}) == (
        {"task": "count me", "steps": None, "transport": "memory", "cycles": 1},
        [],
    )


def test_the_plan_over_rest_may_be_called_as_the_option_is() -> None:
    checked, problems = arguments_from_rest({"task": "a", "step": ["word_count"]})
    assert problems == []
    assert checked["steps"] == ["word_count"]


def test_unknown_steps_are_taken_over_rest_because_the_validator_rejects_them() -> None:
    checked, problems = arguments_from_rest({"task": "a", "steps": ["shell"], "cycles": 3, "transport": "shm"})
    assert problems == []
    assert checked == {"task": "a", "steps": ["shell"], "transport": "shm", "cycles": 3}


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({}, "/arguments/task"),
        ({"task": 1}, "/arguments/task"),
        ({"task": " "}, "/arguments/task"),
        ({"task": "\ud800"}, "/arguments/task"),
        ({"task": "a" * 40_000}, "/arguments/task"),
        ({"task": "a", "roles": "/etc/passwd"}, "/arguments/roles"),
        ({"task": "a", "no name/at all": 1}, "/arguments"),
        ({"task": "a", "steps": []}, "/arguments/steps"),
        ({"task": "a", "steps": "echo"}, "/arguments/steps"),
        ({"task": "a", "steps": ["echo"] * 17}, "/arguments/steps"),
        ({"task": "a", "steps": ["echo", 1]}, "/arguments/steps/1"),
        ({"task": "a", "steps": ["ec\x1bho"]}, "/arguments/steps/0"),
        ({"task": "a", "step": "echo"}, "/arguments/step"),
        ({"task": "a", "step": ["echo", 1]}, "/arguments/step/1"),
        ({"task": "a", "step": ["echo"], "steps": ["echo"]}, "/arguments/step"),
        ({"task": "a", "step": ["echo"], "steps": None}, "/arguments/step"),
        ({"task": "a", "transport": "carrier pigeon"}, "/arguments/transport"),
        ({"task": "a", "transport": ["memory"]}, "/arguments/transport"),
        ({"task": "a", "cycles": 101}, "/arguments/cycles"),
        ({"task": "a", "cycles": True}, "/arguments/cycles"),
        ({"task": "a", "cycles": 1.0}, "/arguments/cycles"),
    ],
)
def test_arguments_over_rest_that_cannot_be_are_named_by_pointer(document: dict[str, object], pointer: str) -> None:
    checked, problems = arguments_from_rest(document)
    assert checked == {}
    assert [found.pointer for found in problems] == [pointer]


def test_the_command_line_of_arguments_has_one_word_for_each() -> None:
    checked, _ = arguments_from_rest({"task": "--help", "steps": ["echo", "-x"], "cycles": 2})
    assert command_line(checked) == [
        "pantheon",
        "run",
        "--task=--help",
        "--step=echo",
        "--step=-x",
        "--transport=memory",
        "--cycles=2",
    ]
