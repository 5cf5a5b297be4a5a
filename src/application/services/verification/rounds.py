"""Follows a deliberation of several rounds: each has to be the one that its protocol asks for, and what they come to is computed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from application.services.verification.reading import shown
from application.services.verification.tally import differing
from domain.analysis.decision import decide, last_round
from domain.analysis.scoring import Given, given_answers
from domain.errors.witness import VerificationRefusedError
from domain.models.deliberation import Deliberation
from domain.models.outcome import Outcome, Synthesis
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord
from domain.protocols.next_round import next_round
from domain.protocols.round_plan import RoundPlan
from domain.voting.ballot import Ballot
from domain.voting.rule import Rule
from domain.witness.result_documents import round_document

__all__ = ["HeldRounds"]


class HeldRounds:
    """The rounds so far. No text is needed: neither which round comes next nor who is asked in it depends on any."""

    def __init__(self, deliberation: Deliberation) -> None:
        self._deliberation = deliberation
        self._records: list[AgentRecord] = []
        self._plan: RoundPlan | None = None
        self._open: dict[str, frozenset[str]] = {}

    def start(self, entry: Mapping[str, Any], index: int) -> None:
        """A round starts. Raises `VerificationRefusedError` unless it is the next one, and the one before it ended as it says."""
        number = int(entry["round"])
        self._want_all_ended(index)
        plan = next_round(self._deliberation, self._records)
        if plan is None or number != plan.number:
            wanted = "none" if plan is None else str(plan.number)
            raise VerificationRefusedError(
                f"round {number} starts, and the protocol asks for another one or none",
                index=index,
                evidence={"next": wanted},
            )
        if entry["agents"] != [asked.agent_id for asked in plan.asked]:
            raise VerificationRefusedError(f"round {number} asks others than the protocol wants", index=index)
        if number:
            if entry.get("purpose") != plan.purpose.value:
                raise VerificationRefusedError(
                    f"round {number} is for another purpose than the protocol wants",
                    index=index,
                    evidence={"recorded": shown(entry.get("purpose")), "wanted": plan.purpose.value},
                )
            before = last_round(self._deliberation, self._records)
            if before is None or differing(entry.get("previous"), round_document(before)):
                raise VerificationRefusedError(f"round {number - 1} did not end as round {number} says", index=index)
        self._plan = plan
        self._open = {asked.agent_id: frozenset(asked.expected.options) for asked in plan.asked}

    def end_agent(self, number: int, ballot: Ballot, state: AgentState, *, index: int) -> None:
        """An agent ended. Raises `VerificationRefusedError` when nobody asked it, or it names what was not put to it."""
        plan = self._plan
        if plan is None or number != plan.number or ballot.agent_id not in self._open:
            raise VerificationRefusedError(
                f"agent {shown(ballot.agent_id)} ends in round {number}, in which it was not asked", index=index
            )
        put = self._open.pop(ballot.agent_id)
        named = ballot.answer if isinstance(ballot.answer, tuple) else ()
        if not put.issuperset(named):
            raise VerificationRefusedError(
                f"agent {shown(ballot.agent_id)} names in round {number} what was not put to it", index=index
            )
        self._records.append(
            AgentRecord(
                number,
                ballot.agent_id,
                state,
                1,
                None,
                self._deliberation.created_at,
                answer=ballot.answer,
                confidence=ballot.confidence,
            )
        )

    def close(self, entry: Mapping[str, Any], index: int) -> None:
        """The deliberation ends. Raises `VerificationRefusedError` when something was left to do, and nothing says why."""
        stopped = entry["status"] not in {"completed", "inquorate"}
        if self._plan is None or (self._plan.number == 0 and stopped):
            return
        self._want_all_ended(index)
        if not stopped and entry.get("cause") is None and next_round(self._deliberation, self._records) is not None:
            raise VerificationRefusedError("it ended before its protocol did, and does not say why", index=index)
        before = last_round(self._deliberation, self._records)
        if before is not None and entry.get("rounds"):
            recorded, computed = entry["rounds"][-1], round_document(before)
            if self.has_texts:
                # Clusters of texts can only be compared where the outcome names them.
                recorded = {**recorded, "tally": computed["tally"]}
            if differing(recorded, computed):
                raise VerificationRefusedError("the last round did not end as the end says", index=index)

    @property
    def has_texts(self) -> bool:
        """Whether what is counted are texts, of which the log holds commitments only."""
        return self._deliberation.specification.counted_answers.kind.value == "text"

    def outcome(self, synthesis: Synthesis | None, rule: Rule | None = None) -> Outcome | None:
        """What they come to, by another `rule` than agreed where one is given; None where texts are counted without recorded clusters."""
        if self.has_texts and synthesis is None:
            return None
        deliberation = self._deliberation
        if rule is not None:
            deliberation = replace(deliberation, specification=replace(deliberation.specification, rule=rule))
        return decide(deliberation, self._records, synthesis=synthesis)[1]

    def given(self) -> list[Given]:
        """Everybody's last answer to the question itself."""
        return given_answers(self._deliberation.specification, self._records)

    def _want_all_ended(self, index: int) -> None:
        if self._open:
            agent_id = next(iter(self._open))
            raise VerificationRefusedError(
                f"agent {shown(agent_id)} was to be asked in round {self._plan.number if self._plan else 0} and has no end there",
                index=index,
            )
