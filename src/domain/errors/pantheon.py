"""What can go wrong with a role of the pantheon."""

from __future__ import annotations

from typing import ClassVar

from domain.errors.conclave_error import ConclaveError

__all__ = ["RoleFailedError"]


class RoleFailedError(ConclaveError):
    """A role of the pantheon could not do its part. `role` is its name, `kind` the machine-readable reason, `problem` the words."""

    slug: ClassVar[str] = "role-failed"

    def __init__(self, *, role: str, kind: str, problem: str) -> None:
        super().__init__(f"the role {role!r} failed ({kind}): {problem}.")
        self.role = role
        self.kind = kind
        self.problem = problem
