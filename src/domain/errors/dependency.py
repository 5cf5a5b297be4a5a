"""The error that says that something outside this process is away."""

from __future__ import annotations

from typing import ClassVar

from domain.errors.conclave_error import ConclaveError

__all__ = ["DependencyUnavailableError"]


class DependencyUnavailableError(ConclaveError):
    """A dependency cannot be reached now; nothing that was acknowledged is lost. Try again after `retry_after_s` seconds.

    `told` is what callers may know of it, whole sentences without an address or a path; without it they hear that it is away.
    """

    slug: ClassVar[str] = "dependency-unavailable"

    def __init__(
        self,
        *,
        dependency: str,
        problem: str,
        remedy: str = "Check that it runs.",
        retry_after_s: int = 2,
        told: str | None = None,
    ) -> None:
        super().__init__(f"{dependency} cannot be used: {problem}. {remedy}")
        self.dependency = dependency
        self.problem = problem
        self.remedy = remedy
        self.retry_after_s = retry_after_s
        self.told = told
