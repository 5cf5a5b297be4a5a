"""The port that says whether the system is halted."""

from __future__ import annotations

from typing import Protocol

__all__ = ["HaltChecker"]


class HaltChecker(Protocol):
    """Knows whether anything may be called. In doubt it says halted."""

    async def is_halted(self) -> bool:
        """Whether the system is halted now. Cheap: it is asked before every call."""
        ...

    async def get_halt_reason(self) -> str | None:
        """Why it is halted, or None."""
        ...

    async def wait_until_halted(self) -> None:
        """Return once the system is halted, at once if it is. May be waited for by any number of tasks."""
        ...
