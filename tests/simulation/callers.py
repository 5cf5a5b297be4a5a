"""Those who ask for deliberations, and look at what they are shown."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from application.ports.idempotency import IdempotencyKey
from domain.errors.deliberation import (
    DeliberationEndedError,
    QueueFullError,
    ServiceStoppingError,
)
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError
from domain.errors.idempotency import IdempotencyInProgressError
from domain.models.deliberation import Deliberation
from domain.models.event import Event
from tests.simulation.machine import ProcessGoneError
from tests.simulation.scenarios import Deed, Plan
from tests.simulation.world import House, World

__all__ = ["Callers"]

_AGAIN_S = 0.7
_TRIES = 400
_PATIENCE_S = 8.0
_REFUSED = (SystemHaltedError, QueueFullError, ServiceStoppingError, IdempotencyInProgressError)
_UNKNOWN = (ProcessGoneError, DependencyUnavailableError)


class Callers:
    """Each deed begins what a caller does, and what the caller then sees is compared with what is stored."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.accepted: dict[str, Plan] = {}
        """What was acknowledged."""
        self.by_key: dict[str, set[str]] = defaultdict(set)
        """Which ids were acknowledged under each key."""
        self.cancelled: dict[str, float] = {}
        """When (loop time) each cancellation was acknowledged."""
        self.streams: dict[str, list[tuple[int, list[Event]]]] = defaultdict(list)
        """What each stream gave, and the sequence that it began after."""

    def submit(self, deed: Deed) -> None:
        """Ask for a deliberation, as often at once as its plan says."""
        plans = self._world.scenario.plans
        plan = plans[deed.which % len(plans)]
        for copy in range(plan.posts):
            self._world.beside(self._post(plan, copy))

    def cancel(self, deed: Deed) -> None:
        """Ask for the end of one."""
        if (own := self._any(deed)) is not None:
            self._world.beside(self._cancel(own, deed.which))

    def read(self, deed: Deed) -> None:
        """Look at one, at its outputs, and at the list."""
        if (own := self._any(deed)) is not None:
            self._world.beside(self._read(own, deed.which))

    def stream(self, deed: Deed) -> None:
        """Read events up to the end, from another process on wherever the one that told them is gone."""
        if (own := self._any(deed)) is not None:
            self._world.beside(self._stream(own, deed.which, int(deed.amount)))

    def wait(self, deed: Deed) -> None:
        """Wait for the end of one for so long."""
        if (own := self._any(deed)) is not None:
            self._world.beside(self._wait(own, deed.which, deed.amount))

    def _any(self, deed: Deed) -> str | None:
        known = list(self.accepted)
        return known[deed.which % len(known)] if known else None

    async def _post(self, plan: Plan, copy: int) -> None:
        key = IdempotencyKey("", plan.label, "ab" * 32) if plan.has_key else None
        for again in range(_TRIES):
            house = self._world.door(copy + again)
            if house is not None:
                try:
                    work = house.acceptance.accept(plan.specification, idempotency=key)
                    found = await house.process.ask(work)
                except _REFUSED:
                    pass
                except _UNKNOWN:
                    if key is None:
                        return
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                    self._world.broken.append(f"posting {plan.label!r} raised {error!r}")
                    return
                else:
                    self._note_accepted(plan, found)
                    if plan.waits:
                        self._world.beside(self._wait(found.id, copy + again, _PATIENCE_S))
                    if plan.listens:
                        self._world.beside(self._stream(found.id, copy + again, 0))
                    return
            await asyncio.sleep(_AGAIN_S)
        self._world.broken.append(f"{plan.label!r} was not accepted in {_TRIES} tries")

    def _note_accepted(self, plan: Plan, found: Deliberation) -> None:
        self.accepted[found.id] = plan
        if plan.has_key:
            self.by_key[plan.label].add(found.id)
        if found.id not in self._world.store.repository._kept:
            self._world.broken.append(f"{plan.label!r} was acknowledged and is not stored")

    async def _cancel(self, own: str, which: int) -> None:
        house = self._world.door(which)
        if house is None:
            return
        try:
            shown = await house.process.ask(house.service.cancel(own))
        except DeliberationEndedError:
            return
        except _UNKNOWN:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self._world.broken.append(f"cancelling {own!r} raised {error!r}")
            return
        self.cancelled.setdefault(own, self._world.now)
        self._compare(shown)

    async def _read(self, own: str, which: int) -> None:
        house = self._world.door(which)
        if house is None:
            return
        try:
            shown = await house.process.ask(self._look(house, own))
        except _UNKNOWN:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self._world.broken.append(f"reading {own!r} raised {error!r}")
            return
        if shown.id != own:
            self._world.broken.append(f"{shown.id!r} was shown instead of {own!r}")

    async def _look(self, house: House, own: str) -> Deliberation:
        page = await house.service.page(status=None, key_name=None, limit=50, cursor=None)
        for each in page.items:
            self._compare(each)
        if own not in {each.id for each in page.items}:
            self._world.broken.append(f"{own!r} is not in the list")
        stored = self._world.store.repository._kept[own]
        for output in await house.outputs.outputs(own):
            record = stored.records.get((output.record.round_number, output.record.agent_id))
            if record is None or record.record != output.record:
                self._world.broken.append(f"an output of {own!r} was shown that is not stored so: {output}")
        shown = await house.service.get(own)
        self._compare(shown)
        return shown

    async def _wait(self, own: str, which: int, seconds: float) -> None:
        house = self._world.door(which)
        if house is None:
            return
        try:
            shown = await house.process.ask(house.service.wait(own, timeout_s=seconds))
        except _UNKNOWN:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self._world.broken.append(f"waiting for {own!r} raised {error!r}")
            return
        self._compare(shown)

    def _compare(self, shown: Deliberation) -> None:
        """Nothing is shown that is not stored."""
        kept = self._world.store.repository._kept[shown.id]
        if shown.status.is_terminal and shown.status is not kept.deliberation.status:
            self._world.broken.append(
                f"{shown.id!r} was shown as {shown.status.value} and is stored as {kept.deliberation.status.value}"
            )
        for round_ in shown.rounds:
            for record in round_.records:
                stored = kept.records.get((record.round_number, record.agent_id))
                if stored is None or stored.record != record:
                    self._world.broken.append(f"a record of {shown.id!r} was shown that is not stored so: {record}")
        if shown.outcome is not None and shown.outcome != kept.deliberation.outcome:
            self._world.broken.append(f"an outcome of {shown.id!r} was shown that is not stored so")

    async def _stream(self, own: str, which: int, after: int) -> None:
        told: list[Event] = []
        self.streams[own].append((after, told))
        for again in range(_TRIES):
            house = self._world.door(which + again)
            if house is not None:
                last = told[-1].sequence if told else after
                try:
                    is_over = await house.process.ask(self._listen(house.service.events(own, after=last), own, told))
                except _UNKNOWN:
                    is_over = False
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                    self._world.broken.append(f"streaming {own!r} raised {error!r}")
                    return
                if is_over:
                    return
            await asyncio.sleep(_AGAIN_S)

    async def _listen(self, events: AsyncIterator[Event | None], own: str, told: list[Event]) -> bool:
        async for event in events:
            if event is None:
                continue
            if event not in self._world.store.repository._kept[own].events:
                self._world.broken.append(f"an event of {own!r} was shown that is not stored so: {event}")
            told.append(event)
        kept = self._world.store.repository._kept[own]
        return kept.deliberation.status.is_terminal and (not told or told[-1].is_terminal)
