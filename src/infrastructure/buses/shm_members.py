"""Who is on a shared-memory bus: agents with their inboxes, and groups."""

from __future__ import annotations

from collections.abc import Iterator

from domain.errors.bus import NameTakenError, UnknownAgentError
from infrastructure.buses.shm_chunks import Chunks
from infrastructure.buses.shm_directory import Directory
from infrastructure.buses.shm_lanes import Lanes
from infrastructure.buses.shm_layout import Head, Inbox, Member, Node
from infrastructure.buses.shm_seen import Seen
from infrastructure.buses.shm_segment import Segment
from infrastructure.buses.shm_slots import Slots

__all__ = ["Members"]


class Members:
    """Registers agents and groups in one space of names. All calls are made inside a section of the segment."""

    def __init__(self, segment: Segment, chunks: Chunks, lanes: Lanes, seen: Seen, slots: Slots) -> None:
        self._segment = segment
        self._chunks = chunks
        self._lanes = lanes
        self._seen = seen
        self._slots = slots
        self._directory = Directory(segment)
        # Where an inbox was found last, with its serial then.
        self._known: dict[str, tuple[int, int]] = {}

    def register(
        self, name: str, *, capacity: int, overflow: int, manual: bool, visibility_ns: int, max_attempts: int, wall: int
    ) -> None:
        """Make an inbox, or take over that of a dead owner, with what it had in hand. Raises `NameTakenError`."""
        segment = self._segment
        words = segment.words
        group = self.group(name)
        if group:
            raise NameTakenError(name=name, holder="a group")
        inbox = self.inbox(name)
        if inbox:
            if self._slots.lives(words[inbox + Inbox.OWNER], words[inbox + Inbox.OWNER_SERIAL]):
                raise NameTakenError(name=name, holder="a living agent of this bus")
        else:
            inbox = self._make(name)
        for place, value in (
            (Inbox.CAPACITY, capacity),
            (Inbox.OVERFLOW, overflow),
            (Inbox.MANUAL, int(manual)),
            (Inbox.OWNER, self._slots.index),
            (Inbox.OWNER_SERIAL, self._slots.serial),
            (Inbox.VISIBILITY, visibility_ns),
            (Inbox.MAX_ATTEMPTS, max_attempts),
        ):
            segment.set(inbox + place, value)
        if words[inbox + Inbox.UNACKNOWLEDGED]:
            self._lanes.land_all(inbox, wall=wall)
            self._slots.wake_waiting(inbox + Inbox.SENDERS, inbox)

    def unregister(self, name: str, *, wall: int) -> None:
        """Everything in the inbox becomes dead letters, and the name is free. Raises `UnknownAgentError`."""
        segment = self._segment
        words = segment.words
        inbox = self.existing(name)
        self._lanes.empty(inbox, wall=wall)
        self._slots.wake_waiting(inbox + Inbox.RECEIVERS, inbox)
        self._slots.wake_waiting(inbox + Inbox.SENDERS, inbox)
        self._directory.remove(self._directory.find(name, Node.AGENT))
        before, after = words[inbox + Inbox.PREVIOUS], words[inbox + Inbox.NEXT]
        segment.set((before + Inbox.NEXT) if before else Head.AGENTS, after)
        if after:
            segment.set(after + Inbox.PREVIOUS, before)
        self._seen.forget(inbox)
        self._chunks.release(words[inbox + Inbox.NAME])
        segment.free(inbox, Inbox.WORDS)
        self._known.pop(name, None)

    def join(self, name: str, group: str) -> None:
        """Raises `UnknownAgentError` and `NameTakenError`."""
        inbox = self.existing(name)
        self._no_agent(group)
        segment = self._segment
        words = segment.words
        node = self._directory.find(group, Node.GROUP) or self._directory.insert(group, Node.GROUP, 0)
        key = _membership(name, group)
        known = self._directory.find(key, Node.MEMBER)
        if known and words[words[known + Node.VALUE] + Member.SERIAL] == words[inbox]:
            return
        if known:
            self._expel(node, words[known + Node.VALUE])
        member = segment.allocate(Member.WORDS)
        last = words[node + Node.LAST]
        for place, value in (
            (Member.NEXT, 0),
            (Member.PREVIOUS, last),
            (Member.INBOX, inbox),
            (Member.SERIAL, words[inbox]),
            (Member.NODE, self._directory.insert(key, Node.MEMBER, member)),
        ):
            words[member + place] = value
        segment.set((last + Member.NEXT) if last else node + Node.VALUE, member)
        segment.set(node + Node.LAST, member)

    def leave(self, name: str, group: str) -> None:
        """Raises `UnknownAgentError` and `NameTakenError`."""
        self.existing(name)
        self._no_agent(group)
        node = self._directory.find(group, Node.GROUP)
        known = self._directory.find(_membership(name, group), Node.MEMBER)
        if known:
            self._expel(node, self._segment.words[known + Node.VALUE])
            self.group(group)

    def group(self, name: str) -> int:
        """The node of a group that has members, or 0."""
        node = self._directory.find(name, Node.GROUP)
        if node and not any(self.members(node)):
            self._directory.remove(node)
            return 0
        return node

    def members(self, node: int) -> Iterator[int]:
        """The inboxes of a group, in the order in which they joined; what is gone leaves it in passing."""
        words = self._segment.words
        member = words[node + Node.VALUE]
        while member:
            following = words[member + Member.NEXT]
            inbox = words[member + Member.INBOX]
            if words[inbox] == words[member + Member.SERIAL]:
                yield inbox
            else:
                self._expel(node, member)
                self._segment.ease()
            member = following

    def inbox(self, name: str) -> int:
        """The inbox of an agent, or 0."""
        words = self._segment.words
        known = self._known.get(name)
        if known is not None and words[known[0]] == known[1]:
            return known[0]
        node = self._directory.find(name, Node.AGENT)
        if not node:
            return 0
        inbox = words[node + Node.VALUE]
        if len(self._known) >= Head.BUCKET_COUNT * 4:
            self._known.clear()
        self._known[name] = (inbox, words[inbox])
        return inbox

    def existing(self, name: str) -> int:
        """The inbox of an agent. Raises `UnknownAgentError`."""
        inbox = self.inbox(name)
        if not inbox:
            raise UnknownAgentError(agent_id=name)
        return inbox

    def inboxes(self) -> list[int]:
        """All of them, the newest first."""
        words = self._segment.words
        found = []
        inbox = words[Head.AGENTS]
        while inbox:
            found.append(inbox)
            inbox = words[inbox + Inbox.NEXT]
        return found

    def name(self, inbox: int) -> str:
        """Whose inbox it is."""
        return self._chunks.fetch(self._segment.words[inbox + Inbox.NAME])[0].decode()

    def _make(self, name: str) -> int:
        segment = self._segment
        words = segment.words
        inbox = segment.allocate(Inbox.WORDS)
        for place in range(inbox + 1, inbox + Inbox.WORDS):
            words[place] = 0
        segment.set(inbox, segment.serial())
        words[inbox + Inbox.NAME] = self._chunks.store(name.encode())
        first = words[Head.AGENTS]
        words[inbox + Inbox.NEXT] = first
        if first:
            segment.set(first + Inbox.PREVIOUS, inbox)
        segment.set(Head.AGENTS, inbox)
        self._directory.insert(name, Node.AGENT, inbox)
        return inbox

    def _expel(self, node: int, member: int) -> None:
        segment = self._segment
        words = segment.words
        before, after = words[member + Member.PREVIOUS], words[member + Member.NEXT]
        segment.set((before + Member.NEXT) if before else node + Node.VALUE, after)
        segment.set((after + Member.PREVIOUS) if after else node + Node.LAST, before)
        self._directory.remove(words[member + Member.NODE])
        segment.free(member, Member.WORDS)

    def _no_agent(self, group: str) -> None:
        if self.inbox(group):
            raise NameTakenError(name=group, holder="an agent of this bus")


def _membership(name: str, group: str) -> str:
    return f"{len(group)}:{group}{name}"
