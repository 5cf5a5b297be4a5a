"""Where each number lies in the two kinds of files that a file bus maps into memory, as unsigned words of 64 bits."""

from __future__ import annotations

from infrastructure.buses.bus_limits import REMEMBERED_IDS

__all__ = [
    "BUCKETS",
    "FIRST_BUCKET",
    "MAX_OBJECTS",
    "NEVER",
    "OBJECT_WORDS",
    "SLOTS_PER_FILE",
    "SLOT_WORDS",
    "STATE_MAGIC",
    "STATE_WORDS",
    "Inbox",
    "State",
    "is_sound",
]

# "CONCLAV" and the version of the layout, which is also that of the files' names.
STATE_MAGIC = int.from_bytes(b"CONCLAV2", "big")
NEVER = (1 << 63) - 1
# Bus objects open at a time, over all processes.
MAX_OBJECTS = 1_024
OBJECT_WORDS = 4
# Buckets of `LatencyHistogram`, from 60 ns to 36 hours.
FIRST_BUCKET = 103 * 128
BUCKETS = 41 * 128
SLOT_WORDS = 32
SLOTS_PER_FILE = 256
# More than anything is ever counted: a century of a million a second.
_MOST = 1 << 52


class State:
    """Words of the file `state`."""

    MAGIC = 0
    # Not 0 while a step is being taken.
    DIRTY = 1
    # Which boot of the machine the times of `held` belong to.
    BOOT = 2
    NEXT_OBJECT = 3
    NEXT_REGISTRATION = 4
    REGISTRY_EPOCH = 5
    REGISTRY_BYTES = 6
    # Unix microseconds before which nothing that waits expires.
    NEXT_EXPIRY = 7
    # Monotonic nanoseconds before which nobody's last attempt runs out.
    NEXT_LAST_DUE = 8
    SENT = 9
    DELIVERED = 10
    ACKNOWLEDGED = 11
    REDELIVERED = 12
    DUPLICATES = 13
    REJECTED = 14
    DROPPED = 15
    EXPIRED = 16
    LATE_REPLIES = 17
    DEAD_LETTERS = 18
    CORRUPT = 19
    # Nanoseconds; 0 means none yet.
    LATENCY_MIN = 20
    LATENCY_MAX = 21
    # Four words for each open bus object: its number for life, where its replies begin and end, and how many rings it missed.
    OBJECTS = 64
    LATENCIES = OBJECTS + OBJECT_WORDS * MAX_OBJECTS


STATE_WORDS = State.LATENCIES + BUCKETS


class Inbox:
    """Words of one slot of a file `inboxes.N`; three in a row are one for each priority."""

    HEAD = 0
    TAIL = 3
    WAITING = 6
    HELD = 9
    # Counts the changes of what is held, so that an object sees that another one was at it.
    HELD_CHANGES = 10
    IDS_EPOCH = 11
    IDS = 12
    # A bit for each of the words behind that is not 0; their bits tell which objects listen.
    LISTENING = 13
    LISTENERS = 16


def is_sound(words: memoryview) -> bool:
    """Whether an inbox can have counted so: what somebody else wrote there is nearly always larger."""
    head, next_head, last_head, tail, next_tail, last_tail, *counts = words[: Inbox.LISTENING + 1].tolist()
    return (
        head <= tail < _MOST
        and next_head <= next_tail < _MOST
        and last_head <= last_tail < _MOST
        and counts[Inbox.IDS - Inbox.WAITING] <= REMEMBERED_IDS
        and counts[Inbox.LISTENING - Inbox.WAITING] >> MAX_OBJECTS // 64 == 0
        and max(counts) < _MOST
    )
