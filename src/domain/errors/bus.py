"""What can go wrong on the way from one agent to another."""

from __future__ import annotations

from typing import ClassVar

from domain.errors.conclave_error import ConclaveError

__all__ = [
    "BusClosedError",
    "BusError",
    "BusUnavailableError",
    "InboxFullError",
    "InvalidMessageError",
    "NameTakenError",
    "PayloadTooLargeError",
    "ReceiveTimeoutError",
    "RequestTimeoutError",
    "UnknownAgentError",
    "UnreadableMessageError",
]


class BusError(ConclaveError):
    """Root of the errors about the message bus."""

    slug: ClassVar[str] = "bus-error"


class UnknownAgentError(BusError):
    """No agent of that name is registered, and no group has it."""

    slug: ClassVar[str] = "unknown-agent"

    def __init__(self, *, agent_id: str) -> None:
        super().__init__(
            f"no agent or group {agent_id!r} is on this bus: register it first, or look at the name's spelling."
        )
        self.agent_id = agent_id


class NameTakenError(BusError):
    """The name belongs to somebody else; `holder` says to whom, in words."""

    slug: ClassVar[str] = "name-taken"

    def __init__(self, *, name: str, holder: str) -> None:
        super().__init__(f"the name {name!r} belongs to {holder}: take another one, or wait until it is given up.")
        self.name = name
        self.holder = holder


class InboxFullError(BusError):
    """The inbox had no room, right away or until the sender's patience (`waited_s`, in seconds) ended; the message was not sent."""

    slug: ClassVar[str] = "inbox-full"

    def __init__(self, *, agent_id: str, capacity: int, waited_s: float = 0.0) -> None:
        super().__init__(
            f"the inbox of {agent_id!r} holds {capacity} messages and took no more within {waited_s:g} s: send slower, let it "
            "receive or acknowledge faster, or register it with a larger capacity."
        )
        self.agent_id = agent_id
        self.capacity = capacity
        self.waited_s = waited_s


class PayloadTooLargeError(BusError):
    """The payload has more bytes than the bus takes; the message was not sent."""

    slug: ClassVar[str] = "payload-too-large"

    def __init__(self, *, size: int, limit: int) -> None:
        super().__init__(
            f"the payload has {size} bytes and this bus takes at most {limit}: send it in parts or by reference, or open the "
            "bus with a larger max_payload_bytes."
        )
        self.size = size
        self.limit = limit


class InvalidMessageError(BusError, ValueError):
    """A name, an id, a payload or another field that no bus can carry; `field` says which."""

    slug: ClassVar[str] = "invalid-message"

    def __init__(self, *, field: str, problem: str) -> None:
        super().__init__(f"the field {field!r} of the message {problem}: change it and send the message again.")
        self.field = field
        self.problem = problem


class UnreadableMessageError(BusError):
    """What was found where messages live is none that this version wrote."""

    slug: ClassVar[str] = "unreadable-message"

    def __init__(self, *, problem: str) -> None:
        super().__init__(
            f"what is stored {problem}, so it is no message of this version: see who else writes to that place."
        )
        self.problem = problem


class BusClosedError(BusError):
    """The bus was closed, before the call or while it waited."""

    slug: ClassVar[str] = "bus-closed"

    def __init__(self, *, transport: str) -> None:
        super().__init__(f"this {transport!r} bus is closed: make a new one.")
        self.transport = transport


class BusUnavailableError(BusError):
    """What carries the messages is away, full or not permitted; `remedy` says what to do."""

    slug: ClassVar[str] = "bus-unavailable"

    def __init__(self, *, transport: str, problem: str, remedy: str) -> None:
        super().__init__(f"the {transport!r} bus cannot work: {problem}. {remedy}")
        self.transport = transport
        self.problem = problem
        self.remedy = remedy


class ReceiveTimeoutError(BusError, TimeoutError):
    """No message came within `timeout_s` seconds."""

    slug: ClassVar[str] = "receive-timeout"

    def __init__(self, *, agent_id: str, timeout_s: float) -> None:
        super().__init__(f"no message for {agent_id!r} within {timeout_s:g} s: receive again, or wait longer.")
        self.agent_id = agent_id
        self.timeout_s = timeout_s


class RequestTimeoutError(BusError, TimeoutError):
    """No reply came within `timeout_s` seconds; one that still comes is counted as late and delivered to nobody."""

    slug: ClassVar[str] = "request-timeout"

    def __init__(self, *, agent_id: str, correlation_id: str, timeout_s: float) -> None:
        super().__init__(
            f"{agent_id!r} did not reply to request {correlation_id!r} within {timeout_s:g} s: ask again, or wait longer."
        )
        self.agent_id = agent_id
        self.correlation_id = correlation_id
        self.timeout_s = timeout_s
