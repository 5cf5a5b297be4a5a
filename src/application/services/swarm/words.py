"""The words of a swarm's talk: the names on its bus, the types of its messages, and what is read out of their payloads."""

from __future__ import annotations

from dataclasses import dataclass

from domain.models.message import Message, Payload

__all__ = [
    "ACTOR",
    "BACKUP",
    "COORDINATOR",
    "DELEGATIONS",
    "EVENTS",
    "LOG",
    "MEMORY",
    "OBSERVER",
    "SAFETY",
    "TOOL",
    "TOOLS",
    "Delegated",
    "Failed",
    "Order",
    "Result",
    "Say",
    "text_of",
]

COORDINATOR, OBSERVER, ACTOR, MEMORY = "coordinator", "observer", "actor", "memory"
TOOL, SAFETY, LOG, BACKUP = "tool", "safety", "log", "backup"

# Who hears which agents are asked; who hears what becomes of the swarm; every instance's Tool.
DELEGATIONS, EVENTS, TOOLS = "delegations", "events", "tools"


class Say:
    """The types of messages."""

    # Coordinator to the group of delegations; Actor to a Tool.
    DELEGATE = "delegate"
    ORDER = "order"
    # Agents to the group of the task, beside its results.
    FAILED = "agent_failed"
    # Memory to the Coordinator; requests of the Coordinator.
    REMEMBERED = "remembered"
    MISSING = "missing"
    HAND_OVER = "hand_over"
    VERDICT = "verdict"
    WRITE = "write"
    COUNTS = "counts"
    # Memory to Backup.
    RESULTS = "results"
    # Safety to the Coordinator; the Coordinator to everybody.
    VETO = "veto"
    SUSPECT = "suspect"
    STOP = "stop"
    EVENT = "event"
    # Instances to the Coordinator, and what is said of them.
    HELLO = "hello"
    READY = "ready"
    ALIVE = "alive"
    GONE = "instance_gone"
    # From outside: whoever runs the swarm wants it to end.
    END = "end"


@dataclass(frozen=True, slots=True)
class Delegated:
    """One batch that is to be done by one instance; each agent gets a ticket, which its result has to bear."""

    batch: int
    attempt: int
    tool: str
    numbers: tuple[int, ...]
    tickets: tuple[str, ...]
    # When, by the timer of the process of the roles.
    at: float

    def payload(self) -> Payload:
        """As it travels."""
        return {
            "batch": self.batch,
            "attempt": self.attempt,
            "tool": self.tool,
            "numbers": list(self.numbers),
            "tickets": list(self.tickets),
            "at": self.at,
        }

    @classmethod
    def read(cls, payload: Payload) -> list[Delegated]:
        """Those in a message of the Coordinator."""
        batches = payload.get("batches") if isinstance(payload, dict) else None
        found = []
        for one in batches if isinstance(batches, list) else ():
            match one:
                case {
                    "batch": int(batch),
                    "attempt": int(attempt),
                    "tool": str(tool),
                    "numbers": list(numbers),
                    "tickets": list(tickets),
                    "at": float(at),
                }:
                    agents = tuple(number for number in numbers if isinstance(number, int))
                    held = tuple(ticket for ticket in tickets if isinstance(ticket, str))
                    if agents and len(agents) == len(held) == len(numbers):
                        found.append(cls(batch, attempt, tool, agents, held, at))
        return found


def text_of(value: Payload) -> str:
    """A word out of a payload, whatever stands in its place."""
    return value if isinstance(value, str) else repr(value)


@dataclass(frozen=True, slots=True)
class Order:
    """What one agent is to do."""

    number: int
    batch: int
    attempt: int
    ticket: str
    item: str | None

    def payload(self) -> Payload:
        """As it travels."""
        return {
            "number": self.number,
            "batch": self.batch,
            "attempt": self.attempt,
            "ticket": self.ticket,
            "item": self.item,
        }

    @classmethod
    def read(cls, message: Message) -> Order | None:
        """The order in a message, None where there is none."""
        match message.payload:
            case {
                "number": int(number),
                "batch": int(batch),
                "attempt": int(attempt),
                "ticket": str(ticket),
                "item": None | str() as item,
            }:
                return cls(number, batch, attempt, ticket, item)
        return None


@dataclass(frozen=True, slots=True)
class Result:
    """What an agent says that it came to."""

    agent_id: str
    batch: int
    attempt: int
    ticket: str
    result: Payload

    @classmethod
    def read(cls, message: Message) -> Result | None:
        """The result in a message, None where there is none."""
        payload = message.payload
        if not isinstance(payload, dict) or "result" not in payload:
            return None
        agent_id, batch = payload.get("agent_id"), payload.get("batch")
        attempt, ticket = payload.get("attempt"), payload.get("ticket")
        if (
            isinstance(agent_id, str)
            and isinstance(batch, int)
            and isinstance(attempt, int)
            and isinstance(ticket, str)
        ):
            return cls(agent_id, batch, attempt, ticket, payload["result"])
        return None


@dataclass(frozen=True, slots=True)
class Failed:
    """That an agent ended without a result, and why."""

    agent_id: str
    batch: int
    attempt: int
    ticket: str
    kind: str
    message: str
    final: bool

    @classmethod
    def read(cls, message: Message) -> Failed | None:
        """The failure in a message, None where there is none."""
        match message.payload:
            case {
                "agent_id": str(agent_id),
                "batch": int(batch),
                "attempt": int(attempt),
                "ticket": str(ticket),
                "kind": str(kind),
                "message": str(text),
                "final": bool(final),
            }:
                return cls(agent_id, batch, attempt, ticket, kind, text, final)
        return None
