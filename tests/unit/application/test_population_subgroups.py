"""What opinions come to: groups, shares by answer, subgroups, and the decision beside the end."""

from __future__ import annotations

from typing import Any

import pytest

from application.services.population.subgroups import (
    answers_of,
    decision_document,
    groups_in,
    shares_of,
    subgroups_of,
)
from domain.models.archetype import Archetype, Decision

PAIR = (Archetype("a", "no", 0.0), Archetype("b", "yes", 1.0, quota=3), Archetype("c", "no", 0.0))


def histogram(**bins: int) -> list[int]:
    found = [0] * 100
    for name, count in bins.items():
        found[int(name[1:])] = count
    return found


@pytest.mark.parametrize(
    ("bins", "groups"),
    [
        ({}, 0),
        ({"b0": 1_000}, 1),
        ({"b10": 500, "b11": 500}, 1),
        ({"b10": 500, "b12": 500}, 2),
        ({"b0": 500, "b99": 500}, 2),
        ({"b10": 991, "b50": 9}, 1),
        ({"b10": 990, "b50": 10}, 2),
        ({"b10": 5_000, "b11": 4, "b12": 5_000}, 2),
    ],
)
def test_a_group_holds_together_and_is_large_enough(bins: dict[str, int], groups: int) -> None:
    assert groups_in(histogram(**bins)) == groups


def test_everybody_counts_for_the_answer_that_is_nearest() -> None:
    shares = shares_of(histogram(b0=10, b49=10, b50=20, b99=60), {"no": 0.0, "yes": 1.0})
    assert shares == {"no": 0.2, "yes": 0.8}
    assert shares_of([0] * 100, {"no": 0.0}) == {"no": 0.0}
    assert shares_of([1] * 100, {}) == {}


def community(name: str, answer: str, agents: int, mean: float, variance: float) -> dict[str, Any]:
    return {"name": name, "answer": answer, "agents": agents, "mean": mean, "variance": variance}


def opinions(*communities: dict[str, Any], **bins: int) -> dict[str, Any]:
    return {"histogram": histogram(**bins), "communities": list(communities)}


INITIAL = opinions(
    community("a", "no", 100, 0.0, 0.01),
    community("b", "yes", 300, 1.0, 0.02),
    community("c", "no", 100, 0.2, 0.01),
    b0=200,
    b99=300,
)
FINAL = opinions(
    community("a", "no", 100, 0.6, 0.0),
    community("b", "yes", 300, 0.7, 0.0),
    community("c", "no", 100, 0.8, 0.0),
    b70=500,
)


def test_communities_of_one_answer_are_one_subgroup() -> None:
    no, yes = subgroups_of(PAIR, INITIAL, FINAL)
    assert (no["answer"], no["archetypes"], no["agents"], no["ballot_share"]) == ("no", 2, 200, 0.4)
    assert no["initial"] == {"mean": pytest.approx(0.1), "variance": pytest.approx(0.02), "share": 0.4}
    assert no["final"] == {"mean": pytest.approx(0.7), "variance": pytest.approx(0.01), "share": 0.0}
    assert no["moved"] == pytest.approx(0.6)
    assert yes["final"] == {"mean": pytest.approx(0.7), "variance": pytest.approx(0.0), "share": 1.0}


def test_without_a_deliberation_there_are_no_subgroups() -> None:
    assert subgroups_of((), INITIAL, FINAL) == []
    assert decision_document(None, [], 0.5) is None
    assert answers_of(()) == {}


def test_the_decision_is_held_against_where_most_end() -> None:
    rows = subgroups_of(PAIR, INITIAL, FINAL)
    found = decision_document(Decision("no", 0.0), rows, 0.7)
    assert found is not None
    assert (found["ballot_share"], found["initial_share"], found["final_share"]) == (0.4, 0.4, 0.0)
    assert (found["initial_leader"], found["final_leader"], found["leads_in_the_end"]) == ("yes", "yes", False)
    assert found["distance_of_final_mean"] == pytest.approx(0.7)


def test_a_tie_decides_nothing_and_leads_nowhere() -> None:
    found = decision_document(Decision(None), subgroups_of(PAIR, INITIAL, FINAL), 0.7)
    assert found is not None
    assert (found["answer"], found["final_share"], found["leads_in_the_end"]) == (None, None, None)
