"""The port through which resolved questions are read: what is known by now of who was right."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from application.ports.witness_log import LoggedEntry
from domain.analysis.track_record import Resolved
from domain.voting.ballot import Answer

__all__ = ["ResolutionHistory"]


class ResolutionHistory(Protocol):
    """Reads resolutions, of each question the last one. A truth is what its entry says, which hashes to its leaf.

    Raises `DependencyUnavailableError` when the store is away, and `RecordMismatchError` for an entry that was changed.
    """

    async def latest(self, deliberation_id: str) -> LoggedEntry | None:
        """The entry that resolves this one, or None."""
        ...

    async def resolved(self, *, key_name: str | None, orchestrator: str, limit: int) -> Sequence[Resolved]:
        """The questions that were asked under that key of that orchestrator and resolved last, at most so many, the latest first."""
        ...

    async def truths(self, deliberation_ids: Collection[str], *, until: datetime) -> Mapping[str, Answer]:
        """What those of them turned out to be that were resolved by then."""
        ...
