"""What the opinions of a population come to: groups that hold together, who holds which answer, and how each subgroup moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domain.models.archetype import Archetype, Decision
from domain.models.run import JsonValue

__all__ = ["answers_of", "decision_document", "groups_in", "shares_of", "subgroups_of"]

# One agent in a thousand fills a bin, and one in a hundred is a group.
_FILLED = 0.001
_GROUP = 0.01


def groups_in(histogram: Sequence[int]) -> int:
    """How many groups there are: neighbouring bins that each hold a thousandth of all agents, and together a hundredth or more."""
    total = sum(histogram)
    found, size = 0, 0
    for count in (*histogram, 0):
        if count and count >= total * _FILLED:
            size += count
            continue
        found += size >= total * _GROUP and size > 0
        size = 0
    return found


def answers_of(archetypes: Sequence[Archetype]) -> dict[str, float]:
    """The place of each answer that an archetype gave, from the lowest to the highest."""
    places: dict[str, float] = {}
    for archetype in archetypes:
        places.setdefault(archetype.answer, archetype.opinion)
    return dict(sorted(places.items(), key=lambda pair: pair[1]))


def shares_of(histogram: Sequence[int], places: Mapping[str, float]) -> dict[str, float]:
    """The share of agents whose opinion lies nearest to each answer's place, by the middles of the bins; the first of two as near."""
    found = dict.fromkeys(places, 0)
    total = sum(histogram)
    if not places or not total:
        return dict.fromkeys(places, 0.0)
    for number, count in enumerate(histogram):
        if count:
            middle = (number + 0.5) / len(histogram)
            found[min(places, key=lambda answer: abs(places[answer] - middle))] += count
    return {answer: count / total for answer, count in found.items()}


def subgroups_of(
    archetypes: Sequence[Archetype], initial: Mapping[str, Any], final: Mapping[str, Any]
) -> list[dict[str, JsonValue]]:
    """One row for each answer: whose agents began with it, where they were and are, and the share that lies nearest to it.

    `initial` and `final` are opinions as in the report. Empty without archetypes.
    """
    places = answers_of(archetypes)
    begun, ended = shares_of(initial["histogram"], places), shares_of(final["histogram"], places)
    quotas = sum(archetype.quota for archetype in archetypes)
    found: list[dict[str, JsonValue]] = []
    for answer, place in places.items():
        own = [archetype for archetype in archetypes if archetype.answer == answer]
        then, now = _together(initial, answer), _together(final, answer)
        moved = None if then["mean"] is None or now["mean"] is None else now["mean"] - then["mean"]
        found.append(
            {
                "answer": answer,
                "opinion": place,
                "archetypes": len(own),
                "agents": now["agents"],
                "ballot_share": sum(archetype.quota for archetype in own) / quotas,
                "initial": {"mean": then["mean"], "variance": then["variance"], "share": begun[answer]},
                "final": {"mean": now["mean"], "variance": now["variance"], "share": ended[answer]},
                "moved": moved,
            }
        )
    return found


def decision_document(
    decision: Decision | None, subgroups: Sequence[Mapping[str, Any]], final_mean: float
) -> dict[str, JsonValue] | None:
    """What the deliberation decided beside what most of the population lies nearest to in the end; None without a deliberation."""
    if decision is None or not subgroups:
        return None
    first = max(subgroups, key=lambda row: float(row["initial"]["share"]))
    last = max(subgroups, key=lambda row: float(row["final"]["share"]))
    own = next((row for row in subgroups if row["answer"] == decision.answer), None)
    return {
        "answer": decision.answer,
        "opinion": decision.opinion,
        "ballot_share": None if own is None else own["ballot_share"],
        "initial_share": None if own is None else own["initial"]["share"],
        "final_share": None if own is None else own["final"]["share"],
        "initial_leader": first["answer"],
        "final_leader": last["answer"],
        "leads_in_the_end": last["answer"] == decision.answer if own is not None else None,
        "distance_of_final_mean": None if decision.opinion is None else final_mean - decision.opinion,
    }


def _together(opinions: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """All communities of one answer as one: their size, mean, and variance (within and between them)."""
    own = [one for one in opinions.get("communities") or () if one["answer"] == answer and one["agents"]]
    agents = sum(one["agents"] for one in own)
    if not agents:
        return {"agents": 0, "mean": None, "variance": None}
    mean = sum(one["agents"] * one["mean"] for one in own) / agents
    variance = sum(one["agents"] * (one["variance"] + (one["mean"] - mean) ** 2) for one in own) / agents
    return {"agents": agents, "mean": mean, "variance": variance}
