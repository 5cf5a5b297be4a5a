"""The port through which rosters are found by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from domain.models.agent import Roster

__all__ = ["RosterSource"]


class RosterSource(Protocol):
    """Knows the built-in rosters and the operator's own."""

    def names(self) -> Sequence[str]:
        """The names of all rosters, sorted."""
        ...

    def get(self, name: str) -> Roster:
        """The roster of that name. Raises `RosterNotFoundError`, or `InvalidRosterError` when its file is unusable."""
        ...
