"""What can go wrong with the stop of the whole system: that it is stopped, and that it cannot be stopped or started again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from domain.errors.conclave_error import ConclaveError

__all__ = ["HaltChannelUnreachableError", "HaltNotClearableError", "NotHaltedError", "SystemHaltedError"]


class SystemHaltedError(ConclaveError):
    """The system is halted: no agent may be called. Never counted as an agent's failure.

    `partial` is the `ConcurrentResult` of a batch that the halt interrupted, or None when nothing had begun.
    """

    slug: ClassVar[str] = "system-halted"

    def __init__(self, reason: str | None = None, *, partial: Any = None) -> None:
        super().__init__(
            f"the system is halted (FR10), reason {reason or 'not given'!r}: no agent is called until an admin clears the halt; "
            "where a channel cannot be read, until it can be."
        )
        self.reason = reason
        self.partial = partial


class HaltChannelUnreachableError(ConclaveError):
    """A channel of the halt can be neither believed nor changed now. `problem` holds no path and no address."""

    slug: ClassVar[str] = "halt-channel-unreachable"

    def __init__(self, *, channel: str, problem: str) -> None:
        super().__init__(f"the halt channel {channel!r} cannot be used: {problem}. No agent is called until it can.")
        self.channel = channel
        self.problem = problem


class HaltNotClearableError(ConclaveError):
    """The halt stays: clearing it wants every channel within reach, and nothing but channels that hold it.

    `unreachable` names the channels that are away.
    """

    slug: ClassVar[str] = "halt-not-clearable"

    def __init__(self, *, problem: str, remedy: str, unreachable: Sequence[str] = ()) -> None:
        super().__init__(f"the halt cannot be cleared: {problem}. {remedy}")
        self.problem = problem
        self.remedy = remedy
        self.unreachable = tuple(unreachable)


class NotHaltedError(ConclaveError):
    """There is no halt to clear."""

    slug: ClassVar[str] = "not-halted"

    def __init__(self) -> None:
        super().__init__("the system is not halted: there is nothing to clear.")
