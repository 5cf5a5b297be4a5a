"""Follows every deliberation through its entries, and checks at its end that nothing is missing and all sums are right."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from application.services.verification.entries import AFTER_THE_END, WITHIN
from application.services.verification.reading import shown
from application.services.verification.report import VerifiedDeliberation
from application.services.verification.rounds import HeldRounds
from application.services.verification.sequels import (
    check_certificate,
    check_recount,
    check_resolution,
    says_what_follows,
)
from application.services.verification.tally import (
    Terms,
    compare_outcome,
    differing,
    read_ballot_answer,
    read_synthesis,
    read_terms,
    recompute,
)
from domain.analysis.scoring import Given
from domain.errors.witness import VerificationRefusedError
from domain.models.deliberation import DeliberationStatus
from domain.models.outcome import Outcome
from domain.models.roll_call import AgentState, RollCall
from domain.voting.ballot import Ballot
from domain.voting.rule import Rule
from domain.witness.entry import COMPARISON, NOBODY
from domain.witness.merkle import CompactRange
from domain.witness.sequel import RECOUNTED, RESOLVED

__all__ = ["Deliberations"]

_KEPT_COURSES = 200
_COUNTED = ("calls", "input_tokens", "output_tokens", "uncertain_tokens")
_AMOUNTS = {
    "cost_usd": "the cost is not the sum of what the agents cost",
    "uncertain_usd": "what may have been spent is not the sum of what it is for the agents",
}


class Deliberations:
    """All deliberations of a file. Of those that have ended only what the report says is kept, but for the last ones.

    A recount or resolution of any other cannot be repeated, and is counted as such.
    """

    def __init__(self) -> None:
        self._running: dict[str, _Course] = {}
        self._ended: OrderedDict[str, _Course] = OrderedDict()
        self._numbers: dict[str, int] = {}
        self._verified: dict[str, VerifiedDeliberation] = {}
        self.erased_until: dict[int, int] = {}
        """For each deliberation with erased texts, by its number: the index of the last erasure."""

    def follow(self, deliberation_id: str, entry: Mapping[str, Any], *, index: int, leaf: bytes) -> int:
        """Take the next entry of a deliberation; the number of the deliberation, from 1. Raises `VerificationRefusedError`."""
        kind: str = entry["type"]
        number = self._numbers.get(deliberation_id)
        if number is None:
            if kind != "deliberation.accepted":
                raise VerificationRefusedError(
                    f"an entry of type {kind!r} comes before its deliberation was accepted",
                    index=index,
                    evidence={"deliberation": shown(deliberation_id)},
                )
            number = self._numbers[deliberation_id] = len(self._numbers) + 1
            self._running[deliberation_id] = _Course(deliberation_id, read_terms(entry, index), leaf)
            return number
        course = self._running.get(deliberation_id)
        if kind in AFTER_THE_END:
            if kind == "erased":
                self.erased_until[number] = index
            elif says_what_follows(entry):
                self._follow_sequel(deliberation_id, entry, index)
            if course is not None:
                course.cover(leaf)
        elif course is None:
            raise VerificationRefusedError(
                f"an entry of type {kind!r} follows the end of its deliberation",
                index=index,
                evidence={"deliberation": shown(deliberation_id)},
            )
        elif kind == "deliberation.ended":
            self._verified[deliberation_id] = course.end(deliberation_id, entry, index)
            del self._running[deliberation_id]
            self._ended[deliberation_id] = course
            if len(self._ended) > _KEPT_COURSES:
                self._ended.popitem(last=False)
        elif kind in WITHIN:
            course.follow(kind, entry, index, leaf)
        else:
            raise VerificationRefusedError(
                "the deliberation was accepted before", index=index, evidence={"deliberation": shown(deliberation_id)}
            )
        return number

    def _follow_sequel(self, deliberation_id: str, entry: Mapping[str, Any], index: int) -> None:
        verified = self._verified.get(deliberation_id)
        if verified is None:
            raise VerificationRefusedError(f"a deliberation was {entry['type']} before its end", index=index)
        course = self._ended.get(deliberation_id)
        if course is None or not course.repeat(entry, index):
            self._verified[deliberation_id] = replace(verified, not_repeated=verified.not_repeated + 1)
        elif entry["type"] == RECOUNTED:
            self._verified[deliberation_id] = replace(verified, recounts=verified.recounts + 1)
        else:
            self._verified[deliberation_id] = replace(verified, resolutions=verified.resolutions + 1)

    def close(self, *, all_ended: bool) -> tuple[VerifiedDeliberation, ...]:
        """All of them in the order in which they were accepted.

        Raises `VerificationRefusedError` when one has not ended although `all_ended` wants it.
        """
        if all_ended and self._running:
            unfinished = next(iter(self._running))
            raise VerificationRefusedError(
                "the file is cut off: a deliberation has no entry of its end",
                evidence={"deliberation": shown(unfinished)},
            )
        return tuple(
            self._verified[each] if each in self._verified else self._running[each].so_far(each)
            for each in self._numbers
        )


class _Course:
    """One deliberation that has not ended yet."""

    __slots__ = (
        "_amounts",
        "_ballots_cast",
        "_called",
        "_compared",
        "_ended",
        "_held",
        "_last",
        "_record",
        "_recorded_outcome",
        "_sums",
        "_taken",
        "_terms",
        "_tree",
    )

    def __init__(self, deliberation_id: str, terms: Terms, leaf: bytes) -> None:
        self._terms = terms
        accepted = terms.deliberation(deliberation_id)
        self._held = None if accepted is None else HeldRounds(accepted)
        self._record = hashlib.sha256(leaf)
        self._tree = CompactRange()
        self._tree.append(leaf)
        self._recorded_outcome: Mapping[str, Any] | None = None
        self._called: dict[tuple[int, str], set[int]] = {}
        self._compared: set[tuple[int, str]] = set()
        self._ended: dict[tuple[int, str], AgentState] = {}
        self._last: dict[str, tuple[int, AgentState]] = {}
        self._ballots_cast: dict[tuple[int, str], Ballot] = {}
        self._sums = dict.fromkeys(_COUNTED, 0)
        self._taken: dict[tuple[int, str], dict[str, float]] = {}
        self._amounts: dict[str, list[float]] = {name: [] for name in _AMOUNTS}

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
        self.cover(leaf)
        if kind == "round.started":
            for agent_id in entry["agents"]:
                self._want_member(agent_id, index)
            if self._held is not None:
                self._held.start(entry, index)
            return
        if entry.get("purpose") == COMPARISON:
            self._follow_comparison(kind, entry, index)
            return
        agent_id = entry["agent_id"]
        self._want_member(agent_id, index)
        turn, attempt = (int(entry["round"]), agent_id), int(entry["attempt"])
        if kind == "call.intended":
            self._called.setdefault(turn, set()).add(attempt)
            self._note_attempt(turn, (entry.get("previous") or {}).get("usage"))
            return
        if turn in self._ended:
            raise VerificationRefusedError(f"agent {shown(agent_id)} ends twice in round {turn[0]}", index=index)
        if attempt and attempt not in self._called.get(turn, ()):
            raise VerificationRefusedError(
                f"agent {shown(agent_id)} ends in attempt {attempt} of round {turn[0]}, which was never intended",
                index=index,
            )
        answer = read_ballot_answer(entry, self._terms.answers_in(turn[0]), index)
        confidence = entry["confidence"]
        self._ballots_cast[turn] = Ballot(agent_id, answer, None if confidence is None else float(confidence))
        state = self._ended[turn] = AgentState(entry["state"])
        if self._held is not None:
            self._held.end_agent(turn[0], self._ballots_cast[turn], state, index=index)
        if agent_id not in self._last or self._last[agent_id][0] <= turn[0]:
            self._last[agent_id] = (turn[0], state)
        self._check_attempts(turn, entry["usage"], index)
        self._add_up(entry["usage"])

    def _follow_comparison(self, kind: str, entry: Mapping[str, Any], index: int) -> None:
        """A call that compares texts, which is no agent's, was intended or is over. Raises `VerificationRefusedError`."""
        turn, attempt = (int(entry["round"]), str(entry["agent_id"])), int(entry["attempt"])
        if turn[1] != NOBODY:
            raise VerificationRefusedError("a call that compares texts is said to be an agent's", index=index)
        if turn in self._compared:
            raise VerificationRefusedError(
                f"the texts of round {turn[0]} are compared after that was over", index=index
            )
        if kind == "call.intended":
            self._called.setdefault(turn, set()).add(attempt)
            self._note_attempt(turn, (entry.get("previous") or {}).get("usage"))
            return
        if attempt not in self._called.get(turn, ()):
            raise VerificationRefusedError(
                f"the texts of round {turn[0]} are compared in attempt {attempt}, which was never intended", index=index
            )
        self._compared.add(turn)
        self._check_attempts(turn, entry["usage"], index)
        self._add_up(entry["usage"])

    def _add_up(self, usage: Mapping[str, Any]) -> None:
        # Entries of an earlier version have nothing that is uncertain.
        for name in _COUNTED:
            self._sums[name] += int(usage.get(name, 0))
        for name, amounts in self._amounts.items():
            amounts.append(float(usage.get(name, 0)))

    def end(self, deliberation_id: str, entry: Mapping[str, Any], index: int) -> VerifiedDeliberation:
        """Check everything that the end says. Raises `VerificationRefusedError`."""
        record = self._record.hexdigest()
        if entry["record_sha256"] != record:
            raise VerificationRefusedError(
                "the deliberation ended with other entries than there are: one is missing, added or out of order",
                index=index,
                evidence={"record_sha256": entry["record_sha256"], "computed": record},
            )
        for turn in self._called:
            if turn[1] == NOBODY and turn not in self._compared:
                raise VerificationRefusedError(
                    f"a call to compare the texts of round {turn[0]} was intended and never ended", index=index
                )
            if turn not in self._ended and turn not in self._compared:
                raise VerificationRefusedError(
                    f"agent {shown(turn[1])} was called in round {turn[0]} and never ended", index=index
                )
        roll_call = RollCall.of(state for _, state in self._last.values())
        _compare("roll_call", entry["roll_call"], roll_call.as_counts(), index)
        self._check_usage(entry["usage"], index)
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

    def _want_member(self, agent_id: str, index: int) -> None:
        if agent_id not in self._terms.members:
            raise VerificationRefusedError(f"agent {shown(agent_id)} is no member of the deliberation", index=index)

    def _note_attempt(self, turn: tuple[int, str], usage: Mapping[str, Any] | None) -> None:
        """Add up what the attempts took that are over, as the next one's intent says."""
        if usage is not None:
            taken = self._taken.setdefault(turn, dict.fromkeys((*_COUNTED, *_AMOUNTS), 0.0))
            for name in taken:
                taken[name] += usage.get(name, 0)

    def _check_attempts(self, turn: tuple[int, str], usage: Mapping[str, Any], index: int) -> None:
        """All of an agent's attempts took at least what those before the last did."""
        for name, taken in self._taken.pop(turn, {}).items():
            recorded = usage.get(name, 0)
            if recorded < taken and not math.isclose(recorded, taken, rel_tol=1e-9, abs_tol=1e-12):
                raise VerificationRefusedError(
                    f"agent {shown(turn[1])} took less than its attempts before the last did: {name}",
                    index=index,
                    evidence={"recorded": shown(recorded), "computed": shown(taken)},
                )

    def _check_usage(self, usage: Mapping[str, Any], index: int) -> None:
        _compare("usage", {name: usage.get(name, 0) for name in _COUNTED}, self._sums, index)
        for name, problem in _AMOUNTS.items():
            recorded, computed = usage.get(name, 0.0), math.fsum(self._amounts[name])
            # The writer adds in another order, which changes the last digits of a sum.
            if not math.isclose(recorded, computed, rel_tol=1e-9, abs_tol=1e-12):
                raise VerificationRefusedError(
                    problem, index=index, evidence={"recorded": shown(recorded), "computed": shown(computed)}
                )

    def _check_rounds(self, entry: Mapping[str, Any], index: int) -> None:
        for each in entry.get("rounds", ()):
            number = int(each["round"])
            counts = RollCall.of(state for turn, state in self._ended.items() if turn[0] == number).as_counts()
            _compare(f"roll_call of round {number}", each["roll_call"], counts, index)
            if self._held is not None:
                continue
            computed = recompute(self._terms, self._ballots(number), asked=counts["asked"])
            if computed is not None:
                _compare(f"tally of round {number}", each["tally"], dict(computed.tally), index)

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
        why_not = self._terms.not_recomputed
        computed = None
        if why_not is None and self._held is None and any(number for number, _ in self._ended):
            why_not = "this version knows no poll of several rounds"
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
                why_not = "its answers are texts, and no clusters of them were recorded"
        if computed is not None:
            compare_outcome(outcome, computed, self._terms.answer, index)
        return VerifiedDeliberation(
            deliberation_id,
            status.value,
            _decision(outcome, index),
            counts,
            outcome_status=outcome["status"],
            not_recomputed=why_not,
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


def _compare(name: str, recorded: Mapping[str, Any], computed: Mapping[str, Any], index: int) -> None:
    for part, value in computed.items():
        if part not in recorded or differing(recorded[part], value):
            raise VerificationRefusedError(
                f"the {name} is not what the entries give: {shown(part)}",
                index=index,
                evidence={"recorded": shown(recorded.get(part)), "computed": shown(value)},
            )
    for part in recorded:
        if part not in computed:
            raise VerificationRefusedError(f"the {name} counts {shown(part)}, which the entries do not", index=index)
