"""Runs a world from its beginning to its rest, and tells which promises were broken."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch
from uuid import UUID

import domain.models.deliberation
from domain.errors.deliberation import DeliberationEndedError, LeaseLostError
from domain.errors.dependency import DependencyUnavailableError
from tests.simulation.callers import Callers
from tests.simulation.machine import SimulatedLoop, is_among_the_dead
from tests.simulation.promises import broken_promises
from tests.simulation.scenarios import Deed, Scenario
from tests.simulation.storms import Storms
from tests.simulation.world import World

__all__ = ["LivingWorld", "live"]

_EXPECTED = (DependencyUnavailableError, LeaseLostError, DeliberationEndedError)
_LOGGERS = ("application", "infrastructure", "asyncio")


class LivingWorld:
    """A world that goes on step by step. Use it in `with`."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._ear = _Ear()
        self._stack = ExitStack()

    def __enter__(self) -> LivingWorld:
        ids = random.Random(f"{self._scenario.seed} ids")
        self._stack.enter_context(
            patch.object(domain.models.deliberation, "uuid4", lambda: UUID(int=ids.getrandbits(128), version=4))
        )
        self._stack.enter_context(_heard(self._ear))
        self._runner = self._stack.enter_context(asyncio.Runner(loop_factory=SimulatedLoop))
        self._runner.get_loop().set_exception_handler(self._ear.note_unhandled)
        self._runner.run(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def _begin(self) -> None:
        self.world = World(self._scenario)
        self.storms, self.callers = Storms(self.world), Callers(self.world)
        self.world.begin()

    def act(self, deed: Deed) -> None:
        """Do it, and let some steps pass."""
        self._runner.run(self._act(deed))

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self._runner.run(asyncio.sleep(seconds))

    def follow(self) -> None:
        """Do all deeds of the scenario at their times."""
        self._runner.run(self._follow())

    def rest(self) -> list[str]:
        """Bring it to rest; every promise that was broken."""
        return self._runner.run(self._rest())

    def look_again(self) -> list[str]:
        """Every promise that is broken in a world at rest."""
        return self._runner.run(self._look())

    async def _follow(self) -> None:
        for deed in self._scenario.deeds:
            await asyncio.sleep(max(deed.at - self.world.now, 0.0))
            await self._act(deed)

    async def _act(self, deed: Deed) -> None:
        self.world.look()
        doer = self.storms if hasattr(self.storms, deed.kind.replace("-", "_")) else self.callers
        getattr(doer, deed.kind.replace("-", "_"))(deed)
        await asyncio.sleep(0)
        self.world.look()

    async def _rest(self) -> list[str]:
        await self.world.come_to_rest()
        return await self._look()

    async def _look(self) -> list[str]:
        return [*await broken_promises(self.world, self.callers, self.storms), *self._ear.heard]


def live(scenario: Scenario) -> list[str]:
    """Every promise that was broken in a world that went through all of it."""
    with LivingWorld(scenario) as living:
        living.follow()
        return living.rest()


class _Ear(logging.Handler):
    """Hears of errors that nobody expects."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if is_among_the_dead():
            return
        error = record.exc_info[1] if record.exc_info else None
        if error is None or not all(isinstance(each, _EXPECTED) for each in _leaves(error)):
            self.heard.append(f"logged by {record.name}: {record.getMessage()}: {error!r}")

    def note_unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """As an event loop tells it."""
        self.heard.append(f"told by the event loop: {context}")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


@contextmanager
def _heard(ear: _Ear) -> Iterator[None]:
    """Errors go to the ear alone; lesser lines are not even made."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
        each.propagate = False
        each.addHandler(ear)
    try:
        yield
    finally:
        for each, (level, propagate) in zip(loggers, before, strict=True):
            each.removeHandler(ear)
            each.setLevel(level)
            each.propagate = propagate
