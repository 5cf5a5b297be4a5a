"""Derives roots of the log from its stored leaves and nodes, several at a time and within a transaction of the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from sqlalchemy import Connection, select

from domain.witness.merkle import CompactRange
from domain.witness.tile import TILE_WIDTH
from infrastructure.persistence.rows import stored_bytes
from infrastructure.persistence.tables import witness_head

__all__ = ["RightEdges", "roots_at"]

_LEAVES = "SELECT idx, leaf_hash FROM witness_entries WHERE idx >= %d AND idx < %d"
_NODES = "SELECT tile_level, place, hash FROM witness_nodes WHERE tile_level = %d AND place >= %d AND place < %d"
# In one statement; SQLite takes 500.
_MOST_SELECTS = 100


def roots_at(connection: Connection, sizes: Iterable[int | None]) -> dict[int, str]:
    """The root (hex) of the first so many leaves, by size; sizes that the log has not, or lacks hashes for, are left out.

    Costs three statements, more for more than a hundred sizes, and of rows at most the widths of the tiles at the right edge of each tree.
    """
    wanted = {size for size in sizes if isinstance(size, int) and size > 0}
    if not wanted:
        return {}
    length = connection.execute(select(witness_head.c.tree_size).where(witness_head.c.id == 1)).scalar() or 0
    known = sorted(size for size in wanted if size <= length)
    leaves, nodes = _read(connection, _together(span for size in known for span in _spans_of(size)))
    edges = RightEdges(leaves.__getitem__, nodes.__getitem__)
    found = {}
    for size in known:
        try:
            found[size] = edges.root(size).hex()
        except (KeyError, ValueError):
            continue
    return found


class RightEdges:
    """The right edges of trees that are asked for in ascending order: hashes that two of them have in common are folded once."""

    def __init__(self, leaf: Callable[[int], bytes], node: Callable[[tuple[int, int]], bytes]) -> None:
        """`leaf` gives the stored hash at a place, `node` that of a node above by tile level and place."""
        self._leaf = leaf
        self._node = node
        # By tile level: where its last tile begins, and what of it was folded so far.
        self._tiles: dict[int, tuple[int, CompactRange]] = {}

    def root(self, tree_size: int) -> bytes:
        """The root of the first so many leaves. Raises what `leaf` and `node` raise, `ValueError` where a hash is none."""
        edge: list[bytes] = []
        for level, start, end in _spans_of(tree_size):
            begun, tile = self._tiles.get(level, (start, CompactRange()))
            if begun != start:
                tile = CompactRange()
            places = range(start + tile.size, end)
            tile.extend([self._node((level, place)) for place in places] if level else list(map(self._leaf, places)))
            self._tiles[level] = start, tile
            edge[:0] = tile.hashes
        return CompactRange(tree_size, edge).root()


def _together(spans: Iterable[tuple[int, int, int]]) -> set[tuple[int, int, int]]:
    """Of spans that begin at one place the longest."""
    ends: dict[tuple[int, int], int] = {}
    for level, start, end in spans:
        ends[level, start] = max(end, ends.get((level, start), 0))
    return {(level, start, end) for (level, start), end in ends.items()}


def _spans_of(tree_size: int) -> Iterator[tuple[int, int, int]]:
    """Tile level, start and end of the stored hashes that the root of so many leaves follows from."""
    level, width = 0, tree_size
    while width:
        start = width - width % TILE_WIDTH
        if start < width:
            yield level, start, width
        level, width = level + 1, width // TILE_WIDTH


def _read(
    connection: Connection, spans: Iterable[tuple[int, int, int]]
) -> tuple[Mapping[int, bytes], Mapping[tuple[int, int], bytes]]:
    """The leaves by place, and the nodes above by tile level and place."""
    ordered = sorted(spans)
    leaves: dict[int, bytes] = {}
    nodes: dict[tuple[int, int], bytes] = {}
    # Our own numbers, written out, because making a statement with a list of its own each time takes longer than running it. One
    # range to a SELECT, because Postgres takes a join with a list of ranges for one that finds half the log, and reads it all.
    low = [_LEAVES % (start, end) for level, start, end in ordered if level == 0]
    high = [_NODES % span for span in ordered if span[0]]
    for some in _few(low):
        rows = connection.exec_driver_sql(some).all()
        leaves |= {place: leaf if type(leaf) is bytes else stored_bytes(leaf) for place, leaf in rows}
    for some in _few(high):
        rows = connection.exec_driver_sql(some).all()
        nodes |= {(level, place): stored_bytes(node) for level, place, node in rows}
    return leaves, nodes


def _few(selects: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(selects), _MOST_SELECTS):
        yield " UNION ALL ".join(selects[start : start + _MOST_SELECTS])
