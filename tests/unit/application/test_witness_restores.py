"""A log restored from a backup is gone on with once somebody accepted the loss, and never before."""

from __future__ import annotations

import json

import pytest

from application.ports.witness_log import Head
from domain.errors.witness import LogUnverifiedError, WitnessError
from domain.witness.checkpoint import open_checkpoint
from domain.witness.entry import commitment
from infrastructure.witness.ed25519 import verify_signature
from tests.unit.application.anchored_witness import (
    FakeAnchor,
    RestartableFakeAnchor,
    note_of,
    problem_of,
    service,
    tampered,
)
from tests.unit.application.fake_witness_log import FakeWitnessLog, key, size_of


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
