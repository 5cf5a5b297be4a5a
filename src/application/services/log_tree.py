"""Computes proofs and roots from the stored tiles of the witness log, reading no more of them than it needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from application.ports.witness_log import Head, WitnessLogReader
from domain.errors.witness import VerificationRefusedError
from domain.witness.merkle import root_hash
from domain.witness.proof import (
    consistency_nodes,
    consistency_proof,
    inclusion_nodes,
    inclusion_proof,
    root_at,
)
from domain.witness.tile import TILE_HEIGHT, TILE_WIDTH

__all__ = ["LogTree"]

_Range = tuple[int, int]


class LogTree:
    """The tree of one log as it is stored. What was read once is kept, so make one for each answer.

    A proof costs one read, of at most two spans for each tile level: the tile beside its leaf, and the one at the right edge.
    """

    # Nothing is kept from one answer to the next, though full tiles never change: each proof is then made of what the store holds
    # now, so the first proof that a changed row touches finds it, while a cache would go on proving truly over a damaged store.
    # Nor does the head's right edge stand in for the nodes below it, because the root over these is what the head is held against.

    def __init__(self, reader: WitnessLogReader) -> None:
        self._reader = reader
        self._spans: dict[tuple[int, int], tuple[int, int, Sequence[bytes]]] = {}
        self._subtrees: dict[tuple[int, int], bytes] = {}

    async def inclusion_proofs(self, indexes: Sequence[int], tree_size: int) -> list[list[bytes]]:
        """The inclusion proof of each of these leaves in the tree of `tree_size` leaves.

        Raises `ValueError` for a leaf that is not in it, `VerificationRefusedError` when a stored hash is missing.
        """
        await self._read(each for index in indexes for each in inclusion_nodes(index, tree_size))
        return [inclusion_proof(index, tree_size, self._node) for index in indexes]

    async def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """The consistency proof from `first` leaves to `second`. Raises like `inclusion_proofs`."""
        await self._read(consistency_nodes(first, second))
        return consistency_proof(first, second, self._node)

    async def root_at(self, tree_size: int) -> bytes:
        """The root (32 bytes) of the first `tree_size` leaves. Raises like `inclusion_proofs`."""
        await self._read([(0, tree_size)])
        return root_at(tree_size, self._node)

    async def leaf_hash(self, index: int) -> bytes:
        """The stored hash (32 bytes) of that leaf. Raises like `inclusion_proofs`."""
        await self._read([(index, index + 1)])
        return self._node(0, index)

    async def head_beside_inclusion(self, index: int, tree_size: int) -> Head:
        """The head, read together with all that the leaf's hash, its inclusion proof and the root are made of.

        A tree larger than the head's is missed by those, not here. Raises `ValueError` for a leaf that is not in the tree.
        """
        return await self._head_beside([(index, index + 1), (0, tree_size), *inclusion_nodes(index, tree_size)])

    async def head_beside_consistency(self, first: int, second: int) -> Head:
        """The head, read together with all that the consistency proof and both roots are made of.

        A tree larger than the head's is missed by those, not here. Raises `ValueError` unless 0 <= first <= second.
        """
        return await self._head_beside([(0, first), (0, second), *consistency_nodes(first, second)])

    async def _head_beside(self, ranges: Iterable[_Range]) -> Head:
        return await self._read(ranges) or await self._reader.head()

    def _node(self, height: int, index: int) -> bytes:
        found = self._subtrees.get((height, index))
        if found is None:
            level, start, end = _stored_span(height, index)
            first, last, hashes = self._spans[level, start // TILE_WIDTH]
            if len(hashes) != last - first:
                raise VerificationRefusedError(
                    f"of the stored hashes [{first}, {last}) at tile level {level} there are {len(hashes)}",
                    index=first if level == 0 else None,
                )
            found = root_hash(hashes[start - first : end - first])
            self._subtrees[height, index] = found
        return found

    async def _read(self, ranges: Iterable[_Range]) -> Head | None:
        """Read what is not there yet of the perfect subtrees; the head as of that read, None where nothing was missing."""
        spans: dict[tuple[int, int], tuple[int, int]] = {}
        for subtree in {each for start, end in ranges for each in _perfect_subtrees(start, end)}:
            level, start, end = _stored_span(*subtree)
            # A perfect subtree is made of hashes of one tile: all spans of a tile are read as one.
            tile = level, start // TILE_WIDTH
            kept = self._spans.get(tile)
            if kept is not None:
                if kept[0] <= start and end <= kept[1]:
                    continue
                start, end = min(start, kept[0]), max(end, kept[1])
            other = spans.get(tile, (start, end))
            spans[tile] = min(start, other[0]), max(end, other[1])
        if not spans:
            return None
        wanted = [(tile, *span) for tile, span in sorted(spans.items())]
        head, read = await self._reader.spans([(level, start, end) for (level, _), start, end in wanted])
        for (tile, start, end), found in zip(wanted, read, strict=True):
            self._spans[tile] = start, end, found
        return head


def _perfect_subtrees(start: int, end: int) -> Iterator[tuple[int, int]]:
    """(height, index) of the perfect subtrees that a range of a proof is folded from."""
    while start < end:
        height = (end - start).bit_length() - 1
        yield height, start >> height
        start += 1 << height


def _stored_span(height: int, index: int) -> tuple[int, int, int]:
    """The tile level and the places [start, end) there of the stored hashes below a perfect subtree."""
    level, above = divmod(height, TILE_HEIGHT)
    return level, index << above, (index + 1) << above
