"""Proofs: every one in reach is made and verified, an independent implementation agrees, and bad ones are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pymerkle import InmemoryTree, verify_consistency, verify_inclusion  # type: ignore[import-untyped]

from domain.errors.witness import VerificationRefusedError
from domain.witness import proof
from domain.witness.merkle import EMPTY_ROOT, leaf_hash, node_hash, root_hash

_SIZE = 1025
_EDGE_SIZES = (*range(1, 130), 255, 256, 257, 511, 512, 513, 1023, 1024, 1025)


class _Tree:
    """A tree of `_SIZE` entries whose perfect subtrees are all kept, and that counts how often one is read."""

    def __init__(self) -> None:
        self.entries = [b"entry %d" % number for number in range(_SIZE)]
        self.leaves = [leaf_hash(entry) for entry in self.entries]
        levels = [self.leaves]
        while len(levels[-1]) > 1:
            below = levels[-1]
            levels.append([node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)])
        self.levels = levels
        self.roots = [EMPTY_ROOT, *(root_hash(self.leaves[:size]) for size in range(1, _SIZE + 1))]
        self.reads = 0

    def node(self, height: int, index: int) -> bytes:
        self.reads += 1
        return self.levels[height][index]


@pytest.fixture(scope="module")
def tree() -> _Tree:
    return _Tree()


@pytest.fixture(scope="module")
def oracle(tree: _Tree) -> InmemoryTree:
    return InmemoryTree.init_from_entries(tree.entries, algorithm="sha256")


def _refuse_inclusion(tree: _Tree, reason: str, **changed: object) -> VerificationRefusedError:
    asked: dict[str, object] = {
        "index": 11,
        "tree_size": 21,
        "leaf": tree.leaves[11],
        "root": tree.roots[21],
        "proof": proof.inclusion_proof(11, 21, tree.node),
    }
    proof.verify_inclusion(**asked)  # type: ignore[arg-type]
    with pytest.raises(VerificationRefusedError, match=reason) as refused:
        proof.verify_inclusion(**{**asked, **changed})  # type: ignore[arg-type]
    return refused.value


def _refuse_consistency(tree: _Tree, reason: str, **changed: object) -> VerificationRefusedError:
    asked: dict[str, object] = {
        "first": 11,
        "second": 21,
        "first_root": tree.roots[11],
        "second_root": tree.roots[21],
        "proof": proof.consistency_proof(11, 21, tree.node),
    }
    proof.verify_consistency(**asked)  # type: ignore[arg-type]
    with pytest.raises(VerificationRefusedError, match=reason) as refused:
        proof.verify_consistency(**{**asked, **changed})  # type: ignore[arg-type]
    return refused.value


def test_an_entry_that_was_changed_is_refused_with_both_hashes(tree: _Tree) -> None:
    stored, changed = tree.leaves[11], tree.entries[11] + b" "
    proof.verify_leaf(index=11, entry=tree.entries[11], stored_leaf=stored)
    with pytest.raises(
        VerificationRefusedError, match="entry 11: the entry does not hash to its stored leaf"
    ) as refused:
        proof.verify_leaf(index=11, entry=changed, stored_leaf=stored)
    assert refused.value.evidence == {"stored_leaf": stored.hex(), "computed_leaf": leaf_hash(changed).hex()}


def _mutations(path: list[bytes]) -> Iterator[list[bytes]]:
    for place in range(len(path)):
        bad = bytes((path[place][0] ^ 1,)) + path[place][1:]
        yield [*path[:place], bad, *path[place + 1 :]]
        yield [*path[:place], *path[place + 1 :]]
        if place and path[place] != path[place - 1]:
            yield [*path[: place - 1], path[place], path[place - 1], *path[place + 1 :]]
    yield [*path, bytes(32)]


def test_every_leaf_is_proved_to_be_in_every_tree(tree: _Tree, sized: Callable[[int, int], int]) -> None:
    sizes = {*_EDGE_SIZES, *range(1, sized(130, _SIZE) + 1)}
    for size in sorted(sizes):
        root = tree.roots[size]
        for index in range(size):
            path = proof.inclusion_proof(index, size, tree.node)
            proof.verify_inclusion(index=index, tree_size=size, leaf=tree.leaves[index], root=root, proof=path)


def test_every_tree_is_proved_to_be_the_start_of_every_later_one(tree: _Tree) -> None:
    for second in range(257):
        for first in range(second + 1):
            proof.verify_consistency(
                first=first,
                second=second,
                first_root=tree.roots[first],
                second_root=tree.roots[second],
                proof=proof.consistency_proof(first, second, tree.node),
            )


def test_pymerkle_makes_the_same_inclusion_proofs_and_accepts_them(
    tree: _Tree, oracle: InmemoryTree, sized: Callable[[int, int], int]
) -> None:
    every = sized(64, _SIZE)
    for size in sorted({*range(1, every + 1), 100, 255, 256, 257, 1024, 1025}):
        for index in range(0, size, 1 if size <= every else 25):
            theirs = oracle.prove_inclusion(index + 1, size)
            verify_inclusion(tree.leaves[index], tree.roots[size], theirs, index=index + 1, size=size)
            assert theirs.path == [tree.leaves[index], *proof.inclusion_proof(index, size, tree.node)]


def test_pymerkle_proves_the_same_trees_consistent(
    tree: _Tree, oracle: InmemoryTree, sized: Callable[[int, int], int]
) -> None:
    every = sized(100, 256)
    for second in sorted({*range(1, every + 1), 255, 256, 257, 1024, 1025}):
        for first in range(1, second + 1, 1 if second <= every else 25):
            theirs = oracle.prove_consistency(first, second)
            verify_consistency(tree.roots[first], tree.roots[second], theirs, prior_size=first, later_size=second)


def test_pymerkle_gives_every_subtree_of_a_consistency_proof_the_same_hash(tree: _Tree) -> None:
    # Its consistency proofs are laid out otherwise than the RFC's, so the subtrees are compared one by one.
    for first, second in ((1, 33), (21, 33), (32, 33), (100, 257), (255, 256), (6, 1025), (700, 1025)):
        ours = proof.consistency_proof(first, second, tree.node)
        subtrees = [tree.entries[start:end] for start, end in proof.consistency_nodes(first, second)]
        assert ours == [InmemoryTree.init_from_entries(each, algorithm="sha256").get_root() for each in subtrees]


def test_the_root_of_every_earlier_size_is_known(tree: _Tree) -> None:
    assert [proof.root_at(size, tree.node) for size in range(_SIZE + 1)] == tree.roots


def test_the_published_inclusion_proofs_are_made() -> None:
    published = {
        (0, 8): ["96a296d2", "5f083f0a", "6b47aaf2"],
        (5, 8): ["bc1a0643", "ca854ea1", "d37ee418"],
        (2, 3): ["fac54203"],
        (1, 5): ["6e340b9c", "5f083f0a", "bc1a0643"],
    }
    made = {place: proof.inclusion_proof(*place, _published_node) for place in published}
    assert {place: [each.hex()[:8] for each in path] for place, path in made.items()} == published


def test_the_published_consistency_proofs_are_made() -> None:
    published = {
        (1, 1): [],
        (1, 8): ["96a296d2", "5f083f0a", "6b47aaf2"],
        (6, 8): ["0ebc5d34", "ca854ea1", "d37ee418"],
        (2, 5): ["5f083f0a", "bc1a0643"],
        (3, 7): ["0298d122", "07506a85", "fac54203", "837dbb15"],
    }
    made = {sizes: proof.consistency_proof(*sizes, _published_node) for sizes in published}
    assert {sizes: [each.hex()[:8] for each in path] for sizes, path in made.items()} == published


def test_the_ranges_of_an_inclusion_proof_are_the_rest_of_the_tree() -> None:
    assert proof.inclusion_nodes(0, 1) == []
    assert proof.inclusion_nodes(4, 7) == [(5, 6), (6, 7), (0, 4)]
    for size in range(1, 80):
        for index in range(size):
            covered = sorted([*proof.inclusion_nodes(index, size), (index, index + 1)])
            assert [start for start, _ in covered] == [0, *(end for _, end in covered[:-1])]
            assert covered[-1][1] == size


def test_the_ranges_of_a_consistency_proof_are_those_of_the_rfc() -> None:
    assert proof.consistency_nodes(3, 7) == [(2, 3), (3, 4), (0, 2), (4, 7)]
    assert proof.consistency_nodes(4, 7) == [(4, 7)]
    assert proof.consistency_nodes(6, 7) == [(4, 6), (6, 7), (0, 4)]
    assert proof.consistency_nodes(7, 7) == proof.consistency_nodes(0, 7) == []


def _subproof(first: int, start: int, end: int, *, known: bool) -> list[tuple[int, int]]:
    """SUBPROOF of RFC 9162 section 2.1.4.1 as it stands there, with ranges in the place of their hashes."""
    if first == end - start:
        return [] if known else [(start, end)]
    middle = 1
    while middle * 2 < end - start:
        middle *= 2
    if first <= middle:
        return [*_subproof(first, start, start + middle, known=known), (start + middle, end)]
    return [*_subproof(first - middle, start + middle, end, known=False), (start, start + middle)]


def test_the_ranges_of_every_consistency_proof_are_those_of_the_definition() -> None:
    for second in range(1, 130):
        for first in range(1, second + 1):
            assert proof.consistency_nodes(first, second) == _subproof(first, 0, second, known=True)


def test_a_proof_from_a_million_entries_reads_few_nodes() -> None:
    reads = []

    def node(height: int, index: int) -> bytes:
        reads.append((height, index))
        return bytes(32)

    proof.inclusion_proof(777_777, 1_000_000, node)
    proof.consistency_proof(777_777, 1_000_000, node)
    assert len(reads) <= 80


@pytest.mark.parametrize(("index", "tree_size"), [(-1, 5), (5, 5), (6, 5), (0, 0), (0, -1)])
def test_a_proof_of_a_leaf_that_is_not_there_is_not_made(tree: _Tree, index: int, tree_size: int) -> None:
    with pytest.raises(ValueError, match="is not in a tree"):
        proof.inclusion_proof(index, tree_size, tree.node)


@pytest.mark.parametrize(("first", "second"), [(-1, 5), (6, 5), (0, -1)])
def test_a_proof_that_a_tree_shrank_is_not_made(tree: _Tree, first: int, second: int) -> None:
    with pytest.raises(ValueError, match="has not grown"):
        proof.consistency_proof(first, second, tree.node)


@pytest.mark.parametrize(("start", "end"), [(-1, 1), (3, 2), (1, 3), (2, 5), (4, 9)])
def test_leaves_that_are_no_subtree_have_no_hash(tree: _Tree, start: int, end: int) -> None:
    with pytest.raises(ValueError, match="no subtree"):
        proof.range_hash(start, end, tree.node)


def test_a_root_of_a_size_below_zero_is_not_made(tree: _Tree) -> None:
    with pytest.raises(ValueError, match="no subtree"):
        proof.root_at(-1, tree.node)


def test_the_root_that_a_proof_leads_to_is_given(tree: _Tree) -> None:
    path = proof.inclusion_proof(700, 1025, tree.node)
    assert proof.root_from_inclusion(700, 1025, tree.leaves[700], path) == tree.roots[1025]


def test_an_inclusion_proof_that_is_too_short_is_refused(tree: _Tree) -> None:
    refused = _refuse_inclusion(tree, "too short", proof=proof.inclusion_proof(11, 21, tree.node)[:-1])
    assert refused.index == 11


def test_an_inclusion_proof_that_is_too_long_is_refused(tree: _Tree) -> None:
    _refuse_inclusion(tree, "too long", proof=[*proof.inclusion_proof(11, 21, tree.node), bytes(32)])
    _refuse_inclusion(tree, "it has 100000 hashes where 5 are needed", proof=[bytes(32)] * 100_000)


def test_an_inclusion_proof_to_another_root_is_refused_with_both_roots(tree: _Tree) -> None:
    refused = _refuse_inclusion(tree, "does not lead to the root of 21 leaves", root=tree.roots[20])
    assert refused.evidence == {"expected_root": tree.roots[20].hex(), "computed_root": tree.roots[21].hex()}
    assert tree.roots[20].hex() in str(refused)


def test_a_valid_proof_of_another_leaf_is_refused(tree: _Tree) -> None:
    _refuse_inclusion(tree, "does not lead to the root", leaf=tree.leaves[12])
    _refuse_inclusion(tree, "does not lead to the root", proof=proof.inclusion_proof(10, 21, tree.node))


@pytest.mark.parametrize(("index", "tree_size"), [(21, 21), (22, 21), (-1, 21), (11, 11), (11, 0), (0, -5)])
def test_an_index_out_of_range_is_refused(tree: _Tree, index: int, tree_size: int) -> None:
    _refuse_inclusion(tree, "out of range", index=index, tree_size=tree_size)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_an_inclusion_proof_of_hashes_of_another_length_is_refused(tree: _Tree, length: int) -> None:
    path = proof.inclusion_proof(11, 21, tree.node)
    _refuse_inclusion(
        tree, f"hash 2 of the inclusion proof has {length} bytes", proof=[*path[:2], bytes(length), *path[3:]]
    )
    _refuse_inclusion(tree, f"the leaf hash has {length} bytes", leaf=bytes(length))


def test_no_changed_inclusion_proof_passes(tree: _Tree) -> None:
    for size in (1, 2, 3, 7, 8, 9, 31, 100, 1025):
        for index in {0, size // 2, size - 1}:
            for bad in _mutations(proof.inclusion_proof(index, size, tree.node)):
                with pytest.raises(VerificationRefusedError):
                    proof.verify_inclusion(
                        index=index, tree_size=size, leaf=tree.leaves[index], root=tree.roots[size], proof=bad
                    )


def test_no_changed_consistency_proof_passes(tree: _Tree) -> None:
    for second in (1, 2, 3, 7, 8, 9, 31, 100, 1025):
        for first in {0, 1, second // 2, second - 1, second}:
            for bad in _mutations(proof.consistency_proof(first, second, tree.node)):
                with pytest.raises(VerificationRefusedError):
                    proof.verify_consistency(
                        first=first,
                        second=second,
                        first_root=tree.roots[first],
                        second_root=tree.roots[second],
                        proof=bad,
                    )


def test_a_consistency_proof_that_is_too_short_is_refused(tree: _Tree) -> None:
    _refuse_consistency(tree, "too short", proof=proof.consistency_proof(11, 21, tree.node)[:-1])
    _refuse_consistency(tree, "too short: it has 0 hashes", proof=[])


def test_a_consistency_proof_that_is_too_long_is_refused(tree: _Tree) -> None:
    _refuse_consistency(tree, "too long", proof=[*proof.consistency_proof(11, 21, tree.node), bytes(32)])


def test_a_consistency_proof_of_hashes_of_another_length_is_refused(tree: _Tree) -> None:
    path = proof.consistency_proof(11, 21, tree.node)
    _refuse_consistency(tree, "hash 0 of the consistency proof has 31 bytes", proof=[bytes(31), *path[1:]])


def test_a_consistency_proof_from_another_first_root_is_refused_with_both_roots(tree: _Tree) -> None:
    refused = _refuse_consistency(tree, "first root, of 11 leaves", first_root=tree.roots[10])
    assert refused.evidence == {"expected_root": tree.roots[10].hex(), "computed_root": tree.roots[11].hex()}


def test_a_consistency_proof_to_another_second_root_is_refused_with_both_roots(tree: _Tree) -> None:
    refused = _refuse_consistency(tree, "second root, of 21 leaves", second_root=tree.roots[20])
    assert refused.evidence == {"expected_root": tree.roots[20].hex(), "computed_root": tree.roots[21].hex()}


@pytest.mark.parametrize(("first", "second"), [(22, 21), (-1, 21), (11, 10), (-2, -1)])
def test_sizes_that_shrink_are_refused(tree: _Tree, first: int, second: int) -> None:
    _refuse_consistency(tree, "cannot have grown", first=first, second=second)


def test_two_roots_of_one_size_are_a_fork(tree: _Tree) -> None:
    refused = _refuse_consistency(tree, "two roots of 21 leaves", first=21, first_root=tree.roots[11], proof=[])
    assert refused.evidence == {"expected_root": tree.roots[11].hex(), "computed_root": tree.roots[21].hex()}


@pytest.mark.parametrize("first", [0, 21])
def test_a_proof_where_none_is_needed_is_refused(tree: _Tree, first: int) -> None:
    _refuse_consistency(tree, "too long", first=first, first_root=tree.roots[first], proof=[bytes(32)])


def test_a_first_root_of_nothing_that_is_not_the_empty_root_is_refused(tree: _Tree) -> None:
    refused = _refuse_consistency(tree, "empty tree", first=0, first_root=bytes(32), proof=[])
    assert refused.evidence == {"expected_root": bytes(32).hex(), "computed_root": EMPTY_ROOT.hex()}


def _published_node(height: int, index: int) -> bytes:
    entries = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in entries]
    return root_hash(leaves[index << height : (index + 1) << height])
