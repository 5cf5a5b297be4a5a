"""What goes wrong in a world."""

from __future__ import annotations

from application.ports.work_queue import JOB_VERSION, Job
from domain.models.deliberation import DeliberationStatus
from tests.simulation.far_end import Call
from tests.simulation.halt import CHANNELS
from tests.simulation.scenarios import Deed
from tests.simulation.world import House, World

__all__ = ["Storms"]

_CANCELLED_WITHIN_S = 2.0


class Storms:
    """Does each deed by its kind, and says what has to follow within a known time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.jumped_back = False
        self.jumped = False
        self.cleared_at = float("-inf")

    def crash(self, deed: Deed) -> None:
        """A process dies after so many steps more."""
        house = self._world.house(deed.which)
        if house is not None:
            house.process.dies_in = int(deed.amount) + 1

    def stop(self, deed: Deed) -> None:
        """A process is stopped as one should."""
        house = self._world.house(deed.which)
        if house is not None:
            self._world.stop(house)

    def freeze(self, deed: Deed) -> None:
        """Nothing of a process runs for so many seconds."""
        house = self._world.house(deed.which)
        if house is not None:
            self._world.freeze(house, deed.amount)

    def away(self, deed: Deed) -> None:
        """The store is away for so many seconds."""
        self._world.lose_store(deed.amount)

    def halt(self, deed: Deed) -> None:
        """A channel is set, and cleared after so many seconds."""
        world, channel = self._world, CHANNELS[deed.which % 2]
        world.disturb(deed.amount)
        world.halt.set(channel)
        world.later(deed.amount, self._clear, channel)
        for house in world.houses:
            world.later(_CANCELLED_WITHIN_S, self._inspect_halted, house, list(world.far_end.in_flight), world.now)

    def doubt(self, deed: Deed) -> None:
        """A channel cannot be read for so many seconds."""
        world, channel = self._world, CHANNELS[deed.which % 2]
        world.disturb(deed.amount)
        world.halt.lose(channel)
        world.later(deed.amount, world.halt.find, channel)

    def jump(self, deed: Deed) -> None:
        """Somebody sets the clock of the machine."""
        self._world.disturb()
        self._world.clock.off_s += deed.amount
        self.jumped = True
        self.jumped_back = self.jumped_back or deed.amount < 0

    def store_jump(self, deed: Deed) -> None:
        """Somebody sets the clock of the store."""
        self._world.disturb(max(-deed.amount, 0.0))
        self._world.store_clock.off_s += deed.amount

    def junk(self, deed: Deed) -> None:
        """Somebody puts jobs for what was never there, for what has ended, of a version that nobody knows, and once more."""
        world, house = self._world, self._world.house(deed.which)
        jobs = [Job("never-there"), Job("of-the-future", None, JOB_VERSION + 1)]
        jobs += [Job(each.id) for each in world.stored() if each.status is not DeliberationStatus.QUEUED]
        if house is not None:
            world.beside(self._put(house, jobs))

    async def _put(self, house: House, jobs: list[Job]) -> None:
        for job in jobs:
            if not house.process.is_gone and not self._world.store.is_away:
                await house.queue.put(job)

    def _clear(self, channel: str) -> None:
        self.cleared_at = self._world.now
        self._world.halt.clear(channel)

    def _inspect_halted(self, house: House, before: list[Call], since: float) -> None:
        """Whatever was in flight when it was halted is in flight no more, unless all was cleared or nothing of it ran."""
        world = self._world
        if self.cleared_at >= since or house.far_end.went_on_at >= since or house.process.is_frozen:
            return
        if house.view.halted_since is None or house.view.halted_since > since + 0.3:
            return
        for call in before:
            if call.process is house.process and call in world.far_end.in_flight:
                world.broken.append(f"{call} is in flight {world.now - since:g} s after the halt was set")
