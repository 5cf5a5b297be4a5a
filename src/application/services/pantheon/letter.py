"""The letter that goes from role to role, and the seal by which each knows that it comes from the one before."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from domain.models.message import Message, Payload
from domain.models.pantheon import CONDUCTOR, ROW
from domain.models.run import JsonValue

__all__ = ["CYCLE_ENDED", "HANDOFF", "Letter", "Seal"]

HANDOFF = "pantheon.handoff"
CYCLE_ENDED = "pantheon.cycle_ended"

_KEY_BYTES = 32
_MARK_BYTES = 32
# A letter holds nothing of itself.
_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False)
_SENDERS = frozenset({CONDUCTOR, *ROW})
_TYPES = frozenset({HANDOFF, CYCLE_ENDED})


@dataclass(slots=True)
class Letter:
    """All that is known of a cycle so far. That its plan was approved does not stand in it: the Executor knows that from elsewhere."""

    cycle: int
    task: str
    # Whether whoever asked named the steps: then no role changes them.
    fixed: bool
    plan: list[str]
    observed: dict[str, JsonValue] = field(default_factory=dict)
    executed: list[dict[str, JsonValue]] = field(default_factory=list)
    rejected: list[dict[str, JsonValue]] = field(default_factory=list)
    # A step that was begun and did not end well, with the reason.
    failed: list[dict[str, JsonValue]] = field(default_factory=list)
    remarks: dict[str, JsonValue] = field(default_factory=dict)
    # Seconds each step took, in the order of the plan.
    step_seconds: list[float] = field(default_factory=list)
    measures: dict[str, JsonValue] = field(default_factory=dict)
    learned: dict[str, JsonValue] = field(default_factory=dict)
    proposal: dict[str, JsonValue] = field(default_factory=dict)

    def as_text(self) -> str:
        """JSON, one text, so that what is sealed is what is read whatever the transport makes of a document."""
        return _ENCODER.encode({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_text(cls, text: str) -> Letter:
        """What `as_text` made; the text has to come out of a seal."""
        found: dict[str, Any] = json.loads(text)
        return cls(**found)


class Seal:
    """Marks a letter with keyed BLAKE2b (RFC 7693) under a key that is made for one run and never leaves the process.

    The mark is bound to the run, the sender and the recipient. Whoever else can write to the bus can copy a sealed letter and not make,
    change or redirect one; a copy is told by its cycle, which a role takes once.
    """

    def __init__(self, run_id: str, *, key: bytes | None = None) -> None:
        self._run_id = run_id
        self._key = secrets.token_bytes(_KEY_BYTES) if key is None else key

    def close(self, letter: Letter, *, sender: str, recipient: str, type: str = HANDOFF) -> Message:  # noqa: A002 - as in Message
        """The message that carries the letter."""
        text = letter.as_text()
        payload: dict[str, Payload] = {"letter": text, "seal": self._mark(type, sender, recipient, text)}
        return Message(sender, recipient, type, payload)

    def open(self, message: Message, *, recipient: str) -> Letter | None:
        """The letter in it, None where it does not come from this run, from that sender, for this recipient, as it was sealed."""
        payload = message.payload
        if message.sender not in _SENDERS or message.type not in _TYPES or message.recipient != recipient:
            return None
        if not isinstance(payload, dict):
            return None
        text, seal = payload.get("letter"), payload.get("seal")
        if not isinstance(text, str) or not isinstance(seal, str) or not seal.isascii():
            return None
        if not hmac.compare_digest(seal, self._mark(message.type, message.sender, recipient, text)):
            return None
        return Letter.from_text(text)

    def _mark(self, type_: str, sender: str, recipient: str, text: str) -> str:
        said = f"{self._run_id}\x00{type_}\x00{sender}\x00{recipient}\x00{text}"
        return hashlib.blake2b(said.encode(errors="surrogatepass"), digest_size=_MARK_BYTES, key=self._key).hexdigest()
