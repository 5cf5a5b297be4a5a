"""The pool of agent slots: how many agents may be active in a process at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from domain.errors.agent import AgentAlreadyActiveError, AgentPoolExhaustedError

__all__ = ["MAX_CONCURRENT_AGENTS", "AgentPool", "BatchAcquisition"]

MAX_CONCURRENT_AGENTS = 72


class BatchAcquisition(NamedTuple):
    """Whether a whole batch got its slots and, when it did not, why. True in a condition only when it did."""

    acquired: bool
    reason: str | None

    def __bool__(self) -> bool:
        return self.acquired


class AgentPool:
    """Never holds more than `max_concurrent` slots; a slot belongs to one agent of one batch.

    The same agent in two batches holds two slots. The same agent twice in one batch is refused, never merged.
    Belongs to one event loop (or one thread): it takes no lock.
    """

    __slots__ = ("_active", "_listeners", "max_concurrent")

    def __init__(self, max_concurrent: int = MAX_CONCURRENT_AGENTS) -> None:
        if max_concurrent < 1:
            raise ValueError(f"max_concurrent is {max_concurrent!r}: a pool needs at least one slot")
        self.max_concurrent = max_concurrent
        self._active: dict[tuple[str, str], None] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def active_count(self) -> int:
        """How many slots are held."""
        return len(self._active)

    @property
    def available_count(self) -> int:
        """How many slots are free."""
        return self.max_concurrent - len(self._active)

    @property
    def is_exhausted(self) -> bool:
        """Whether no slot is free."""
        return len(self._active) >= self.max_concurrent

    @property
    def active_agents(self) -> frozenset[str]:
        """The ids of the agents that hold a slot in any batch."""
        return frozenset(agent_id for _, agent_id in self._active)

    def is_active(self, agent_id: str, batch_id: str = "") -> bool:
        """Whether that agent of that batch holds a slot."""
        return (batch_id, agent_id) in self._active

    def acquire(self, agent_id: str, batch_id: str = "") -> None:
        """Take a slot.

        Raises `AgentAlreadyActiveError` when that agent of that batch holds one already and
        `AgentPoolExhaustedError` when none is free. Either way nothing changes.
        """
        key = (batch_id, agent_id)
        if key in self._active:
            raise AgentAlreadyActiveError(agent_id=agent_id, batch_id=batch_id)
        if len(self._active) >= self.max_concurrent:
            raise AgentPoolExhaustedError(requested=1, available=0, capacity=self.max_concurrent)
        self._active[key] = None

    def release(self, agent_id: str, batch_id: str = "") -> bool:
        """Give a slot back; False when there was none to give back."""
        if self._active.pop((batch_id, agent_id), False) is False:
            return False
        for listener in self._listeners:
            listener()
        return True

    def try_acquire_batch(self, agent_ids: Iterable[str], batch_id: str = "") -> BatchAcquisition:
        """Take a slot for every one of these agents, or none at all."""
        wanted = list(agent_ids)
        if len(set(wanted)) < len(wanted):
            return BatchAcquisition(acquired=False, reason="an agent stands twice in the batch")
        keys = [(batch_id, agent_id) for agent_id in wanted]
        if any(key in self._active for key in keys):
            return BatchAcquisition(acquired=False, reason="an agent of the batch is already active")
        if len(wanted) > self.available_count:
            return BatchAcquisition(
                acquired=False, reason=f"{len(wanted)} slots wanted, {self.available_count} free (FR10)"
            )
        self._active.update(dict.fromkeys(keys))
        return BatchAcquisition(acquired=True, reason=None)

    def release_batch(self, agent_ids: Iterable[str], batch_id: str = "") -> int:
        """Give the slots of these agents back; returns how many there were."""
        return sum(self.release(agent_id, batch_id) for agent_id in agent_ids)

    def on_release(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each release, so that whoever waits for a slot learns of it."""
        self._listeners.append(listener)
