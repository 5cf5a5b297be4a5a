"""Where things lie in the segment of a shared-memory bus, in words of eight bytes; all numbers are unsigned."""

from __future__ import annotations

__all__ = ["Dead", "Head", "Inbox", "Member", "Node", "Record", "Slot"]


class Head:
    """Fixed places at the start of the segment."""

    MAGIC = 0
    # Changes with every change of this file and of how runs are written, so that two versions never share a segment.
    VERSION = 0x434F4E_434C41_02
    STATE = 1
    JOURNALLED = 2
    RESERVED = 3
    TOP = 4
    NAMESPACE = 5
    SERIAL = 6
    SALT = 7
    FREE = 16  # heads of the free lists, by power of two
    MUTEX = 48
    SENT = 64
    DELIVERED = 65
    ACKNOWLEDGED = 66
    REDELIVERED = 67
    DUPLICATES = 68
    REJECTED = 69
    DROPPED = 70
    EXPIRED = 71
    LATE_REPLIES = 72
    DEAD_TOTAL = 73
    SHORTEST = 74
    LONGEST = 75
    DEAD_FIRST = 76
    DEAD_LAST = 77
    DEAD_KEPT = 78
    AGENTS = 79
    HISTORY_FROM = 80
    HISTORY_TO = 81
    CREATED = 82
    RATE = 96  # sixteen pairs of a second and what was sent in it
    RATE_PAIRS = 16
    LATENCY = 128
    LATENCY_BUCKETS = 768
    BUCKETS = 1024
    BUCKET_COUNT = 8192
    SLOTS = BUCKETS + BUCKET_COUNT
    SLOT_COUNT = 1024
    JOURNAL = SLOTS + SLOT_COUNT * 16
    JOURNAL_ENTRIES = 32768
    HISTORY = JOURNAL + JOURNAL_ENTRIES * 2
    HISTORY_WORDS = 32768
    ARENA = HISTORY + HISTORY_WORDS


class Slot:
    """One open bus object: who it is, how it is woken, and the replies that wait for it."""

    SERIAL, PID, STARTED, NONCE, REPLY_FIRST, REPLY_LAST, MISSED = range(7)
    WORDS = 16


class Inbox:
    """One agent's inbox. The first word is its serial while it lives, larger than any pointer or count."""

    SERIAL, NAME, CAPACITY, OVERFLOW, MANUAL, OWNER, OWNER_SERIAL, VISIBILITY, MAX_ATTEMPTS = range(9)
    FIRST = 9  # of the three lanes
    LAST = 12
    FLIGHT_FIRST, FLIGHT_LAST, WAITING, UNACKNOWLEDGED, RECEIVERS, SENDERS, SEQUENCE, EARLIEST = range(15, 23)
    SEEN, SEEN_SIZE, SEEN_COUNT, SEEN_BEFORE, SEEN_BEFORE_SIZE, NEXT, PREVIOUS = range(23, 30)
    WORDS = 32


class Record:
    """A run of messages of one batch in one lane, in flight, among the dead letters or among the replies."""

    MARK, NEXT, PREVIOUS, BATCH, FIRST, COUNT, SEQUENCE, LANE, EXPIRES, SENT, ATTEMPT, DUE, SERIAL = range(13)
    REASON, AT, NAME = range(13, 16)
    WORDS = 16


class Node:
    """One name of the directory: an agent, a group, a member of a group, or a request that waits for its reply."""

    MARK, NEXT, HASH, KIND, VALUE, SERIAL, LENGTH, TEXT = range(8)
    AGENT, GROUP, REQUEST, MEMBER = 1, 2, 3, 4
    # A group has no serial: there it is the last member.
    LAST = SERIAL


class Member:
    """One agent's place in a group."""

    MARK, NEXT, PREVIOUS, INBOX, SERIAL, NODE = range(6)
    WORDS = 8


class Dead:
    """The reasons of dead letters as numbers."""

    UNKNOWN_AGENT, UNREGISTERED, INBOX_FULL, EXPIRED, ATTEMPTS = range(5)
    KEPT = 10_000
