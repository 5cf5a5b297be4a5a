"""The keys that a log names as its own: added, retired, and used to open what they signed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from application.services.administration import named_keys
from application.services.log_audit import audit
from application.services.log_check import accepted_restores
from application.services.witness_service import WitnessService
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import open_checkpoint
from infrastructure.stubs.in_memory_witness_log import InMemoryWitnessLog
from infrastructure.witness.ed25519 import verify_signature
from tests.unit.application.anchored_witness import FakeAnchor
from tests.unit.application.fake_witness_log import FakeWitnessLog, StillClock, Tools, key, signer


async def started(log: FakeWitnessLog, seed: int, *anchors: FakeAnchor) -> WitnessService:
    """The service as it starts with the key of that seed."""
    witness = WitnessService(log=log, signer=signer(seed), tools=Tools(), anchors=anchors, clock=StillClock())
    await witness.check_at_start()
    await witness.note_key()
    return witness


def named(log: FakeWitnessLog) -> list[tuple[str, str]]:
    documents = [json.loads(each.entry) for each in log.stored]
    return [(each["type"], each["vkey"]) for each in documents if "vkey" in each]


async def rotated() -> FakeWitnessLog:
    """A log that was signed by key 1 and then by key 2."""
    log = FakeWitnessLog()
    first = await started(log, 1)
    await first.checkpoint()
    log.add([b'{"n":1}'])
    await first.checkpoint()
    await (await started(log, 2)).checkpoint()
    return log


async def test_the_first_entry_of_a_log_names_its_key() -> None:
    log = FakeWitnessLog()
    await started(log, 1)
    document = json.loads(log.stored[0].entry)
    assert (document["type"], document["vkey"], document["key_name"]) == ("key.added", str(key(1)), None)
    assert document["at"] == "2026-11-21T12:00:00.000000Z"
    assert [each.sha256 for each in log.system_texts] == [document["reason"]["sha256"]]


async def test_the_same_key_is_named_once() -> None:
    log = FakeWitnessLog()
    for _ in range(3):
        await started(log, 1)
    assert named(log) == [("key.added", str(key(1)))]


async def test_another_key_retires_the_one_before() -> None:
    log = await rotated()
    assert named(log) == [("key.added", str(key(1))), ("key.added", str(key(2))), ("key.retired", str(key(1)))]


async def test_a_log_that_named_no_key_yet_takes_the_one_that_signed_it() -> None:
    log = FakeWitnessLog.of(300)
    await WitnessService(log=log, signer=signer(1), tools=Tools()).checkpoint()
    witness = await started(log, 1)
    assert witness.problem is None
    assert named(log) == [("key.added", str(key(1)))]


async def test_a_key_that_comes_back_is_added_again() -> None:
    log = await rotated()
    witness = await started(log, 1)
    assert witness.problem is None
    assert named(log)[3:] == [("key.added", str(key(1))), ("key.retired", str(key(2)))]
    assert (await named_keys(log)).present == (key(1),)
    assert set((await named_keys(log)).all) == {key(1), key(2)}


async def test_after_a_rotation_the_new_key_signs_and_the_log_is_sound() -> None:
    log = await rotated()
    witness = await started(log, 2)
    assert witness.problem is None
    open_checkpoint(await witness.checkpoint(), key(2), verify_signature)
    report = await audit(log, key=key(2), tools=Tools())
    assert (report.tree_size, report.checkpoints) == (4, 3)


async def test_a_head_that_another_key_has_signed_is_signed_again_with_the_own_one() -> None:
    log = FakeWitnessLog()
    await (await started(log, 1)).checkpoint()
    witness = WitnessService(log=log, signer=signer(2), tools=Tools())
    open_checkpoint(await witness.checkpoint(), key(2), verify_signature)
    open_checkpoint(log.notes[1], key(1), verify_signature)


async def test_a_service_goes_on_beside_one_that_was_started_with_another_key() -> None:
    log = FakeWitnessLog()
    first = await started(log, 1)
    await first.checkpoint()
    await (await started(log, 2)).checkpoint()
    log.add([b'{"n":1}'])
    open_checkpoint(await first.checkpoint(), key(1), verify_signature)
    assert first.problem is None


async def test_what_an_anchor_holds_by_the_former_key_is_still_compared() -> None:
    log = FakeWitnessLog()
    first = await started(log, 1)
    log.add([b'{"n":1}'] * 5)
    held = FakeAnchor(note=await first.checkpoint())
    assert (await started(log, 2, held)).problem is None
    witness = await started(log.rebuilt(3), 2, held)
    assert witness.problem is not None
    assert "rolled back" in witness.problem.problem


async def test_no_key_is_added_to_a_log_with_a_problem() -> None:
    log = FakeWitnessLog.of(5)
    log.notes[5] = signer(3).sign(5, log.head_row.root_hash)
    witness = await started(log, 1)
    assert witness.problem is not None
    assert named(log) == []


async def test_a_checkpoint_by_a_key_that_the_log_does_not_name_is_refused() -> None:
    log = await rotated()
    log.notes[4] = signer(3).sign(4, log.head_row.root_hash)
    assert (await started(log, 2)).problem is not None
    with pytest.raises(VerificationRefusedError, match="no signature by"):
        await audit(log, key=key(2), tools=Tools())


async def test_a_tampered_key_is_a_problem_and_not_taken() -> None:
    log = await rotated()
    log.add([b'{"n":1}'] * 300)
    data = log.stored[0].entry.replace(str(key(1)).encode(), str(key(3)).encode())
    log.stored[0] = replace(log.stored[0], entry=data)
    witness = await started(log, 2)
    assert witness.problem is not None
    assert "entry 0: the entry does not hash" in witness.problem.problem


@pytest.mark.parametrize("vkey", [None, 7, "no key"])
async def test_an_entry_that_names_no_key_is_refused_by_its_index(vkey: object) -> None:
    log = FakeWitnessLog.of(3)
    log.add_documents({"type": "key.added", "vkey": vkey})
    with pytest.raises(VerificationRefusedError) as refused:
        await named_keys(log)
    assert refused.value.index == 3


async def test_keys_and_restores_are_found_without_reading_what_belongs_to_deliberations() -> None:
    log = FakeWitnessLog()
    await started(log, 1)
    log.add([b'{"deliberation_id":"d-1","options":["key.added","restore.accepted"]}'] * 70_000)
    log.reads = 0
    assert (await named_keys(log)).present == (key(1),)
    assert await accepted_restores(log, 70_001) == []
    assert log.reads <= 4


async def test_entries_of_the_system_are_read_in_pages() -> None:
    log = InMemoryWitnessLog()
    documents = [
        {"type": "halt.set", "n": number} | ({"deliberation_id": "d-1"} if number % 2 else {}) for number in range(9)
    ]
    await log.append(documents)
    assert [each.index for each in await log.system_entries(-1, 3)] == [0, 2, 4]
    assert [each.index for each in await log.system_entries(4, 3)] == [6, 8]
    assert await log.system_entries(8, 3) == []
