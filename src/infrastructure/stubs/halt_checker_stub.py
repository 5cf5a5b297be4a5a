"""A halt checker that lives in memory: for tests, and for callers in the same process."""

from __future__ import annotations

import asyncio

__all__ = ["HaltCheckerStub"]


class HaltCheckerStub:
    """Halted exactly when it was told so; everyone who waits for the halt learns of it at once."""

    def __init__(self, *, force_halted: bool = False, halt_reason: str | None = None) -> None:
        self._reason = halt_reason
        self._halted = asyncio.Event()
        if force_halted:
            self._halted.set()

    @property
    def halted(self) -> bool:
        """Whether it is halted, for those who cannot wait, such as a gauge."""
        return self._halted.is_set()

    async def is_halted(self) -> bool:
        """Whether `set_halted` was called since the last `clear`."""
        return self._halted.is_set()

    async def wait_until_open(self) -> bool:
        """Whether calls may begin, at once: there is never a doubt."""
        return not self._halted.is_set()

    async def get_halt_reason(self) -> str | None:
        """The reason given, or None when not halted."""
        return self._reason if self._halted.is_set() else None

    async def wait_until_halted(self) -> None:
        """Return once halted."""
        await self._halted.wait()

    async def set_halted(self, reason: str | None = None) -> None:
        """Halt."""
        self._reason = reason
        self._halted.set()

    async def clear(self) -> None:
        """End the halt."""
        self._reason = None
        self._halted.clear()
