"""Hashes of the tree: published vectors, an independent implementation, and the right edge as it grows."""

from __future__ import annotations

from hashlib import sha256

import pytest
from pymerkle import InmemoryTree  # type: ignore[import-untyped]

from domain.witness.merkle import (
    EMPTY_ROOT,
    LEAF_PREFIX,
    NODE_PREFIX,
    CompactRange,
    leaf_hash,
    node_hash,
    root_hash,
)

# The eight inputs and roots of the Certificate Transparency reference implementation.
_INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def _leaves(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(count)]


def _edge(leaves: list[bytes]) -> CompactRange:
    edge = CompactRange()
    for leaf in leaves:
        edge.append(leaf)
    return edge


@pytest.mark.parametrize("size", range(9))
def test_the_published_trees_have_their_published_roots(size: int) -> None:
    leaves = [leaf_hash(entry) for entry in _INPUTS[:size]]
    assert root_hash(leaves).hex() == _ROOTS[size]
    assert _edge(leaves).root().hex() == _ROOTS[size]


def test_an_empty_entry_is_not_an_empty_tree() -> None:
    assert leaf_hash(b"").hex() == _ROOTS[1]
    assert sha256(b"").digest() == EMPTY_ROOT == root_hash([])


def test_a_leaf_cannot_pass_for_a_node() -> None:
    left, right = leaf_hash(b"left"), leaf_hash(b"right")
    assert node_hash(left, right) == sha256(NODE_PREFIX + left + right).digest()
    assert leaf_hash(left + right) == sha256(LEAF_PREFIX + left + right).digest()
    assert node_hash(left, right) != leaf_hash(left + right)


def test_every_size_has_the_root_that_pymerkle_gives_it() -> None:
    oracle = InmemoryTree(algorithm="sha256")
    edge = CompactRange()
    leaves: list[bytes] = []
    for number in range(600):
        entry = b"entry %d" % number
        oracle.append_entry(entry)
        leaves.append(leaf_hash(entry))
        edge.append(leaves[-1])
        assert edge.root() == oracle.get_root()
        assert edge.root() == root_hash(leaves)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 72, 255, 256, 257, 1500])
def test_leaves_in_batches_make_the_same_edge_as_one_by_one(batch: int) -> None:
    leaves = _leaves(1500)
    edge = CompactRange()
    for start in range(0, len(leaves), batch):
        edge.extend(leaves[start : start + batch])
    assert edge.root() == root_hash(leaves)
    assert edge.size == 1500
    assert edge.hashes == _edge(leaves).hashes


def test_no_leaves_change_nothing() -> None:
    edge = _edge(_leaves(5))
    before = edge.to_bytes()
    assert edge.extend([]) == []
    assert (edge.size, edge.to_bytes()) == (5, before)


def test_the_edge_is_the_perfect_subtrees_largest_first() -> None:
    leaves = _leaves(13)
    assert _edge(leaves).hashes == (root_hash(leaves[:8]), root_hash(leaves[8:12]), leaves[12])


@pytest.mark.parametrize("batch", [1, 72, 255, 300, 66_000])
def test_every_completed_tile_node_is_named_once_with_its_hash(batch: int) -> None:
    leaves = _leaves(66_000)
    edge = CompactRange()
    completed = []
    for start in range(0, len(leaves), batch):
        completed += edge.extend(leaves[start : start + batch])
    first_level = [node for node in completed if node[0] == 1]
    assert [index for _, index, _ in first_level] == list(range(66_000 // 256))
    for _, index, node in first_level[::50]:
        assert node == root_hash(leaves[index * 256 : (index + 1) * 256])
    assert [node for node in completed if node[0] == 2] == [(2, 0, root_hash(leaves[:65_536]))]
    assert len(completed) == len(first_level) + 1


def test_a_node_of_the_third_tile_level_is_completed_by_the_last_of_its_leaves() -> None:
    subtree = leaf_hash(b"the perfect subtree of each height")
    edge = CompactRange(2**24 - 1, [subtree] * 24)
    leaf = leaf_hash(b"the last")
    node, heights = leaf, {}
    for height in range(1, 25):
        node = node_hash(subtree, node)
        heights[height] = node
    assert edge.extend([leaf]) == [(1, 2**16 - 1, heights[8]), (2, 2**8 - 1, heights[16]), (3, 0, heights[24])]
    assert edge.hashes == (heights[24],)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 255, 256, 257, 1000])
def test_an_edge_that_was_written_reads_back_the_same(size: int) -> None:
    edge = _edge(_leaves(size))
    again = CompactRange.from_bytes(edge.size, edge.to_bytes())
    assert (again.size, again.hashes, again.root()) == (edge.size, edge.hashes, edge.root())
    again.append(leaf_hash(b"more"))
    edge.append(leaf_hash(b"more"))
    assert again.root() == edge.root()


@pytest.mark.parametrize(("size", "length"), [(0, 1), (0, 32), (1, 0), (1, 31), (1, 33), (2, 64), (3, 32), (-1, 32)])
def test_an_edge_of_another_size_is_not_read(size: int, length: int) -> None:
    with pytest.raises(ValueError, match="tree"):
        CompactRange.from_bytes(size, bytes(length))


@pytest.mark.parametrize(
    ("size", "hashes"), [(-1, []), (0, [bytes(32)]), (1, []), (3, [bytes(32)]), (1, [bytes(31)]), (1, [bytes(33)])]
)
def test_an_edge_of_the_wrong_hashes_is_not_made(size: int, hashes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="tree"):
        CompactRange(size, hashes)


def test_an_edge_that_could_not_be_extended_is_as_it_was() -> None:
    edge = _edge(_leaves(7))
    before = edge.to_bytes()
    with pytest.raises(TypeError):
        edge.extend([leaf_hash(b"good"), "bad", leaf_hash(b"good")])  # type: ignore[list-item]
    assert (edge.size, edge.to_bytes()) == (7, before)
