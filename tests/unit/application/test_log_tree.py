"""The tree of a log as it is stored: whatever was asked before, the answer is that of the leaves alone."""

from __future__ import annotations

import random

import pytest

from application.services.log_tree import LogTree
from domain.errors.witness import VerificationRefusedError
from domain.witness.merkle import root_hash
from domain.witness.proof import consistency_proof, inclusion_proof
from tests.unit.application.fake_witness_log import FakeWitnessLog

_LEAVES = 1_400


async def test_one_tree_answers_every_question_as_a_fresh_one_would() -> None:
    log = FakeWitnessLog.of(_LEAVES)
    leaves = [each.leaf_hash for each in log.stored]

    def node(height: int, index: int) -> bytes:
        return root_hash(leaves[index << height : (index + 1) << height])

    chance = random.Random(5)
    tree = LogTree(log)
    for _ in range(60):
        size = chance.randrange(1, _LEAVES + 1)
        index = chance.randrange(size)
        assert await tree.leaf_hash(index) == leaves[index]
        assert await tree.root_at(size) == root_hash(leaves[:size])
        assert await tree.inclusion_proofs([index], size) == [inclusion_proof(index, size, node)]
        assert await tree.consistency_proof(index, size) == consistency_proof(index, size, node)
        assert await tree.head_beside_inclusion(index, size) == log.head_row
        assert await tree.head_beside_consistency(index, size) == log.head_row


async def test_what_was_read_is_not_read_again() -> None:
    log = FakeWitnessLog.of(_LEAVES)
    tree = LogTree(log)
    await tree.head_beside_inclusion(3, 1_000)
    log.reads = 0
    await tree.inclusion_proofs([3], 1_000)
    await tree.root_at(1_000)
    await tree.leaf_hash(3)
    assert log.reads == 0


async def test_the_head_is_told_of_a_tree_that_is_larger_than_the_log() -> None:
    log = FakeWitnessLog.of(5)
    tree = LogTree(log)
    assert await tree.head_beside_inclusion(4, 9) == log.head_row
    with pytest.raises(VerificationRefusedError, match="there are 5"):
        await tree.root_at(9)


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0)])
async def test_a_leaf_outside_its_tree_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="is not in a tree"):
        await LogTree(FakeWitnessLog.of(5)).head_beside_inclusion(index, size)
