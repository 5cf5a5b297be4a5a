"""What is handed out of the log proves itself: bundles and exports with their texts, and what an erasure leaves of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from application.ports.witness_log import Disclosure
from application.services.log_reading import LogReading
from domain.errors.deliberation import DeliberationNotFoundError
from domain.errors.witness import LogUnverifiedError
from domain.witness.checkpoint import open_checkpoint
from domain.witness.entry import commitment
from domain.witness.merkle import leaf_hash
from domain.witness.proof import verify_inclusion
from infrastructure.witness.ed25519 import verify_signature
from tests.unit.application.anchored_witness import log_with_a_deliberation, service, tampered
from tests.unit.application.fake_witness_log import FakeWitnessLog, key


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


@pytest.mark.parametrize(("tampered_with", "missing"), [(200, 7), (7, 200)])
async def test_of_entries_the_first_is_named_that_is_missing_or_tampered(tampered_with: int, missing: int) -> None:
    log = FakeWitnessLog.of(600)
    tampered(log, tampered_with)
    del log.stored[missing]
    with pytest.raises(LogUnverifiedError, match="entry 7: "):
        await LogReading(log).entries(0, 600)


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
