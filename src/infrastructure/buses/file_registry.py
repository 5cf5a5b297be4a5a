"""Who has an inbox on a file bus and who is in which group: a journal that every process reads on from where it stopped."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from domain.models.message import Overflow
from infrastructure.buses.file_folder import BusFolder
from infrastructure.buses.file_held import Held
from infrastructure.buses.file_ids import KnownIds
from infrastructure.buses.file_words import SLOT_WORDS, SLOTS_PER_FILE, State

__all__ = ["Agent", "Registry", "Waiter"]

_COMPACT_ABOVE = 256 * 1024


class Waiter:
    """One call that waits until it is woken; a wake that comes before it waits is not lost."""

    __slots__ = ("_future", "_is_woken")

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None
        self._is_woken = False

    def wake(self) -> None:
        """Have it look."""
        self._is_woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def woken(self, until: float | None) -> bool:
        """Whether it was woken before `until`, in the event loop's time."""
        if not self._is_woken:
            loop = asyncio.get_running_loop()
            self._future = loop.create_future()
            alarm = None if until is None else loop.call_at(until, self._ring_out)
            try:
                await self._future
            finally:
                self._future = None
                if alarm is not None:
                    alarm.cancel()
        is_woken, self._is_woken = self._is_woken, False
        return is_woken

    def _ring_out(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Agent:
    """One inbox as this object sees it, and who of this object waits for it."""

    __slots__ = (
        "acknowledges",
        "capacity",
        "held",
        "holder",
        "ids",
        "is_gone",
        "max_attempts",
        "name",
        "overflow",
        "receivers",
        "registration",
        "senders",
        "slot",
        "visibility_ns",
        "words",
    )

    def __init__(self, slot: int, registration: int, words: memoryview) -> None:
        self.slot = slot
        # No other inbox ever has the same; it stays when the inbox is taken over.
        self.registration = registration
        self.words = words
        self.name = ""
        # Number of the place of a bus object, and its number for life.
        self.holder = (0, 0)
        self.capacity = 0
        self.overflow = Overflow.BLOCK
        self.acknowledges = False
        self.visibility_ns = 0
        self.max_attempts = 0
        self.is_gone = False
        self.ids = KnownIds(slot)
        self.held = Held()
        self.receivers: deque[Waiter] = deque()
        self.senders: deque[Waiter] = deque()


class Registry:
    """The names as of the last `refresh`. Every call but `get` is made under the folder's lock."""

    def __init__(self, folder: BusFolder, state: memoryview, *, on_gone: Callable[[Agent], None]) -> None:
        self._folder = folder
        self._state = state
        self._on_gone = on_gone
        self._chunks: list[memoryview] = []
        self._epoch = -1
        self._read = 0
        self._file = -1
        self.agents: dict[str, Agent] = {}
        self.by_slot: dict[int, Agent] = {}
        # Members in the order in which they joined.
        self.groups: dict[str, dict[int, Agent]] = {}
        self._free: list[int] = []
        self._next_slot = 0

    def refresh(self) -> None:
        """Read what others wrote since."""
        state = self._state
        if state[State.REGISTRY_EPOCH] != self._epoch:
            self._reload()
        elif state[State.REGISTRY_BYTES] != self._read:
            self._read_on()

    def members(self, group: str, *, but: str) -> list[Agent] | None:
        """The members of a group without one; None when there is no such group."""
        found = self.groups.get(group)
        return None if found is None else [agent for agent in found.values() if agent.name != but]

    def register(
        self,
        name: str,
        holder: tuple[int, int],
        *,
        capacity: int,
        overflow: Overflow,
        acknowledges: bool,
        visibility_ns: int,
        max_attempts: int,
    ) -> Agent:
        """Open an inbox, or take one over as it is."""
        known = self.agents.get(name)
        if known is not None:
            slot, registration = known.slot, known.registration
        else:
            slot = self._free[-1] if self._free else self._next_slot
            registration = self._state[State.NEXT_REGISTRATION]
            self._words(slot, is_known=False)
            self._state[State.NEXT_REGISTRATION] += 1
        settings = [capacity, overflow.value, acknowledges, visibility_ns, max_attempts]
        self._append(["register", slot, registration, name, *holder, *settings])
        return self.agents[name]

    def unregister(self, agent: Agent) -> None:
        """Close an inbox, which is empty by now."""
        self._append(["unregister", agent.slot])
        self._compact()

    def join(self, agent: Agent, group: str) -> None:
        """Make it a member."""
        if agent.slot not in self.groups.get(group, {}):
            self._append(["join", agent.slot, group])

    def leave(self, agent: Agent, group: str) -> None:
        """End a membership, if there is one."""
        if agent.slot in self.groups.get(group, {}):
            self._append(["leave", agent.slot, group])
            self._compact()

    def close(self) -> None:
        """Let go of the mapped words."""
        for agent in self.agents.values():
            agent.words.release()
        self._chunks.clear()

    def _append(self, record: list[Any]) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        if os.pwrite(self._file, line, self._read) != len(line):
            # The next try writes over it: only what is counted as written is ever read.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._read += len(line)
        self._state[State.REGISTRY_BYTES] = self._read
        self._apply(record)

    def _apply(self, record: Any) -> None:
        match record:
            case ["register", slot, registration, name, place, number, capacity, overflow, acknowledges, due, attempts]:
                agent = self.by_slot.get(slot)
                if agent is None or agent.registration != registration:
                    agent = Agent(slot, registration, self._words(slot))
                    self.by_slot[slot] = self.agents[name] = agent
                    if slot >= self._next_slot:
                        self._free.extend(range(self._next_slot, slot))
                        self._next_slot = slot + 1
                    else:
                        self._free.remove(slot)
                agent.name = name
                agent.holder = (place, number)
                agent.capacity = capacity
                agent.overflow = Overflow(overflow)
                agent.acknowledges = acknowledges
                agent.visibility_ns = due
                agent.max_attempts = attempts
            case ["unregister", slot]:
                agent = self.by_slot.pop(slot)
                del self.agents[agent.name]
                self._free.append(slot)
                for group in [name for name, members in self.groups.items() if slot in members]:
                    self._drop_member(slot, group)
                self._let_go(agent)
            case ["join", slot, group]:
                self.groups.setdefault(group, {})[slot] = self.by_slot[slot]
            case ["leave", slot, group]:
                self._drop_member(slot, group)
            case _:
                raise ValueError("no line of the registry")

    def _drop_member(self, slot: int, group: str) -> None:
        members = self.groups[group]
        del members[slot]
        if not members:
            del self.groups[group]

    def _let_go(self, agent: Agent) -> None:
        agent.is_gone = True
        self._on_gone(agent)

    def _read_on(self) -> None:
        until = self._state[State.REGISTRY_BYTES]
        text = os.pread(self._file, until - self._read, self._read)
        if len(text) != until - self._read:
            raise ValueError("the registry is cut off")
        for line in text.splitlines():
            self._apply(json.loads(line))
        self._read = until

    def _reload(self) -> None:
        if self._file >= 0:
            self._folder.forget_file(self._file)
        before = self.by_slot
        self._epoch = self._state[State.REGISTRY_EPOCH]
        self._file = self._folder.record_file(f"registry.{self._epoch:x}")
        self.agents, self.by_slot, self.groups = {}, {}, {}
        self._free, self._next_slot, self._read = [], 0, 0
        self._read_on()
        # Whoever waits here waits for the same inbox as before.
        for slot, old in before.items():
            now = self.by_slot.get(slot)
            if now is None or now.registration != old.registration:
                self._let_go(old)
                continue
            self._adopt(old, now)

    def _adopt(self, old: Agent, now: Agent) -> None:
        """Go on with the object that waiting calls know."""
        for field in ("name", "holder", "capacity", "overflow", "acknowledges", "visibility_ns", "max_attempts"):
            setattr(old, field, getattr(now, field))
        self.by_slot[old.slot] = self.agents[old.name] = old
        for members in self.groups.values():
            if old.slot in members:
                members[old.slot] = old

    def _compact(self) -> None:
        """Write the journal anew once most of it is about the past."""
        if self._read < _COMPACT_ABOVE or self._read < 1024 * (len(self.agents) + 1):
            return
        lines = [
            [
                "register",
                agent.slot,
                agent.registration,
                agent.name,
                *agent.holder,
                agent.capacity,
                agent.overflow.value,
                agent.acknowledges,
                agent.visibility_ns,
                agent.max_attempts,
            ]
            for agent in self.agents.values()
        ]
        lines += [["join", slot, group] for group, members in self.groups.items() for slot in members]
        text = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
        name, old = f"registry.{self._epoch + 1:x}", f"registry.{self._epoch:x}"
        self._folder.remove_own(name)
        file = self._folder.record_file(name)
        if os.pwrite(file, text, 0) != len(text):
            self._folder.forget_file(file)
            return
        self._folder.forget_file(self._file)
        self._file, self._epoch, self._read = file, self._epoch + 1, len(text)
        self._state[State.REGISTRY_EPOCH] = self._epoch
        self._state[State.REGISTRY_BYTES] = self._read
        self._folder.remove_own(old)

    def _words(self, slot: int, *, is_known: bool = True) -> memoryview:
        chunk, place = divmod(slot, SLOTS_PER_FILE)
        while chunk >= len(self._chunks):
            name = f"inboxes.{len(self._chunks):x}"
            self._chunks.append(self._folder.words(name, SLOT_WORDS * SLOTS_PER_FILE, is_known=is_known))
        return self._chunks[chunk][place * SLOT_WORDS : (place + 1) * SLOT_WORDS]
