"""Audits the whole witness log (fsck): derives every leaf, node, head and signed checkpoint again from the entries alone, and compares
with the entries all that is shown of deliberations.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from application.ports.deliberation_repository import DeliberationReader, StoredDeliberation
from application.ports.witness_log import Head, LoggedEntry, WitnessLogReader
from application.services.log_check import (
    AcceptedRestore,
    CheckpointReader,
    SignatureTools,
    SignedHead,
    accepted_restores,
    open_with_named_keys,
    require_follows,
    require_nothing_beyond,
    sound_entries,
)
from application.services.log_tree import LogTree
from application.services.record_check import require_recorded
from domain.errors.deliberation import RecordMismatchError
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import Checkpoint, VerifierKey
from domain.witness.merkle import CompactRange
from domain.witness.tile import TILE_HEIGHT

__all__ = ["AuditReport", "audit"]

_PAGE = 2_048
_CHECKPOINT_PAGE = 500
# Of 72 agents each, these take some megabytes.
_DELIBERATION_PAGE = 20
_NO_END = 2**62
# The smallest tree with a node at a level above these has more leaves than there are indexes.
_LEVELS = range(1, 8)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was found sound: so many entries under this root (32 bytes), stored nodes, signed checkpoints, and deliberations that are
    stored as they were recorded.

    The last `unsigned` entries are under no signed checkpoint, from the one recorded at `unsigned_since` on: of these the stored data
    alone cannot tell whether they are all that there were.
    """

    tree_size: int
    root_hash: bytes
    entries: int
    nodes: int
    checkpoints: int
    deliberations: int = 0
    unsigned: int = 0
    unsigned_since: str | None = None


async def audit(
    reader: WitnessLogReader,
    *,
    key: VerifierKey,
    tools: SignatureTools,
    retired_keys: Sequence[VerifierKey] = (),
    deliberations: DeliberationReader | None = None,
    read_json: Callable[[bytes], Any] = json.loads,
    progress: Callable[[int], None] | None = None,
) -> AuditReport:
    """Look at every entry, stored node and checkpoint once, in pages; the log may grow meanwhile.

    Then every deliberation of `deliberations`, if they are given, is compared with its entries, and no entry may be of one that is
    not there. Checkpoints may be signed with `key`, with `retired_keys` and with those that the log names as its own. Memory does
    not grow with the log. `read_json` raises `ValueError` for what is no JSON; `progress` is told how many entries were seen.
    Raises `VerificationRefusedError` naming the first thing that is wrong, and `DependencyUnavailableError` when the store is away.
    """
    head = await reader.head()
    walk = _Walk(reader, head, CheckpointReader((key, *retired_keys), tools.check_signature))
    await walk.run(progress)
    compared = 0
    if deliberations is not None:
        compared = await _Comparison(reader, deliberations, head.tree_size, read_json).run(of_nobody=walk.of_nobody)
    return await walk.report(compared)


class _Walk:
    def __init__(self, reader: WitnessLogReader, head: Head, opener: CheckpointReader) -> None:
        self._reader = reader
        self._head = head
        self._opener = opener
        self._tree = CompactRange()
        self._nodes = 0
        self._checkpoints = 0
        self._signed_size = 0
        self._restores: Sequence[AcceptedRestore] | None = None
        self.of_nobody = 0

    async def report(self, deliberations: int) -> AuditReport:
        """What there is to say once `run` has found nothing."""
        size, signed = self._head.tree_size, self._signed_size
        since = None
        if signed < size:
            for entry in await self._reader.entries(signed, signed + 1):
                since = str(json.loads(entry.entry).get("at"))
        root = self._head.root_hash
        return AuditReport(size, root, size, self._nodes, self._checkpoints, deliberations, size - signed, since)

    async def run(self, progress: Callable[[int], None] | None) -> None:
        size = self._head.tree_size
        if before := await self._reader.entries(-_NO_END, 0):
            raise VerificationRefusedError("an entry stands before the first", index=before[0].index)
        signed = self._signed()
        waiting = await anext(signed, None)
        while waiting is not None and waiting.tree_size == 0:
            await self._compare(waiting)
            waiting = await anext(signed, None)
        for start in range(0, size, _PAGE):
            end = min(start + _PAGE, size)
            entries = await self._reader.entries(start, end)
            leaves = _leaves(entries, start, end)
            self.of_nobody += sum(1 for entry in entries if entry.deliberation_id is None)
            completed: list[tuple[int, int, bytes]] = []
            while waiting is not None and waiting.tree_size <= end:
                completed += self._tree.extend(leaves[self._tree.size - start : waiting.tree_size - start])
                await self._compare(waiting)
                waiting = await anext(signed, None)
            completed += self._tree.extend(leaves[self._tree.size - start :])
            await self._compare_nodes(completed)
            if progress is not None:
                progress(end)
        if self._tree.root() != self._head.root_hash:
            raise VerificationRefusedError(
                f"the head of {size} entries is not their root",
                evidence={"head_root": self._head.root_hash.hex(), "derived_root": self._tree.root().hex()},
            )
        while waiting is not None:
            await self._compare_later(waiting)
            waiting = await anext(signed, None)
        await require_nothing_beyond(self._reader, await self._reader.head())
        await self._require_no_later_nodes()

    async def _signed(self) -> AsyncIterator[Checkpoint]:
        last = -1
        while notes := await self._reader.checkpoints(last, _CHECKPOINT_PAGE):
            for note in notes:
                checkpoint = await self._open(note)
                if checkpoint.tree_size <= last:
                    raise VerificationRefusedError(
                        f"the signed checkpoint of {checkpoint.tree_size} entries stands after that of {last}"
                    )
                last = checkpoint.tree_size
                self._checkpoints += 1
                yield checkpoint

    async def _open(self, note: str) -> Checkpoint:
        checkpoint, self._opener = await open_with_named_keys(self._reader, self._opener, note)
        return checkpoint

    async def _compare(self, checkpoint: Checkpoint) -> None:
        derived = self._tree.root()
        if checkpoint.root_hash == derived:
            self._signed_size = checkpoint.tree_size
        elif not await self._is_explained(checkpoint):
            raise VerificationRefusedError(
                f"the signed checkpoint of {checkpoint.tree_size} entries is not their root",
                evidence={"signed_root": checkpoint.root_hash.hex(), "derived_root": derived.hex()},
            )

    async def _compare_later(self, checkpoint: Checkpoint) -> None:
        """Compare a checkpoint beyond the size at which this began: the log has grown, or was rolled back."""
        head = await self._reader.head()
        try:
            await require_follows(LogTree(self._reader), head, SignedHead("a signed checkpoint", checkpoint))
        except VerificationRefusedError:
            if not await self._is_explained(checkpoint):
                raise
        else:
            self._signed_size = self._head.tree_size

    async def _is_explained(self, checkpoint: Checkpoint) -> bool:
        if self._restores is None:
            self._restores = await accepted_restores(self._reader, self._head.tree_size)
        return any(restore.explains(checkpoint) for restore in self._restores)

    async def _compare_nodes(self, completed: Sequence[tuple[int, int, bytes]]) -> None:
        levels: dict[int, list[tuple[int, bytes]]] = {}
        for level, place, node in completed:
            levels.setdefault(level, []).append((place, node))
        for level, derived in levels.items():
            start, end = derived[0][0], derived[-1][0] + 1
            stored = await self._reader.nodes(level, start, end)
            for (place, node), found in zip(derived, stored, strict=False):
                if node != found:
                    raise VerificationRefusedError(
                        f"the stored node {place} of tile level {level} is not that of its entries",
                        evidence={"stored_node": found.hex(), "derived_node": node.hex()},
                    )
            if len(stored) != len(derived):
                raise VerificationRefusedError(
                    f"of the stored nodes [{start}, {end}) of tile level {level} there are {len(stored)}"
                )
            self._nodes += len(derived)

    async def _require_no_later_nodes(self) -> None:
        for level in _LEVELS:
            start = self._head.tree_size >> TILE_HEIGHT * level
            beyond = await self._reader.nodes(level, start, _NO_END)
            if beyond and start + len(beyond) > (await self._reader.head()).tree_size >> TILE_HEIGHT * level:
                raise VerificationRefusedError(
                    f"a node of tile level {level} stands after the head's, at {start} or later"
                )


class _Comparison:
    """Compares what is stored of deliberations with the first `size` entries, some at a time."""

    def __init__(
        self, reader: WitnessLogReader, deliberations: DeliberationReader, size: int, read_json: Callable[[bytes], Any]
    ) -> None:
        self._reader = reader
        self._deliberations = deliberations
        self._size = size
        self._read_json = read_json
        self._first_index = -1

    async def run(self, *, of_nobody: int) -> int:
        """How many were compared. `of_nobody` is how many of the entries belong to no deliberation."""
        compared, told = 0, of_nobody
        after = -_NO_END
        while page := await self._page(after):
            for stored in page:
                self._compare(stored)
                told += sum(1 for entry in stored.entries if entry.index < self._size)
            compared += len(page)
            after = page[-1].position
        if told != self._size:
            await self._name_missing()
            raise VerificationRefusedError(
                f"of {self._size} entries {told} are of nobody or of a stored deliberation: run this again with the service at rest"
            )
        return compared

    async def _page(self, after: int) -> Sequence[StoredDeliberation]:
        try:
            return await self._deliberations.stored(after=after, limit=_DELIBERATION_PAGE)
        except RecordMismatchError as error:
            raise _refused(error) from error

    def _compare(self, stored: StoredDeliberation) -> None:
        try:
            require_recorded(stored, read_json=self._read_json)
        except RecordMismatchError as error:
            raise _refused(error) from error
        index = stored.entries[0].index
        if index < self._first_index:
            raise VerificationRefusedError(
                f"deliberation {stored.deliberation.id!r} is listed after one that was accepted later", index=index
            )
        self._first_index = index

    async def _name_missing(self) -> None:
        known: str | None = None
        for start in range(0, self._size, _PAGE):
            for entry in await self._reader.entries(start, min(start + _PAGE, self._size)):
                own = entry.deliberation_id
                if own is None or own == known:
                    continue
                if await self._deliberations.get(own) is None:
                    raise VerificationRefusedError(
                        f"the entry is of deliberation {own!r}, which is not stored", index=entry.index
                    )
                known = own


def _refused(error: RecordMismatchError) -> VerificationRefusedError:
    what = f"the stored {error.part} of deliberation {error.deliberation_id!r} is not what was recorded"
    if error.agent_id is not None:
        what = (
            f"the stored output of agent {error.agent_id!r} in round {error.round_number} of deliberation "
            f"{error.deliberation_id!r} is not what was recorded"
        )
    evidence = {name: value for name, value in (("recorded", error.recorded), ("stored", error.found)) if value}
    return VerificationRefusedError(what, index=error.index, evidence=evidence)


def _leaves(entries: Sequence[LoggedEntry], start: int, end: int) -> list[bytes]:
    leaves = []
    for entry in sound_entries(entries, start, end):
        if (says := _deliberation_of(entry.entry)) != entry.deliberation_id:
            raise VerificationRefusedError(
                "the entry is filed under another deliberation than it says",
                index=entry.index,
                evidence={"filed_under": str(entry.deliberation_id), "entry_says": str(says)},
            )
        if entry.deliberation_id is None and entry.sequence is not None:
            raise VerificationRefusedError(
                "the entry is of no deliberation and has a sequence",
                index=entry.index,
                evidence={"stored": str(entry.sequence)},
            )
        leaves.append(entry.leaf_hash)
    return leaves


def _deliberation_of(entry: bytes) -> object:
    # Only what stands under the right deliberation is found by whoever asks for its bundle.
    try:
        document = json.loads(entry)
    except ValueError:
        return None
    return document.get("deliberation_id") if isinstance(document, dict) else None
