"""The inboxes of a shared-memory bus: three lanes of runs, what is in flight, and the dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from infrastructure.buses.shm_chunks import Chunks
from infrastructure.buses.shm_layout import Dead, Head, Inbox, Record
from infrastructure.buses.shm_segment import Segment
from infrastructure.buses.shm_totals import Totals

__all__ = ["Lanes", "Taken"]

# All words of a record but the first.
_FIELDS = Struct(f"={Record.WORDS - 1}Q")


@dataclass(slots=True)
class Taken:
    """Part of a run that was taken: the packed run, which of its messages, and for manual mode where they are in flight."""

    record: int
    header: bytes
    payloads: bytes
    first: int
    count: int
    whole: bool
    attempt: int
    sent_ns: int
    flight: list[tuple[int, int]] | None = None


class Lanes:
    """Moves runs between lanes, flight and dead letters. All calls are made inside a section of the segment.

    `now` is in nanoseconds of the clock that all processes share, `wall` in microseconds since 1970.
    """

    def __init__(self, segment: Segment, chunks: Chunks, totals: Totals) -> None:
        self._segment = segment
        self._chunks = chunks
        self._totals = totals

    def room(self, inbox: int) -> int:
        """How many messages still fit; below 0 after a takeover with a smaller capacity."""
        words = self._segment.words
        return words[inbox + Inbox.CAPACITY] - words[inbox + Inbox.WAITING] - words[inbox + Inbox.UNACKNOWLEDGED]

    def append(
        self, inbox: int, run: int, first: int, count: int, *, lane: int, expires: int, sent: int, now: int
    ) -> None:
        """Part of a packed run goes to the end of its lane."""
        segment = self._segment
        words = segment.words
        record = self._record(run, first, count, lane=lane, expires=expires, sent=sent)
        words[record + Record.SEQUENCE] = words[inbox + Inbox.SEQUENCE] + 1
        segment.add(inbox + Inbox.SEQUENCE, count)
        last = words[inbox + Inbox.LAST + lane]
        words[record + Record.PREVIOUS] = last
        segment.set((last + Record.NEXT) if last else inbox + Inbox.FIRST + lane, record)
        segment.set(inbox + Inbox.LAST + lane, record)
        segment.add(inbox + Inbox.WAITING, count)
        self._mind_expiry(inbox, expires)
        self._totals.sent(count, now)

    def take(self, inbox: int, most: int, *, now: int) -> list[Taken]:
        """The next messages, at most `most`, expired ones already swept."""
        segment = self._segment
        words = segment.words
        manual = words[inbox + Inbox.MANUAL]
        found: list[Taken] = []
        for lane in range(3):
            while most and (record := words[inbox + Inbox.FIRST + lane]):
                total = words[record + Record.COUNT]
                count = total if total < most else most
                most -= count
                run = words[record + Record.BATCH]
                header, payloads = self._chunks.fetch(run)
                taken = Taken(
                    words[record + Record.SERIAL],
                    header,
                    payloads,
                    words[record + Record.FIRST],
                    count,
                    count == total,
                    words[record + Record.ATTEMPT] + 1,
                    words[record + Record.SENT],
                )
                found.append(taken)
                self._totals.delivered(count, taken.attempt, now - taken.sent_ns)
                if manual:
                    taken.flight = self._fly(inbox, record, count, due=now + words[inbox + Inbox.VISIBILITY])
                else:
                    self._totals.add(Head.ACKNOWLEDGED, count)
                    self._shorten(inbox, record, count)
                segment.ease()
            if not most:
                break
        return found

    def acknowledge(self, inbox: int, record: int) -> None:
        """A message in flight, or one that waits to be delivered again, is dealt with."""
        if self._segment.words[record + Record.DUE]:
            self._unlink_flight(inbox, record)
        else:
            self._unlink(inbox, record)
        self._drop(record)
        self._totals.add(Head.ACKNOWLEDGED)

    def in_flight(self, inbox: int) -> list[int]:
        """The records in flight, first due first."""
        words = self._segment.words
        found = []
        record = words[inbox + Inbox.FLIGHT_FIRST]
        while record:
            found.append(record)
            record = words[record + Record.NEXT]
        return found

    def overdue(self, inbox: int) -> list[int]:
        """The records that were in flight and wait to be delivered again."""
        words = self._segment.words
        found = []
        for lane in range(3):
            record = words[inbox + Inbox.FIRST + lane]
            # A lane is taken from its front, so that what was delivered once comes before what never was.
            while record and words[record + Record.ATTEMPT]:
                found.append(record)
                record = words[record + Record.NEXT]
        return found

    def sweep(self, inbox: int, *, now: int, wall: int) -> None:
        """Put back what was not acknowledged in time, or bury it after its last attempt; bury what has expired."""
        segment = self._segment
        words = segment.words
        while (record := words[inbox + Inbox.FLIGHT_FIRST]) and words[record + Record.DUE] <= now:
            self._land(inbox, record, wall)
            segment.ease()
        earliest = words[inbox + Inbox.EARLIEST]
        if earliest and earliest <= wall:
            self._sweep_expired(inbox, wall)

    def land_all(self, inbox: int, *, wall: int) -> None:
        """Nobody has it in hand any more: what is in flight is put back, or buried after its last attempt."""
        words = self._segment.words
        most = words[inbox + Inbox.MAX_ATTEMPTS]
        flight = self.in_flight(inbox)
        # From the last to the first each finds its place at once; the dead ones keep their order.
        waiting = [record for record in flight if words[record + Record.ATTEMPT] < most]
        waiting.sort(key=lambda record: words[record + Record.SEQUENCE], reverse=True)
        for record in [record for record in flight if words[record + Record.ATTEMPT] >= most] + waiting:
            self._land(inbox, record, wall)
            self._segment.ease()

    def drop_oldest(self, inbox: int, count: int, *, wall: int) -> int:
        """Bury the oldest waiting messages of the lowest lanes; returns how many there were."""
        words = self._segment.words
        wanted = count
        for lane in (2, 1, 0):
            while wanted and (record := words[inbox + Inbox.FIRST + lane]):
                part = min(wanted, words[record + Record.COUNT])
                wanted -= part
                self._bury_first(inbox, record, part, Dead.INBOX_FULL, wall)
                self._totals.add(Head.DROPPED, part)
                self._segment.ease()
        return count - wanted

    def empty(self, inbox: int, *, wall: int) -> None:
        """Everything in the inbox becomes dead letters, in the order in which it would have been received."""
        segment = self._segment
        words = segment.words
        name = words[inbox + Inbox.NAME]
        while record := words[inbox + Inbox.FLIGHT_FIRST]:
            self._unlink_flight(inbox, record)
            self.bury(record, Dead.UNREGISTERED, name, wall=wall)
            segment.ease()
        for lane in range(3):
            while record := words[inbox + Inbox.FIRST + lane]:
                self._bury_first(inbox, record, words[record + Record.COUNT], Dead.UNREGISTERED, wall)
                segment.ease()

    def bury_unsent(
        self, run: int, first: int, count: int, reason: int, name: int, *, lane: int, sent: int, wall: int
    ) -> None:
        """Part of a run that never reached an inbox becomes dead letters."""
        self.bury(self._record(run, first, count, lane=lane, expires=0, sent=sent), reason, name, wall=wall)

    def bury(self, record: int, reason: int, name: int, *, wall: int) -> None:
        """An unlinked record becomes dead letters of the inbox of that name; the oldest beyond 10,000 go."""
        segment = self._segment
        words = segment.words
        self._chunks.hold(name)
        segment.set(record + Record.REASON, reason)
        segment.set(record + Record.AT, wall)
        segment.set(record + Record.NAME, name)
        segment.set(record + Record.NEXT, 0)
        last = words[Head.DEAD_LAST]
        segment.set((last + Record.NEXT) if last else Head.DEAD_FIRST, record)
        segment.set(Head.DEAD_LAST, record)
        count = words[record + Record.COUNT]
        segment.add(Head.DEAD_KEPT, count)
        self._totals.add(Head.DEAD_TOTAL, count)
        if reason == Dead.EXPIRED:
            self._totals.add(Head.EXPIRED, count)
        while words[Head.DEAD_KEPT] - words[words[Head.DEAD_FIRST] + Record.COUNT] >= Dead.KEPT:
            self.forget_oldest()

    def forget_oldest(self) -> bool:
        """Let the oldest dead letters go; whether there were any."""
        segment = self._segment
        words = segment.words
        record = words[Head.DEAD_FIRST]
        if not record:
            return False
        following = words[record + Record.NEXT]
        segment.set(Head.DEAD_FIRST, following)
        if not following:
            segment.set(Head.DEAD_LAST, 0)
        segment.add(Head.DEAD_KEPT, -words[record + Record.COUNT])
        self._chunks.release(words[record + Record.NAME])
        self._drop(record)
        return True

    def single(self, run: int, *, lane: int, sent: int) -> int:
        """A record of one message outside every inbox, as a reply is."""
        return self._record(run, 0, 1, lane=lane, expires=0, sent=sent)

    def discard(self, record: int) -> None:
        """Such a record is read."""
        self._drop(record)

    def _record(self, run: int, first: int, count: int, *, lane: int, expires: int, sent: int) -> int:
        segment = self._segment
        record = segment.allocate(Record.WORDS)
        _FIELDS.pack_into(
            segment.memory,
            (record + 1) * 8,
            *(0, 0, run, first, count, 0, lane, expires, sent, 0, 0, segment.serial(), 0, 0, 0),
        )
        self._chunks.hold(run)
        return record

    def _drop(self, record: int) -> None:
        self._chunks.release(self._segment.words[record + Record.BATCH])
        # Whoever remembers the record sees that it is gone.
        self._segment.set(record + Record.SERIAL, 0)
        self._segment.free(record, Record.WORDS)

    def _mind_expiry(self, inbox: int, expires: int) -> None:
        earliest = self._segment.words[inbox + Inbox.EARLIEST]
        if expires and (not earliest or expires < earliest):
            self._segment.set(inbox + Inbox.EARLIEST, expires)

    def _unlink(self, inbox: int, record: int) -> None:
        segment = self._segment
        words = segment.words
        lane = words[record + Record.LANE]
        before, after = words[record + Record.PREVIOUS], words[record + Record.NEXT]
        segment.set((before + Record.NEXT) if before else inbox + Inbox.FIRST + lane, after)
        segment.set((after + Record.PREVIOUS) if after else inbox + Inbox.LAST + lane, before)
        segment.add(inbox + Inbox.WAITING, -words[record + Record.COUNT])

    def _shorten(self, inbox: int, record: int, count: int) -> None:
        """The first messages of a waiting record are gone."""
        segment = self._segment
        if count == segment.words[record + Record.COUNT]:
            self._unlink(inbox, record)
            self._drop(record)
            return
        segment.add(record + Record.FIRST, count)
        segment.add(record + Record.COUNT, -count)
        segment.add(record + Record.SEQUENCE, count)
        segment.add(inbox + Inbox.WAITING, -count)

    def _cut(self, inbox: int, record: int, count: int) -> int:
        """The first messages of a waiting record as an unlinked record."""
        words = self._segment.words
        if count == words[record + Record.COUNT]:
            self._unlink(inbox, record)
            return record
        part = self._record(
            words[record + Record.BATCH],
            words[record + Record.FIRST],
            count,
            lane=words[record + Record.LANE],
            expires=words[record + Record.EXPIRES],
            sent=words[record + Record.SENT],
        )
        words[part + Record.SEQUENCE] = words[record + Record.SEQUENCE]
        words[part + Record.ATTEMPT] = words[record + Record.ATTEMPT]
        self._shorten(inbox, record, count)
        return part

    def _fly(self, inbox: int, record: int, count: int, *, due: int) -> list[tuple[int, int]]:
        segment = self._segment
        words = segment.words
        flight = []
        for _ in range(count):
            one = self._cut(inbox, record, 1)
            segment.add(one + Record.ATTEMPT)
            segment.set(one + Record.DUE, due)
            last = words[inbox + Inbox.FLIGHT_LAST]
            segment.set(one + Record.NEXT, 0)
            segment.set(one + Record.PREVIOUS, last)
            segment.set((last + Record.NEXT) if last else inbox + Inbox.FLIGHT_FIRST, one)
            segment.set(inbox + Inbox.FLIGHT_LAST, one)
            segment.add(inbox + Inbox.UNACKNOWLEDGED)
            flight.append((one, words[one + Record.SERIAL]))
            segment.ease()
        return flight

    def _unlink_flight(self, inbox: int, record: int) -> None:
        segment = self._segment
        words = segment.words
        before, after = words[record + Record.PREVIOUS], words[record + Record.NEXT]
        segment.set((before + Record.NEXT) if before else inbox + Inbox.FLIGHT_FIRST, after)
        segment.set((after + Record.PREVIOUS) if after else inbox + Inbox.FLIGHT_LAST, before)
        segment.add(inbox + Inbox.UNACKNOWLEDGED, -1)
        segment.set(record + Record.DUE, 0)

    def _land(self, inbox: int, record: int, wall: int) -> None:
        """What was in flight waits again, or is buried after its last attempt."""
        words = self._segment.words
        self._unlink_flight(inbox, record)
        if words[record + Record.ATTEMPT] >= words[inbox + Inbox.MAX_ATTEMPTS]:
            self.bury(record, Dead.ATTEMPTS, words[inbox + Inbox.NAME], wall=wall)
        else:
            self._put_back(inbox, record)

    def _put_back(self, inbox: int, record: int) -> None:
        """A message that was in flight goes to its place in its lane, by its sequence number."""
        segment = self._segment
        words = segment.words
        lane = words[record + Record.LANE]
        before, after = 0, words[inbox + Inbox.FIRST + lane]
        while after and words[after + Record.SEQUENCE] < words[record + Record.SEQUENCE]:
            before, after = after, words[after + Record.NEXT]
        segment.set(record + Record.PREVIOUS, before)
        segment.set(record + Record.NEXT, after)
        segment.set((before + Record.NEXT) if before else inbox + Inbox.FIRST + lane, record)
        segment.set((after + Record.PREVIOUS) if after else inbox + Inbox.LAST + lane, record)
        segment.add(inbox + Inbox.WAITING)
        self._mind_expiry(inbox, words[record + Record.EXPIRES])

    def _bury_first(self, inbox: int, record: int, count: int, reason: int, wall: int) -> None:
        part = self._cut(inbox, record, count)
        self.bury(part, reason, self._segment.words[inbox + Inbox.NAME], wall=wall)

    def _sweep_expired(self, inbox: int, wall: int) -> None:
        segment = self._segment
        words = segment.words
        earliest = 0
        for lane in range(3):
            record = words[inbox + Inbox.FIRST + lane]
            while record:
                following = words[record + Record.NEXT]
                expires = words[record + Record.EXPIRES]
                if expires and expires <= wall:
                    self._bury_first(inbox, record, words[record + Record.COUNT], Dead.EXPIRED, wall)
                    segment.ease()
                elif expires and (not earliest or expires < earliest):
                    earliest = expires
                record = following
        segment.set(inbox + Inbox.EARLIEST, earliest)
