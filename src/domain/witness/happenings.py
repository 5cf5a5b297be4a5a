"""What readers of a deliberation's events are told of its entries: the events are a view of the record, not a second history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["event_count", "events_of"]

_Told = list[tuple[str, dict[str, Any]]]


def event_count(document: Mapping[str, Any]) -> int:
    """How many events the entry makes."""
    match document["type"]:
        case "agent.ended" | "deliberation.accepted":
            return 1
        case "call.intended":
            return 1 if _starts_agent(document) else 0
        case "round.started":
            return 2 if document["round"] == 0 or document.get("previous") is not None else 1
        case "deliberation.ended":
            return 1 + len(document["rounds"][-1:])
    return 0


def events_of(document: Mapping[str, Any]) -> _Told:
    """Types and data of the events that the entry makes, in order; none for an entry that is not about a step of the work."""
    match document["type"]:
        case "deliberation.accepted":
            return [("deliberation.queued", {})]
        case "round.started":
            started = ("round.started", {"round": document["round"], "agents": document["agents"]})
            if document["round"] == 0:
                return [("deliberation.started", {}), started]
            # The round before ended with the start of this one.
            if document.get("previous") is None:
                return [started]
            started[1]["purpose"] = document["purpose"]
            return [("round.ended", document["previous"]), started]
        case "call.intended":
            return (
                [("agent.started", _picked(document, "round", "agent_id", "model"))] if _starts_agent(document) else []
            )
        case "agent.ended":
            data = _picked(document, "round", "agent_id", "state", "attempt")
            if document["failure"] is not None:
                data["kind"] = document["failure"]["kind"]
            return [("agent.ended", data)]
        case "deliberation.ended":
            return [*(("round.ended", round_) for round_ in document["rounds"][-1:]), _terminal(document)]
    return []


def _starts_agent(document: Mapping[str, Any]) -> bool:
    """Whether it is an agent's first call; a call for another purpose than an answer is no agent's."""
    return bool(document["attempt"] == 1 and document.get("purpose", "answer") == "answer")


def _terminal(document: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    data = _picked(document, "status", "roll_call")
    if document["cause"] is not None:
        data["reason"] = document["cause"]
    outcome = document["outcome"]
    if outcome is not None:
        data["outcome"] = {"status": outcome["status"], "decision": outcome["decision"]}
    return f"deliberation.{document['status']}", data


def _picked(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: document[name] for name in names}
