"""Wakes whoever waits for something to happen in a deliberation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["EventFeed"]


class EventFeed:
    """Says that there is something new to read, never what: readers read the record, so they see only what is committed."""

    def __init__(self) -> None:
        self._listeners: dict[str, dict[asyncio.Event, None]] = {}

    @contextmanager
    def listen(self, deliberation_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at each announcement; the listener clears it before it reads."""
        event = asyncio.Event()
        listeners = self._listeners.setdefault(deliberation_id, {})
        listeners[event] = None
        try:
            yield event
        finally:
            del listeners[event]
            if not listeners:
                self._listeners.pop(deliberation_id, None)

    def announce(self, deliberation_id: str) -> None:
        """Wake the listeners of that deliberation."""
        for event in self._listeners.get(deliberation_id, ()):
            event.set()

    def announce_all(self) -> None:
        """Wake every listener, for example because the service stops."""
        for deliberation_id in list(self._listeners):
            self.announce(deliberation_id)
