"""Audits the whole witness log (fsck): derives every leaf, node, head and signed checkpoint again from the entries alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from application.ports.witness_log import Head, LoggedEntry, WitnessLogReader
from application.services.log_check import (
    AcceptedRestore,
    CheckpointReader,
    SignatureTools,
    SignedHead,
    accepted_restores,
    require_follows,
    require_nothing_beyond,
)
from application.services.log_tree import LogTree
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import Checkpoint, VerifierKey
from domain.witness.merkle import CompactRange, leaf_hash
from domain.witness.tile import TILE_HEIGHT

__all__ = ["AuditReport", "audit"]

_PAGE = 2_048
_CHECKPOINT_PAGE = 500
_NO_END = 2**62
# The smallest tree with a node at a level above these has more leaves than there are indexes.
_LEVELS = range(1, 8)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was found sound: so many entries under this root (32 bytes), stored nodes, and signed checkpoints."""

    tree_size: int
    root_hash: bytes
    entries: int
    nodes: int
    checkpoints: int


async def audit(
    reader: WitnessLogReader,
    *,
    key: VerifierKey,
    tools: SignatureTools,
    retired_keys: Sequence[VerifierKey] = (),
    progress: Callable[[int], None] | None = None,
) -> AuditReport:
    """Look at every entry, stored node and checkpoint once, in pages; the log may grow meanwhile.

    Checkpoints may be signed with `key`, with `retired_keys` and with those that the log names as its own. Memory does not grow
    with the log. `progress` is told how many entries were seen. Raises `VerificationRefusedError` naming
    the first thing that is wrong, and `DependencyUnavailableError` when the store is away.
    """
    head = await reader.head()
    walk = _Walk(reader, head, CheckpointReader((key, *retired_keys), tools.check_signature))
    return await walk.run(progress)


class _Walk:
    def __init__(self, reader: WitnessLogReader, head: Head, opener: CheckpointReader) -> None:
        self._reader = reader
        self._head = head
        self._opener = opener
        self._tree = CompactRange()
        self._nodes = 0
        self._checkpoints = 0
        self._restores: Sequence[AcceptedRestore] | None = None

    async def run(self, progress: Callable[[int], None] | None) -> AuditReport:
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
            leaves = _leaves(await self._reader.entries(start, end), start, end)
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
        return AuditReport(size, self._head.root_hash, size, self._nodes, self._checkpoints)

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
        try:
            return self._opener.open(note)
        except VerificationRefusedError:
            self._opener = await self._opener.widened(self._reader)
            return self._opener.open(note)

    async def _compare(self, checkpoint: Checkpoint) -> None:
        derived = self._tree.root()
        if checkpoint.root_hash != derived and not await self._is_explained(checkpoint):
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


def _leaves(entries: Sequence[LoggedEntry], start: int, end: int) -> list[bytes]:
    leaves = []
    for index, entry in enumerate(entries, start):
        leaf = leaf_hash(entry.entry)
        if entry.index != index:
            raise VerificationRefusedError("the entry is missing", index=index)
        if leaf != entry.leaf_hash:
            raise VerificationRefusedError(
                "the entry does not hash to its stored leaf",
                index=index,
                evidence={"stored_leaf": entry.leaf_hash.hex(), "computed_leaf": leaf.hex()},
            )
        if (says := _deliberation_of(entry.entry)) != entry.deliberation_id:
            raise VerificationRefusedError(
                "the entry is filed under another deliberation than it says",
                index=index,
                evidence={"filed_under": str(entry.deliberation_id), "entry_says": str(says)},
            )
        leaves.append(leaf)
    if len(leaves) != end - start:
        raise VerificationRefusedError("the entry is missing", index=start + len(leaves))
    return leaves


def _deliberation_of(entry: bytes) -> object:
    # Only what stands under the right deliberation is found by whoever asks for its bundle.
    try:
        document = json.loads(entry)
    except ValueError:
        return None
    return document.get("deliberation_id") if isinstance(document, dict) else None
