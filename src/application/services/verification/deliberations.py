"""Follows every deliberation through its entries, and checks at its end that nothing is missing and all sums are right."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from application.services.verification.entries import AFTER_THE_END, WITHIN
from application.services.verification.reading import shown
from application.services.verification.report import VerifiedDeliberation
from application.services.verification.tally import (
    Terms,
    compare_outcome,
    differing,
    read_ballot_answer,
    read_terms,
    recompute,
)
from domain.errors.witness import VerificationRefusedError
from domain.models.deliberation import DeliberationStatus
from domain.models.roll_call import AgentState, RollCall
from domain.voting.ballot import Answer, Ballot

__all__ = ["Deliberations"]

_COUNTED = ("calls", "input_tokens", "output_tokens", "uncertain_tokens")
_AMOUNTS = {
    "cost_usd": "the cost is not the sum of what the agents cost",
    "uncertain_usd": "what may have been spent is not the sum of what it is for the agents",
}


class Deliberations:
    """All deliberations of a file. Of those that have ended only what the report says is kept."""

    def __init__(self) -> None:
        self._running: dict[str, _Course] = {}
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
            self._running[deliberation_id] = _Course(read_terms(entry, index), leaf)
            return number
        course = self._running.get(deliberation_id)
        if kind in AFTER_THE_END:
            if kind == "erased":
                self.erased_until[number] = index
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
        elif kind in WITHIN:
            course.follow(kind, entry, index, leaf)
        else:
            raise VerificationRefusedError(
                "the deliberation was accepted before", index=index, evidence={"deliberation": shown(deliberation_id)}
            )
        return number

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

    __slots__ = ("_amounts", "_answers", "_called", "_ended", "_last", "_record", "_sums", "_taken", "_terms")

    def __init__(self, terms: Terms, leaf: bytes) -> None:
        self._terms = terms
        self._record = hashlib.sha256(leaf)
        self._called: dict[tuple[int, str], set[int]] = {}
        self._ended: dict[tuple[int, str], AgentState] = {}
        self._last: dict[str, tuple[int, AgentState]] = {}
        self._answers: dict[tuple[int, str], Answer] = {}
        self._sums = dict.fromkeys(_COUNTED, 0)
        self._taken: dict[tuple[int, str], dict[str, float]] = {}
        self._amounts: dict[str, list[float]] = {name: [] for name in _AMOUNTS}

    def cover(self, leaf: bytes) -> None:
        """Count the leaf among those that the end has to name."""
        self._record.update(leaf)

    def follow(self, kind: str, entry: Mapping[str, Any], index: int, leaf: bytes) -> None:
        self.cover(leaf)
        if kind == "round.started":
            for agent_id in entry["agents"]:
                self._want_member(agent_id, index)
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
        self._answers[turn] = read_ballot_answer(entry, self._terms.answer, index)
        state = self._ended[turn] = AgentState(entry["state"])
        if agent_id not in self._last or self._last[agent_id][0] <= turn[0]:
            self._last[agent_id] = (turn[0], state)
        self._check_attempts(turn, entry["usage"], index)
        # Entries of an earlier version have nothing that is uncertain.
        for name in _COUNTED:
            self._sums[name] += int(entry["usage"].get(name, 0))
        for name, amounts in self._amounts.items():
            amounts.append(float(entry["usage"].get(name, 0)))

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
            if turn not in self._ended:
                raise VerificationRefusedError(
                    f"agent {shown(turn[1])} was called in round {turn[0]} and never ended", index=index
                )
        roll_call = RollCall.of(state for _, state in self._last.values())
        _compare("roll_call", entry["roll_call"], roll_call.as_counts(), index)
        self._check_usage(entry["usage"], index)
        self._check_rounds(entry, index)
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
        if why_not is None and any(number for number, _ in self._ended):
            why_not = "this version knows no poll of several rounds"
        if why_not is None:
            computed = recompute(self._terms, self._ballots(0), asked=roll_call.asked)
        if computed is not None:
            compare_outcome(outcome, computed, index)
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
            Ballot(turn[1], self._answers[turn])
            for turn, state in self._ended.items()
            if turn[0] == number and state.took_part
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
