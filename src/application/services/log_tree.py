"""Computes proofs and roots from the stored tiles of the witness log, reading no more of them than it needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from application.ports.witness_log import WitnessLogReader
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


class LogTree:
    """The tree of one log as it is stored. What was read once is kept, so make one for each answer.

    A proof costs one read, of at most two spans for each tile level: the tile beside its leaf, and the one at the right edge.
    """

    def __init__(self, reader: WitnessLogReader) -> None:
        self._reader = reader
        self._hashes: dict[tuple[int, int], bytes] = {}
        self._subtrees: dict[tuple[int, int], bytes] = {}

    async def inclusion_proofs(self, indexes: Sequence[int], tree_size: int) -> list[list[bytes]]:
        """The inclusion proof of each of these leaves in the tree of `tree_size` leaves.

        Raises `ValueError` for a leaf that is not in it, `VerificationRefusedError` when a stored hash is missing.
        """
        await self._read(each for index in indexes for each in inclusion_nodes(index, tree_size))
        return [inclusion_proof(index, tree_size, self._node) for index in indexes]

    async def inclusion(self, index: int, tree_size: int) -> tuple[bytes, bytes, list[bytes]]:
        """The stored leaf hash, the root of the first `tree_size` leaves, and the proof between them. Raises like `inclusion_proofs`."""
        await self._read([(index, index + 1), (0, tree_size), *inclusion_nodes(index, tree_size)])
        return self._node(0, index), root_at(tree_size, self._node), inclusion_proof(index, tree_size, self._node)

    async def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """The consistency proof from `first` leaves to `second`. Raises like `inclusion_proofs`."""
        await self._read(consistency_nodes(first, second))
        return consistency_proof(first, second, self._node)

    async def root_at(self, tree_size: int) -> bytes:
        """The root (32 bytes) of the first `tree_size` leaves. Raises like `inclusion_proofs`."""
        await self._read([(0, tree_size)])
        return root_at(tree_size, self._node)

    def _node(self, height: int, index: int) -> bytes:
        found = self._subtrees.get((height, index))
        if found is None:
            level, start, end = _stored_span(height, index)
            found = root_hash([self._hashes[level, place] for place in range(start, end)])
            self._subtrees[height, index] = found
        return found

    async def _read(self, ranges: Iterable[tuple[int, int]]) -> None:
        spans: dict[tuple[int, int], tuple[int, int]] = {}
        for subtree in {each for start, end in ranges for each in _perfect_subtrees(start, end)}:
            level, start, end = _stored_span(*subtree)
            if all((level, place) in self._hashes for place in range(start, end)):
                continue
            # A perfect subtree is made of hashes of one tile: two spans in one tile are read as one.
            tile = level, start // TILE_WIDTH
            other = spans.get(tile, (start, end))
            spans[tile] = min(start, other[0]), max(end, other[1])
        wanted = [(level, start, end) for (level, _), (start, end) in sorted(spans.items())]
        read = await self._reader.spans(wanted) if wanted else []
        for (level, start, end), found in zip(wanted, read, strict=True):
            if len(found) != end - start:
                raise VerificationRefusedError(
                    f"of the stored hashes [{start}, {end}) at tile level {level} there are {len(found)}",
                    index=start if level == 0 else None,
                )
            self._hashes.update(((level, place), each) for place, each in enumerate(found, start))


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
