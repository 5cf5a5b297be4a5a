"""What a file bus does, under the folder's lock, about a step that was cut off and about what a dead owner or boot had in hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from infrastructure.buses.file_folder import BusFolder
from infrastructure.buses.file_frames import numbers
from infrastructure.buses.file_held import HeldMessage, held_name
from infrastructure.buses.file_registry import Agent, Registry
from infrastructure.buses.file_words import Inbox, State

__all__ = ["make_due", "mend"]


def mend(folder: BusFolder, state: memoryview, registry: Registry, *, ring: Callable[[Agent], None]) -> None:
    """Count anew after somebody died in the middle of a step; what was half sent is removed, its sender never heard of success."""
    agents = registry.by_slot
    waiting = {slot: [0, 0, 0] for slot in agents}
    for name in folder.names("messages"):
        parsed = numbers(name, 3)
        if parsed is None:
            continue
        slot, priority, sequence = parsed
        agent = agents.get(slot)
        if agent is None or not agent.words[Inbox.HEAD + priority] <= sequence < agent.words[Inbox.TAIL + priority]:
            folder.clear("messages", name)
        else:
            waiting[slot][priority] += 1
    held = dict.fromkeys(agents, 0)
    for name in folder.names("held"):
        parsed = numbers(name, 6)
        if parsed is None:
            continue
        if parsed[0] not in agents:
            folder.clear("held", name)
        else:
            held[parsed[0]] += 1
    for slot, agent in agents.items():
        for priority in range(3):
            agent.words[Inbox.WAITING + priority] = waiting[slot][priority]
        agent.words[Inbox.HELD] = held[slot]
        agent.words[Inbox.HELD_CHANGES] += 1
        ring(agent)
    state[State.NEXT_EXPIRY] = 0
    state[State.NEXT_LAST_DUE] = 0


def make_due(folder: BusFolder, state: memoryview, agents: Iterable[Agent]) -> None:
    """What these hold unacknowledged is due now: nobody has it in hand any more, or its times are of before a restart of the machine."""
    slots = {agent.slot: agent for agent in agents}
    for name in folder.names("held"):
        parsed = numbers(name, 6)
        if parsed is not None and parsed[0] in slots:
            slot, priority, sequence, attempt, _, expiry = parsed
            due = HeldMessage(priority, sequence, attempt, 0, expiry)
            folder.move(("held", name), ("held", held_name(slot, due)))
    for agent in slots.values():
        agent.words[Inbox.HELD_CHANGES] += 1
    state[State.NEXT_LAST_DUE] = 0
