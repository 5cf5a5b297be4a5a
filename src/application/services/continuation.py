"""What the record says of a deliberation that somebody else began: which agents have ended, and which calls were made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from application.ports.deliberation_repository import Claim, LedgerCall, LedgerCharge
from application.ports.witness_log import LoggedEntry
from domain.models.budget import Usage
from domain.models.money import Charge, Hold, Reservation, picodollars, usd
from domain.models.round import AgentRecord

__all__ = ["Course", "course_of", "held_in", "intended_call"]

_Turn = tuple[int, str]
_INTENDED = b'"type":"call.intended"'
_STARTED = b'"type":"round.started"'


@dataclass(frozen=True, slots=True)
class Course:
    """How far a deliberation has come. `is_sound` is False where the ledger is not what the log says: then nobody is called.

    `calls` are those intended, by turn and in their order, and `charges` what those took that are known to be over, by turn and attempt.
    `rounds` are the numbers of those that were started.
    """

    records: Mapping[_Turn, AgentRecord] = field(default_factory=dict)
    calls: Mapping[_Turn, Sequence[LedgerCall]] = field(default_factory=dict)
    charges: Mapping[tuple[_Turn, int], LedgerCharge] = field(default_factory=dict)
    began: Mapping[_Turn, datetime] = field(default_factory=dict)
    is_sound: bool = True
    key_name: str = ""
    rounds: frozenset[int] = frozenset()

    def attempts(self, round_number: int, agent_id: str) -> int:
        """How many attempts were intended."""
        return max((call.attempt for call in self.calls.get((round_number, agent_id), ())), default=0)

    def models(self, round_number: int, agent_id: str) -> tuple[str | None, ...]:
        """Which model each of these attempts was to ask."""
        return tuple(call.model for call in self.calls.get((round_number, agent_id), ()))

    def began_at(self, round_number: int, agent_id: str) -> datetime | None:
        """When the first attempt was intended; None when none was."""
        return self.began.get((round_number, agent_id))

    def has_begun(self, round_number: int, agents: Iterable[str]) -> bool:
        """Whether any of these was asked."""
        turns = [(round_number, agent_id) for agent_id in agents]
        return any(turn in self.calls or turn in self.records for turn in turns)

    def usage(self, round_number: int, agent_id: str) -> Usage:
        """What the attempts took. One of which nobody knows how it ended may have been made, and may have taken all that it held."""
        return sum(map(self._taken, self.calls.get((round_number, agent_id), ())), Usage())

    def last_usage(self, round_number: int, agent_id: str) -> Usage:
        """What the last attempt took."""
        calls = self.calls.get((round_number, agent_id))
        return self._taken(calls[-1]) if calls else Usage()

    def spent(self) -> Usage:
        """What all calls took."""
        return sum((self._taken(call) for calls in self.calls.values() for call in calls), Usage())

    def open_charge(self, round_number: int, agent_id: str) -> Charge | None:
        """What is to be written down of the last attempt, should nobody have done so: that it is over, and not known how."""
        calls = self.calls.get((round_number, agent_id))
        if not calls or ((round_number, agent_id), calls[-1].attempt) in self.charges:
            return None
        call = calls[-1]
        reserved = Reservation(self.key_name, call.day, Hold(call.held_tokens, call.held_cost))
        return Charge(call.attempt, call.model, 0, 0, call.held_cost, is_certain=False, reserved=reserved)

    def _taken(self, call: LedgerCall) -> Usage:
        charge = self.charges.get(((call.round_number, call.agent_id), call.attempt))
        if charge is None or not charge.is_certain:
            return Usage(1, uncertain_tokens=call.held_tokens, uncertain_usd=usd(call.held_cost or 0))
        return Usage(1, charge.input_tokens, charge.output_tokens, usd(charge.cost or 0))


def course_of(claim: Claim) -> Course:
    """How far a claimed deliberation has come, by its records and by its ledger, which is compared with the log's own entries."""
    records = {(item.record.round_number, item.record.agent_id): item.record for item in claim.records}
    intended, began = _intended(claim.entries)
    calls: dict[_Turn, list[LedgerCall]] = {}
    for call in sorted(intended, key=_place):
        calls.setdefault((call.round_number, call.agent_id), []).append(call)
    charges = {((charge.round_number, charge.agent_id), charge.attempt): charge for charge in claim.charges}
    is_sound = sorted(intended, key=_place) == sorted(claim.calls, key=_place)
    rounds = frozenset(json.loads(each.entry)["round"] for each in claim.entries if _STARTED in each.entry)
    return Course(records, calls, charges, began, is_sound, claim.deliberation.key_name or "", rounds)


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
        call = intended_call(told, logged.index)
        found.append(call)
        began.setdefault((call.round_number, call.agent_id), datetime.fromisoformat(told["at"]))
    return found, began


def intended_call(told: Mapping[str, Any], index: int) -> LedgerCall:
    """The row of the ledger that an entry `call.intended` makes."""
    prompt, hold = told["prompt"], held_in(told)
    return LedgerCall(
        told["round"],
        told["agent_id"],
        told["purpose"],
        told["attempt"],
        None if prompt is None else prompt["sha256"],
        index,
        told["model"],
        told["at"][:10],
        hold.tokens,
        hold.cost,
    )


def held_in(told: Mapping[str, Any]) -> Hold:
    """What the call of an entry `call.intended` takes at most."""
    held = told.get("held")
    if held is None:
        return Hold()
    cost = held["cost_usd"]
    return Hold(held["tokens"], None if cost is None else picodollars(cost))
