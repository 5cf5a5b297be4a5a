"""A witness log in memory for tests: a real tree, every stored thing open to tampering, and every read counted."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from application.ports.witness_log import Disclosure, Erasure, Head, LoggedEntry, Sequel
from domain.witness.checkpoint import Checkpoint, SignedNote, VerifierKey
from domain.witness.merkle import CompactRange, leaf_hash, root_hash
from infrastructure.witness.ed25519 import SigningKey, verify_signature
from infrastructure.witness.signer import CheckpointSigner

ORIGIN = "example.com/conclave"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Tools:
    """What reading checkpoints needs."""

    check_signature: Any = verify_signature


class StillClock:
    """A clock that stands at noon."""

    def now(self) -> datetime:
        return NOON

    def monotonic(self) -> float:
        return 0.0


def signer(seed: int = 1) -> CheckpointSigner:
    """A signer whose key is the same in every run."""
    return CheckpointSigner(SigningKey.from_seed(bytes([seed]) * 32), ORIGIN)


def key(seed: int = 1) -> VerifierKey:
    """The key that checks what `signer` of that seed signs."""
    return signer(seed).verifier_key


def size_of(note: str) -> int:
    """How many entries a signed checkpoint speaks of."""
    return Checkpoint.parse(SignedNote.parse(note).text).tree_size


@dataclass
class FakeWitnessLog:
    """Fulfils the port of the witness log from lists that a test may change behind its back."""

    stored: list[LoggedEntry] = field(default_factory=list)
    stored_nodes: dict[int, list[bytes]] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    texts: dict[str, list[Disclosure]] = field(default_factory=dict)
    system_texts: list[Disclosure] = field(default_factory=list)
    reads: int = 0
    tree: CompactRange = field(default_factory=CompactRange)
    head_row: Head = field(default_factory=lambda: Head(0, CompactRange().root()))

    @classmethod
    def of(cls, count: int, *, salt: str = "") -> Self:
        """A log of so many small entries."""
        log = cls()
        log.add([f'{{"n":{number},"salt":"{salt}"}}'.encode() for number in range(count)])
        return log

    def add(self, entries: Sequence[bytes]) -> list[LoggedEntry]:
        """Append these bytes as entries."""
        start = len(self.stored)
        added = [
            LoggedEntry(index, leaf_hash(entry), entry, json.loads(entry).get("deliberation_id"))
            for index, entry in enumerate(entries, start)
        ]
        for level, _, node in self.tree.extend([each.leaf_hash for each in added]):
            self.stored_nodes.setdefault(level, []).append(node)
        self.stored += added
        self.head_row = Head(self.tree.size, self.tree.root())
        return added

    def add_documents(self, *documents: Mapping[str, Any]) -> list[LoggedEntry]:
        """Append these documents as entries."""
        return self.add([json.dumps(document, sort_keys=True).encode() for document in documents])

    def rebuilt(self, count: int) -> FakeWitnessLog:
        """A backup: the first `count` entries with their nodes, and the checkpoints up to there."""
        log = FakeWitnessLog(texts=self.texts)
        log.add([each.entry for each in self.stored[:count]])
        log.notes = {size: note for size, note in self.notes.items() if size <= count}
        return log

    def root_of(self, size: int) -> bytes:
        """The root of the first `size` entries, from their leaves alone."""
        return root_hash([each.leaf_hash for each in self.stored[:size]])

    async def head(self) -> Head:
        self.reads += 1
        return self.head_row

    async def entries(self, start: int, end: int) -> Sequence[LoggedEntry]:
        self.reads += 1
        first, last = (bisect_left(self.stored, edge, key=lambda each: each.index) for edge in (start, end))
        return self.stored[first:last]

    async def leaf_hashes(self, start: int, end: int) -> Sequence[bytes]:
        self.reads += 1
        return [each.leaf_hash for each in self.stored[start:end]]

    async def nodes(self, tile_level: int, start: int, end: int) -> Sequence[bytes]:
        self.reads += 1
        return self.stored_nodes.get(tile_level, [])[start:end]

    async def spans(self, wanted: Sequence[tuple[int, int, int]]) -> tuple[Head, Sequence[Sequence[bytes]]]:
        return await self.head(), [
            await (self.leaf_hashes(start, end) if level == 0 else self.nodes(level, start, end))
            for level, start, end in wanted
        ]

    async def entries_of(self, deliberation_id: str) -> Sequence[LoggedEntry]:
        return [each for each in self.stored if json.loads(each.entry).get("deliberation_id") == deliberation_id]

    async def system_entries(self, after_index: int, limit: int) -> Sequence[LoggedEntry]:
        self.reads += 1
        later = (each for each in self.stored if each.index > after_index)
        return [each for each in later if b'"deliberation_id"' not in each.entry][:limit]

    async def disclosures_of(self, deliberation_id: str) -> Sequence[Disclosure]:
        return list(self.texts.get(deliberation_id, ()))

    async def latest_checkpoint(self) -> str | None:
        self.reads += 1
        return self.notes[max(self.notes)] if self.notes else None

    async def checkpoints(self, after_size: int, limit: int) -> Sequence[str]:
        self.reads += 1
        return [self.notes[size] for size in sorted(self.notes) if size > after_size][:limit]

    async def append(
        self, documents: Sequence[Mapping[str, Any]], *, disclosures: Sequence[Disclosure] = ()
    ) -> Sequence[LoggedEntry]:
        self.system_texts += disclosures
        return self.add_documents(*documents)

    async def erase(self, erasure: Erasure) -> LoggedEntry:
        self.texts[erasure.deliberation_id] = list(erasure.disclosures)
        return self.add_documents(erasure.document)[0]

    async def follow_up(self, sequel: Sequel) -> LoggedEntry:
        self.texts.setdefault(sequel.deliberation_id, []).extend(sequel.disclosures)
        return self.add_documents(sequel.document)[0]

    async def add_checkpoint(self, tree_size: int, note: str) -> None:
        self.notes.setdefault(tree_size, note)
