"""Who holds which answer and why: the decision and every position against it, in one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.cli.rendered_rounds import answers_the_question

__all__ = ["ESTIMATES", "MIDDLE", "Position", "positions_of"]

ESTIMATES = frozenset({"score", "probability", "number"})
MIDDLE = "middle half"
"""The position of numbers around the decision."""

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Position:
    """An answer with those who hold it. A voice is an agent with its reason, or a reason that nobody is known for.

    No two voices of a position have the same wording, so that an echo does not crowd out another reason.
    """

    answer: str
    count: int
    agents: Sequence[str]
    voices: Sequence[tuple[str, str]]
    is_decision: bool = False


def positions_of(document: Document, outputs: Sequence[Document]) -> Sequence[Position]:
    """The decision first, then the dissent, the largest position first; without an outcome those who answered, if options were asked for.

    Who holds the decision and who gave a reason is known from the outputs alone.
    """
    purposes = {round_.get("round"): round_.get("purpose") for round_ in document.get("rounds") or ()}
    answered = {
        str(output.get("agent_id")): output
        for output in outputs
        if output.get("state") == "answered" and answers_the_question(purposes.get(output.get("round")))
    }
    outcome: Document | None = document.get("outcome")
    is_estimate = (document.get("answer") or {}).get("kind") in ESTIMATES
    if outcome is None:
        return [] if is_estimate else _counted_so_far(answered)
    dissenting = [
        Position(
            str(item.get("answer")),
            int(item.get("count", 0)),
            [str(agent) for agent in item.get("agents") or ()],
            _voices(answered, item.get("agents") or (), item.get("reasons") or ()),
        )
        for item in (outcome.get("dissent") or {}).get("positions") or ()
    ]
    if outcome.get("status") != "decided":
        return dissenting
    against = {agent for position in dissenting for agent in position.agents}
    holders = [agent for agent in answered if agent not in against]
    name, votes = MIDDLE, len(holders)
    synthesis: Document | None = outcome.get("synthesis")
    if synthesis:
        # Texts have no name in common: their cluster has one.
        name = str(synthesis.get("chosen"))
        held = [
            cluster.get("agents") or () for cluster in synthesis.get("clusters") or () if cluster.get("name") == name
        ]
        holders = [str(agent) for agents in held for agent in agents]
        votes = len(holders)
    elif not is_estimate:
        name = str(outcome.get("decision"))
        holders = [agent for agent in holders if _first_choice(answered[agent]) == name]
        votes = (outcome.get("tally") or {}).get(name, len(holders))
    if not votes:
        return dissenting
    return [Position(name, votes, holders, _voices(answered, holders, ()), is_decision=True), *dissenting]


def _counted_so_far(answered: Mapping[str, Document]) -> list[Position]:
    held: dict[str, list[str]] = {}
    for agent, output in answered.items():
        choice = _first_choice(output)
        if choice is not None:
            held.setdefault(choice, []).append(agent)
    ordered = sorted(held.items(), key=lambda item: -len(item[1]))
    return [Position(answer, len(agents), agents, _voices(answered, agents, ())) for answer, agents in ordered]


def _voices(answered: Mapping[str, Document], agents: Iterable[Any], reasons: Iterable[Any]) -> list[tuple[str, str]]:
    said = [
        (str(agent), str(answered[str(agent)]["reasoning"]))
        for agent in agents
        if answered.get(str(agent), {}).get("reasoning")
    ]
    distinct: dict[str, tuple[str, str]] = {}
    for who, reason in said or [("", str(reason)) for reason in reasons if reason]:
        distinct.setdefault(" ".join(reason.casefold().split()), (who, reason))
    return list(distinct.values())


def _first_choice(output: Document) -> str | None:
    answer = output.get("answer")
    if isinstance(answer, list | tuple):
        return str(answer[0]) if answer else None
    return answer if isinstance(answer, str) else None
