"""A witness log kept in memory: a real tree of real hashes, of which nothing survives the process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from application.ports.witness_log import Disclosure, Erasure, Head, LoggedEntry, Sequel
from domain.errors.deliberation import DeliberationNotFoundError, IllegalTransitionError
from domain.errors.witness import EntryRecordedError
from domain.witness.entry import sealed
from domain.witness.happenings import event_count
from domain.witness.merkle import CompactRange, leaf_hash
from infrastructure.persistence.roots import RightEdges
from infrastructure.persistence.sequencer import encode

__all__ = ["InMemoryWitnessLog"]


class InMemoryWitnessLog:
    """`WitnessLog` as the databases fulfil it, durability apart. Belongs to one event loop."""

    def __init__(self) -> None:
        self.logged: list[LoggedEntry] = []
        self.erased: set[str] = set()
        self._owners: dict[str, list[LoggedEntry]] = {}
        self._of_nobody: list[LoggedEntry] = []
        self._tree = CompactRange()
        self._nodes: dict[int, list[bytes]] = {}
        self._checkpoints: dict[int, str] = {}
        self._texts: dict[str | None, list[Disclosure]] = {}
        self.may_erase: Callable[[str], None] = self._known_only
        self.may_follow_up: Callable[[str], None] = self._known_only
        self.resolutions: dict[str, list[LoggedEntry]] = {}

    def place(self, document: Mapping[str, Any], disclosures: Sequence[Disclosure] = ()) -> LoggedEntry:
        """Add one entry now, with its texts."""
        own = document.get("deliberation_id")
        if "record_sha256" in document:
            document = sealed(document, [entry.leaf_hash for entry in self._owners.get(str(own), ())])
        # A copy, because the encoder's own buffer is many times as large as what stands in it.
        data = bytes(memoryview(encode(document)))
        before = self._owners.get(str(own), ())
        last = before[-1].sequence if before else 0
        sequence = None if own is None else (last or 0) + event_count(document)
        entry = LoggedEntry(len(self.logged), leaf_hash(data), data, None if own is None else str(own), sequence)
        for level, _, node in self._tree.extend([entry.leaf_hash]):
            self._nodes.setdefault(level, []).append(node)
        self.logged.append(entry)
        (self._of_nobody if own is None else self._owners.setdefault(own, [])).append(entry)
        self._texts.setdefault(own, []).extend(disclosures)
        return entry

    def of(self, deliberation_id: str) -> Sequence[LoggedEntry]:
        """The entries of a deliberation as they are now."""
        return list(self._owners.get(deliberation_id, ()))

    def root_at(self, tree_size: int) -> bytes | None:
        """The root of the first so many leaves, None where there are fewer."""
        if not 0 < tree_size <= self._tree.size:
            return None
        edges = RightEdges(lambda place: self.logged[place].leaf_hash, lambda node: self._nodes[node[0]][node[1]])
        return edges.root(tree_size)

    async def head(self) -> Head:
        """As in `WitnessLogReader`."""
        return Head(self._tree.size, self._tree.root())

    async def entries(self, start: int, end: int) -> Sequence[LoggedEntry]:
        """As in `WitnessLogReader`."""
        return self.logged[max(start, 0) : max(end, 0)]

    async def leaf_hashes(self, start: int, end: int) -> Sequence[bytes]:
        """As in `WitnessLogReader`."""
        return [entry.leaf_hash for entry in self.logged[max(start, 0) : max(end, 0)]]

    async def nodes(self, tile_level: int, start: int, end: int) -> Sequence[bytes]:
        """As in `WitnessLogReader`."""
        return self._nodes.get(tile_level, [])[max(start, 0) : max(end, 0)]

    async def spans(self, wanted: Sequence[tuple[int, int, int]]) -> tuple[Head, Sequence[Sequence[bytes]]]:
        """As in `WitnessLogReader`."""
        return await self.head(), [
            await (self.leaf_hashes(start, end) if level == 0 else self.nodes(level, start, end))
            for level, start, end in wanted
        ]

    async def entries_of(self, deliberation_id: str) -> Sequence[LoggedEntry]:
        """As in `WitnessLogReader`."""
        return self.of(deliberation_id)

    async def system_entries(self, after_index: int, limit: int) -> Sequence[LoggedEntry]:
        """As in `WitnessLogReader`."""
        return [entry for entry in self._of_nobody if entry.index > after_index][:limit]

    async def disclosures_of(self, deliberation_id: str) -> Sequence[Disclosure]:
        """As in `WitnessLogReader`."""
        return list(self._texts.get(deliberation_id, ()))

    async def latest_checkpoint(self) -> str | None:
        """As in `WitnessLogReader`."""
        return self._checkpoints[max(self._checkpoints)] if self._checkpoints else None

    async def checkpoints(self, after_size: int, limit: int) -> Sequence[str]:
        """As in `WitnessLogReader`."""
        return [self._checkpoints[size] for size in sorted(self._checkpoints) if size > after_size][:limit]

    async def append(
        self, documents: Sequence[Mapping[str, Any]], *, disclosures: Sequence[Disclosure] = ()
    ) -> Sequence[LoggedEntry]:
        """As in `WitnessLog`."""
        recorded = {each.sha256 for each in self._texts.get(None, ())}
        for each in disclosures:
            if each.sha256 in recorded:
                raise EntryRecordedError(sha256=each.sha256)
        for document in documents:
            encode(document)
        self._texts.setdefault(None, []).extend(disclosures)
        return [self.place(document) for document in documents]

    async def erase(self, erasure: Erasure) -> LoggedEntry:
        """As in `WitnessLog`: only what has ended can be erased, and only once."""
        encode(erasure.document)
        own = erasure.deliberation_id
        self.may_erase(own)
        if own in self.erased:
            raise IllegalTransitionError(present="erased", wanted="erased")
        self.erased.add(own)
        entry = self.place(erasure.document)
        self._texts[own] = list(erasure.disclosures)
        return entry

    async def follow_up(self, sequel: Sequel) -> LoggedEntry:
        """As in `WitnessLog`: only what has ended can be followed up."""
        encode(sequel.document)
        self.may_follow_up(sequel.deliberation_id)
        entry = self.place(sequel.document, sequel.disclosures)
        if sequel.resolves:
            self.resolutions.setdefault(sequel.deliberation_id, []).append(entry)
        return entry

    async def add_checkpoint(self, tree_size: int, note: str) -> None:
        """As in `WitnessLog`."""
        self._checkpoints.setdefault(tree_size, note)

    def _known_only(self, deliberation_id: str) -> None:
        if deliberation_id not in self._owners:
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
