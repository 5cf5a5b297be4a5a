"""What the service says of its anchors: how far each one is, since when, and what is wrong; and what it shows of entries."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from application.services.anchorage import AnchorState
from application.services.witness_service import WitnessService
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import LogUnverifiedError
from tests.unit.application.fake_witness_log import FakeWitnessLog, StillClock, Tools, signer


class _Anchor:
    def __init__(self, name: str, *, note: str | None = None) -> None:
        self.name = name
        self.note = note
        self.is_away = False

    async def publish(self, note: str, *, old_size: int, consistency: Sequence[bytes]) -> None:
        del old_size, consistency
        if self.is_away:
            raise DependencyUnavailableError(dependency="the anchor", problem="it is away", remedy="Wait.")
        self.note = note

    async def latest(self) -> str | None:
        return self.note


def _service(log: FakeWitnessLog, *anchors: _Anchor) -> WitnessService:
    return WitnessService(log=log, signer=signer(1), tools=Tools(), anchors=anchors, clock=StillClock())


async def test_without_anchors_there_is_none_to_show() -> None:
    assert _service(FakeWitnessLog.of(3)).anchors == []


async def test_an_anchor_is_unknown_until_it_was_asked_and_holds_what_it_took() -> None:
    witness = _service(FakeWitnessLog.of(3), _Anchor("far"))
    assert witness.anchors == [AnchorState("far", None, None, None)]
    await witness.publish()
    assert witness.anchors == [AnchorState("far", 3, StillClock().now(), None)]


async def test_what_an_anchor_held_before_the_start_has_no_time() -> None:
    log = FakeWitnessLog.of(3)
    note = signer(1).sign(log.head_row.tree_size, log.head_row.root_hash)
    witness = _service(log, _Anchor("far", note=note))
    await witness.publish()
    assert witness.anchors == [AnchorState("far", 3, None, None)]


async def test_an_anchor_that_fails_says_why_and_keeps_what_it_held_and_when() -> None:
    log, anchor = FakeWitnessLog.of(3), _Anchor("far")
    witness = _service(log, anchor, _Anchor("near"))
    await witness.publish()
    anchor.is_away = True
    log.add([b"{}"])
    await witness.publish()
    far, near = witness.anchors
    assert (far.tree_size, far.taken_at) == (3, StillClock().now())
    assert far.problem is not None
    assert "it is away" in far.problem
    assert (near.tree_size, near.problem) == (4, None)


async def test_entries_are_given_by_their_place_and_a_damaged_one_is_refused() -> None:
    log = FakeWitnessLog.of(5)
    witness = _service(log)
    assert [each.index for each in await witness.entries(1, 4)] == [1, 2, 3]
    assert list(await witness.entries(2, 2)) == []
    del log.stored[2]
    with pytest.raises(LogUnverifiedError):
        await witness.entries(1, 4)


async def test_a_deliberation_that_is_not_known_has_no_entries() -> None:
    assert list(await _service(FakeWitnessLog.of(5)).entries_of("nobody")) == []
