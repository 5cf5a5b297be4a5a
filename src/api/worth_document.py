"""What a result is worth as the JSON document that stands beside its outcome."""

from __future__ import annotations

from typing import Any

from domain.analysis.copies import CopyGroup
from domain.analysis.dropout import DropOut
from domain.analysis.effective_votes import EffectiveVotes
from domain.analysis.movement import Movement
from domain.analysis.recounts import LeftOut
from domain.analysis.worth import Division, Worth

__all__ = ["worth_document"]

_DIGITS = 6


def worth_document(worth: Worth) -> dict[str, Any]:
    """The field `worth` of a deliberation. Shares are fractions; what is not defined or not known is null."""
    return {
        "warnings": list(worth.warnings),
        "drop_out": [_drop_out(each) for each in worth.drop_out],
        "winners": [
            {"rule": each.rule, "status": each.status.value, "decision": each.decision} for each in worth.winners
        ],
        "without_one": {
            "agent": _left_out(worth.pivotal_agents),
            "model": _left_out(worth.pivotal_models),
            "persona": _left_out(worth.pivotal_personas),
        },
        "movement": None if worth.movement is None else _movement(worth.movement),
        "division": {"blind": _division(worth.blind), "final": _division(worth.final)},
        "effective_votes": {
            "across": None if worth.across is None else _effective_votes(worth.across),
            "within": None if worth.within is None else _effective_votes(worth.within),
        },
        "copies": [_copies(each) for each in worth.copies],
        "same_words": [list(agents) for agents in worth.same_words],
        "agreement": {
            "shares": [_rounded(share) for share in worth.agreement.shares],
            "sustained": worth.agreement.is_warning,
        },
    }


def _drop_out(found: DropOut) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "group": found.group,
        "missing": found.missing,
        "asked": found.asked,
        "missing_elsewhere": found.missing_elsewhere,
        "asked_elsewhere": found.asked_elsewhere,
        "p_value": float(f"{found.p_value:.3g}"),
    }


def _left_out(found: LeftOut | None) -> dict[str, Any] | None:
    if found is None or not found.looked:
        return None
    return {"pivotal": list(found.pivotal), "low": found.low, "high": found.high}


def _movement(movement: Movement) -> dict[str, Any]:
    return {
        "changeable": movement.changeable,
        "changed": movement.changed,
        "flows": [{"from": flow.before, "to": flow.after, "count": flow.count} for flow in movement.flows],
        "blind_leader": movement.blind_leader,
        "conformity": _rounded(movement.conformity),
    }


def _division(division: Division) -> dict[str, Any]:
    return {"entropy_bits": _rounded(division.entropy_bits), "polarisation": _rounded(division.polarisation)}


def _effective_votes(found: EffectiveVotes) -> dict[str, Any]:
    return {
        "value": _rounded(found.value),
        "low": _rounded(found.low),
        "high": _rounded(found.high),
        "voters": found.voters,
        "correlation": _rounded(found.correlation),
        "questions": found.questions,
        "basis": found.basis.value,
        "note": found.note,
    }


def _copies(group: CopyGroup) -> dict[str, Any]:
    return {"agents": list(group.agents), "agreement": _rounded(group.agreement), "questions": group.questions}


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, _DIGITS)
