"""What a role may be given beside its built-in part: a function, a model or a deliberation that is asked for its opinion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from domain.models.pantheon import Role
from domain.models.run import JsonValue

__all__ = ["Brief", "Mind", "Opinion"]

Brief: TypeAlias = Mapping[str, JsonValue]
"""What a role knows when it is asked: `role`, `cycle`, `task`, `allowed_steps`, `plan`, `fixed`, `observed`, `executed`, `rejected`,
`failed`, `remarks`, `measures`, `learned`, `proposal` and `memory` (the last cycles)."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a role's mind says. Data, whoever it comes from: nothing in it is ever carried out but allowed steps, by their names.

    `steps` are names proposed, None for none; `approves` is the Validator's verdict, None where it has no objection.
    """

    remark: str | None = None
    steps: tuple[str, ...] | None = None
    approves: bool | None = None
    simulated: bool = False


class Mind(Protocol):
    """Is asked once a cycle and answers with an opinion, or says why it cannot."""

    @property
    def patience_s(self) -> float:
        """Seconds after which it counts as hanging."""
        ...

    async def consult(self, role: Role, brief: Brief) -> Opinion:
        """Its opinion. Raises `RoleFailedError`, and `SystemHaltedError` which ends the run; whatever else is the role's failure."""
        ...
