"""What terminal, room and report say of an outcome in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["other_rules_agreeing", "without_outcome"]

_WITHOUT = {
    "queued": "Not started yet",
    "running": "Still running",
    "inquorate": "No decision: fewer took part than the quorum asks for",
    "cancelled": "No decision: the deliberation was cancelled",
    "halted": "No decision: the system was halted",
    "failed": "No decision: the deliberation failed",
}
# Reasons of the record that are the state in other words.
_SAYS_NO_MORE = {
    "inquorate": "fewer agents took part than the quorum asks for",
    "cancelled": "cancelled on request",
    "halted": "the system was halted",
}


def without_outcome(document: Mapping[str, Any]) -> tuple[str, str | None]:
    """What is said of a deliberation that has no outcome, and what its recorded reason adds to that; neither is escaped."""
    status, reason = str(document.get("status") or ""), document.get("reason")
    adds = bool(reason) and reason != _SAYS_NO_MORE.get(status)
    return _WITHOUT.get(status, f"No decision: {status}"), str(reason) if adds else None


def other_rules_agreeing(outcome: Mapping[str, Any]) -> Sequence[str]:
    """The rules that come to the same decision, without the one by which it was made, which stands among them on record."""
    robustness = outcome.get("robustness")
    agreeing = robustness.get("rules_agreeing") if isinstance(robustness, Mapping) else None
    return [str(each) for each in agreeing or () if each != outcome.get("rule")]
