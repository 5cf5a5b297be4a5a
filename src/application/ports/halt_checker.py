"""The port that says whether the system is halted."""

from __future__ import annotations

from typing import Protocol

__all__ = ["HaltChecker"]


class HaltChecker(Protocol):
    """Knows whether anything may be called. In doubt (a channel that cannot be read) it says halted, but ends nothing."""

    async def is_halted(self) -> bool:
        """Whether no call may begin now: the system is halted, or it is in doubt. Cheap: it is asked before every call."""
        ...

    async def wait_until_open(self) -> bool:
        """Wait while it is in doubt. True once calls may begin, False once the system is halted for sure."""
        ...

    async def get_halt_reason(self) -> str | None:
        """Why it is halted, or None."""
        ...

    async def wait_until_halted(self) -> None:
        """Return once the system is halted for sure, at once if it is. May be waited for by any number of tasks."""
        ...
