"""One object's door to the shared memory of its bus: everything that happens under the lock, in whole steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from domain.errors.bus import NameTakenError, UnknownAgentError
from domain.models.message import BusStats, DeadLetter, Message
from infrastructure.buses.bus_statistics import cumulative
from infrastructure.buses.shm_batches import Run, unpack
from infrastructure.buses.shm_chunks import Chunks
from infrastructure.buses.shm_history import SharedHistory
from infrastructure.buses.shm_lanes import Lanes, Taken
from infrastructure.buses.shm_layout import Dead, Head, Inbox, Record
from infrastructure.buses.shm_letters import read_letters
from infrastructure.buses.shm_members import Members
from infrastructure.buses.shm_replies import Replies
from infrastructure.buses.shm_seen import Seen
from infrastructure.buses.shm_segment import Segment
from infrastructure.buses.shm_slots import Slots
from infrastructure.buses.shm_totals import Totals

__all__ = ["BLOCK", "DROP_OLDEST", "REJECT", "Post"]

BLOCK, REJECT, DROP_OLDEST = range(3)


class Post:
    """The parts of a shared-memory bus, put together over one segment. Every call is made inside `with post.segment:`."""

    def __init__(
        self, folder: Path, *, size: int, keep_payloads: bool, woken: Callable[[int], None], wall: Callable[[], float]
    ) -> None:
        """Open or create the segment and take a slot. Raises `BusUnavailableError`."""
        self.segment = Segment(folder, size=size)
        self._wall = wall
        self._keep_payloads = keep_payloads
        self._chunks = Chunks(self.segment)
        self._totals = Totals(self.segment)
        self._lanes = Lanes(self.segment, self._chunks, self._totals)
        self._seen = Seen(self.segment)
        self.slots = Slots(self.segment, woken)
        self.members = Members(self.segment, self._chunks, self._lanes, self._seen, self.slots)
        self.replies = Replies(self.segment, self.slots, self._chunks, self._lanes, self._totals)
        self._history = SharedHistory(self.segment)
        self.last = self._history.last
        self.segment.when_full = self._lanes.forget_oldest
        try:
            with self.segment:
                words = self.segment.words
                if not words[Head.CREATED]:
                    words[Head.CREATED] = time.monotonic_ns()
                for dead in self.slots.take():
                    self._clear(dead)
        except BaseException:
            self.slots.close()
            self.segment.close()
            raise

    def close(self) -> None:
        """Give the slot back; the last living object removes the segment."""

        def leave() -> bool:
            self._clear(self.slots.index)
            return not self.slots.others()

        try:
            self.segment.close(leave=leave)
        finally:
            self.slots.close()

    def offer(
        self, inbox: int, run: Run, *, policy: int, pending: list[tuple[int, int]], stored: int = 0
    ) -> list[tuple[int, int]]:
        """Put what fits of `pending` into an inbox; returns what did not. `stored` is where the run lies already, if it does."""
        digests: dict[int, int] = {}
        if run.given:
            pending = self._without_duplicates(inbox, run, pending, digests)
        count = sum(length for _, length in pending)
        if not count:
            return []
        lanes = self._lanes
        room = lanes.room(inbox)
        if room < count:
            lanes.sweep(inbox, now=time.monotonic_ns(), wall=self.wall_us())
            room = lanes.room(inbox)
        left: list[tuple[int, int]] = []
        if room < count and policy != DROP_OLDEST:
            pending, left = _divided(pending, max(0, room))
        if pending:
            self._put(inbox, run, pending, digests, stored)
            if room < count and policy == DROP_OLDEST:
                lanes.drop_oldest(inbox, count - max(0, room), wall=self.wall_us())
            self.slots.wake_waiting(self.receivers(inbox), inbox)
        return left

    def spread(self, inboxes: list[int], run: Run) -> int:
        """Put a run into each inbox without waiting; returns how many took the last message of it."""
        words = self.segment.words
        took = 0
        stored = self._chunks.store(run.header, run.payloads)
        for inbox in inboxes:
            duplicates = words[Head.DUPLICATES]
            left = self.offer(inbox, run, policy=words[inbox + Inbox.OVERFLOW], pending=run.pending, stored=stored)
            if left:
                self._totals.add(Head.REJECTED, sum(length for _, length in left))
                self.bury(run, left, Dead.INBOX_FULL, words[inbox + Inbox.NAME])
            elif words[Head.DUPLICATES] == duplicates and words[inbox + Inbox.LAST + run.lane]:
                # With nothing left in its lane, it was itself the oldest of the lowest.
                took += 1
            self.segment.ease()
        self._chunks.release(stored)
        return took

    def bury(self, run: Run, ranges: list[tuple[int, int]], reason: int, name: int = 0) -> None:
        """What never reached an inbox becomes dead letters, of the run's recipient unless a name's place is given."""
        place = self._chunks.store(run.header, run.payloads)
        owner = name or self._chunks.store(run.recipient.encode())
        for first, length in ranges:
            self._lanes.bury_unsent(
                place, first, length, reason, owner, lane=run.lane, sent=run.sent_ns, wall=self.wall_us()
            )
        self._chunks.release(place)
        if not name:
            self._chunks.release(owner)

    def note(self, run: Run, *, but: list[tuple[int, int]] | None = None) -> None:
        """Keep a run in the history, without its duplicates and the ranges that were refused."""
        header, payloads = run.header, run.payloads
        if but or (run.fresh is not None and len(run.fresh) < len(run.messages)):
            refused = {index for first, length in but or () for index in range(first, first + length)}
            indexes = sorted((set(range(len(run.messages))) if run.fresh is None else run.fresh) - refused)
            if not indexes:
                return
            header, payloads = run.part(indexes)
        self._history.append(header, payloads if self._keep_payloads else None)

    def count(self, place: int, amount: int = 1) -> None:
        """One more of something."""
        self._totals.add(place, amount)

    def take(self, inbox: int, most: int) -> list[Taken]:
        """The next messages of an inbox, without what has expired."""
        now = time.monotonic_ns()
        self._lanes.sweep(inbox, now=now, wall=self.wall_us())
        taken = self._lanes.take(inbox, most, now=now)
        if taken and not self.segment.words[inbox + Inbox.MANUAL]:
            self.room_made(inbox)
        return taken

    def room_made(self, inbox: int) -> None:
        """Let blocked senders look again."""
        self.slots.wake_waiting(inbox + Inbox.SENDERS, inbox)

    def acknowledge(self, inbox: int, ids: tuple[str, ...], known: dict[tuple[int, str], tuple[int, int]]) -> int:
        """`known` is where this object took messages; the rest is looked for among what others took.

        What is overdue counts until it is delivered again; what is buried by then does not.
        """
        words = self.segment.words
        self._lanes.sweep(inbox, now=time.monotonic_ns(), wall=self.wall_us())
        count = 0
        unknown = []
        for message_id in ids:
            record, serial = known.pop((inbox, message_id), (0, 0))
            if not record:
                unknown.append(message_id)
            elif words[record + Record.SERIAL] == serial and not words[record + Record.NAME]:
                self._lanes.acknowledge(inbox, record)
                self.segment.ease()
                count += 1
        if unknown:
            wanted = set(unknown)
            for record in self._lanes.in_flight(inbox) + self._lanes.overdue(inbox):
                if self._message(record).id in wanted:
                    self._lanes.acknowledge(inbox, record)
                    self.segment.ease()
                    count += 1
        if count:
            self.room_made(inbox)
        return count

    def next_due_s(self, inbox: int) -> float | None:
        """Seconds until the first unacknowledged message comes back."""
        record = self.segment.words[inbox + Inbox.FLIGHT_FIRST]
        if not record:
            return None
        return max(0.0, (self.segment.words[record + Record.DUE] - time.monotonic_ns()) / 1e9)

    def next_room_s(self, inbox: int) -> float | None:
        """Seconds until time alone may make room: an unacknowledged message dies or a waiting one expires."""
        due = self.next_due_s(inbox)
        earliest = self.segment.words[inbox + Inbox.EARLIEST]
        if not earliest:
            return due
        expires = max(0.0, (earliest - self.wall_us()) / 1e6)
        return expires if due is None else min(due, expires)

    def receivers(self, inbox: int) -> int:
        """The word that says who waits for a message."""
        return inbox + Inbox.RECEIVERS

    def senders(self, inbox: int) -> int:
        """The word that says who waits for room."""
        return inbox + Inbox.SENDERS

    def stats(self, transport: str) -> BusStats:
        """The counts, everything expired buried."""
        self._sweep_all()
        words = self.segment.words
        return BusStats(
            transport=transport,
            sent=words[Head.SENT],
            delivered=words[Head.DELIVERED],
            acknowledged=words[Head.ACKNOWLEDGED],
            redelivered=words[Head.REDELIVERED],
            duplicates=words[Head.DUPLICATES],
            rejected=words[Head.REJECTED],
            dropped=words[Head.DROPPED],
            expired=words[Head.EXPIRED],
            late_replies=words[Head.LATE_REPLIES],
            dead_letters=words[Head.DEAD_TOTAL],
            queued={
                self.members.name(inbox): words[inbox + Inbox.WAITING] + words[inbox + Inbox.UNACKNOWLEDGED]
                for inbox in reversed(self.members.inboxes())
            },
            messages_per_second=self._totals.per_second(time.monotonic_ns()),
            latency_us=self._totals.latency_us(),
            latency_histogram=cumulative(self._totals.latencies()),
            latency_sum_s=sum(seconds * count for seconds, count in self._totals.latencies()),
        )

    def dead_letters(self, agent_id: str | None) -> Callable[[], list[DeadLetter]]:
        """The last ones, oldest first: what to call for them outside the section, since reading ten thousand takes a while."""
        self._sweep_all()
        return read_letters(self.segment.words, self._chunks, agent_id)

    def own(self, agent_id: str, serial: int = 0) -> int:
        """The inbox of an agent that no other living object owns, and the one with that serial unless it is 0.

        Raises `UnknownAgentError` and `NameTakenError`.
        """
        inbox = self.members.existing(agent_id)
        words = self.segment.words
        if serial and words[inbox] != serial:
            raise UnknownAgentError(agent_id=agent_id)
        owner, owned_by = words[inbox + Inbox.OWNER], words[inbox + Inbox.OWNER_SERIAL]
        if owned_by != self.slots.serial and self.slots.lives(owner, owned_by):
            raise NameTakenError(name=agent_id, holder="another object of this bus")
        return inbox

    def wall_us(self) -> int:
        """The time of day in microseconds."""
        return max(1, int(self._wall() * 1e6))

    def _put(self, inbox: int, run: Run, ranges: list[tuple[int, int]], digests: dict[int, int], stored: int) -> None:
        place = stored or self._chunks.store(run.header, run.payloads)
        now = time.monotonic_ns()
        for first, length in ranges:
            run.taken += length
            self._lanes.append(
                inbox, place, first, length, lane=run.lane, expires=run.expires_us, sent=run.sent_ns, now=now
            )
            for index in range(first, first + length):
                if index in digests:
                    self._seen.remember(inbox, digests[index])
        if not stored:
            self._chunks.release(place)

    def _without_duplicates(
        self, inbox: int, run: Run, pending: list[tuple[int, int]], digests: dict[int, int]
    ) -> list[tuple[int, int]]:
        kept: list[tuple[int, int]] = []
        here: set[int] = set()
        fresh = run.fresh = run.fresh or set()
        for first, length in pending:
            for index in range(first, first + length):
                if run.messages[index].id:
                    digest = self._seen.digest(run.messages[index].id)
                    if digest in here or self._seen.knows(inbox, digest):
                        self._totals.add(Head.DUPLICATES)
                        continue
                    here.add(digest)
                    digests[index] = digest
                fresh.add(index)
                if kept and kept[-1][0] + kept[-1][1] == index:
                    kept[-1] = (kept[-1][0], kept[-1][1] + 1)
                else:
                    kept.append((index, 1))
        return kept

    def _sweep_all(self) -> None:
        now, wall = time.monotonic_ns(), self.wall_us()
        for inbox in self.members.inboxes():
            before = self._lanes.room(inbox)
            self._lanes.sweep(inbox, now=now, wall=wall)
            if self._lanes.room(inbox) > before:
                self.room_made(inbox)
            self.segment.ease()

    def _messages(self, record: int) -> list[Message]:
        return unpack(*self._chunks.fetch(self.segment.words[record + Record.BATCH]))

    def _message(self, record: int) -> Message:
        return self._messages(record)[self.segment.words[record + Record.FIRST]]

    def _clear(self, index: int) -> None:
        """A slot is given back, and with it the replies and requests of its object."""
        self.replies.clear(index)
        self.slots.release(index)


def _divided(ranges: list[tuple[int, int]], count: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The first `count` messages of ranges, and the rest."""
    head: list[tuple[int, int]] = []
    tail: list[tuple[int, int]] = []
    for first, length in ranges:
        part = min(length, count)
        count -= part
        if part:
            head.append((first, part))
        if part < length:
            tail.append((first + part, length - part))
    return head, tail
