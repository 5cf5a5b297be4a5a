"""A halt with two simulated channels, and what each process knows of it."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

from domain.models.halt import ChannelReading, ChannelState, HaltCondition, combine
from tests.simulation.machine import SimulatedProcess

__all__ = ["CHANNELS", "HaltView", "SimulatedHalt"]

CHANNELS = ("database", "file")
_LOOK_S = 0.2
_STALE_S = 1.0
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class SimulatedHalt:
    """The channels themselves, which outlive all processes."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._set: dict[str, float | None] = dict.fromkeys(CHANNELS)
        self._away: set[str] = set()
        self._views: list[HaltView] = []
        self.was_ever_set = False

    @property
    def set_since(self) -> float | None:
        """Since when (loop time) a channel that can be read has been set; None where none is."""
        known = [since for name, since in self._set.items() if since is not None and name not in self._away]
        return min(known, default=None)

    @property
    def is_clear(self) -> bool:
        """Whether all channels can be read and none is set."""
        return not self._away and not any(since is not None for since in self._set.values())

    def set(self, channel: str) -> None:
        """Halt."""
        self.was_ever_set = True
        if self._set[channel] is None:
            self._set[channel] = asyncio.get_running_loop().time()
        self._announce()

    def clear(self, channel: str) -> None:
        """Set it no more."""
        self._set[channel] = None
        self._announce()

    def lose(self, channel: str) -> None:
        """It can be read no more."""
        self._away.add(channel)
        self._announce()

    def find(self, channel: str) -> None:
        """It can be read again."""
        self._away.discard(channel)
        self._announce()

    def states(self) -> list[ChannelState]:
        """What a look at each of them finds."""
        return [
            ChannelState(name, None, "it is away")
            if name in self._away
            else ChannelState(
                name,
                ChannelReading(
                    since is not None, "drill", None if since is None else _EPOCH + timedelta(seconds=since)
                ),
            )
            for name, since in self._set.items()
        ]

    def lag(self) -> float:
        """How many seconds pass until a process looks."""
        return self._chance.uniform(0.0, _LOOK_S)

    def view(self, process: SimulatedProcess) -> HaltView:
        """What that process is going to know: nothing until its first look."""
        view = HaltView(self, process)
        self._views.append(view)
        process.call_later(self.lag(), view.look)
        return view

    def _announce(self) -> None:
        self._views = [view for view in self._views if not view.process.is_gone]
        for view in self._views:
            view.process.call_later(self.lag(), view.look)


class HaltView:
    """`HaltChecker` of one process: as old as its last look, and shut where that was too long ago."""

    def __init__(self, halt: SimulatedHalt, process: SimulatedProcess) -> None:
        self.process = process
        self.condition = HaltCondition.IN_DOUBT
        self.halted_since: float | None = None
        self._halt = halt
        self._reason: str | None = None
        self._for_halt: list[asyncio.Future[None]] = []
        self._for_decision: list[asyncio.Future[None]] = []

    def look(self) -> None:
        """Read all channels."""
        state = combine(self._halt.states())
        self.condition, self._reason = state.condition, state.reason
        if state.condition is HaltCondition.HALTED:
            if self.halted_since is None:
                self.halted_since = asyncio.get_running_loop().time()
            _wake(self._for_halt)
        else:
            self.halted_since = None
        if state.condition is not HaltCondition.IN_DOUBT:
            _wake(self._for_decision)

    def note_silence(self, seconds: float) -> None:
        """It could not look for so long."""
        if seconds >= _STALE_S and self.condition is HaltCondition.OPEN:
            self.condition, self._reason = HaltCondition.IN_DOUBT, "it has not answered"
        self.process.call_later(self._halt.lag() / 4, self.look)

    async def is_halted(self) -> bool:
        """As in `HaltChecker`."""
        return self.condition is not HaltCondition.OPEN

    async def wait_until_open(self) -> bool:
        """As in `HaltChecker`."""
        while self.condition is HaltCondition.IN_DOUBT:
            await _woken(self._for_decision)
        return self.condition is HaltCondition.OPEN

    async def get_halt_reason(self) -> str | None:
        """As in `HaltChecker`."""
        return self._reason

    async def wait_until_halted(self) -> None:
        """As in `HaltChecker`."""
        if self.condition is not HaltCondition.HALTED:
            await _woken(self._for_halt)


async def _woken(among: list[asyncio.Future[None]]) -> None:
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    among.append(waiter)
    try:
        await waiter
    finally:
        if waiter in among:
            among.remove(waiter)


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
