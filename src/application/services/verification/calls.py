"""Keeps what the ledger keeps: rounds start in their order, each call is intended once, in a round that asks its agent, and ends once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from application.services.verification.reading import shown
from application.services.verification.terms import Terms
from domain.errors.witness import VerificationRefusedError
from domain.witness.entry import NOBODY

__all__ = ["Calls", "Turn"]

Turn = tuple[int, str]
"""The number of a round, and the id of the agent that is asked in it; `NOBODY` where texts are compared."""


class Calls:
    """Which rounds started, who is asked in them, which calls were intended, and which of these are over.

    All of it holds for records of every version: nothing was ever recorded of a round before its start, and a start names everybody
    whom its round asks, those of later waves among them.
    """

    __slots__ = ("_asked", "_ended", "_intended", "_terms")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._asked: list[frozenset[str]] = []
        self._intended: dict[Turn, set[int]] = {}
        self._ended: set[Turn] = set()

    def start(self, number: int, agents: Sequence[str], index: int) -> None:
        """A round starts. Raises `VerificationRefusedError` unless it is the next one, and asks members, each once."""
        for agent_id in agents:
            self.want_member(agent_id, index)
        if number != len(self._asked):
            raise VerificationRefusedError(
                f"round {number} starts, and the next one is round {len(self._asked)}", index=index
            )
        asked = frozenset(agents)
        if len(asked) < len(agents):
            raise VerificationRefusedError(f"round {number} asks an agent twice", index=index)
        if self._terms.is_poll:
            if number:
                raise VerificationRefusedError(f"round {number} starts, and a poll has one round only", index=index)
            if list(agents) != list(self._terms.members):
                raise VerificationRefusedError(
                    "the round of a poll does not ask all members in their order", index=index
                )
        self._asked.append(asked)

    def intend(self, turn: Turn, attempt: int, index: int) -> None:
        """A call is intended. Raises `VerificationRefusedError` for one that was already, or whose turn is over or never came."""
        self._want_asked(turn, "is called", index)
        if turn in self._ended:
            raise VerificationRefusedError(f"{_named(turn)} is called in round {turn[0]} after its end", index=index)
        attempts = self._intended.setdefault(turn, set())
        if attempt in attempts:
            raise VerificationRefusedError(
                f"attempt {attempt} of {_named(turn)} in round {turn[0]} is intended twice", index=index
            )
        attempts.add(attempt)

    def end(self, turn: Turn, attempt: int, index: int) -> None:
        """The last call of that turn is over; attempt 0 is that of an agent that was never called. Raises `VerificationRefusedError`."""
        self._want_asked(turn, "ends", index)
        if turn in self._ended:
            raise VerificationRefusedError(f"{_named(turn)} ends twice in round {turn[0]}", index=index)
        if (attempt or turn[1] == NOBODY) and attempt not in self._intended.get(turn, ()):
            raise VerificationRefusedError(
                f"{_named(turn)} ends in attempt {attempt} of round {turn[0]}, which was never intended", index=index
            )
        self._ended.add(turn)

    def close(self, entry: Mapping[str, Any], index: int) -> None:
        """The deliberation ends. Raises `VerificationRefusedError` where a call is open, or a poll left somebody out that it may not."""
        for turn in self._intended:
            if turn not in self._ended:
                raise VerificationRefusedError(
                    f"{_named(turn)} was called in round {turn[0]} and never ended", index=index
                )
        if self._terms.is_poll and entry["status"] in {"completed", "inquorate"}:
            self._want_whole_waves(index)

    def want_member(self, agent_id: str, index: int) -> None:
        """Raise `VerificationRefusedError` unless it is one."""
        if agent_id not in self._terms.members:
            raise VerificationRefusedError(f"agent {shown(agent_id)} is no member of the deliberation", index=index)

    def _want_asked(self, turn: Turn, what: str, index: int) -> None:
        number, agent_id = turn
        if number >= len(self._asked):
            raise VerificationRefusedError(
                f"{_named(turn)} {what} in round {number}, which has not started", index=index
            )
        if agent_id != NOBODY and agent_id not in self._asked[number]:
            raise VerificationRefusedError(
                f"{_named(turn)} {what} in round {number}, in which it was not asked", index=index
            )

    def _want_whole_waves(self, index: int) -> None:
        """A poll that was not stopped has gone through all its members, or through whole waves of them in their order."""
        members = list(self._terms.members)
        ended = sum((0, agent_id) in self._ended for agent_id in members)
        size = (None if self._terms.protocol is None else self._terms.protocol.wave_size) or len(members)
        waves = min(-(-ended // size) * size, len(members))
        missing = next((agent_id for agent_id in members[:waves] if (0, agent_id) not in self._ended), None)
        if not ended:
            missing = members[0]
        if missing is not None:
            raise VerificationRefusedError(
                f"agent {shown(missing)} was to be asked in round 0 and has no end there", index=index
            )


def _named(turn: Turn) -> str:
    return "the comparison of texts" if turn[1] == NOBODY else f"agent {shown(turn[1])}"
