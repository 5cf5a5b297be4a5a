"""The ports through which deliberations are stored, read and handed from one process to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from application.ports.witness_log import LoggedEntry
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.event import Event
from domain.models.round import AgentRecord
from domain.witness.entry import Entry

__all__ = ["Commit", "DeliberationReader", "DeliberationRepository", "Leases", "Page", "StoredRecord"]


@dataclass(frozen=True, slots=True)
class Commit:
    """What is stored in one step or not at all: entries in order, with their records, and the deliberation as it now is."""

    deliberation_id: str
    entries: Sequence[Entry] = ()
    deliberation: Deliberation | None = None


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it was read, beside the entry that witnesses it and the salts of its texts, None once they are erased."""

    record: AgentRecord
    witnessed: LoggedEntry
    salts: bytes | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some deliberations, newest first, and the cursor of the next page, None on the last."""

    items: tuple[Deliberation, ...]
    next_cursor: str | None


class DeliberationRepository(Protocol):
    """Durable before it returns: whatever was added or appended survives a crash of process and machine.

    Every entry becomes a leaf of the one witness log, in the same step. Appends to one deliberation keep their order, and the
    events that its entries make are numbered from 1 without gaps. Appends that end close together, of any deliberation, share one
    commit. Raises `DependencyUnavailableError` when the store is away; then nothing of that
    call is stored.
    """

    async def add(self, deliberation: Deliberation, accepted: Entry, *, owner: str, lease_s: float) -> None:
        """Store a new deliberation with its first entry, held by `owner` for `lease_s` seconds from the start."""
        ...

    async def append(self, commit: Commit) -> WitnessSpan | None:
        """Store what happened; where the record of the deliberation stands, once this ended it.

        A record that is already there (same round and agent) is an error and stores nothing.
        """
        ...


class DeliberationReader(Protocol):
    """Reads what is committed, and nothing else. Raises `DependencyUnavailableError` when the store is away."""

    async def get(self, deliberation_id: str) -> Deliberation | None:
        """The deliberation as it stands, its rounds included once it ended, or None."""
        ...

    async def page(
        self, *, status: DeliberationStatus | None, key_name: str | None, limit: int, cursor: str | None
    ) -> Page:
        """Deliberations, newest first; `key_name` keeps only that caller's. Raises `InvalidSpecificationError` on a bad cursor."""
        ...

    async def records(self, deliberation_id: str, *, round_number: int | None = None) -> Sequence[StoredRecord]:
        """The committed records in the order of their commit."""
        ...

    async def events(self, deliberation_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """The committed events with a sequence greater than `after`, in order."""
        ...


class Leases(Protocol):
    """Says which process works on a deliberation. A lease that is not renewed runs out, and others may claim it."""

    async def claim(self, *, owner: str, lease_s: float, limit: int) -> Sequence[Deliberation]:
        """Unfinished deliberations that nobody holds, oldest first, held by `owner` from now on. One claimant wins."""
        ...

    async def renew(self, deliberation_ids: Sequence[str], *, owner: str, lease_s: float) -> Sequence[str]:
        """Hold these for `lease_s` seconds more; returns those whose cancellation was asked for meanwhile."""
        ...

    async def release(self, deliberation_ids: Sequence[str], *, owner: str) -> None:
        """Let go of these, so that another process may claim them at once."""
        ...

    async def request_cancel(self, deliberation_id: str) -> None:
        """Ask whoever holds it to cancel it."""
        ...
