"""What lies in the folder of a file bus that no bus put there."""

from __future__ import annotations

import re
from collections.abc import Mapping

from infrastructure.buses.file_folder import BusFolder
from infrastructure.buses.file_frames import numbers
from infrastructure.buses.file_registry import Agent
from infrastructure.buses.file_words import Inbox

__all__ = ["count_foreign"]

_OWN = {
    "": re.compile(r"lock|state|dead|registry\.[0-9a-f]+|inboxes\.[0-9a-f]+"),
    "held": re.compile(r"[0-9a-f]+-[012](-[0-9a-f]+){4}"),
    "expiring": re.compile(r"[0-9a-f]+-[012](-[0-9a-f]+){2}"),
    "drafts": re.compile(r"[0-9a-f]+(-[0-9a-f]+){2}"),
    "letters": re.compile(r"[0-9a-f]+"),
    "replies": re.compile(r"[0-9a-f]+-[0-9a-f]+"),
    "requests": re.compile(r"[0-9a-f]{32}"),
    "objects": re.compile(r"[0-9a-f]+(\.bell)?"),
    "ids": re.compile(r"[0-9a-f]+-[01]"),
}


def count_foreign(folder: BusFolder, agents: Mapping[int, Agent]) -> int:
    """How many there are now: names that no bus gives, and messages that no inbox counts. Under the folder's lock."""
    found = sum(1 for name in folder.names("messages") if not _is_counted(name, agents))
    for place, own in _OWN.items():
        names = folder.names(place) if place else folder.own_names()
        found += sum(1 for name in names if own.fullmatch(name) is None)
    return found


def _is_counted(name: str, agents: Mapping[int, Agent]) -> bool:
    parsed = numbers(name, 3)
    if parsed is None:
        return False
    slot, priority, sequence = parsed
    agent = agents.get(slot)
    if agent is None or f"{slot:x}-{priority}-{sequence:x}" != name:
        return False
    return agent.words[Inbox.HEAD + priority] <= sequence < agent.words[Inbox.TAIL + priority]
