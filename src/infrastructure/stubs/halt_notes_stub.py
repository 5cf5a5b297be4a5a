"""Notes about halts, kept in memory: for tests, and for a process that has no folder to keep them in."""

from __future__ import annotations

from collections.abc import Sequence

from application.ports.halt_notes import HaltNote

__all__ = ["HaltNotesStub"]


class HaltNotesStub:
    """`HaltNotes` that are lost with the process."""

    def __init__(self) -> None:
        self.kept: dict[str, HaltNote] = {}

    def keep(self, note: HaltNote) -> None:
        """As in `HaltNotes`."""
        self.kept[note.id] = note

    def drop(self, note_id: str) -> None:
        """As in `HaltNotes`."""
        self.kept.pop(note_id, None)

    def all(self) -> Sequence[HaltNote]:
        """As in `HaltNotes`."""
        return sorted(self.kept.values(), key=lambda note: note.since)
