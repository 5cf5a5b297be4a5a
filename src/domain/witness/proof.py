"""Proofs that an entry is its leaf and in the log, and that a log was only ever added to (RFC 9162 sections 2.1.1 to 2.1.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from domain.errors.witness import VerificationRefusedError
from domain.witness.merkle import EMPTY_ROOT, leaf_hash, node_hash

__all__ = [
    "NodeSource",
    "consistency_nodes",
    "consistency_proof",
    "inclusion_nodes",
    "inclusion_proof",
    "range_hash",
    "root_at",
    "root_from_inclusion",
    "verify_consistency",
    "verify_inclusion",
    "verify_leaf",
]

NodeSource = Callable[[int, int], bytes]
"""node(height, index): the hash of the perfect subtree of 2**height leaves that begins at leaf index << height."""

_HASH_SIZE = 32


def inclusion_nodes(index: int, tree_size: int) -> list[tuple[int, int]]:
    """The ranges [start, end) of leaves whose hashes are the inclusion proof, from the leaf to the root.

    Raises ValueError unless 0 <= index < tree_size.
    """
    if not 0 <= index < tree_size:
        raise ValueError(f"leaf {index!r} is not in a tree of {tree_size!r} leaves; ask for one from 0 to its size - 1")
    start, end = 0, tree_size
    siblings = []
    while end - start > 1:
        middle = start + _left_width(end - start)
        if index < middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((start, middle))
            start = middle
    siblings.reverse()
    return siblings


def consistency_nodes(first: int, second: int) -> list[tuple[int, int]]:
    """The ranges [start, end) of leaves whose hashes are the consistency proof between two sizes of one tree.

    None at all where the sizes are equal or the first is 0. Raises ValueError unless 0 <= first <= second.
    """
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {second!r} leaves has not grown from {first!r}; give the smaller size first")
    if first == 0:
        return []
    start, end = 0, second
    siblings = []
    while end != first:
        middle = start + _left_width(end - start)
        if first <= middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((start, middle))
            start = middle
    if start > 0:
        siblings.append((start, end))
    siblings.reverse()
    return siblings


def range_hash(start: int, end: int, node: NodeSource) -> bytes:
    """The Merkle tree hash of the leaves [start, end), for any range that occurs in a proof.

    A range at the right edge is folded from its perfect subtrees. Raises ValueError where the range can be no
    subtree: it ends before it starts, or its start is not a multiple of the power of two that holds it.
    """
    width = end - start
    if start < 0 or width < 0 or (width > 0 and start % (1 << (width - 1).bit_length())):
        raise ValueError(f"the leaves [{start!r}, {end!r}) are no subtree; take a range that a proof names")
    if width == 0:
        return EMPTY_ROOT
    subtrees = []
    while start < end:
        height = (end - start).bit_length() - 1
        subtrees.append(node(height, start >> height))
        start += 1 << height
    folded = subtrees.pop()
    while subtrees:
        folded = node_hash(subtrees.pop(), folded)
    return folded


def inclusion_proof(index: int, tree_size: int, node: NodeSource) -> list[bytes]:
    """The hashes (32 bytes each) that lead from leaf `index` to the root of the tree of `tree_size` leaves.

    RFC 9162 section 2.1.3.1. Raises ValueError unless 0 <= index < tree_size.
    """
    return [range_hash(start, end, node) for start, end in inclusion_nodes(index, tree_size)]


def consistency_proof(first: int, second: int, node: NodeSource) -> list[bytes]:
    """The hashes (32 bytes each) that show the tree of `first` leaves to be the start of the tree of `second`.

    RFC 9162 section 2.1.4.1; empty where the sizes are equal or the first is 0. Raises ValueError unless
    0 <= first <= second.
    """
    return [range_hash(start, end, node) for start, end in consistency_nodes(first, second)]


def root_at(tree_size: int, node: NodeSource) -> bytes:
    """The root of the tree of the first `tree_size` leaves. Raises ValueError where the size is below 0."""
    return range_hash(0, tree_size, node)


def root_from_inclusion(index: int, tree_size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that the proof leads to from the 32-byte hash of leaf `index` (RFC 9162 section 2.1.3.2).

    Raises VerificationRefusedError where the index is out of range or the proof has not exactly the hashes it needs.
    """
    if not 0 <= index < tree_size:
        raise VerificationRefusedError(
            f"index {index!r} is out of range of a tree of {tree_size!r} leaves", index=index
        )
    inner, border = _path_widths(index, tree_size)
    _refuse_misshapen("inclusion proof", proof, inner + border, index=index)
    if len(leaf) != _HASH_SIZE:
        raise VerificationRefusedError(
            f"the leaf hash has {len(leaf)} bytes where {_HASH_SIZE} are needed", index=index
        )
    return _fold_left(_fold_inner(leaf, proof[:inner], index), proof[inner:])


def verify_leaf(*, index: int, entry: bytes, stored_leaf: bytes) -> None:
    """Returns if the entry hashes to the leaf hash (32 bytes) that is stored beside it. Raises VerificationRefusedError if not."""
    computed = leaf_hash(entry)
    if computed != stored_leaf:
        raise VerificationRefusedError(
            "the entry does not hash to its stored leaf",
            index=index,
            evidence={"stored_leaf": stored_leaf.hex(), "computed_leaf": computed.hex()},
        )


def verify_inclusion(*, index: int, tree_size: int, leaf: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Returns if the leaf hash stands at `index` in the tree with this root.

    Raises VerificationRefusedError if not, with both roots in hex where it is the root that differs.
    """
    computed = root_from_inclusion(index, tree_size, leaf, proof)
    _refuse_other_root(f"the inclusion proof does not lead to the root of {tree_size!r} leaves", root, computed, index)


def verify_consistency(
    *, first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Returns if the tree of `first` leaves is the start of the tree of `second` (RFC 9162 section 2.1.4.2).

    Every tree begins with the empty one, so from size 0 only the empty root and an empty proof are asked for.
    Raises VerificationRefusedError if it is not, with both roots in hex where it is a root that differs.
    """
    if not 0 <= first <= second:
        raise VerificationRefusedError(f"a tree of {second!r} leaves cannot have grown from one of {first!r}")
    if first in (0, second):
        _refuse_misshapen("consistency proof", proof, 0)
        if first == 0:
            _refuse_other_root("the root of the empty tree differs", first_root, EMPTY_ROOT)
        if first == second:
            _refuse_other_root(f"there are two roots of {second!r} leaves", first_root, second_root)
        return

    # The last leaf of the first tree stands in its smallest perfect subtree: both roots are folded from that one.
    skipped = (first & -first).bit_length() - 1
    inner, border = _path_widths(first - 1, second)
    inner -= skipped
    whole = first == 1 << skipped
    _refuse_misshapen("consistency proof", proof, inner + border + (0 if whole else 1))
    seed, path = (first_root, proof) if whole else (proof[0], proof[1:])
    turns = (first - 1) >> skipped
    left_of_edge = [each for height, each in enumerate(path[:inner]) if turns >> height & 1]
    old = _fold_left(_fold_left(seed, left_of_edge), path[inner:])
    new = _fold_left(_fold_inner(seed, path[:inner], turns), path[inner:])
    _refuse_other_root(f"the consistency proof does not lead to the first root, of {first!r} leaves", first_root, old)
    _refuse_other_root(
        f"the consistency proof does not lead to the second root, of {second!r} leaves", second_root, new
    )


def _left_width(width: int) -> int:
    """The largest power of two below `width`, which is 2 or more: how many leaves its left subtree has."""
    return 1 << (width - 1).bit_length() - 1


def _path_widths(index: int, tree_size: int) -> tuple[int, int]:
    """How many hashes of an inclusion path lie below and above the place where it joins the tree's right edge."""
    inner = (index ^ (tree_size - 1)).bit_length()
    return inner, (index >> inner).bit_count()


def _fold_inner(node: bytes, path: Sequence[bytes], turns: int) -> bytes:
    """Climbs `path`; bit h of `turns` says whether the node at height h is a right child."""
    for height, sibling in enumerate(path):
        node = node_hash(sibling, node) if turns >> height & 1 else node_hash(node, sibling)
    return node


def _fold_left(node: bytes, path: Sequence[bytes]) -> bytes:
    """Climbs `path` where every sibling is on the left."""
    for sibling in path:
        node = node_hash(sibling, node)
    return node


def _refuse_misshapen(name: str, proof: Sequence[bytes], needed: int, *, index: int | None = None) -> None:
    if len(proof) != needed:
        fault = "too long" if len(proof) > needed else "too short"
        raise VerificationRefusedError(
            f"the {name} is {fault}: it has {len(proof)} hashes where {needed} are needed", index=index
        )
    for place, each in enumerate(proof):
        if len(each) != _HASH_SIZE:
            raise VerificationRefusedError(
                f"hash {place} of the {name} has {len(each)} bytes where {_HASH_SIZE} are needed", index=index
            )


def _refuse_other_root(what: str, expected: bytes, computed: bytes, index: int | None = None) -> None:
    if expected != computed:
        evidence = {"expected_root": expected.hex(), "computed_root": computed.hex()}
        raise VerificationRefusedError(what, index=index, evidence=evidence)
