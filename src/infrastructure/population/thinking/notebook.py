"""The notes of agents that think: what each wrote, and which of it is most like a text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from application.ports.inference import Embedder, NoteIndex

__all__ = ["MOST_NOTES", "Notebook"]

MOST_NOTES = 65_536
_GIVEN = 3


class Notebook:
    """Keeps the notes of all agents in their order; beyond `most` the older half of them is let go. May be read by several threads."""

    def __init__(self, embedder: Embedder, index_of: Callable[[], NoteIndex], *, most: int = MOST_NOTES) -> None:
        self._embedder = embedder
        self._index_of = index_of
        self._index = index_of()
        self._most = most
        self._notes: list[tuple[int, str]] = []
        self._of_agent: dict[int, list[int]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._notes)

    @property
    def search(self) -> str:
        """How notes are looked for."""
        return self._index.name

    def add(self, notes: Sequence[tuple[int, str]]) -> None:
        """Take up notes, each of an agent by its id."""
        notes = [(agent, text) for agent, text in notes if text]
        if not notes:
            return
        with self._lock:
            if len(self._notes) + len(notes) > self._most:
                kept = (self._notes + notes)[-(self._most // 2) :]
                self._notes, self._of_agent, self._index = [], {}, self._index_of()
                notes = kept
            first = self._index.add(self._embedder.embed([text for _, text in notes]))
            for number, (agent, _) in enumerate(notes, first):
                self._of_agent.setdefault(agent, []).append(number)
            self._notes += notes

    def recall(self, agent: int, text: str, count: int = _GIVEN) -> tuple[str, ...]:
        """At most `count` notes of that agent, those most like `text` first."""
        with self._lock:
            return self._nearest(text, count, self._of_agent.get(agent, []))

    def recall_all(self, text: str, count: int = _GIVEN) -> tuple[str, ...]:
        """At most `count` notes of anybody."""
        with self._lock:
            return self._nearest(text, count, None)

    def given(self, agent: int) -> tuple[str, ...]:
        """What an agent is reminded of unasked: its last note, and those of its own that are most like it."""
        with self._lock:
            own = self._of_agent.get(agent)
            return self._nearest(self._notes[own[-1]][1], _GIVEN, own) if own else ()

    def _nearest(self, text: str, count: int, among: Sequence[int] | None) -> tuple[str, ...]:
        if not self._notes or (among is not None and not among):
            return ()
        found = self._index.nearest(self._embedder.embed([text]), count, among=among)
        return tuple(self._notes[note.number][1] for note in found)
