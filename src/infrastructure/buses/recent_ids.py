"""The ids that came last, so that one that comes again is recognised."""

from __future__ import annotations

from infrastructure.buses.bus_limits import REMEMBERED_IDS

__all__ = ["RecentIds"]


class RecentIds:
    """Knows at least the last `remembered` ids and never more than twice as many; each call takes the same short time."""

    # Two generations, because forgetting the first entry of a long dict again and again takes ever longer.
    __slots__ = ("_new", "_old", "_remembered")

    def __init__(self, remembered: int = REMEMBERED_IDS) -> None:
        self._remembered = remembered
        self._new: set[str] = set()
        self._old: set[str] = set()

    def __contains__(self, message_id: object) -> bool:
        return message_id in self._new or message_id in self._old

    def add(self, message_id: str) -> None:
        """Remember this one."""
        self._new.add(message_id)
        if len(self._new) >= self._remembered:
            self._old = self._new
            self._new = set()
