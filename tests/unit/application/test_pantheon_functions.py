"""A function as the mind of a role: what it returns is its opinion, and what says nothing fails that role alone."""

from __future__ import annotations

from typing import Any

import pytest

from application.services.pantheon.function_mind import FunctionMind
from domain.models.pantheon import ROW, STEPS, Role
from tests.unit.application.minded_pantheon import ended


async def test_an_asynchronous_function_is_given_a_copy_of_the_brief() -> None:
    async def spoil(brief: dict[str, Any]) -> None:
        brief["plan"].append("shell")
        brief["allowed_steps"].append("shell")
        for cycle in brief["memory"]:
            cycle["proposal"] = ["shell"]

    ending = await ended(cycles=2, minds={role: FunctionMind(spoil) for role in ROW})
    assert ending.result["status"] == "executed"


@pytest.mark.parametrize(
    ("role", "returned", "kind"),
    [
        (Role.REASONER, 1, "unusable_answer"),
        (Role.REASONER, ["echo", 1], "unusable_answer"),
        (Role.OBSERVER, ["echo"], "unusable_answer"),
        (Role.OBSERVER, True, "unusable_answer"),
        (Role.VALIDATOR, {"approved": "yes"}, "unusable_answer"),
        (Role.LEARNER, {"steps": ["echo"]}, "unusable_answer"),
        (Role.ANALYZER, {"remark": 1}, "unusable_answer"),
        (Role.ANALYZER, {"shell": "rm"}, "unusable_answer"),
    ],
)
async def test_a_function_that_returns_what_says_nothing_fails_its_role(
    role: Role, returned: object, kind: str
) -> None:
    async def function(_: dict[str, Any]) -> object:
        return returned

    failure: Any = (await ended(minds={role: FunctionMind(function)})).result["failure"]
    assert (failure["role"], failure["kind"]) == (role.value, kind)


@pytest.mark.parametrize(
    ("role", "returned", "executed"),
    [
        (Role.REASONER, "sha256, echo", ["sha256", "echo"]),
        (Role.REASONER, ("sha256",), ["sha256"]),
        (Role.ACTOR, {"steps": ["echo"], "remark": "enough"}, ["echo"]),
        (Role.VALIDATOR, True, list(STEPS)),
        (Role.VALIDATOR, None, list(STEPS)),
        (Role.VALIDATOR, False, []),
        (Role.VALIDATOR, "I would rather not", []),
        (Role.VALIDATOR, {"approved": False, "remark": "no"}, []),
        (Role.OBSERVER, "four words", list(STEPS)),
        (Role.IMPROVER, "shell", list(STEPS)),
    ],
)
async def test_what_a_function_returns_is_its_opinion(role: Role, returned: object, executed: list[str]) -> None:
    async def function(_: dict[str, Any]) -> object:
        return returned

    done: Any = (await ended(minds={role: FunctionMind(function)})).result["executed"]
    assert [one["step"] for one in done] == executed


async def test_a_function_that_leaves_the_program_only_fails_its_role() -> None:
    async def leave(_: dict[str, Any]) -> None:
        raise SystemExit(3)

    failure: Any = (await ended(minds={Role.ACTOR: FunctionMind(leave)})).result["failure"]
    assert (failure["role"], failure["kind"]) == ("actor", "raised")
