"""The error that stops a start: a setting that cannot be used."""

from __future__ import annotations

from typing import ClassVar

from domain.errors.conclave_error import ConclaveError

__all__ = ["ConfigurationError"]


class ConfigurationError(ConclaveError):
    """A setting is unknown or impossible. Names the variable and the remedy, never a secret value."""

    slug: ClassVar[str] = "configuration"

    def __init__(self, *, variable: str, problem: str, remedy: str) -> None:
        super().__init__(f"{variable}: {problem}. {remedy}")
        self.variable = variable
        self.problem = problem
        self.remedy = remedy
