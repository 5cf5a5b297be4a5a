"""A simulated world: processes that crash, freeze and stop, over a store, a queue, a halt and a model that outlive them."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from application.ports.metrics import NullMetrics
from application.ports.work_queue import WorkQueue
from application.services.acceptance import Acceptance
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_output_service import DeliberationOutputService
from application.services.deliberation_service import DeliberationService, OrchestratorIdentity
from application.services.retry_policy import RetryPolicy
from domain.errors.dependency import DependencyUnavailableError
from domain.models.agent_pool import AgentPool
from domain.models.deliberation import Deliberation
from domain.models.roll_call import AgentState
from infrastructure.queues.embedded_queue import EmbeddedQueue
from infrastructure.stubs.virtual_time import VirtualClock
from tests.simulation.far_end import FarEnd, FarEndLink
from tests.simulation.halt import CHANNELS, HaltView, SimulatedHalt
from tests.simulation.machine import ProcessGoneError, SimulatedProcess, in_no_process
from tests.simulation.money import Bill, SimulatedDesk
from tests.simulation.queue import QueueLink, SimulatedQueue
from tests.simulation.scenarios import Scenario
from tests.simulation.store import SimulatedStore, StoreLink, Weather
from tests.virtual_time import pass_time

__all__ = ["House", "WallClock", "World"]

_IDENTITY = OrchestratorIdentity("simulated", simulated=True)
_DRAIN_S = 2.0
_STOP_S = 20.0
_SWEEP_S = 5.0
_RESTARTS_S = (0.1, 1.0, 7.0)


class CountingMetrics(NullMetrics):
    """Counts who was asked, and how they ended."""

    def __init__(self) -> None:
        self.invoked = 0
        self.ended = 0

    def agent_invoked(self) -> None:
        self.invoked += 1

    def agent_ended(self, state: AgentState, duration_seconds: float) -> None:
        self.ended += 1


class WallClock(VirtualClock):
    """The time of day on one machine; it may be set, and seconds pass as ever."""

    def __init__(self) -> None:
        super().__init__()
        self.off_s = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.off_s)


class Registry:
    """Knows of deaths on this machine where the world lets it."""

    def __init__(self, own: str, dead: dict[str, None]) -> None:
        self.own = own
        self._dead = dead

    def dead(self) -> Sequence[str]:
        return list(self._dead)

    def forget(self, process: str) -> None:
        self._dead.pop(process, None)


@dataclass
class House:
    """What one process consists of."""

    process: SimulatedProcess
    service: DeliberationService
    acceptance: Acceptance
    outputs: DeliberationOutputService
    link: StoreLink
    queue: WorkQueue
    pool: AgentPool
    metrics: CountingMetrics
    view: HaltView
    far_end: FarEndLink
    is_ready: bool = False
    is_leaving: bool = False
    frozen_at: float = 0.0


class World:
    """Made of a scenario. Lives in a `SimulatedLoop`; `broken` says what was promised and not kept."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.broken: list[str] = []
        self.disturbances: list[tuple[float, float]] = []
        """From when to when (loop time) something was wrong."""
        self.plans = {plan.label: plan for plan in scenario.plans}
        self.chance = random.Random(f"{scenario.seed} as it goes")
        self.clock, self.store_clock = WallClock(), WallClock()
        self.store = SimulatedStore(
            clock=self.store_clock,
            chance=self.chance,
            weather=scenario.weather,
            note=self.disturb,
            key_day_usd=scenario.key_day_usd,
        )
        self.bill = Bill()
        self.halt = SimulatedHalt(self.chance)
        self.queue = SimulatedQueue(self.store, self.chance) if scenario.has_door else None
        self.far_end = FarEnd(self.plans, self.store, self.halt, self.bill, self.broken.append)
        self._loop = asyncio.get_running_loop()
        self._houses: list[House | None] = [None] * (scenario.workers + scenario.has_door)
        self._dead: dict[str, None] = {}
        self._generations = itertools.count(1)
        self._outages = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._burials: list[asyncio.Task[None]] = []
        self._is_ending = False

    @property
    def now(self) -> float:
        """The loop's time in seconds."""
        return self._loop.time()

    @property
    def houses(self) -> list[House]:
        """Those that live."""
        return [house for house in self._houses if house is not None]

    def stored(self) -> list[Deliberation]:
        """All that were ever accepted, as they stand."""
        return [kept.deliberation for kept in self.store.repository._kept.values()]

    def disturb(self, seconds: float = 0.0) -> None:
        """Something is wrong from now on for so long."""
        self.disturbances.append((self.now, self.now + seconds))

    def later(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> None:
        """Call it outside of all processes."""
        in_no_process(self._loop.call_later, seconds, call, *arguments)

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it outside of all processes; a world is not at rest before it ends."""
        self._tasks.append(in_no_process(self._loop.create_task, work))

    def house(self, which: int) -> House | None:
        """The one in that place, unless it is dead or leaves."""
        house = self._houses[which % len(self._houses)]
        return None if house is None or house.is_leaving else house

    def door(self, which: int) -> House | None:
        """One that callers can reach."""
        if self.scenario.has_door:
            return self.house(0)
        return next((house for step in range(len(self._houses)) if (house := self.house(which + step))), None)

    def begin(self) -> None:
        """Start all processes."""
        for place in range(len(self._houses)):
            self._start(place)

    def look(self) -> None:
        """Look whether the metrics tell the truth, and whether nobody has more slots than there are."""
        for house in self.houses:
            metrics, active = house.metrics, house.pool.active_count
            if metrics.invoked != metrics.ended + active:
                self.broken.append(
                    f"{house.process.name!r} says {metrics.invoked} invoked, {metrics.ended} ended and {active} active at {self.now:g} s"
                )

    def lose_store(self, seconds: float) -> None:
        """It is away for so long."""
        self._outages += 1
        self.store.is_away = True
        self.disturb(seconds)
        self.later(seconds, self._find_store)

    def freeze(self, house: House, seconds: float) -> None:
        """Nothing of that process runs for so long."""
        if not house.process.is_frozen:
            house.frozen_at = self.now
            house.process.freeze()
            self.disturb(seconds)
            if self.queue is not None:
                self.queue.miss(house.process)
            self.later(seconds, self.thaw, house)

    def thaw(self, house: House) -> None:
        """It goes on."""
        if house.process.is_frozen:
            house.far_end.went_on_at = self.now
            house.view.note_silence(self.now - house.frozen_at)
            house.process.thaw()

    def stop(self, house: House) -> None:
        """End that process as one should."""
        house.is_leaving = True
        self.disturb(_STOP_S)
        self.beside(self._leave(house))

    async def come_to_rest(self) -> None:
        """Let everything be well, give all that was accepted the time to end, and stop all processes as one should."""
        self.store.weather = Weather()
        self._outages = min(self._outages, 1)
        self._find_store()
        for channel in CHANNELS:
            self.halt.find(channel)
            self.halt.clear(channel)
        for house in self.houses:
            house.process.dies_in = None
            self.thaw(house)
        self.disturb()
        stored = [self.plans[each.specification.question.text] for each in self.stored()]
        until = self.now + 60.0 + sum(plan.limits.deadline_s for plan in (*stored, *self.scenario.plans))
        while self.now < until and not self._is_done():
            await pass_time(0.5)
        self.broken += [
            f"{each.specification.question.text!r} ({each.id}) is {each.status.value} and does not end"
            for each in self.stored()
            if not each.status.is_terminal
        ]
        if not all(task.done() for task in self._tasks):
            self.broken.append("a caller waits for ever")
        await pass_time(1.0)
        self.look()
        for house in self.houses:
            active = house.pool.active_count, self.far_end.active[house.process.name]
            if active != (0, 0) or not house.service.is_idle:
                self.broken.append(
                    f"{house.process.name!r} is not idle one second after all has ended: {active} slots and calls"
                )
        await self._end()

    async def _end(self) -> None:
        self._is_ending = True
        for house in self.houses:
            self.stop(house)
        while self.houses:
            await pass_time(0.5)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*self._burials)

    def _is_done(self) -> bool:
        return (
            all(house is not None and house.is_ready for house in self._houses)
            and all(task.done() for task in self._tasks)
            and all(each.status.is_terminal for each in self.stored())
        )

    def _find_store(self) -> None:
        self._outages = max(self._outages - 1, 0)
        self.store.is_away = self._outages > 0
        if self.queue is not None and not self.store.is_away:
            self.queue.announce()

    def _start(self, place: int) -> None:
        is_door = self.scenario.has_door and place == 0
        process = SimulatedProcess(f"{place}-{next(self._generations)}", self._loop)
        view = self.halt.view(process)
        link = StoreLink(self.store, process)
        far_end = FarEndLink(self.far_end, process, view, self.scenario.slots)
        pool, metrics = AgentPool(self.scenario.slots), CountingMetrics()
        queue: WorkQueue = EmbeddedQueue() if self.queue is None else QueueLink(self.queue, process)
        if is_door:
            service = DeliberationService(
                repository=link,
                reader=link,
                leases=link,
                queue=queue,
                halt_checker=view,
                orchestrator=_IDENTITY,
                clock=self.clock,
                process=process.name,
            )
        else:
            service = DeliberationService.with_worker(
                fan_out=ConcurrentDeliberationService(
                    orchestrator=far_end,
                    halt_checker=view,
                    pool=pool,
                    metrics=metrics,
                    clock=self.clock,
                    retries=RetryPolicy(draw=self.chance.random),
                    desk=SimulatedDesk(self.plans),
                ),
                store=link,
                queue=queue,
                halt_checker=view,
                orchestrator=_IDENTITY,
                metrics=metrics,
                clock=self.clock,
                registry=Registry(process.name, self._dead if self.scenario.knows_deaths else {}),
                max_running=self.scenario.max_running,
                queued_sweep_s=1.0 if self.queue is None else _SWEEP_S,
            )
        acceptance = Acceptance(deliberations=service, reader=link)
        house = House(
            process, service, acceptance, DeliberationOutputService(link), link, queue, pool, metrics, view, far_end
        )
        self._houses[place] = house
        process.on_death = lambda: in_no_process(self._note_death, place, house)
        self.disturb()
        process.begin(self._boot(house))

    async def _boot(self, house: House) -> None:
        while True:
            try:
                await house.service.start()
            except DependencyUnavailableError:
                await pass_time(0.5)
            else:
                house.is_ready = True
                return

    def _note_death(self, place: int, house: House) -> None:
        self._houses[place] = None
        self._dead[house.process.name] = None
        self.disturb()
        self._burials.append(self._loop.create_task(house.process.bury()))
        if self.queue is not None:
            self.queue.miss(house.process)
        if not self._is_ending:
            self.later(self.chance.choice(_RESTARTS_S), self._start, place)

    async def _leave(self, house: House) -> None:
        began = self.now
        try:
            await house.process.ask(house.service.stop(drain_s=_DRAIN_S))
            await house.process.ask(house.link.close())
        except (ProcessGoneError, DependencyUnavailableError):
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self.broken.append(f"stopping {house.process.name!r} raised {error!r}")
        if self.now - max(began, house.far_end.went_on_at) > _STOP_S:
            self.broken.append(f"stopping {house.process.name!r} took {self.now - began:g} s")
        house.process.die()
