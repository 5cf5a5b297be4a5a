"""Which ids a shared inbox was sent: digests in hash tables of shared memory, two generations of them."""

from __future__ import annotations

from hashlib import blake2b

from infrastructure.buses.bus_limits import REMEMBERED_IDS
from infrastructure.buses.shm_layout import Head, Inbox
from infrastructure.buses.shm_segment import Segment

__all__ = ["Seen"]

_SMALLEST = 512
_LARGEST = 1 << (2 * REMEMBERED_IDS - 1).bit_length()


class Seen:
    """Remembers at least the last 100,000 ids of each inbox, by 64 keyed bits of each: two ids are mixed up once in 10^14 sends.

    All calls but `digest` are made inside a section of the segment.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._key = segment.words[Head.SALT].to_bytes(8, "little")

    def digest(self, message_id: str) -> int:
        """What is kept of an id."""
        return int.from_bytes(blake2b(message_id.encode(), digest_size=8, key=self._key).digest(), "little") or 1

    def knows(self, inbox: int, digest: int) -> bool:
        """Whether the inbox was sent that id."""
        words = self._segment.words
        for table, size in ((Inbox.SEEN, Inbox.SEEN_SIZE), (Inbox.SEEN_BEFORE, Inbox.SEEN_BEFORE_SIZE)):
            start = words[inbox + table]
            if start and words[self._place(start, words[inbox + size], digest)]:
                return True
        return False

    def remember(self, inbox: int, digest: int) -> None:
        """The inbox was sent that id."""
        segment = self._segment
        words = segment.words
        if words[inbox + Inbox.SEEN_COUNT] * 2 >= words[inbox + Inbox.SEEN_SIZE]:
            self._make_room(inbox)
        segment.set(self._place(words[inbox + Inbox.SEEN], words[inbox + Inbox.SEEN_SIZE], digest), digest)
        segment.add(inbox + Inbox.SEEN_COUNT)

    def forget(self, inbox: int) -> None:
        """The inbox goes."""
        words = self._segment.words
        for table, size in ((Inbox.SEEN, Inbox.SEEN_SIZE), (Inbox.SEEN_BEFORE, Inbox.SEEN_BEFORE_SIZE)):
            if words[inbox + table]:
                self._segment.free(words[inbox + table], words[inbox + size])

    def _make_room(self, inbox: int) -> None:
        """A table twice as large, or where that is too large a new generation."""
        segment = self._segment
        words = segment.words
        table, size = words[inbox + Inbox.SEEN], words[inbox + Inbox.SEEN_SIZE]
        fresh_size = min(max(_SMALLEST, size * 2), _LARGEST)
        grown = fresh_size > size
        if not grown:
            fresh_size = _SMALLEST
        fresh = segment.allocate(fresh_size)
        segment.memory[fresh * 8 : (fresh + fresh_size) * 8] = bytes(fresh_size * 8)
        if not grown:
            if words[inbox + Inbox.SEEN_BEFORE]:
                segment.free(words[inbox + Inbox.SEEN_BEFORE], words[inbox + Inbox.SEEN_BEFORE_SIZE])
            segment.set(inbox + Inbox.SEEN_BEFORE, table)
            segment.set(inbox + Inbox.SEEN_BEFORE_SIZE, size)
            segment.set(inbox + Inbox.SEEN_COUNT, 0)
        elif table:
            # Nobody reaches the new table yet, so its words need no journal.
            for digest in words[table : table + size].tolist():
                if digest:
                    words[self._place(fresh, fresh_size, digest)] = digest
            segment.free(table, size)
        segment.set(inbox + Inbox.SEEN, fresh)
        segment.set(inbox + Inbox.SEEN_SIZE, fresh_size)

    def _place(self, table: int, size: int, digest: int) -> int:
        """Where the digest is, or the free place where it would be."""
        words = self._segment.words
        place = digest & (size - 1)
        while words[table + place] not in (0, digest):
            place = (place + 1) & (size - 1)
        return table + place
