"""Entries, proofs and tiles are given only while they lead to the root that is signed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from application.ports.witness_log import Head
from domain.errors.deliberation import InvalidSpecificationError
from domain.errors.witness import LogUnverifiedError
from domain.witness.proof import verify_consistency, verify_inclusion
from domain.witness.tile import Tile, read_entry_bundle
from tests.unit.application.anchored_witness import service, tampered
from tests.unit.application.fake_witness_log import FakeWitnessLog


async def test_entries_are_shown_only_while_they_match_their_leaf() -> None:
    log = FakeWitnessLog.of(5)
    assert (await service(log).entry(4)) == log.stored[4]
    tampered(log, 4)
    with pytest.raises(LogUnverifiedError, match="entry 4"):
        await service(log).entry(4)


@pytest.mark.parametrize("index", [-1, 5, 2**70])
async def test_an_entry_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(InvalidSpecificationError) as caught:
        await service(FakeWitnessLog.of(5)).entry(index)
    assert caught.value.problems[0].pointer == "/index"


@pytest.mark.parametrize(
    ("index", "tree_size", "pointer"),
    [(-1, 5, "/index"), (5, 5, "/index"), (0, 6, "/tree_size"), (0, 0, "/tree_size"), (0, -1, "/tree_size")],
)
async def test_an_inclusion_proof_out_of_range_is_refused(index: int, tree_size: int, pointer: str) -> None:
    with pytest.raises(InvalidSpecificationError) as caught:
        await service(FakeWitnessLog.of(5)).inclusion(index=index, tree_size=tree_size)
    assert caught.value.problems[0].pointer == pointer


@pytest.mark.parametrize(("first", "second", "pointer"), [(-1, 5, "/first"), (4, 3, "/first"), (0, 6, "/second")])
async def test_a_consistency_proof_out_of_range_is_refused(first: int, second: int, pointer: str) -> None:
    with pytest.raises(InvalidSpecificationError) as caught:
        await service(FakeWitnessLog.of(5)).consistency(first=first, second=second)
    assert caught.value.problems[0].pointer == pointer


async def test_proofs_of_every_size_and_place_verify() -> None:
    log = FakeWitnessLog.of(66_000)
    witness = service(log)
    for size in (1, 2, 255, 256, 257, 1_000, 65_537):
        root = log.root_of(size)
        for index in {0, size // 3, size - 1}:
            proof = await witness.inclusion(index=index, tree_size=size)
            assert (proof.root_hash, proof.leaf_hash) == (root, log.stored[index].leaf_hash)
            verify_inclusion(index=index, tree_size=size, leaf=proof.leaf_hash, root=root, proof=proof.hashes)
        for first in {0, size // 3, size - 1, size}:
            consistent = await witness.consistency(first=first, second=size)
            assert consistent.second_root == root
            verify_consistency(
                first=first,
                second=size,
                first_root=log.root_of(first),
                second_root=root,
                proof=consistent.hashes,
            )


class HeadCountingLog(FakeWitnessLog):
    """Counts how often its head is read, by itself or with ranges: once in every read of a proof."""

    heads = 0

    async def head(self) -> Head:
        self.heads += 1
        return await super().head()


@pytest.mark.parametrize("size", [70_000, 69_999, 65_536, 300, 1])
async def test_a_proof_from_seventy_thousand_entries_is_made_of_one_read(size: int) -> None:
    log = HeadCountingLog.of(70_000)
    witness = service(log)
    for index in {0, size // 2, size - 1}:
        log.heads, log.reads = 0, 0
        await witness.inclusion(index=index, tree_size=size)
        assert log.heads == 1
        assert log.reads <= 6
        log.heads = 0
        await witness.consistency(first=index, second=size)
        assert log.heads == 1


@pytest.mark.parametrize("place", [599, 520])
async def test_a_proof_to_another_root_than_the_head_s_is_not_given(place: int) -> None:
    log = FakeWitnessLog.of(600)
    log.stored[place] = replace(log.stored[place], leaf_hash=b"x" * 32)
    with pytest.raises(LogUnverifiedError, match="not the root of the stored nodes"):
        await service(log).inclusion(index=3, tree_size=600)
    with pytest.raises(LogUnverifiedError, match="not the root of the stored nodes"):
        await service(log).consistency(first=512, second=600)


async def test_a_changed_node_is_found_by_the_next_proof_that_it_is_part_of() -> None:
    log = FakeWitnessLog.of(70_000)
    witness = service(log)
    await witness.inclusion(index=3, tree_size=69_000)
    log.stored_nodes[1][1] = b"x" * 32
    with pytest.raises(LogUnverifiedError, match="does not lead to the root"):
        await witness.inclusion(index=3, tree_size=69_000)


@pytest.mark.parametrize("missing", [0, 300, 599])
async def test_a_proof_that_lacks_a_stored_hash_is_not_given(missing: int) -> None:
    log = FakeWitnessLog.of(600)
    witness = service(log)
    del log.stored[missing]
    with pytest.raises(LogUnverifiedError):
        await witness.inclusion(index=missing, tree_size=600)


async def test_a_proof_that_would_not_verify_is_not_given() -> None:
    log = FakeWitnessLog.of(600)
    log.stored[3] = replace(log.stored[3], leaf_hash=b"x" * 32)
    with pytest.raises(LogUnverifiedError):
        await service(log).inclusion(index=3, tree_size=600)


async def test_tiles_are_cut_from_the_present_tree() -> None:
    log = FakeWitnessLog.of(600)
    witness = service(log)
    assert await witness.tile(Tile(0, 1)) == b"".join(each.leaf_hash for each in log.stored[256:512])
    assert await witness.tile(Tile(0, 2, 88)) == b"".join(each.leaf_hash for each in log.stored[512:])
    assert await witness.tile(Tile(1, 0, 2)) == b"".join(log.stored_nodes[1])
    entries = await witness.tile(Tile(None, 2, 88))
    assert entries is not None
    assert read_entry_bundle(entries) == [each.entry for each in log.stored[512:]]
    for absent in (Tile(0, 2), Tile(0, 2, 89), Tile(1, 0, 3), Tile(2, 0, 1), Tile(None, 3)):
        assert await witness.tile(absent) is None


async def test_a_tile_with_a_tampered_entry_is_not_given() -> None:
    log = FakeWitnessLog.of(600)
    tampered(log, 300)
    with pytest.raises(LogUnverifiedError, match="entry 300"):
        await service(log).tile(Tile(None, 1))
