"""The witness service: what it signs, and what makes it stop."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from application.ports.witness_log import Head
from application.services.witness_service import WitnessService
from domain.errors.witness import LogUnverifiedError
from domain.witness.checkpoint import open_checkpoint
from domain.witness.merkle import root_hash
from infrastructure.witness.ed25519 import verify_signature
from tests.unit.application.anchored_witness import (
    FakeAnchor,
    log_with_a_deliberation,
    note_of,
    problem_of,
    service,
    tampered,
)
from tests.unit.application.fake_witness_log import FakeWitnessLog, Tools, key, signer, size_of
from tests.virtual_time import pass_time


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


async def test_the_signature_of_a_head_that_did_not_move_is_checked_once() -> None:
    log = log_with_a_deliberation()
    checked: list[bytes] = []

    def check(public_key: bytes, signature: bytes, signed: bytes) -> bool:
        checked.append(signed)
        return verify_signature(public_key, signature, signed)

    witness = WitnessService(log=log, signer=signer(), tools=Tools(check))
    await witness.bundle("d-1")
    await witness.minutes("d-1")
    assert len(checked) == 1


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


async def test_a_log_with_a_problem_is_looked_at_again_while_publishing() -> None:
    log = FakeWitnessLog.of(600)
    sound = log.stored[599]
    tampered(log, 599)
    witness = WitnessService(log=log, signer=signer(), tools=Tools())
    publishing = asyncio.create_task(witness.publish_for_ever())
    await pass_time(5)
    assert witness.problem is not None
    assert log.notes == {}
    log.stored[599] = sound
    await pass_time(20)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert list(log.notes) == [600]
