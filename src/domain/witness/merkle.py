"""Hashes of a Merkle tree over the log's entries, as RFC 6962 section 2.1 defines them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

__all__ = ["EMPTY_ROOT", "LEAF_PREFIX", "NODE_PREFIX", "CompactRange", "leaf_hash", "node_hash", "root_hash"]

LEAF_PREFIX = b"\x00"
NODE_PREFIX = b"\x01"
EMPTY_ROOT = sha256(b"").digest()

_HASH_SIZE = 32
_TILE_HEIGHT = 8


def leaf_hash(entry: bytes) -> bytes:
    """The 32-byte hash of an entry as a leaf."""
    return sha256(LEAF_PREFIX + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The 32-byte hash of the node above two 32-byte hashes."""
    return sha256(NODE_PREFIX + left + right).digest()


def root_hash(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root of the tree with these 32-byte leaf hashes; that of no leaves is `EMPTY_ROOT`."""
    if not leaf_hashes:
        return EMPTY_ROOT
    hashes = list(leaf_hashes)
    while len(hashes) > 1:
        unpaired = hashes[-1:] if len(hashes) % 2 else []
        pairs = iter(hashes)
        # Written out rather than by `node_hash`: a proof folds hundreds of hashes, and the call costs as much as the hash.
        hashes = [sha256(NODE_PREFIX + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]
        hashes += unpaired
    return hashes[0]


class CompactRange:
    """The right edge of a tree: the roots of its perfect subtrees, largest first.

    It is all that is needed to add leaves and to know the root: 32 bytes for each binary one in the tree's size.
    """

    __slots__ = ("_hashes", "_size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """The right edge of a tree of `size` leaves. Raises ValueError where the hashes cannot be its edge."""
        if size < 0:
            raise ValueError(f"the size {size!r} of a tree is below 0; give the number of its leaves")
        if len(hashes) != size.bit_count() or any(len(each) != _HASH_SIZE for each in hashes):
            raise ValueError(
                f"a tree of {size!r} leaves has {size.bit_count()} perfect subtrees on its right edge; "
                f"give a hash of {_HASH_SIZE} bytes for each, not {[len(each) for each in hashes]!r} bytes"
            )
        self._size = size
        self._hashes = list(hashes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> CompactRange:
        """What `to_bytes` wrote. Raises ValueError unless there are 32 bytes for each binary one in `size`."""
        if size >= 0 and len(data) != _HASH_SIZE * size.bit_count():
            raise ValueError(
                f"the right edge of a tree of {size!r} leaves has {_HASH_SIZE * size.bit_count()} bytes, "
                f"not {len(data)!r}; read it together with the size it was written with"
            )
        return cls(size, [data[start : start + _HASH_SIZE] for start in range(0, len(data), _HASH_SIZE)])

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._size

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, 32 bytes each, largest first."""
        return tuple(self._hashes)

    def to_bytes(self) -> bytes:
        """The hashes joined, largest subtree first."""
        return b"".join(self._hashes)

    def root(self) -> bytes:
        """The root of the tree."""
        if not self._hashes:
            return EMPTY_ROOT
        *larger, root = self._hashes
        for subtree in reversed(larger):
            root = node_hash(subtree, root)
        return root

    def append(self, leaf: bytes) -> None:
        """Adds one leaf hash (32 bytes) at the right."""
        self.extend((leaf,))

    def extend(self, leaves: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
        """Adds leaf hashes (32 bytes each) at the right, in order.

        Gives (tile level, index, hash) of every node completed at the tree heights 8, 16, 24 ..., which are the
        tile levels 1, 2, 3 ...; `index` is its place at that height. Lower levels come first, each in ascending order.
        """
        # The whole batch is hashed height by height: one list per height is several times faster than one leaf at a
        # time, and the nodes of a height come out ready to be stored.
        digest = sha256
        prefix = NODE_PREFIX
        completed: list[tuple[int, int, bytes]] = []
        edge = self._hashes.copy()
        new_edge: list[bytes] = []
        nodes = list(leaves)
        size = self._size
        height = 0
        while nodes:
            if size >> height & 1:
                nodes.insert(0, edge.pop())
            if len(nodes) & 1:
                new_edge.append(nodes.pop())
            pairs = iter(nodes)
            nodes = [digest(prefix + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]
            height += 1
            if height % _TILE_HEIGHT == 0:
                level = height // _TILE_HEIGHT
                completed.extend((level, index, node) for index, node in enumerate(nodes, size >> height))
        new_edge.reverse()
        self._hashes = edge + new_edge
        self._size = size + len(leaves)
        return completed
