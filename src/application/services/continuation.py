"""What the record says of a deliberation that somebody else began: which agents have ended, and which calls were made."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from application.ports.deliberation_repository import Claim, LedgerCall
from application.ports.witness_log import LoggedEntry
from domain.models.agent import Agent
from domain.models.round import AgentRecord

__all__ = ["Course", "course_of"]

_Turn = tuple[int, str]
_INTENDED = b'"type":"call.intended"'


@dataclass(frozen=True, slots=True)
class Course:
    """How far a deliberation has come. `is_sound` is False where the ledger is not what the log says: then nobody is called."""

    records: Mapping[_Turn, AgentRecord] = field(default_factory=dict)
    calls: Mapping[_Turn, int] = field(default_factory=dict)
    began: Mapping[_Turn, datetime] = field(default_factory=dict)
    is_sound: bool = True

    def attempts(self, round_number: int, agent_id: str) -> int:
        """How many attempts were intended."""
        return self.calls.get((round_number, agent_id), 0)

    def began_at(self, round_number: int, agent_id: str) -> datetime | None:
        """When the first attempt was intended; None when none was."""
        return self.began.get((round_number, agent_id))

    def has_begun(self, round_number: int, agents: Collection[Agent]) -> bool:
        """Whether any of these was asked."""
        turns = [(round_number, agent.id) for agent in agents]
        return any(turn in self.calls or turn in self.records for turn in turns)


def course_of(claim: Claim) -> Course:
    """How far a claimed deliberation has come, by its records and by its ledger, which is compared with the log's own entries."""
    records = {(item.record.round_number, item.record.agent_id): item.record for item in claim.records}
    intended, began = _intended(claim.entries)
    calls: dict[_Turn, int] = {}
    for call in intended:
        turn = (call.round_number, call.agent_id)
        calls[turn] = max(calls.get(turn, 0), call.attempt)
    is_sound = sorted(intended, key=_place) == sorted(claim.calls, key=_place)
    return Course(records, calls, began, is_sound)


def _place(call: LedgerCall) -> int:
    return call.leaf_index


def _intended(entries: Sequence[LoggedEntry]) -> tuple[list[LedgerCall], dict[_Turn, datetime]]:
    found: list[LedgerCall] = []
    began: dict[_Turn, datetime] = {}
    for logged in entries:
        # Most entries are of another kind, and reading one takes twenty times as long as looking for this.
        if _INTENDED not in logged.entry:
            continue
        told = json.loads(logged.entry)
        prompt = told["prompt"]
        turn = (told["round"], told["agent_id"])
        sha256 = None if prompt is None else prompt["sha256"]
        found.append(LedgerCall(*turn, told["purpose"], told["attempt"], sha256, logged.index))
        began.setdefault(turn, datetime.fromisoformat(told["at"]))
    return found, began
