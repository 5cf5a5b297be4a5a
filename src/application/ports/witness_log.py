"""The ports of the witness log: what auditors read, and the one way by which the service adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Disclosure", "Erasure", "Head", "LoggedEntry", "Sequel", "WitnessLog", "WitnessLogReader"]


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """An entry at its place: `entry` is the canonical JSON, of which `leaf_hash` (32 bytes) is the stored RFC 6962 leaf hash.

    `deliberation_id` is the one under which the store finds it, which has to be what the entry says; `sequence` is what the store
    orders it by, which has to be the number of the last event that its deliberation has made by then, None where it has none.
    """

    index: int
    leaf_hash: bytes
    entry: bytes
    deliberation_id: str | None = field(default=None, compare=False)
    sequence: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Head:
    """The log as it stands: how many entries, and the Merkle root (32 bytes) over them."""

    tree_size: int
    root_hash: bytes


@dataclass(frozen=True, slots=True)
class Disclosure:
    """A text beside the salt (hex) of its commitment; `sha256` (hex) is the commitment as it stands in an entry."""

    sha256: str
    salt: str
    text: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """Which texts go: all of this deliberation; `document` is the entry that witnesses it, `disclosures` are that entry's texts."""

    deliberation_id: str
    document: Mapping[str, Any]
    disclosures: Sequence[Disclosure] = ()


@dataclass(frozen=True, slots=True)
class Sequel:
    """What follows the end of a deliberation: `document` is the entry, `disclosures` are its texts.

    `resolves` says that it tells how the question turned out.
    """

    deliberation_id: str
    document: Mapping[str, Any]
    disclosures: Sequence[Disclosure] = ()
    resolves: bool = False


class WitnessLogReader(Protocol):
    """Reads what is committed, by half-open ranges of indexes. Raises `DependencyUnavailableError` when the store is away."""

    async def head(self) -> Head:
        """Size and root, as of one moment. Raises `VerificationRefusedError` where what is stored is no head of any tree."""
        ...

    async def entries(self, start: int, end: int) -> Sequence[LoggedEntry]:
        """The entries from `start` on, before `end`, ascending; those that there are."""
        ...

    async def leaf_hashes(self, start: int, end: int) -> Sequence[bytes]:
        """The stored leaf hashes of that range, ascending."""
        ...

    async def nodes(self, tile_level: int, start: int, end: int) -> Sequence[bytes]:
        """The stored hashes of the perfect subtrees of 256 ** `tile_level` leaves (level from 1), ascending by place."""
        ...

    async def spans(self, wanted: Sequence[tuple[int, int, int]]) -> tuple[Head, Sequence[Sequence[bytes]]]:
        """The head, and what `leaf_hashes` (tile level 0) and `nodes` give for each (tile level, start, end), in one read.

        Whatever the head counts is there to be read. Raises like `head`.
        """
        ...

    async def entries_of(self, deliberation_id: str) -> Sequence[LoggedEntry]:
        """All entries that carry this deliberation's id, ascending."""
        ...

    async def system_entries(self, after_index: int, limit: int) -> Sequence[LoggedEntry]:
        """The first `limit` entries after that index which belong to no deliberation, ascending; costs nothing for all others."""
        ...

    async def disclosures_of(self, deliberation_id: str) -> Sequence[Disclosure]:
        """The texts of this deliberation's entries that are not erased; of an erased one those of the erasure itself."""
        ...

    async def latest_checkpoint(self) -> str | None:
        """The signed checkpoint of the greatest size, a C2SP signed note, None before the first."""
        ...

    async def checkpoints(self, after_size: int, limit: int) -> Sequence[str]:
        """Signed checkpoints of a greater size than `after_size`, ascending."""
        ...


class WitnessLog(WitnessLogReader, Protocol):
    """Adds to the log: durable before it returns, every index given out once and without gaps, whoever else writes."""

    async def append(
        self, documents: Sequence[Mapping[str, Any]], *, disclosures: Sequence[Disclosure] = ()
    ) -> Sequence[LoggedEntry]:
        """Add entries that belong to no running deliberation, their texts beside them; returns them at their places.

        Raises `EntryRecordedError`, having added nothing, when one of those texts is there already under the same commitment: then
        an earlier attempt with the same salts came through, however it seemed to end.
        """
        ...

    async def erase(self, erasure: Erasure) -> LoggedEntry:
        """Add the entry and remove the texts, in one step. Raises `DeliberationNotFoundError` and `IllegalTransitionError`."""
        ...

    async def follow_up(self, sequel: Sequel) -> LoggedEntry:
        """Add an entry to a deliberation that has ended, with its texts, which go when those of the deliberation do.

        The last one that resolves it stands. Raises `DeliberationNotFoundError`, and `IllegalTransitionError` before the end.
        """
        ...

    async def add_checkpoint(self, tree_size: int, note: str) -> None:
        """Keep a signed checkpoint; where one of that size is kept already, nothing changes."""
        ...
