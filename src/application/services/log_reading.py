"""Reads entries, proofs and tiles out of the stored log, and gives none of them before it was checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from application.ports.witness_log import Head, LoggedEntry, WitnessLogReader
from application.services.log_check import require_follows, sound_entries, unverified
from application.services.log_tree import LogTree
from domain.errors.deliberation import InvalidSpecificationError
from domain.errors.witness import VerificationRefusedError
from domain.witness.proof import verify_consistency, verify_inclusion, verify_leaf
from domain.witness.tile import Tile, entry_bundle

__all__ = ["ConsistencyProof", "InclusionProof", "LogReading"]


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That the leaf stands at `index` in the tree of `tree_size` leaves; hashes of 32 bytes, from the leaf to the root."""

    index: int
    tree_size: int
    leaf_hash: bytes
    root_hash: bytes
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """That the tree of `first` leaves is the start of the tree of `second`; hashes and roots of 32 bytes."""

    first: int
    second: int
    first_root: bytes
    second_root: bytes
    hashes: tuple[bytes, ...]


class LogReading:
    """Gives no entry that does not hash to its stored leaf, and no proof that does not verify.

    It reads what is there at the moment and knows nothing of what was signed: it serves as well while the log has a problem.
    """

    def __init__(self, log: WitnessLogReader) -> None:
        self._log = log

    async def entry(self, index: int) -> LoggedEntry:
        """The entry at that index. Raises `InvalidSpecificationError` out of range, `LogUnverifiedError` if it is damaged."""
        head = await self._log.head()
        _require_range("/index", index, 0, head.tree_size - 1)
        return (await self.entries(index, index + 1))[0]

    async def entries(self, start: int, end: int) -> Sequence[LoggedEntry]:
        """The entries from `start` on, before `end`, which is at most the log's size. Raises `LogUnverifiedError` if one is damaged."""
        try:
            return list(sound_entries(await self._log.entries(start, end), start, end))
        except VerificationRefusedError as error:
            raise unverified(error) from error

    async def entries_of(self, deliberation_id: str) -> Sequence[LoggedEntry]:
        """All entries of a deliberation, ascending; none where it is not known. Raises `LogUnverifiedError` if one is damaged."""
        found = sorted(await self._log.entries_of(deliberation_id), key=lambda each: each.index)
        _require_sound(found)
        return found

    async def sequels(self, deliberation_id: str, kind: str) -> Sequence[LoggedEntry]:
        """The entries of that type of a deliberation, ascending. Raises `LogUnverifiedError` for one that is damaged."""
        mark = f'"type":"{kind}"'.encode()
        found = [each for each in await self._log.entries_of(deliberation_id) if mark in each.entry]
        _require_sound(found)
        return [each for each in found if json.loads(each.entry).get("type") == kind]

    async def inclusion(self, *, index: int, tree_size: int) -> InclusionProof:
        """The proof of that entry in the tree of that size, verified before it is given. Raises like `entry`."""
        tree = LogTree(self._log)
        try:
            known = 0 <= index < tree_size
            head = await (tree.head_beside_inclusion(index, tree_size) if known else self._log.head())
            _require_range("/tree_size", tree_size, 1, head.tree_size)
            _require_range("/index", index, 0, tree_size - 1)
            leaf, root = await tree.leaf_hash(index), await tree.root_at(tree_size)
            (proof,) = await tree.inclusion_proofs([index], tree_size)
            verify_inclusion(index=index, tree_size=tree_size, leaf=leaf, root=root, proof=proof)
            await _require_head_of(tree, tree_size, head)
        except VerificationRefusedError as error:
            raise unverified(error) from error
        return InclusionProof(index, tree_size, leaf, root, tuple(proof))

    async def consistency(self, *, first: int, second: int) -> ConsistencyProof:
        """The proof from one size to the other, verified before it is given. Raises like `entry`."""
        tree = LogTree(self._log)
        try:
            known = 0 <= first <= second
            head = await (tree.head_beside_consistency(first, second) if known else self._log.head())
            _require_range("/second", second, 0, head.tree_size)
            _require_range("/first", first, 0, second)
            roots = await tree.root_at(first), await tree.root_at(second)
            proof = await tree.consistency_proof(first, second)
            verify_consistency(first=first, second=second, first_root=roots[0], second_root=roots[1], proof=proof)
            await _require_head_of(tree, second, head)
        except VerificationRefusedError as error:
            raise unverified(error) from error
        return ConsistencyProof(first, second, *roots, tuple(proof))

    async def tile(self, tile: Tile) -> bytes | None:
        """The tile's hashes joined, or the entry bundle; None when the present tree has no such tile.

        Raises `LogUnverifiedError` where a part of it is missing.
        """
        if not tile.exists_in((await self._log.head()).tree_size):
            return None
        if tile.level is None:
            return entry_bundle([each.entry for each in await self.entries(tile.start, tile.end)])
        if tile.level == 0:
            hashes = await self._log.leaf_hashes(tile.start, tile.end)
        else:
            hashes = await self._log.nodes(tile.level, tile.start, tile.end)
        if len(hashes) != tile.width:
            raise unverified(VerificationRefusedError(f"tile {tile} has {len(hashes)} of its {tile.width} hashes"))
        return b"".join(hashes)


def _require_sound(entries: Sequence[LoggedEntry]) -> None:
    """Returns if each hashes to its stored leaf. Raises `LogUnverifiedError` at the first that does not."""
    try:
        for each in entries:
            verify_leaf(index=each.index, entry=each.entry, stored_leaf=each.leaf_hash)
    except VerificationRefusedError as error:
        raise unverified(error) from error


def _require_range(pointer: str, value: int, first: int, last: int) -> None:
    if not first <= value <= last:
        allowed = f"must be {first} to {last}" if first <= last else "cannot be given while the log has no entries"
        raise InvalidSpecificationError.at(pointer, allowed)


async def _require_head_of(tree: LogTree, tree_size: int, head: Head) -> None:
    """Returns if the tree is an older one than the head's, or has its root."""
    if tree_size == head.tree_size:
        await require_follows(tree, head, None)
