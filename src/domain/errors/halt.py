"""The error that says that the whole system is stopped."""

from __future__ import annotations

from typing import Any, ClassVar

from domain.errors.conclave_error import ConclaveError

__all__ = ["SystemHaltedError"]


class SystemHaltedError(ConclaveError):
    """The system is halted: no agent may be called. Never counted as an agent's failure.

    `partial` is the `ConcurrentResult` of a batch that the halt interrupted, or None when nothing had begun.
    """

    slug: ClassVar[str] = "system-halted"

    def __init__(self, reason: str | None = None, *, partial: Any = None) -> None:
        super().__init__(
            f"the system is halted (FR10), reason {reason or 'not given'!r}: no agent is called until an admin clears the halt."
        )
        self.reason = reason
        self.partial = partial
