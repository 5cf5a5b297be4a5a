"""The roots of older trees, made of what is stored of the present one."""

from __future__ import annotations

import pytest

from domain.witness.merkle import CompactRange, leaf_hash, root_hash
from infrastructure.persistence.roots import RightEdges

LEAVES = [leaf_hash(b"%d" % number) for number in range(66_000)]
NODES = {(level, place): node for level, place, node in CompactRange().extend(LEAVES)}


def test_the_root_of_every_older_tree_follows_from_the_stored_hashes() -> None:
    edges = RightEdges(LEAVES.__getitem__, NODES.__getitem__)
    for size in (1, 2, 3, 255, 256, 257, 300, 511, 512, 700, 65_535, 65_536, 65_537, 65_800, 66_000):
        assert edges.root(size) == root_hash(LEAVES[:size])


def test_a_tree_whose_hashes_are_missing_has_no_root() -> None:
    nothing: dict[tuple[int, int], bytes] = {}
    edges = RightEdges(LEAVES.__getitem__, nothing.__getitem__)
    assert edges.root(255) == root_hash(LEAVES[:255])
    with pytest.raises(KeyError):
        edges.root(256)
