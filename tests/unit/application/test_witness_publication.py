"""Anchors are given checkpoints with the proof from what they hold, and none of their failures stops anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from application.ports.witness_log import Head
from application.services.witness_service import WitnessService
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import VerificationRefusedError
from domain.witness.proof import verify_consistency
from tests.unit.application.anchored_witness import FakeAnchor, StrictAnchor, note_of, service
from tests.unit.application.fake_witness_log import FakeWitnessLog, Tools, signer
from tests.virtual_time import pass_time


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
    await pass_time(0.5)
    log.away = True
    log.add([b"{}"] * 3)
    await pass_time(5)
    log.away = False
    await pass_time(1)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert anchor.published == [(0, 3), (3, 6)]
