"""How far one agent of a batch has come while it is asked, and how it is stopped."""

from __future__ import annotations

import asyncio

from application.ports.agent_orchestrator import AgentRequest
from application.ports.model_desk import Forecast, Permit
from application.services.batch import AttemptEnd, CallEnd
from domain.models.budget import Usage

__all__ = ["Asking"]

_NOTHING = Usage()


class Asking:
    """How far one agent has come: attempts made, the loop time at which its time began here, and whether it was stopped.

    `call` is the one in flight, `last` the last that is over, `previous` how the last attempt ended, and `usage` what all calls took
    that were made here. `left_s` is what was left of its time when it last stood still.

    Stopping works as `asyncio.timeout` does: the task is cancelled, and the cancellation is taken back where it was ours alone.
    """

    __slots__ = (
        "_cancelling",
        "_stopped",
        "attempts",
        "began",
        "call",
        "further",
        "is_calling",
        "last",
        "left_s",
        "previous",
        "request",
        "task",
        "usage",
    )

    def __init__(self, request: AgentRequest) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an agent is asked in a task of its own")
        self.task: asyncio.Task[object] = task
        self._cancelling = task.cancelling()
        self._stopped = False
        self.is_calling = False
        self.request = request
        # Attempts before the one that is asked for were made by a process that did not live to see them end.
        self.attempts = request.attempt - 1
        self.began: float | None = None
        self.left_s: float | None = None
        self.call: tuple[Permit, Forecast] | None = None
        self.further: asyncio.Task[object] | None = None
        self.last: CallEnd | None = None
        self.previous: AttemptEnd | None = None
        self.usage = _NOTHING

    def took(self, usage: Usage) -> None:
        """Add what a call took to what all of them took."""
        # Most agents make one call.
        self.usage = usage if self.usage is _NOTHING else self.usage + usage

    def stop(self) -> None:
        """End this agent now."""
        if not self._stopped:
            self._stopped = True
            self.task.cancel()

    async def stop_further(self) -> None:
        """End a further call for the same output that its orchestrator has left behind, and wait for that."""
        further = self.further
        if further is not None and further is not self.task and not further.done():
            further.cancel()
            await asyncio.wait([further])

    def is_own_stop(self) -> bool:
        """Take back the cancellation of `stop`; False when somebody else cancelled the task, before or meanwhile."""
        return self._stopped and self.task.uncancel() <= self._cancelling
