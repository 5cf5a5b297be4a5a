"""Replays in tests: the run in the bundle of a house, and where it comes to something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from application.services.replay import ReplayReport, ReplayTools, replay
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.virtual_time import VirtualClock
from infrastructure.witness.canonical_json import canonical_json
from tests.protocol_fixture import bundle_of
from tests.service_fixture import House

__all__ = ["changed", "replayed", "replayed_bundle"]


async def replayed_bundle(bundle: Mapping[str, Any]) -> ReplayReport:
    """The run in that bundle, again; prompts are taken as recorded."""
    tools = ReplayTools(
        encode=canonical_json, write=lambda _request, _intent: None, clock=VirtualClock(), halt=HaltCheckerStub()
    )
    return await replay(bundle, tools)


async def replayed(house: House, deliberation_id: str) -> ReplayReport:
    """The run of a deliberation that has ended in this house, again."""
    document, _ = await bundle_of(house, deliberation_id)
    return await replayed_bundle(json.loads(document))


def changed(bundle: Mapping[str, Any], kind: str, change: Callable[[dict[str, Any]], None], *, place: int = 0) -> Any:
    """The bundle with one of its entries of that type changed, its bytes canonical as they were."""
    copy = json.loads(json.dumps(bundle))
    found = [each for each in copy["entries"] if json.loads(each["entry"])["type"] == kind][place]
    document = json.loads(found["entry"])
    change(document)
    found["entry"] = canonical_json(document).decode()
    return copy
