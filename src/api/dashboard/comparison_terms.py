"""The terms of two deliberations line by line, and the agents that answered otherwise in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from api.dashboard.costs import NOT_KNOWN, money
from api.report.pieces import amount, duration
from api.report.reading import Reading, number, part
from domain.counted import counted
from domain.models.deliberation import Deliberation

__all__ = ["Differing", "Fact", "answer_words", "answered_differently", "facts_of", "rule_words"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the terms: what each side has, and whether that is the same."""

    name: str
    values: tuple[str, str]

    @property
    def same(self) -> bool:
        """Whether both have the same."""
        return self.values[0] == self.values[1]


@dataclass(frozen=True, slots=True)
class Differing:
    """An agent that is in both, with the last answer that it gave in each."""

    agent_id: str
    answers: tuple[str, str]


def facts_of(deliberation: Deliberation, reading: Reading, *, shows_names: bool) -> dict[str, str]:
    """Each term by its name, in words; `shows_names` adds under which key it was asked."""
    document = reading.document
    outcome, limits, usage = reading.outcome, part(document, "limits"), part(document, "usage")
    roll_call = reading.roll_call
    lost = ", ".join(
        f"{count} {name.replace('_', ' ')}"
        for name, count in roll_call.items()
        if count and name not in {"asked", "answered"}
    )
    quorum = number(part(document, "quorum").get("min_answered_fraction"))
    seed = document.get("seed")
    facts = [
        ("Kind of answer", _kind_words(part(document, "answer"))),
        ("Protocol", _kind_words(part(document, "protocol"))),
        ("Rule", rule_words(part(document, "rule"))),
        ("Quorum", "–" if quorum is None else f"{100 * quorum:g} % of those asked"),
        ("Agents", _agents_words(part(document, "agents"))),
        ("Models", ", ".join(document.get("models") or ()) or "–"),
        (
            "Answered by",
            str(document.get("orchestrator") or "–") + (" (simulated)" if document.get("simulated") else ""),
        ),
        ("Origin", str(document.get("origin") or "–")),
        ("Seed", "none" if seed is None else str(seed)),
        ("Time for an agent", duration(limits.get("agent_timeout_s"))),
        ("Most tokens", _limit(limits.get("max_total_tokens"), amount)),
        ("Most money", _limit(limits.get("max_cost_usd"), _money)),
        ("State", str(document.get("status")).replace("_", " ")),
        ("Outcome", str(outcome.get("status") or "none").replace("_", " ")),
        ("Decision", _decision_words(reading)),
        ("Margin", "–" if outcome.get("margin") is None else amount(outcome["margin"])),
        ("Spread", "–" if outcome.get("spread") is None else reading.with_unit(amount(outcome["spread"], 6))),
        ("Dissent", _percent(part(outcome, "dissent").get("percentage"))),
        ("Answered", f"{roll_call.get('answered', 0)} of {reading.asked}"),
        ("Did not answer", lost or "nobody"),
        ("Calls", amount(usage.get("calls"))),
        ("Tokens in, out", f"{amount(usage.get('input_tokens'))}, {amount(usage.get('output_tokens'))}"),
        ("Cost", _money(usage.get("cost_usd"))),
        ("Accepted", f"{document['created_at'][:19].replace('T', ' ')} UTC"),
        *([("Asked by the key", deliberation.key_name or "–")] if shows_names else []),
    ]
    return dict(facts)


def answered_differently(first: Reading, second: Reading) -> tuple[list[Differing], int, tuple[int, int]]:
    """Agents of the same id that answered otherwise, how many gave the same, and how many of each side answered there alone."""
    differing, agreeing = [], 0
    for agent_id, output in first.ballots.items():
        other = second.ballots.get(agent_id)
        if other is None:
            continue
        if output.get("answer") == other.get("answer"):
            agreeing += 1
        else:
            answers = (answer_words(output.get("answer")), answer_words(other.get("answer")))
            differing.append(Differing(agent_id, answers))
    both = agreeing + len(differing)
    return differing, agreeing, (len(first.ballots) - both, len(second.ballots) - both)


def answer_words(answer: object) -> str:
    """An answer of any kind in one line."""
    if answer is None:
        return "–"
    if isinstance(answer, list | tuple):
        return ", ".join(map(str, answer)) or "none of them"
    value = number(answer)
    return amount(value) if value is not None else str(answer)


def _decision_words(reading: Reading) -> str:
    decision = reading.outcome.get("decision")
    return answer_words(decision) if decision is None else reading.with_unit(answer_words(decision))


def _money(value: object) -> str:
    found = number(value)
    return NOT_KNOWN if found is None else money(found)


def _limit(value: object, told: Callable[[object], str]) -> str:
    return "no limit" if value is None else told(value)


def _percent(value: object) -> str:
    found = number(value)
    return "–" if found is None else f"{found:g} %"


def _kind_words(found: Mapping[str, Any]) -> str:
    """A kind with its settings, options counted."""
    said = [
        counted(len(value), "option") if name == "options" else f"{name.replace('_', ' ')} {value}"
        for name, value in found.items()
        if name != "kind"
    ]
    kind = str(found.get("kind") or "–").replace("_", " ")
    return f"{kind} ({', '.join(said)})" if said else kind


def rule_words(rule: Mapping[str, Any]) -> str:
    """A rule with its settings, without its weights."""
    return _kind_words({name: value for name, value in rule.items() if name != "weights"})


def _agents_words(agents: Mapping[str, Any]) -> str:
    count, roster = agents.get("count"), agents.get("roster")
    return f"{count} of {roster}" if roster else str(count)
