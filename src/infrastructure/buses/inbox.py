"""One agent's inbox in memory: three lanes, what was taken and not acknowledged, who waits for a message and who for room."""

from __future__ import annotations

from asyncio import Future, TimerHandle
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple, TypeAlias

from domain.models.message import Message, Overflow, Priority
from infrastructure.buses.recent_ids import RecentIds

__all__ = ["Blocked", "Entry", "Inbox", "Taken"]

# Its place in the order of all messages of the bus, when it was sent (`perf_counter`, for the latency alone), and the message.
Entry: TypeAlias = tuple[int, float, Message]
# When a message in its agent's hands is delivered again unless it is acknowledged (the event loop's time), and that message.
Taken: TypeAlias = tuple[float, Entry]


class Blocked(NamedTuple):
    """A sender that waits for room; `admitted` gets True when its message was put in its place, and False when its patience ends."""

    entry: Entry
    given: bool
    admitted: Future[bool]


class Inbox:
    """Keeps to its capacity: what waits, and what was taken but not acknowledged, is never more."""

    __slots__ = (
        "agent_id",
        "blocked",
        "capacity",
        "careful",
        "groups",
        "high",
        "lanes",
        "low",
        "manual",
        "next_expiry",
        "normal",
        "overdue",
        "overflow",
        "receivers",
        "room",
        "seen",
        "taken",
        "tapped",
        "timer",
    )

    def __init__(self, agent_id: str, *, capacity: int, overflow: Overflow, manual: bool, tapped: bool) -> None:
        self.agent_id = agent_id
        self.capacity = capacity
        self.overflow = overflow
        self.manual = manual
        self.tapped = tapped
        # Whether there is more to taking a message than taking it, now that one expires, somebody waits for room or looks on.
        self.careful = manual or tapped
        # How many more messages it takes; the capacity less what waits and what is not acknowledged.
        self.room = capacity
        self.high: deque[Entry] = deque()
        self.normal: deque[Entry] = deque()
        self.low: deque[Entry] = deque()
        # By priority.
        self.lanes = (self.high, self.normal, self.low)
        self.taken: dict[str, Taken] = {}
        # What was taken, not acknowledged in time, and waits to be delivered again: until it is, it may still be acknowledged.
        self.overdue: dict[str, Entry] = {}
        self.receivers: deque[Future[bool]] = deque()
        self.blocked: tuple[deque[Blocked], deque[Blocked], deque[Blocked]] | None = None
        # Made when the first sender gives an id: most never do.
        self.seen: RecentIds | None = None
        # No message that waits expires before this moment (Unix seconds); None when none expires.
        self.next_expiry: float | None = None
        self.groups: set[str] = set()
        self.timer: TimerHandle | None = None

    @property
    def held(self) -> int:
        """How many messages wait or are not acknowledged."""
        return self.capacity - self.room

    def waiting(self) -> Iterator[Entry]:
        """What waits, in the order in which it will be taken."""
        return chain.from_iterable(self.lanes)

    def wake(self) -> None:
        """Have one receiver look again."""
        receivers = self.receivers
        while receivers:
            receiver = receivers.popleft()
            if not receiver.done():
                receiver.set_result(True)
                return

    def leave(self, arrived: Future[bool]) -> None:
        """A receiver gave up: if it was woken before, the message is somebody else's now."""
        if arrived in self.receivers:
            self.receivers.remove(arrived)
        elif not arrived.cancelled() and (self.high or self.normal or self.low):
            self.wake()

    def has_seen(self, message_id: str) -> bool:
        """Whether a sender gave this id before."""
        return self.seen is not None and message_id in self.seen

    def remember(self, message_id: str) -> None:
        """A sender gave this id, and its message was taken."""
        if self.seen is None:
            self.seen = RecentIds()
        self.seen.add(message_id)

    def put(self, entry: Entry) -> None:
        """Take one more message; there has to be room."""
        message = entry[2]
        self.lanes[message.priority].append(entry)
        self.room -= 1
        if message.expires_at is not None:
            self.note_expiry(message)
        if self.receivers:
            self.wake()

    def put_back(self, entries: list[Entry]) -> None:
        """Have messages that were taken wait again, in their old places. `entries` are in the order of delivery."""
        for entry in reversed(entries):
            lane = self.lanes[entry[2].priority]
            place = 0
            # Only what came back earlier can be older, so this looks at few.
            while place < len(lane) and lane[place][0] < entry[0]:
                place += 1
            lane.insert(place, entry)
            self.overdue[entry[2].id] = entry
            self.note_expiry(entry[2])
        for _ in entries:
            self.wake()

    def take_overdue(self, message_id: str) -> Entry | None:
        """Remove a message that waits to be delivered again, if there is one of that id."""
        entry = self.overdue.pop(message_id, None)
        if entry is not None:
            # Near the front: only what was delivered as well can be older.
            self.lanes[entry[2].priority].remove(entry)
        return entry

    def note_expiry(self, message: Message) -> None:
        """Remember when to look for expired messages."""
        if message.expires_at is not None and (self.next_expiry is None or message.expires_at < self.next_expiry):
            self.next_expiry = message.expires_at
            self.careful = True

    def take_expired(self, now: float) -> list[Entry]:
        """Remove what has expired at `now` (Unix seconds) and waits; makes room."""
        if self.next_expiry is None or now < self.next_expiry:
            return []
        self.next_expiry = None
        expired = []
        for lane in self.lanes:
            kept = []
            for entry in lane:
                expires_at = entry[2].expires_at
                if expires_at is not None and expires_at <= now:
                    expired.append(entry)
                    self.overdue.pop(entry[2].id, None)
                else:
                    kept.append(entry)
                    self.note_expiry(entry[2])
            if len(kept) < len(lane):
                lane.clear()
                lane.extend(kept)
        self.room += len(expired)
        self._look()
        return expired

    def drop_for(self, priority: int) -> Entry | None:
        """Remove the oldest of the lowest priority that waits, for a new one of `priority`; None when the new one is that itself."""
        for lowest in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
            lane = self.lanes[lowest]
            if lowest >= priority and lane:
                self.room += 1
                dropped = lane.popleft()
                self.overdue.pop(dropped[2].id, None)
                return dropped
            if lowest == priority:
                break
        return None

    def block(self, blocked: Blocked) -> None:
        """Have a sender wait for room behind those of its priority."""
        if self.blocked is None:
            self.blocked = (deque(), deque(), deque())
            self.careful = True
        self.blocked[blocked.entry[2].priority].append(blocked)

    def unblock(self, blocked: Blocked) -> None:
        """The sender waits no more."""
        if self.blocked is not None:
            line = self.blocked[blocked.entry[2].priority]
            if blocked in line:
                line.remove(blocked)
            if not any(self.blocked):
                self.blocked = None
                self._look()

    def next_blocked(self) -> Blocked | None:
        """The sender whose turn it is, if one waits; it waits no more."""
        if self.blocked is None:
            return None
        for line in self.blocked:
            while line:
                blocked = line.popleft()
                if not blocked.admitted.done():
                    return blocked
        self.blocked = None
        self._look()
        return None

    def _look(self) -> None:
        self.careful = self.manual or self.tapped or self.next_expiry is not None or self.blocked is not None

    def due(self, now: float) -> list[Entry]:
        """Remove and return what was taken so long ago that it is due again at `now` (the event loop's time), in order of delivery."""
        entries = []
        for due, entry in self.taken.values():
            if due > now:
                break
            entries.append(entry)
        for entry in entries:
            del self.taken[entry[2].id]
        return entries
