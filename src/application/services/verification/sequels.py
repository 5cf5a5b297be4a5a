"""Checks what a deliberation's end certifies, and what followed it: recounts and resolutions, each computed again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from application.services.verification.reading import shown
from application.services.verification.tally import compare_outcome, differing
from application.services.verification.terms import Terms, read_rule
from domain.analysis.scoring import Given, score, truth_of
from domain.errors.witness import VerificationRefusedError
from domain.models.outcome import Outcome
from domain.models.question import AnswerFormat
from domain.models.roll_call import RollCall
from domain.protocols.round_format import counted_answers
from domain.voting.rule import Rule
from domain.witness.merkle import CompactRange

__all__ = ["check_certificate", "check_recount", "check_resolution", "says_what_follows"]


def says_what_follows(entry: Mapping[str, Any]) -> bool:
    """Whether it is a recount or a resolution that says what came of it, as all do but those of the first versions."""
    return "outcome" in entry or "scores" in entry


def check_certificate(
    entry: Mapping[str, Any], terms: Terms, roll_call: RollCall, tree: CompactRange, index: int
) -> None:
    """Raise `VerificationRefusedError` unless it says what the rest of the end does, over the leaves before it."""
    certificate, outcome = entry["certificate"], entry["outcome"]
    dissent = None
    if outcome is not None:
        positions = outcome["dissent"]["positions"]
        dissent = {
            "percentage": outcome["dissent"]["percentage"],
            "positions": len(positions),
            "agents": sum(int(each["count"]) for each in positions),
        }
    expected = {
        "decision": None if outcome is None else outcome["decision"],
        "dissent": dissent,
        "participation": {
            "asked": roll_call.asked,
            "took_part": roll_call.took_part,
            "quorum": terms.quorum.min_answered_fraction,
            "quorate": terms.quorum.is_met(roll_call),
        },
        "record": {"entries": tree.size, "root_hash": tree.root().hex()},
    }
    for name, value in expected.items():
        if differing(certificate.get(name), value):
            raise VerificationRefusedError(
                f"the certificate's {name!r} is not what the entries give",
                index=index,
                evidence={"recorded": shown(certificate.get(name)), "computed": shown(value)},
            )


def check_recount(
    entry: Mapping[str, Any],
    terms: Terms,
    members: Sequence[str],
    count: Callable[[Rule], Outcome | None],
    *,
    may_decide: bool,
    index: int,
) -> bool:
    """Whether this version could repeat the recount. Raises `VerificationRefusedError` where that comes to something else."""
    outcome = entry.get("outcome")
    if (outcome is not None) != may_decide:
        raise VerificationRefusedError(
            f"the recount has {'an' if outcome is not None else 'no'} outcome, the deliberation "
            f"{'one' if may_decide else 'none'}",
            index=index,
        )
    if outcome is None or terms.protocol is None:
        return outcome is None
    rule, _ = read_rule(entry["rule"], counted_answers(terms.protocol, terms.answer, len(members)), members, index)
    if rule is None:
        return False
    try:
        computed = count(rule)
    except ValueError as error:
        raise VerificationRefusedError(str(error), index=index) from error
    if computed is None:
        return False
    compare_outcome(outcome, computed, terms.answer, index)
    return True


def check_resolution(
    entry: Mapping[str, Any],
    answer: AnswerFormat,
    given: Sequence[Given],
    members: Sequence[str],
    outcome: Mapping[str, Any] | None,
    index: int,
) -> bool:
    """True: every version can repeat it. Raises `VerificationRefusedError` for a truth or a score that does not hold."""
    try:
        truth = truth_of(answer, entry.get("answer"))
    except ValueError as error:
        raise VerificationRefusedError(str(error), index=index) from error
    decision = None if outcome is None else outcome.get("decision")
    scores = score(answer, given, truth, members=members, completed=outcome is not None, decision=decision)
    expected = {"brier": scores.brier, "scores": [scores.agents[agent_id] for agent_id in members]}
    for name, value in expected.items():
        if _apart(entry.get(name), value):
            raise VerificationRefusedError(
                f"the resolution's {name!r} is not what the answers give",
                index=index,
                evidence={"recorded": shown(entry.get(name)), "computed": shown(value)},
            )
    return True


def _apart(recorded: Any, computed: Any) -> bool:
    if type(computed) is list:
        return (
            type(recorded) is not list
            or len(recorded) != len(computed)
            or any(_apart(mine, other) for mine, other in zip(recorded, computed, strict=True))
        )
    if type(computed) is float and type(recorded) in {int, float}:
        return not math.isclose(recorded, computed, rel_tol=1e-12, abs_tol=1e-15)
    return differing(recorded, computed)
