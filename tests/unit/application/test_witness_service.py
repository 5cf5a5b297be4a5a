"""The witness service: what it signs, what it proves, and what makes it stop."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from application.ports.anchor import AnchorConflictError
from application.ports.witness_log import Disclosure, Head
from application.services.witness_service import WitnessService
from domain.errors.deliberation import DeliberationNotFoundError, InvalidSpecificationError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import LogUnverifiedError, VerificationRefusedError, WitnessError
from domain.witness.checkpoint import open_checkpoint
from domain.witness.entry import commitment
from domain.witness.merkle import leaf_hash, root_hash
from domain.witness.proof import verify_consistency, verify_inclusion
from domain.witness.tile import Tile, read_entry_bundle
from infrastructure.witness.ed25519 import verify_signature
from tests.unit.application.fake_witness_log import FakeWitnessLog, StillClock, Tools, key, signer, size_of


class FakeAnchor:
    """Keeps checkpoints in memory, compares nothing, and is away when a test says so."""

    def __init__(self, name: str = "far", note: str | None = None) -> None:
        self.name = name
        self.note = note
        self.away: Exception | None = None
        self.published: list[tuple[int, int]] = []
        self.proofs: list[Sequence[bytes]] = []

    async def publish(self, note: str, *, old_size: int, consistency: Sequence[bytes]) -> None:
        if self.away is not None:
            raise self.away
        self.published.append((old_size, size_of(note)))
        self.proofs.append(consistency)
        self.note = note

    async def latest(self) -> str | None:
        if self.away is not None:
            raise self.away
        return self.note


class StrictAnchor(FakeAnchor):
    """Refuses a checkpoint from any size but the one that it holds, and never tells which it holds."""

    async def publish(self, note: str, *, old_size: int, consistency: Sequence[bytes]) -> None:
        held = 0 if self.note is None else size_of(self.note)
        if held != old_size:
            raise AnchorConflictError(anchor=self.name, conflict_size=held, expected_size=old_size)
        await super().publish(note, old_size=old_size, consistency=consistency)

    async def latest(self) -> str | None:
        return None


class RestartableFakeAnchor(FakeAnchor):
    """Takes a smaller checkpoint only where it is told to begin anew."""

    async def publish(self, note: str, *, old_size: int, consistency: Sequence[bytes]) -> None:
        if self.note is not None and size_of(self.note) > size_of(note):
            raise AnchorConflictError(anchor=self.name, conflict_size=size_of(self.note), expected_size=old_size)
        await super().publish(note, old_size=old_size, consistency=consistency)

    async def restart(self, note: str) -> None:
        self.note = note


def service(log: FakeWitnessLog, *anchors: FakeAnchor, seed: int = 1) -> WitnessService:
    return WitnessService(log=log, signer=signer(seed), tools=Tools(), anchors=anchors, clock=StillClock())


def note_of(log: FakeWitnessLog, seed: int = 1) -> str:
    return signer(seed).sign(log.head_row.tree_size, log.head_row.root_hash)


def tampered(log: FakeWitnessLog, index: int) -> None:
    log.stored[index] = replace(log.stored[index], entry=b'{"n":"other"}')


async def problem_of(log: FakeWitnessLog, *anchors: FakeAnchor, seed: int = 1) -> LogUnverifiedError | None:
    witness = service(log, *anchors, seed=seed)
    await witness.check_at_start()
    return witness.problem


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 700, 65_536 + 300])
async def test_a_checkpoint_is_signed_over_the_present_head_and_stored(size: int) -> None:
    log = FakeWitnessLog.of(size)
    note = await service(log).checkpoint()
    checkpoint, _ = open_checkpoint(note, key(), verify_signature)
    assert Head(checkpoint.tree_size, checkpoint.root_hash) == log.head_row
    assert log.notes == {size: note}


async def test_the_size_that_metrics_show_is_that_of_the_log_from_the_start_on_whoever_writes() -> None:
    log = FakeWitnessLog.of(300)
    witness = service(log)
    assert witness.tree_size == 0
    await witness.check_at_start()
    assert witness.tree_size == 300
    log.add([b"{}"] * 5)
    await witness.checkpoint()
    assert witness.tree_size == 305


async def test_a_head_that_did_not_move_is_signed_once() -> None:
    log = FakeWitnessLog.of(3)
    witness = service(log)
    assert await witness.checkpoint() == await witness.checkpoint() == await service(log).checkpoint()
    assert list(log.notes) == [3]


async def test_a_log_that_grows_is_signed_again_by_whichever_process_comes_first() -> None:
    log = FakeWitnessLog.of(300)
    one, other = service(log), service(log)
    await one.checkpoint()
    log.add([b"{}"] * 300)
    await other.checkpoint()
    log.add([b"{}"])
    assert size_of(await one.checkpoint()) == 601
    assert sorted(log.notes) == [300, 600, 601]


async def test_a_sound_log_has_no_problem() -> None:
    log = FakeWitnessLog.of(700)
    anchor = FakeAnchor(note=note_of(log.rebuilt(500)))
    await service(log).checkpoint()
    assert await problem_of(log, anchor) is None


@pytest.mark.parametrize("size", [0, 1, 40, 256, 511])
async def test_a_log_smaller_than_its_stored_checkpoint_was_rolled_back(size: int) -> None:
    log = FakeWitnessLog.of(512)
    await service(log).checkpoint()
    shorter = log.rebuilt(size)
    shorter.notes = log.notes
    problem = await problem_of(shorter)
    assert problem is not None
    assert "rolled back" in problem.problem
    assert problem.evidence["signed_size"] == "512"
    assert problem.evidence["log_size"] == str(size)
    assert problem.evidence["signed_root"] == log.head_row.root_hash.hex()
    assert problem.evidence["log_root"] == shorter.head_row.root_hash.hex()


async def test_a_restored_backup_is_found_by_an_anchor() -> None:
    log = FakeWitnessLog.of(512)
    problem = await problem_of(log.rebuilt(300), FakeAnchor("far away", note_of(log)))
    assert problem is not None
    assert "'far away' has 512 entries, the log 300" in problem.problem
    assert "accept-restore" in problem.remedy


async def test_a_rollback_below_a_running_process_is_found_by_it() -> None:
    log = FakeWitnessLog.of(512)
    witness = service(log)
    await witness.checkpoint()
    backup = log.rebuilt(100)
    log.stored, log.stored_nodes, log.head_row, log.notes = backup.stored, backup.stored_nodes, backup.head_row, {}
    with pytest.raises(LogUnverifiedError, match="rolled back"):
        await witness.checkpoint()
    assert witness.problem is not None
    assert log.notes == {}


async def test_a_fork_is_found_and_both_roots_are_named() -> None:
    log, other = FakeWitnessLog.of(600), FakeWitnessLog.of(600, salt="other")
    problem = await problem_of(other, FakeAnchor(note=note_of(log.rebuilt(400))))
    assert problem is not None
    assert "forked" in problem.problem
    assert problem.evidence["signed_root"] == log.rebuilt(400).head_row.root_hash.hex()
    assert problem.evidence["stored_root"] == other.rebuilt(400).head_row.root_hash.hex()


async def test_nothing_is_signed_over_a_fork() -> None:
    log, other = FakeWitnessLog.of(600), FakeWitnessLog.of(700, salt="other")
    other.notes = {600: note_of(log)}
    witness = service(other)
    with pytest.raises(LogUnverifiedError, match="forked"):
        await witness.checkpoint()
    with pytest.raises(LogUnverifiedError, match="forked"):
        await witness.checkpoint()
    assert list(other.notes) == [600]


async def test_a_head_row_that_is_not_the_root_of_the_nodes_is_not_signed() -> None:
    log = FakeWitnessLog.of(600)
    log.head_row = Head(600, root_hash([b"x" * 32]))
    with pytest.raises(LogUnverifiedError, match="the head of 600 entries is not the root of the stored nodes"):
        await service(log).checkpoint()
    assert log.notes == {}


async def test_a_tampered_node_is_found_at_the_start() -> None:
    log = FakeWitnessLog.of(600)
    log.stored_nodes[1][1] = b"x" * 32
    problem = await problem_of(log)
    assert problem is not None
    assert "not the root of the stored nodes" in problem.problem
    assert "fsck" in problem.remedy


async def test_a_missing_node_is_found_at_the_start() -> None:
    log = FakeWitnessLog.of(600)
    del log.stored_nodes[1][1]
    problem = await problem_of(log)
    assert problem is not None
    assert "tile level 1 there are 1" in problem.problem


async def test_a_tampered_entry_at_the_edge_is_found_at_the_start_by_its_index() -> None:
    log = FakeWitnessLog.of(600)
    tampered(log, 598)
    problem = await problem_of(log)
    assert problem is not None
    assert "entry 598: the entry does not hash to its stored leaf" in problem.problem


async def test_a_gap_at_the_edge_is_found_at_the_start_by_its_index() -> None:
    log = FakeWitnessLog.of(600)
    del log.stored[597]
    problem = await problem_of(log)
    assert problem is not None
    assert "entry 597: the entry is missing" in problem.problem


async def test_an_entry_after_the_head_is_found_at_the_start() -> None:
    log = FakeWitnessLog.of(600)
    log.stored.append(replace(log.stored[-1], index=600))
    problem = await problem_of(log)
    assert problem is not None
    assert "entry 600: an entry stands after the head" in problem.problem


async def test_a_stored_checkpoint_by_another_key_is_a_problem() -> None:
    log = FakeWitnessLog.of(5)
    log.notes[5] = note_of(log, seed=2)
    problem = await problem_of(log)
    assert problem is not None
    assert "no signature by 'example.com/conclave'" in problem.problem


async def test_checkpoints_of_a_retired_key_are_still_good() -> None:
    log = FakeWitnessLog.of(5)
    await service(log, seed=2).checkpoint()
    log.add([b"{}"])
    witness = WitnessService(log=log, signer=signer(), tools=Tools(), retired_keys=[key(2)])
    await witness.check_at_start()
    assert witness.problem is None
    assert size_of(await witness.checkpoint()) == 6


async def test_a_restore_that_is_accepted_clears_the_problem_and_keeps_both_heads() -> None:
    log = FakeWitnessLog.of(512)
    backup = log.rebuilt(300)
    kept = backup.head_row
    anchor = FakeAnchor(note=note_of(log))
    witness = service(backup, anchor)
    await witness.check_at_start()
    accepted = await witness.accept_restore(reason="the disk died", key_name="ops")
    assert witness.problem is None
    document = json.loads(accepted.entry)
    assert accepted.index == 300
    assert document["type"] == "restore.accepted"
    assert document["lost"] == {"tree_size": 512, "root_hash": log.head_row.root_hash.hex()}
    assert document["kept"] == {"tree_size": 300, "root_hash": kept.root_hash.hex()}
    assert set(document["reason"]) == {"sha256"}
    assert "disk" not in accepted.entry.decode()
    assert [each.text for each in backup.system_texts] == ["the disk died", "ops"]
    assert document["reason"] == commitment(bytes.fromhex(backup.system_texts[0].salt), "the disk died")
    assert await problem_of(backup, anchor) is None


async def test_an_accepted_restore_stays_accepted_when_the_log_has_outgrown_what_was_lost() -> None:
    log = FakeWitnessLog.of(512)
    backup = log.rebuilt(300)
    anchor = FakeAnchor(note=note_of(log))
    await service(backup, anchor).accept_restore(reason="the disk died", key_name=None)
    backup.add([b"{}"] * 500)
    assert await problem_of(backup, anchor) is None


async def test_an_accepted_restore_excuses_no_other_loss() -> None:
    log = FakeWitnessLog.of(512)
    backup = log.rebuilt(300)
    await service(backup, FakeAnchor(note=note_of(log))).accept_restore(reason="the disk died", key_name=None)
    log.add([b"{}"])
    assert await problem_of(backup, FakeAnchor(note=note_of(log))) is not None


async def test_several_lost_heads_are_accepted_at_once() -> None:
    log, fork = FakeWitnessLog.of(512), FakeWitnessLog.of(200, salt="fork")
    backup = log.rebuilt(300)
    anchors = FakeAnchor("a", note_of(log)), FakeAnchor("b", note_of(log.rebuilt(400))), FakeAnchor("c", note_of(fork))
    await service(backup, *anchors).accept_restore(reason="the disk died", key_name=None)
    lost = [json.loads(each.entry)["lost"]["tree_size"] for each in backup.stored[300:]]
    assert lost == [512, 200]
    assert await problem_of(backup, *anchors) is None


async def test_after_an_accepted_restore_checkpoints_are_signed_beside_the_lost_ones() -> None:
    log = FakeWitnessLog.of(512)
    for size in (100, 310, 512):
        log.notes[size] = note_of(log.rebuilt(size))
    backup = log.rebuilt(300)
    backup.notes = dict(log.notes)
    witness = service(backup)
    await witness.accept_restore(reason="the disk died", key_name=None)
    assert size_of(await witness.checkpoint()) == 301
    for _ in range(9):
        backup.add([b"{}"])
        note = await service(backup).checkpoint()
    checkpoint, _ = open_checkpoint(note, key(), verify_signature)
    assert Head(checkpoint.tree_size, checkpoint.root_hash) == backup.head_row
    assert checkpoint.tree_size == 310


async def test_after_an_accepted_restore_a_new_process_goes_on_from_the_new_checkpoints() -> None:
    log = FakeWitnessLog.of(512)
    backup = log.rebuilt(300)
    backup.notes = {512: note_of(log)}
    witness = service(backup)
    await witness.accept_restore(reason="the disk died", key_name=None)
    signed = await witness.checkpoint()
    assert await service(backup).checkpoint() == signed
    assert sorted(backup.notes) == [301, 512]


async def test_there_is_nothing_to_accept_while_the_log_is_well() -> None:
    log = FakeWitnessLog.of(5)
    with pytest.raises(WitnessError, match="no restore to accept"):
        await service(log).accept_restore(reason="why not", key_name=None)
    assert len(log.stored) == 5


async def test_damage_cannot_be_accepted() -> None:
    log = FakeWitnessLog.of(600)
    tampered(log, 599)
    with pytest.raises(LogUnverifiedError, match="entry 599"):
        await service(log, FakeAnchor(note=note_of(FakeWitnessLog.of(700)))).accept_restore(reason="no", key_name=None)
    assert len(log.stored) == 600


async def test_a_restore_accepted_by_another_process_is_seen_by_this_one() -> None:
    log = FakeWitnessLog.of(512)
    backup = log.rebuilt(300)
    anchor = FakeAnchor(note=note_of(log))
    running = service(backup, anchor)
    await running.check_at_start()
    await service(backup, anchor).accept_restore(reason="the disk died", key_name=None)
    await running.check_at_start()
    assert size_of(await running.checkpoint()) == 301


async def test_an_anchor_is_given_the_proof_from_what_it_holds() -> None:
    log = FakeWitnessLog.of(300)
    anchor = FakeAnchor(note=note_of(log))
    first = log.head_row
    log.add([b"{}"] * 400)
    witness = service(log, anchor)
    await witness.publish()
    await witness.publish()
    assert anchor.published == [(300, 700)]
    verify_consistency(
        first=300,
        second=700,
        first_root=first.root_hash,
        second_root=log.head_row.root_hash,
        proof=anchor.proofs[0],
    )


async def test_an_anchor_that_holds_another_size_than_thought_is_given_the_proof_from_there() -> None:
    log = FakeWitnessLog.of(300)
    anchor = StrictAnchor(note=note_of(log.rebuilt(200)))
    witness = service(log, anchor)
    await witness.publish()
    assert anchor.published == [(200, 300)]
    assert witness.anchor_problems == {}


async def test_an_anchor_that_holds_more_than_the_log_is_shown() -> None:
    log = FakeWitnessLog.of(300)
    anchor = StrictAnchor("far", note_of(log))
    witness = service(log.rebuilt(200), anchor)
    await witness.publish()
    assert "it holds a checkpoint of 300 entries" in witness.anchor_problems["far"]


@pytest.mark.parametrize(
    "failure",
    [
        DependencyUnavailableError(dependency="the anchor 'dead'", problem="it is away"),
        VerificationRefusedError("it holds another root"),
        RuntimeError("whatever"),
    ],
)
async def test_an_anchor_that_fails_is_shown_and_stops_nothing(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    log = FakeWitnessLog.of(3)
    dead, alive = FakeAnchor("dead"), FakeAnchor("alive")
    dead.away = failure
    witness = service(log, dead, alive)
    with caplog.at_level(logging.WARNING):
        await witness.publish()
    assert witness.anchor_problems == {"dead": str(failure)}
    assert "dead" in caplog.text
    assert alive.published == [(0, 3)]
    assert witness.problem is None
    dead.away = None
    await witness.publish()
    assert witness.anchor_problems == {}
    assert dead.published == [(0, 3)]


async def test_an_anchor_that_hangs_is_given_up_on() -> None:
    class HangingAnchor(FakeAnchor):
        async def publish(self, note: str, *, old_size: int, consistency: Sequence[bytes]) -> None:
            await asyncio.Event().wait()

        async def latest(self) -> str | None:
            await asyncio.Event().wait()
            return None

    hanging, alive = HangingAnchor("hanging"), FakeAnchor("alive")
    witness = service(FakeWitnessLog.of(3), hanging, alive)
    await witness.publish()
    assert witness.anchor_problems == {"hanging": "it did not answer within 20 s"}
    assert alive.published == [(0, 3)]


async def test_an_anchor_with_a_note_that_is_not_ours_is_shown_and_stops_nothing() -> None:
    log = FakeWitnessLog.of(3)
    witness = service(log, FakeAnchor("odd", note_of(FakeWitnessLog.of(9), seed=2)))
    await witness.check_at_start()
    assert witness.problem is None
    assert "no signature" in witness.anchor_problems["odd"]


async def test_an_anchor_begins_anew_after_an_accepted_restore() -> None:
    log = FakeWitnessLog.of(512)
    backup = log.rebuilt(300)
    anchor = RestartableFakeAnchor(note=note_of(log))
    witness = service(backup, anchor)
    await witness.accept_restore(reason="the disk died", key_name=None)
    await witness.publish()
    assert anchor.note is not None
    assert size_of(anchor.note) == 301
    assert witness.anchor_problems == {}


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


def log_with_a_deliberation() -> FakeWitnessLog:
    log = FakeWitnessLog.of(300)
    salt = b"s" * 16
    question: Any = commitment(salt, "Why?")
    log.add_documents(
        {"type": "deliberation.accepted", "deliberation_id": "d-1", "question": question},
        {"type": "halt.set"},
        {"type": "deliberation.ended", "deliberation_id": "d-1", "status": "failed", "outcome": None},
    )
    log.texts["d-1"] = [Disclosure(question["sha256"], salt.hex(), "Why?")]
    return log


async def test_a_bundle_proves_every_entry_of_its_deliberation() -> None:
    log = log_with_a_deliberation()
    bundle = await service(log).bundle("d-1")
    checkpoint, _ = open_checkpoint(bundle["checkpoint"], key(), verify_signature)
    assert bundle["public_key"] == str(key())
    assert [each["index"] for each in bundle["entries"]] == [300, 302]
    for each in bundle["entries"]:
        verify_inclusion(
            index=each["index"],
            tree_size=checkpoint.tree_size,
            leaf=leaf_hash(each["entry"].encode()),
            root=checkpoint.root_hash,
            proof=[bytes.fromhex(step) for step in each["inclusion_proof"]],
        )
    assert bundle["disclosures"][0]["text"] == "Why?"
    json.dumps(bundle)


async def test_an_unknown_deliberation_has_no_bundle() -> None:
    with pytest.raises(DeliberationNotFoundError):
        await service(log_with_a_deliberation()).bundle("d-2")


async def test_nothing_is_made_of_a_tampered_text() -> None:
    log = log_with_a_deliberation()
    log.texts["d-1"] = [replace(log.texts["d-1"][0], text="Why not?")]
    with pytest.raises(LogUnverifiedError, match="does not hash to a commitment"):
        await service(log).bundle("d-1")
    with pytest.raises(LogUnverifiedError, match="does not hash to a commitment"):
        await service(log).minutes("d-1")


async def test_nothing_is_made_of_a_text_that_no_entry_commits_to() -> None:
    log = log_with_a_deliberation()
    foreign: Any = commitment(b"t" * 16, "Why not?")
    log.texts["d-1"].append(Disclosure(foreign["sha256"], (b"t" * 16).hex(), "Why not?"))
    with pytest.raises(LogUnverifiedError, match="does not hash to a commitment"):
        await service(log).bundle("d-1")
    with pytest.raises(LogUnverifiedError, match="does not hash to a commitment"):
        _ = [line async for line in service(log).export(with_texts=True)]


async def test_a_bundle_is_not_made_of_an_entry_that_is_not_in_the_signed_tree() -> None:
    log = log_with_a_deliberation()
    witness = service(log)
    await witness.checkpoint()
    other = log.stored[300].entry.replace(b"accepted", b"ACCEPTED")
    log.stored[300] = replace(log.stored[300], entry=other, leaf_hash=leaf_hash(other))
    with pytest.raises(LogUnverifiedError):
        await witness.bundle("d-1")


async def test_an_export_has_a_header_every_entry_and_the_texts_if_wanted() -> None:
    log = log_with_a_deliberation()
    witness = service(log)
    lines = [json.loads(line) async for line in witness.export(with_texts=True)]
    assert {name: lines[0][name] for name in ("version", "kind", "tree_size")} == {
        "version": 1,
        "kind": "log",
        "tree_size": 303,
    }
    assert [each["index"] for each in lines[1:304]] == list(range(303))
    assert [each["entry"].encode() for each in lines[1:304]] == [each.entry for each in log.stored]
    assert [each["disclosure"]["text"] for each in lines[304:]] == ["Why?"]
    assert len([line async for line in witness.export()]) == 304


async def test_an_export_ends_at_the_first_tampered_entry() -> None:
    log = FakeWitnessLog.of(600)
    tampered(log, 7)
    with pytest.raises(LogUnverifiedError, match="entry 7"):
        _ = [line async for line in service(log).export()]


async def test_an_erasure_is_witnessed_and_its_reason_is_a_text_beside_it() -> None:
    log = log_with_a_deliberation()
    witness = service(log)
    erased = await witness.erase("d-1", reason="a request by Jane", key_name="ops")
    document = json.loads(erased.entry)
    assert document["type"] == "erased"
    assert document["deliberation_id"] == "d-1"
    assert b"Jane" not in erased.entry
    disclosed = (await witness.bundle("d-1"))["disclosures"]
    assert [each["text"] for each in disclosed] == ["a request by Jane", "ops"]
    minutes = await witness.minutes("d-1")
    assert "texts erased, entry 303, reason: a request by Jane" in minutes
    assert "> Why?" not in minutes


async def test_nothing_is_added_to_a_log_with_a_problem() -> None:
    log = log_with_a_deliberation()
    tampered(log, 301)
    witness = service(log)
    await witness.check_at_start()
    with pytest.raises(LogUnverifiedError):
        await witness.erase("d-1", reason="no", key_name=None)
    with pytest.raises(LogUnverifiedError):
        await witness.checkpoint()
    assert len(log.stored) == 303


async def test_publishing_goes_on_over_failures_until_it_is_cancelled() -> None:
    class ShakyLog(FakeWitnessLog):
        away = False

        async def head(self) -> Head:
            if self.away:
                raise DependencyUnavailableError(dependency="the database", problem="it is away")
            return await super().head()

    log, anchor = ShakyLog(), FakeAnchor()
    witness = WitnessService(log=log, signer=signer(), tools=Tools(), anchors=[anchor])
    publishing = asyncio.create_task(witness.publish_for_ever())
    log.add([b"{}"] * 3)
    await asyncio.sleep(0.5)
    log.away = True
    log.add([b"{}"] * 3)
    await asyncio.sleep(5)
    log.away = False
    await asyncio.sleep(1)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert anchor.published == [(0, 3), (3, 6)]


async def test_a_log_with_a_problem_is_looked_at_again_while_publishing() -> None:
    log = FakeWitnessLog.of(600)
    sound = log.stored[599]
    tampered(log, 599)
    witness = WitnessService(log=log, signer=signer(), tools=Tools())
    publishing = asyncio.create_task(witness.publish_for_ever())
    await asyncio.sleep(5)
    assert witness.problem is not None
    assert log.notes == {}
    log.stored[599] = sound
    await asyncio.sleep(20)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert list(log.notes) == [600]
