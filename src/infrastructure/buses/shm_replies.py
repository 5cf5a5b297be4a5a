"""Requests over a shared-memory bus that wait for their reply, and the replies on their way to the objects that asked."""

from __future__ import annotations

from domain.models.message import Message
from infrastructure.buses.shm_batches import Run, unpack
from infrastructure.buses.shm_chunks import Chunks
from infrastructure.buses.shm_directory import Directory
from infrastructure.buses.shm_lanes import Lanes
from infrastructure.buses.shm_layout import Head, Node, Record, Slot
from infrastructure.buses.shm_segment import Segment
from infrastructure.buses.shm_slots import Slots
from infrastructure.buses.shm_totals import Totals

__all__ = ["Replies"]


class Replies:
    """Each request gets at most one reply; one that nobody waits for is counted as late. Every call is made inside a section."""

    def __init__(self, segment: Segment, slots: Slots, chunks: Chunks, lanes: Lanes, totals: Totals) -> None:
        self._segment = segment
        self._slots = slots
        self._chunks = chunks
        self._lanes = lanes
        self._totals = totals
        self._directory = Directory(segment)

    def expect(self, correlation_id: str) -> bool:
        """Wait for the reply to a request from now on; False when somebody does already."""
        if self._directory.find(correlation_id, Node.REQUEST):
            return False
        self._directory.insert(correlation_id, Node.REQUEST, self._slots.index, self._slots.serial)
        return True

    def give_up(self, correlation_id: str) -> None:
        """Wait for it no more; a reply that is here already stays to be read."""
        node = self._directory.find(correlation_id, Node.REQUEST)
        words = self._segment.words
        if node and words[node + Node.SERIAL] == self._slots.serial:
            self._directory.remove(node)

    def answer(self, correlation_id: str, run: Run) -> bool:
        """Hand a reply to the one that waits; False, and counted, when nobody does."""
        segment = self._segment
        words = segment.words
        node = self._directory.find(correlation_id, Node.REQUEST)
        index, serial = (words[node + Node.VALUE], words[node + Node.SERIAL]) if node else (0, 0)
        if node:
            self._directory.remove(node)
        if not node or not self._slots.lives(index, serial):
            self._totals.add(Head.LATE_REPLIES)
            return False
        place = self._chunks.store(run.header, run.payloads)
        record = self._lanes.single(place, lane=run.lane, sent=run.sent_ns)
        self._chunks.release(place)
        slot = Head.SLOTS + index * Slot.WORDS
        last = words[slot + Slot.REPLY_LAST]
        segment.set((last + Record.NEXT) if last else slot + Slot.REPLY_FIRST, record)
        segment.set(slot + Slot.REPLY_LAST, record)
        self._slots.wake(index, 0)
        return True

    def take(self, index: int) -> list[Message]:
        """Remove and return what has come for the object in that slot."""
        segment = self._segment
        words = segment.words
        slot = Head.SLOTS + index * Slot.WORDS
        found = []
        while record := words[slot + Slot.REPLY_FIRST]:
            found.append(_first(self._chunks, words, record))
            segment.set(slot + Slot.REPLY_FIRST, words[record + Record.NEXT])
            self._lanes.discard(record)
            segment.ease()
        segment.set(slot + Slot.REPLY_LAST, 0)
        return found

    def clear(self, index: int) -> None:
        """The object in that slot is gone, and with it its replies and requests."""
        words = self._segment.words
        self.take(index)
        serial = words[Head.SLOTS + index * Slot.WORDS + Slot.SERIAL]
        for node in self._directory.all(Node.REQUEST):
            if words[node + Node.SERIAL] == serial:
                self._directory.remove(node)


def _first(chunks: Chunks, words: memoryview, record: int) -> Message:
    return unpack(*chunks.fetch(words[record + Record.BATCH]))[words[record + Record.FIRST]]
