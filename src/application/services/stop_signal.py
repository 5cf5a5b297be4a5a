"""The wish that a run end early, and why: by whoever cancels it, or by the halt."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from domain.models.deliberation import DeliberationStatus

__all__ = ["StopReason", "StopSignal"]


class StopReason(StrEnum):
    """Why a run is to end before its work is done."""

    CANCELLED = "cancelled"
    HALTED = "halted"

    @property
    def status(self) -> DeliberationStatus:
        """The status of a run that this ended."""
        return DeliberationStatus(self.value)


class StopSignal:
    """Set once, for good; the first reason counts. Whoever runs looks at it or waits for it, winds up, and returns what was counted."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._reason: StopReason | None = None

    @property
    def reason(self) -> StopReason | None:
        """Why to stop, or None while nobody wishes it."""
        return self._reason

    @property
    def is_set(self) -> bool:
        """Whether to stop."""
        return self._reason is not None

    def set(self, reason: StopReason) -> None:
        """Ask the run to end."""
        if self._reason is None:
            self._reason = reason
            self._event.set()

    async def wait(self) -> StopReason:
        """Return once it is set, with the reason."""
        while self._reason is None:
            await self._event.wait()
        return self._reason
