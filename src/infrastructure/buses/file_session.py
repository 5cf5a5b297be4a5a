"""One object's hold on the folder of a file bus: opened once, one step at a time, told when others change something."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from domain.errors.bus import BusClosedError, BusError, BusUnavailableError
from domain.models.message import Message
from infrastructure.buses.file_bell import ALL, Bell, Ropes
from infrastructure.buses.file_folder import (
    TRANSPORT,
    BusFolder,
    as_found,
    away,
    damaged,
    is_of_damage,
    unavailable,
)
from infrastructure.buses.file_inboxes import Inboxes
from infrastructure.buses.file_mending import make_due
from infrastructure.buses.file_places import Places, machine_boot
from infrastructure.buses.file_registry import Agent, Registry, Waiter
from infrastructure.buses.file_words import NEVER, STATE_MAGIC, STATE_WORDS, Inbox, State

__all__ = ["FileSession", "step_aside"]

# Where the file system knows no pipes.
_POLL_S = 0.005
# How long to stay away from a folder that another process is at; the first tries only let the event loop turn.
_PAUSES_S = (0.0, 0.0, 0.0, 0.0002, 0.0005)


class FileSession:
    """Everything under `step` happens as one, in the order in which this object's calls came; `is_open` from the first to `close`.

    `watch` names who is told of inboxes that were closed, and of replies that may have come.
    """

    def __init__(
        self,
        path: Path,
        *,
        wall_clock: Callable[[], float],
        steady_clock: Callable[[], float],
        tell: Callable[[str, Message], None] | None,
    ) -> None:
        self.folder = BusFolder(path)
        self.wall_clock = wall_clock
        # Seconds on which all processes of the machine agree.
        self.steady_clock = steady_clock
        self._tap = tell
        self._on_gone: Callable[[Agent], None]
        self._on_replies: Callable[[], None]
        self.step = _Step(self)
        self.is_open = False
        self._closed = False
        self._opening = asyncio.Lock()
        # Those of this object who found the folder busy, first come, first served.
        self._turn = asyncio.Lock()
        self._in_line = 0
        self._missed = 0
        self._poll: asyncio.Task[None] | None = None
        self.state: memoryview
        self.registry: Registry
        self.inboxes: Inboxes
        self.places: Places
        self._bell: Bell
        self._ropes = Ropes(self.folder)
        # Inboxes whose other listeners are told at the end of the step.
        self._to_ring: dict[int, Agent] = {}

    def watch(self, *, on_gone: Callable[[Agent], None], on_replies: Callable[[], None]) -> None:
        """Tell these from now on; before the first step."""
        self._on_gone = on_gone
        self._on_replies = on_replies

    async def opened(self) -> None:
        """Open the folder, unless it is open. Raises `BusClosedError` and `BusUnavailableError`."""
        if not self.is_open:
            self.require_usable()
            await self._open()

    def require_usable(self) -> None:
        """Raises `BusClosedError` after `close`."""
        if self._closed:
            raise BusClosedError(transport=TRANSPORT)

    def close(self) -> None:
        """Let go of the folder; whoever waits here is woken, and finds it closed. A second time nothing happens."""
        self._closed = True
        if not self.is_open:
            return
        self.is_open = False
        if self._bell.file >= 0:
            asyncio.get_running_loop().remove_reader(self._bell.file)
        if self._poll is not None:
            self._poll.cancel()
        self._wake_everybody()
        with away(self.folder.path):
            try:
                self.places.clear()
                self._bell.close()
                self._ropes.close()
            finally:
                self.places.close()
                self.registry.close()
                self.folder.close()

    async def enter_step(self) -> None:
        """Take the folder's lock and see what others did; mends what one left half done who died in the middle."""
        await self.opened()
        await self._locked()
        try:
            with as_found(self.folder.path):
                self._require_whole()
                state = self.state
                is_dirty = state[State.DIRTY]
                state[State.DIRTY] = 1
                self.registry.refresh()
                if is_dirty:
                    self.inboxes.mend()
        except BaseException:
            self.folder.unlock()
            raise

    def leave_step(self, *, whole: bool) -> None:
        """Let the next one in; with `whole` false it has to mend what is there."""
        if not self.is_open:
            return
        try:
            with as_found(self.folder.path):
                if self._to_ring:
                    self._tell_others()
                if whole:
                    self.state[State.DIRTY] = 0
        finally:
            self.folder.unlock()

    def listen(self, agent: Agent) -> None:
        """Have this object rung when something happens to that inbox."""
        if agent.slot in self._to_ring:
            self._tell_others()
        word, bit = divmod(self.places.place, 64)
        agent.words[Inbox.LISTENERS + word] |= 1 << bit
        agent.words[Inbox.LISTENING] |= 1 << word

    def ring(self, agent: Agent) -> None:
        """Tell everybody who waits for that inbox, here and elsewhere; one of a line looks and tells the next."""
        if agent.receivers:
            agent.receivers[0].wake()
        if agent.senders:
            agent.senders[0].wake()
        if agent.words[Inbox.LISTENING]:
            self._to_ring[agent.slot] = agent

    def ring_others(self, agent: Agent) -> None:
        """Tell those who wait for it in other objects, at once: the inbox is about to be closed."""
        self._to_ring[agent.slot] = agent
        self._tell_others()

    def ring_for_reply(self, place: int) -> None:
        """Tell the object in that place, which may be this one, that a reply has come."""
        if place == self.places.place:
            self._on_replies()
        else:
            self._tell(place, (ALL,))

    def _tell_others(self) -> None:
        """One ring for each object, however many inboxes. None is crossed off before it was told: a kill may come between."""
        agents, self._to_ring = list(self._to_ring.values()), {}
        told: dict[int, list[int]] = {}
        for agent in agents:
            for word in _ones(agent.words[Inbox.LISTENING]):
                for bit in _ones(agent.words[Inbox.LISTENERS + word]):
                    told.setdefault(64 * word + bit, []).append(agent.slot)
        for place, slots in told.items():
            if place != self.places.place:
                self._tell(place, slots)
        for agent in agents:
            for word in _ones(agent.words[Inbox.LISTENING]):
                agent.words[Inbox.LISTENERS + word] = 0
            agent.words[Inbox.LISTENING] = 0

    def _tell(self, place: int, slots: Sequence[int]) -> None:
        if not self._ropes.ring(place, self.places.number_at(place), slots):
            self.places.miss(place)

    async def _open(self) -> None:
        async with self._opening:
            if self.is_open:
                return
            self.require_usable()
            with away(self.folder.path):
                try:
                    self.folder.open()
                    await self._locked()
                    self.require_usable()
                    with as_found(self.folder.path):
                        self._set_up()
                    self.folder.unlock()
                except BaseException:
                    self.folder.close()
                    raise
            self.is_open = True
            if self._bell.file >= 0:
                asyncio.get_running_loop().add_reader(self._bell.file, self._hear)
            else:
                self._poll = asyncio.create_task(self._look_now_and_then())

    def _set_up(self) -> None:
        folder = self.folder
        # The registry is only made once the state is.
        is_known = any(name.startswith("registry.") for name in folder.own_names())
        state = folder.words("state", STATE_WORDS, is_known=is_known)
        if state[State.MAGIC] == 0 and not is_known:
            state[State.NEXT_OBJECT] = state[State.NEXT_REGISTRATION] = 1
            state[State.NEXT_EXPIRY] = state[State.NEXT_LAST_DUE] = NEVER
            state[State.BOOT] = machine_boot()
            state[State.MAGIC] = STATE_MAGIC
        elif state[State.MAGIC] != STATE_MAGIC:
            raise BusUnavailableError(
                transport=TRANSPORT,
                problem=f"its folder {str(folder.path)!r} holds a bus of another version, or none",
                remedy="Give another folder, or remove it.",
            )
        self.state = state
        self.registry = Registry(folder, state, on_gone=self._let_go)
        self.registry.refresh()
        self.inboxes = Inboxes(
            folder,
            state,
            self.registry,
            wall_clock=self.wall_clock,
            steady_clock=self.steady_clock,
            ring=self.ring,
            tell=self._tap,
        )
        self.places = Places(folder, state)
        self._bell = Bell(folder, self.places.place)
        self._missed = self.places.missed()
        if state[State.BOOT] != machine_boot():
            make_due(folder, state, self.registry.by_slot.values())
            state[State.BOOT] = machine_boot()

    async def _locked(self) -> None:
        if not self._in_line and self.folder.try_lock():
            return
        self._in_line += 1
        try:
            async with self._turn:
                tries = 0
                self.require_usable()
                while not self.folder.try_lock():
                    await asyncio.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
                    self.require_usable()
                    tries += 1
        finally:
            self._in_line -= 1

    def _require_whole(self) -> None:
        if not self.folder.is_whole():
            raise damaged(self.folder.path, "a table in it was cut off")
        if self.state[State.MAGIC] != STATE_MAGIC:
            raise damaged(self.folder.path, "'state' in it was written over")

    def _hear(self) -> None:
        slots = self._bell.heard()
        try:
            self._require_whole()
            if ALL in slots:
                self._on_replies()
            for slot in slots:
                agent = self.registry.by_slot.get(slot)
                if agent is not None:
                    _wake_first(agent)
            if self._missed != self.places.missed():
                self._look_everywhere()
        except BusUnavailableError:
            self._wake_everybody()

    def _wake_everybody(self) -> None:
        """Whoever waits takes a step, and is told there what is wrong."""
        for agent in self.registry.agents.values():
            _wake_all(agent)

    def _look_everywhere(self) -> None:
        self._missed = self.places.missed()
        self._on_replies()
        for agent in self.registry.agents.values():
            _wake_first(agent)

    async def _look_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                self._require_whole()
                if self._missed != self.places.missed():
                    self._look_everywhere()
            except BusUnavailableError:
                self._wake_everybody()
                return

    def _let_go(self, agent: Agent) -> None:
        _wake_all(agent)
        self._on_gone(agent)


class _Step:
    """One step on the folder, under its lock. Nothing is awaited inside, so this one object serves every call."""

    def __init__(self, session: FileSession) -> None:
        self._session = session

    async def __aenter__(self) -> None:
        try:
            await self._session.enter_step()
        except OSError as error:
            raise unavailable(self._session.folder.path, error) from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A refusal comes before the first change; anything else may have come after it.
        self._session.leave_step(whole=error is None or isinstance(error, BusError))
        if isinstance(error, OSError) and not isinstance(error, BusError):
            raise unavailable(self._session.folder.path, error) from error
        if is_of_damage(error):
            raise damaged(self._session.folder.path, f"a step on it failed ({type(error).__name__})") from error


def _ones(bits: int) -> Iterator[int]:
    """Which bits of a number are set."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def step_aside(line: deque[Waiter], waiter: Waiter) -> None:
    """Give the place in a line up, and have the next one look."""
    with contextlib.suppress(ValueError):
        line.remove(waiter)
    if line:
        line[0].wake()


def _wake_first(agent: Agent) -> None:
    for line in (agent.receivers, agent.senders):
        if line:
            line[0].wake()


def _wake_all(agent: Agent) -> None:
    for line in (agent.receivers, agent.senders):
        for waiter in line:
            waiter.wake()
