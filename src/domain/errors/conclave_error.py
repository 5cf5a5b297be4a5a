"""The root of every error that Conclave raises on purpose."""

from __future__ import annotations

from typing import Any, ClassVar, Self

__all__ = ["ConclaveError"]


class ConclaveError(Exception):
    """An error with a stable slug, facts as attributes, and a message that says what to do next.

    Survives pickling with its attributes, so that it can cross a process boundary.
    """

    slug: ClassVar[str] = "conclave-error"

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), self.args, self.__dict__)

    @classmethod
    def _revived(cls, arguments: tuple[Any, ...], facts: dict[str, Any]) -> Self:
        error = cls.__new__(cls)
        error.args = arguments
        error.__dict__.update(facts)
        return error


def _revive(kind: type[ConclaveError], arguments: tuple[Any, ...], facts: dict[str, Any]) -> ConclaveError:
    return kind._revived(arguments, facts)
