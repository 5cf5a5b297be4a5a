"""The dead letters of a shared-memory bus, read in two parts: where they lie inside a section, what they say after it."""

from __future__ import annotations

from collections.abc import Callable

from domain.models.message import DeadLetter, DeadLetterReason, Message
from infrastructure.buses.shm_batches import unpack
from infrastructure.buses.shm_chunks import Chunks
from infrastructure.buses.shm_layout import Head, Record

__all__ = ["read_letters"]

_REASONS = (
    DeadLetterReason.UNKNOWN_AGENT,
    DeadLetterReason.UNREGISTERED,
    DeadLetterReason.INBOX_FULL,
    DeadLetterReason.EXPIRED,
    DeadLetterReason.ATTEMPTS,
)


def read_letters(words: memoryview, chunks: Chunks, agent_id: str | None) -> Callable[[], list[DeadLetter]]:
    """Inside the section: what to call, after it, for all of them or those meant for one agent, oldest first."""
    runs: dict[int, tuple[bytes, bytes]] = {}
    found: list[tuple[str, int, tuple[int, ...]]] = []
    record = words[Head.DEAD_FIRST]
    while record:
        name = chunks.fetch(words[record + Record.NAME])[0].decode()
        if agent_id is None or agent_id == name:
            run = words[record + Record.BATCH]
            if run not in runs:
                runs[run] = chunks.fetch(run)
            found.append((name, run, tuple(words[record : record + Record.WORDS].tolist())))
        record = words[record + Record.NEXT]
    return lambda: _letters(found, runs)


def _letters(records: list[tuple[str, int, tuple[int, ...]]], runs: dict[int, tuple[bytes, bytes]]) -> list[DeadLetter]:
    read: dict[int, list[Message]] = {}
    found: list[DeadLetter] = []
    for name, run, record in records:
        if run not in read:
            read[run] = unpack(*runs[run])
        first, attempts = record[Record.FIRST], record[Record.ATTEMPT]
        reason, at = _REASONS[record[Record.REASON]], record[Record.AT] / 1e6
        found += [
            DeadLetter(message.copy(attempt=max(1, attempts)), name, reason, attempts, at)
            for message in read[run][first : first + record[Record.COUNT]]
        ]
    return found
