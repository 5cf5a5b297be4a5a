"""What follows an end, and what an end certifies, is computed again: a signed log that lies about it is refused all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from api.bootstrap import verification_tools
from application.services.recount_service import RecountService
from application.services.resolution_service import ResolutionService
from application.services.track_record_service import TrackRecordService
from application.services.verification import VerifiedDeliberation, verify_bundle
from application.services.witness_service import WitnessService
from domain.errors.witness import VerificationRefusedError
from domain.models.deliberation import Deliberation
from domain.voting.rule import Rule, RuleKind
from infrastructure.stubs.in_memory_resolution_history import InMemoryResolutionHistory
from infrastructure.stubs.in_memory_witness_log import InMemoryWitnessLog
from infrastructure.stubs.virtual_time import VirtualClock
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.signer import CheckpointSigner
from tests.service_fixture import Canned, House, build, finished, opened, specification

Change = Callable[[dict[str, Any]], object]


async def told(house: House) -> tuple[Deliberation, list[dict[str, Any]]]:
    """A deliberation with a recount and a resolution, and what its entries say."""
    ended = await finished(house, specification(5))
    log = house.repository.log
    record = TrackRecordService(InMemoryResolutionHistory(house.repository, log), orchestrator="canned")
    await RecountService(witness=_witness(log), record=record).recount(
        ended, Rule(RuleKind.THRESHOLD, 0.9), key_name="k"
    )
    await ResolutionService(witness=_witness(log), record=record).resolve(ended, "no", key_name=None)
    return ended, [json.loads(each.entry) for each in log.of(ended.id)]


def _witness(log: InMemoryWitnessLog) -> WitnessService:
    signer = CheckpointSigner(SigningKey.from_seed(b"\x01" * 32), "house.test/log")
    return WitnessService(log=log, signer=signer, tools=verification_tools(), clock=VirtualClock())


async def verified(documents: list[dict[str, Any]]) -> VerifiedDeliberation:
    """A log of exactly these entries, signed by the key that is trusted."""
    log = InMemoryWitnessLog()
    for document in documents:
        # Its hashes over what comes before are filled in anew, so that nothing but what it says is wrong.
        log.place(document)
    witness = _witness(log)
    bundle = json.dumps({**await witness.bundle(documents[0]["deliberation_id"]), "disclosures": []}).encode()
    return verify_bundle(bundle, key=witness.verifier_key, tools=verification_tools()).deliberations[0]


async def changed(kind: str, change: Change) -> VerifiedDeliberation:
    async with opened(build(Canned({"archon-1": '{"answer": "no", "confidence": 0.9}'}))) as house:
        _, documents = await told(house)
    change(next(each for each in documents if each["type"] == kind))
    return await verified(documents)


async def test_a_recount_and_a_resolution_are_computed_again() -> None:
    found = await changed("recounted", lambda _: None)
    assert (found.recounts, found.resolutions, found.not_repeated) == (1, 1, 0)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("recounted", lambda each: each["outcome"].update(status="decided", decision="yes"), "'status'"),
        ("recounted", lambda each: each["outcome"].update(margin=4), "'margin'"),
        ("recounted", lambda each: each["rule"].update(fraction=0.1), "'status'"),
        ("recounted", lambda each: each.update(outcome=None), "no outcome"),
        ("recounted", lambda each: each["outcome"]["tally"].update(yes=5), "'tally'"),
        ("resolved", lambda each: each.update(brier=0.0), "'brier'"),
        ("resolved", lambda each: each.update(answer=0), "'brier'"),
        ("resolved", lambda each: each.update(answer=7), "truth"),
        ("resolved", lambda each: each["scores"].__setitem__(1, 0.5), "'scores'"),
        ("resolved", lambda each: each["scores"].pop(), "'scores'"),
        ("deliberation.ended", lambda each: each["certificate"].update(decision="no"), "certificate's 'decision'"),
        ("deliberation.ended", lambda each: each["certificate"]["dissent"].update(agents=0), "certificate's 'dissent'"),
        ("deliberation.ended", lambda each: each["certificate"]["participation"].update(asked=6), "'participation'"),
    ],
)
async def test_what_is_signed_and_not_true_is_refused(kind: str, change: Change, said: str) -> None:
    with pytest.raises(VerificationRefusedError, match=said):
        await changed(kind, change)


async def test_a_recount_by_a_rule_that_this_version_does_not_know_is_counted_as_not_repeated() -> None:
    found = await changed("recounted", lambda each: each["rule"].update(kind="range_voting"))
    assert (found.recounts, found.not_repeated) == (0, 1)


async def test_nothing_is_recounted_before_its_end() -> None:
    async with opened(build(Canned({}))) as house:
        _, documents = await told(house)
    counted = next(each for each in documents if each["type"] == "recounted")
    documents.remove(counted)
    documents.insert(2, counted)
    with pytest.raises(VerificationRefusedError, match="before its end"):
        await verified(documents)


async def test_an_end_of_an_earlier_version_without_a_certificate_verifies() -> None:
    found = await changed("deliberation.ended", lambda each: each.pop("certificate"))
    assert found.not_recomputed is None
