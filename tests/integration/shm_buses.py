"""Shared-memory buses in a folder of a test's own, and whether the lists of their segment are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from application.ports.message_bus import Message
from infrastructure.buses.shm_bus import SharedMemoryMessageBus
from infrastructure.buses.shm_layout import Head, Inbox, Record

__all__ = ["assert_sound", "bus_in", "names_in", "numbered"]


def bus_in(folder: Path, **common: Any) -> SharedMemoryMessageBus:
    common.setdefault("segment_bytes", 1 << 28)
    return SharedMemoryMessageBus("tested", folder=folder, **common)


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def numbered(number: int, *, recipient: str = "sink") -> Message:
    return Message("source", recipient, "number", number)


def assert_sound(bus: SharedMemoryMessageBus) -> None:
    """Every list of the segment is whole, and every inbox counts what it holds."""
    post = bus._opened()
    words = post.segment.words
    with post.segment:
        for inbox in post.members.inboxes():
            waiting = 0
            for lane in range(3):
                before, record = 0, words[inbox + Inbox.FIRST + lane]
                while record:
                    assert words[record + Record.PREVIOUS] == before
                    waiting += words[record + Record.COUNT]
                    before, record = record, words[record + Record.NEXT]
                assert words[inbox + Inbox.LAST + lane] == before
            assert words[inbox + Inbox.WAITING] == waiting
            flying, record = 0, words[inbox + Inbox.FLIGHT_FIRST]
            while record:
                flying, record = flying + 1, words[record + Record.NEXT]
            assert words[inbox + Inbox.UNACKNOWLEDGED] == flying
        free = set()
        for power in range(32):
            place = words[Head.FREE + power]
            while place:
                assert place not in free
                assert Head.ARENA <= place < words[Head.TOP]
                free.add(place)
                place = words[place]
