"""The port of notes about halts that are yet to be recorded, or yet to reach a channel that was away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from application.ports.witness_log import Disclosure

__all__ = ["HaltNote", "HaltNotes"]


@dataclass(frozen=True, slots=True)
class HaltNote:
    """What a halt still lacks: its entry in the log (`document`, None once it is there), and the channels it has not reached."""

    id: str
    reason: str
    since: datetime
    document: Mapping[str, Any] | None
    disclosures: Sequence[Disclosure] = ()
    channels: tuple[str, ...] = ()


class HaltNotes(Protocol):
    """Keeps notes over restarts, for every process of the same place. Calls block.

    Each raises `HaltChannelUnreachableError` where the place is away.
    """

    def keep(self, note: HaltNote) -> None:
        """Keep it, in place of one with the same id; durable when this returns."""
        ...

    def drop(self, note_id: str) -> None:
        """Forget it, if it is there."""
        ...

    def all(self) -> Sequence[HaltNote]:
        """Those that are kept, the oldest first; one that cannot be read is left out and logged."""
        ...
