"""The book of a soak's messages: each has a number, and ends exactly once, answered or lost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from application.ports.soak_agents import Order
from domain.models.soak import MessageKind

__all__ = ["MessageBook"]

_ITERATIONS = 2_000
_SIZE = 262_144
_LOST_KEPT = 200_000


@dataclass(slots=True)
class _Sent:
    order: Order
    at: float


class MessageBook:
    """Tells what a response is: to a message that waits, late (its message was given up), a duplicate, or to no message of this run.

    Ids are `<session>-<number>`, so that the numbers alone say what was sent, and the memory taken does not grow with the run.
    """

    def __init__(self, session: str, *, earlier: Collection[str] = ()) -> None:
        """`earlier` are the sessions of this run before it was interrupted: what still comes for them is late."""
        self.session = session
        self.late = 0
        self.duplicates = 0
        self.strange = 0
        self._earlier = frozenset(earlier)
        self._next = 1
        self._open: dict[str, _Sent] = {}
        self._lost: dict[str, None] = {}

    def order(self, agent: str, *, cycle: int, priority: int = 1) -> Order:
        """A new message of the kind of that cycle."""
        kind = MessageKind.of_cycle(cycle)
        number = self._next
        self._next += 1
        data = {MessageKind.COMPUTE: {"iterations": _ITERATIONS}, MessageKind.MEMORY_TEST: {"size": _SIZE}}.get(
            kind, {}
        )
        return Order(agent, f"{self.session}-{number}", kind.value, cycle, priority, dict(data))

    def sent(self, order: Order, at: float) -> None:
        """It lies where its agent looks."""
        self._open[order.message_id] = _Sent(order, at)

    def answered(self, agent: str, message_id: str) -> tuple[Order, float] | None:
        """The message that waited for this response and when it was sent, or None: the response is counted as what it is."""
        waiting = self._open.get(message_id)
        if waiting is not None and waiting.order.agent == agent:
            del self._open[message_id]
            return waiting.order, waiting.at
        session, _, number = message_id.rpartition("-")
        if message_id in self._lost or session in self._earlier:
            self._lost.pop(message_id, None)
            self.late += 1
        elif waiting is None and session == self.session and number.isdecimal() and 0 < int(number) < self._next:
            self.duplicates += 1
        else:
            self.strange += 1
        return None

    def lose(self, message_id: str) -> None:
        """Nobody waits for it any longer."""
        self._open.pop(message_id, None)
        self._lost[message_id] = None
        while len(self._lost) > _LOST_KEPT:
            del self._lost[next(iter(self._lost))]

    def waits_for(self, agent: str) -> bool:
        """Whether a message to that agent is still open."""
        return any(sent.order.agent == agent for sent in self._open.values())
