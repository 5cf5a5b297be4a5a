"""Follows one deliberation through its entries, and checks at its end that nothing is missing and all sums are right."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from application.services.verification.calls import Calls
from application.services.verification.reading import shown
from application.services.verification.report import VerifiedDeliberation
from application.services.verification.rounds import HeldRounds
from application.services.verification.sequels import check_certificate, check_recount, check_resolution
from application.services.verification.sums import UsageSums, compare_sums
from application.services.verification.tally import (
    compare_outcome,
    read_ballot_answer,
    read_synthesis,
    recompute,
)
from application.services.verification.terms import NEVER, Terms
from domain.analysis.scoring import Given
from domain.errors.witness import VerificationRefusedError
from domain.models.deliberation import DeliberationStatus
from domain.models.outcome import Outcome
from domain.models.roll_call import AgentState, RollCall
from domain.models.round import AgentRecord
from domain.protocols.poll import is_settled
from domain.voting.ballot import Ballot
from domain.voting.rule import Rule
from domain.witness.entry import COMPARISON, NOBODY
from domain.witness.merkle import CompactRange
from domain.witness.sequel import RESOLVED

__all__ = ["Course"]


class Course:
    """One deliberation: it takes entry after entry up to its end, and is asked again when something follows that."""

    __slots__ = (
        "_ballots_cast",
        "_calls",
        "_ended",
        "_held",
        "_last",
        "_record",
        "_recorded_outcome",
        "_terms",
        "_tree",
        "_usage",
    )

    def __init__(self, deliberation_id: str, terms: Terms, leaf: bytes) -> None:
        self._terms = terms
        accepted = terms.deliberation(deliberation_id)
        self._held = None if accepted is None else HeldRounds(accepted)
        self._record = hashlib.sha256(leaf)
        self._tree = CompactRange()
        self._tree.append(leaf)
        self._recorded_outcome: Mapping[str, Any] | None = None
        self._calls = Calls(terms)
        self._ended: dict[tuple[int, str], AgentState] = {}
        self._last: dict[str, tuple[int, AgentState]] = {}
        self._ballots_cast: dict[tuple[int, str], Ballot] = {}
        self._usage = UsageSums()

    def cover(self, leaf: bytes) -> None:
        """Count the leaf among those that the end has to name."""
        self._record.update(leaf)
        self._tree.append(leaf)

    def repeat(self, entry: Mapping[str, Any], index: int) -> bool:
        """Compute what followed the end again; False where this version cannot. Raises `VerificationRefusedError`."""
        members, outcome = tuple(self._terms.members), self._recorded_outcome
        if entry["type"] == RESOLVED:
            given = (
                [
                    Given(each.agent_id, None, each.answer, each.confidence)
                    for each in self._ballots(0)
                    if not each.abstains
                ]
                if self._held is None
                else self._held.given()
            )
            return check_resolution(entry, self._terms.answer, given, members, outcome, index)
        synthesis = None if outcome is None else read_synthesis(outcome, index)

        def count(rule: Rule) -> Outcome | None:
            if self._held is not None:
                return self._held.outcome(synthesis, rule)
            asked = len(self._last)
            return recompute(replace(self._terms, rule=rule), self._ballots(0), asked=asked, synthesis=synthesis)

        return check_recount(entry, self._terms, members, count, may_decide=outcome is not None, index=index)

    def follow(self, kind: str, entry: Mapping[str, Any], index: int, leaf: bytes) -> None:
        """Take its next entry, which is neither its first nor its end. Raises `VerificationRefusedError`."""
        self.cover(leaf)
        if kind == "round.started":
            self._calls.start(int(entry["round"]), entry["agents"], index)
            if self._held is not None:
                self._held.start(entry, index)
            return
        if kind != "agent.ended" and entry.get("purpose") == COMPARISON:
            self._follow_comparison(kind, entry, index)
            return
        agent_id = entry["agent_id"]
        self._calls.want_member(agent_id, index)
        turn, attempt = (int(entry["round"]), agent_id), int(entry["attempt"])
        if kind == "call.intended":
            self._calls.intend(turn, attempt, index)
            self._usage.note_attempt(turn, (entry.get("previous") or {}).get("usage"))
            return
        self._calls.end(turn, attempt, index)
        answer = read_ballot_answer(entry, self._terms.answers_in(turn[0]), index)
        confidence = entry["confidence"]
        self._ballots_cast[turn] = Ballot(agent_id, answer, None if confidence is None else float(confidence))
        state = self._ended[turn] = AgentState(entry["state"])
        if self._held is not None:
            self._held.end_agent(turn[0], self._ballots_cast[turn], state, index=index)
        if agent_id not in self._last or self._last[agent_id][0] <= turn[0]:
            self._last[agent_id] = (turn[0], state)
        self._usage.end(turn, entry["usage"], index)

    def _follow_comparison(self, kind: str, entry: Mapping[str, Any], index: int) -> None:
        """A call that compares texts, which is no agent's, was intended or is over. Raises `VerificationRefusedError`."""
        turn, attempt = (int(entry["round"]), str(entry["agent_id"])), int(entry["attempt"])
        if turn[1] != NOBODY:
            raise VerificationRefusedError("a call that compares texts is said to be an agent's", index=index)
        if kind == "call.intended":
            self._calls.intend(turn, attempt, index)
            self._usage.note_attempt(turn, (entry.get("previous") or {}).get("usage"))
            return
        self._calls.end(turn, attempt, index)
        self._usage.end(turn, entry["usage"], index)

    def end(self, deliberation_id: str, entry: Mapping[str, Any], index: int) -> VerifiedDeliberation:
        """Check everything that the end says. Raises `VerificationRefusedError`."""
        record = self._record.hexdigest()
        if entry["record_sha256"] != record:
            raise VerificationRefusedError(
                "the deliberation ended with other entries than there are: one is missing, added or out of order",
                index=index,
                evidence={"record_sha256": entry["record_sha256"], "computed": record},
            )
        self._calls.close(entry, index)
        roll_call = RollCall.of(state for _, state in self._last.values())
        compare_sums("roll_call", entry["roll_call"], roll_call.as_counts(), index)
        self._usage.compare(entry["usage"], index)
        self._check_rounds(entry, index)
        if self._held is not None:
            self._held.close(entry, index)
        self._recorded_outcome = entry["outcome"]
        if entry.get("certificate") is not None:
            check_certificate(entry, self._terms, roll_call, self._tree, index)
        return self._check_outcome(deliberation_id, entry, roll_call, index)

    def so_far(self, deliberation_id: str) -> VerifiedDeliberation:
        """What can be said before the end."""
        roll_call = RollCall.of(state for _, state in self._last.values())
        return VerifiedDeliberation(deliberation_id, None, None, roll_call.as_counts())

    def _check_rounds(self, entry: Mapping[str, Any], index: int) -> None:
        rounds = entry.get("rounds", ())
        held = sorted({number for number, _ in self._ended})
        # Where there is no outcome the first versions left them out.
        if rounds:
            numbers = [each["round"] for each in rounds]
            if numbers != held:
                raise VerificationRefusedError(
                    "the rounds of the end are not those in which agents ended",
                    index=index,
                    evidence={"recorded": shown(numbers), "computed": shown(held)},
                )
        for each in rounds:
            number = int(each["round"])
            counts = RollCall.of(state for turn, state in self._ended.items() if turn[0] == number).as_counts()
            compare_sums(f"roll_call of round {number}", each["roll_call"], counts, index)
            if self._held is not None:
                continue
            computed = recompute(self._terms, self._ballots(number), asked=counts["asked"])
            if computed is not None:
                compare_sums(f"tally of round {number}", each["tally"], dict(computed.tally), index)

    def _check_outcome(
        self, deliberation_id: str, entry: Mapping[str, Any], roll_call: RollCall, index: int
    ) -> VerifiedDeliberation:
        status, outcome = DeliberationStatus(entry["status"]), entry["outcome"]
        counts = roll_call.as_counts()
        if status in {DeliberationStatus.COMPLETED, DeliberationStatus.INQUORATE}:
            met = self._terms.quorum.is_met(roll_call)
            if met != (status is DeliberationStatus.COMPLETED):
                raise VerificationRefusedError(
                    f"it ended as {status.value!r}, but the quorum was {'' if met else 'not '}met",
                    index=index,
                    evidence={"took_part": str(roll_call.took_part), "asked": str(roll_call.asked)},
                )
        if (outcome is None) == (status is DeliberationStatus.COMPLETED):
            raise VerificationRefusedError(
                f"it ended as {status.value!r} with {'no' if outcome is None else 'an'} outcome", index=index
            )
        if outcome is None:
            return VerifiedDeliberation(deliberation_id, status.value, None, counts)
        if entry.get("rounds") == []:
            raise VerificationRefusedError("it has an outcome and names no round", index=index)
        why_not = self._terms.not_recomputed
        if why_not is None:
            synthesis = read_synthesis(outcome, index)
            try:
                if self._held is not None:
                    computed = self._held.outcome(synthesis)
                else:
                    computed = recompute(self._terms, self._ballots(0), asked=roll_call.asked, synthesis=synthesis)
            except ValueError as error:
                raise VerificationRefusedError(str(error), index=index) from error
            if computed is None:
                raise VerificationRefusedError(
                    "its answers are texts, and its outcome does not say in which clusters they were counted",
                    index=index,
                )
            compare_outcome(outcome, computed, self._terms.answer, index)
            self._want_settled(index)
        return VerifiedDeliberation(
            deliberation_id,
            status.value,
            _decision(outcome, index),
            counts,
            outcome_status=outcome["status"],
            not_recomputed=why_not,
        )

    def _want_settled(self, index: int) -> None:
        """Raise `VerificationRefusedError` where a poll left out agents who could have changed what it decided."""
        specification = self._terms.specification()
        if specification is None or not self._terms.is_poll or len(self._last) == len(self._terms.members):
            return
        records = [
            AgentRecord(0, agent_id, state, 1, None, NEVER, answer=ballot.answer, confidence=ballot.confidence)
            for (_, agent_id), state in self._ended.items()
            for ballot in (self._ballots_cast[0, agent_id],)
        ]
        if not is_settled(specification, records):
            raise VerificationRefusedError(
                "it asked only some of its members, and the others could have changed the decision",
                index=index,
                evidence={"asked": str(len(records)), "members": str(len(self._terms.members))},
            )

    def _ballots(self, number: int) -> Sequence[Ballot]:
        """The ballots of a round in the order of the members, abstentions included."""
        ballots = [
            self._ballots_cast[turn] for turn, state in self._ended.items() if turn[0] == number and state.took_part
        ]
        return sorted(ballots, key=lambda ballot: self._terms.members[ballot.agent_id])


def _decision(outcome: Mapping[str, Any], index: int) -> str | float | None:
    decision = outcome.get("decision")
    if decision is None or type(decision) in {str, int, float}:
        return decision
    raise VerificationRefusedError(
        "the decision is neither a name nor a number", index=index, evidence={"found": shown(decision)}
    )
