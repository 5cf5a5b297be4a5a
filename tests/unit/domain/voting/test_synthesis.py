"""Texts: clusters of agents who say much the same, and claims that each cite whom they rest on."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.models.outcome import Claim, Cluster, Outcome, Synthesis
from domain.voting.ballot import Ballot
from domain.voting.rule import Rule, RuleKind
from domain.voting.synthesis import decision_of, label_of, sentences_of, synthesis_outcome, synthesise
from tests.unit.domain.voting.elections import ballots, count

WEEKENDS = (
    "Close the city centre to private cars on weekends only. Deliveries need access on weekdays.",
    "Weekends only: close the centre to cars then, and let deliveries in on weekdays.",
    "Close the centre to cars on weekends only. Deliveries need access on weekdays!",
)
SHOPS = ("No. Shops would lose customers and the buses are full.", "Shops would lose customers. Do not close it!")
ALONE = "I would ask the inhabitants first."
SPOKEN = ballots(WEEKENDS[0], SHOPS[0], WEEKENDS[1], None, SHOPS[1], WEEKENDS[2], ALONE)


def outcome_of(given_ballots: list[Ballot], synthesis: Synthesis | None = None) -> Outcome:
    return synthesis_outcome(given_ballots, synthesis)


def members(outcome: Outcome) -> list[tuple[str, ...]]:
    assert outcome.synthesis is not None
    return [cluster.agents for cluster in outcome.synthesis.clusters]


def test_those_who_say_much_the_same_are_one_cluster_the_largest_first() -> None:
    outcome = count("synthesis", (), SPOKEN, kind="text")
    assert members(outcome) == [("archon-1", "archon-3", "archon-6"), ("archon-2", "archon-5"), ("archon-7",)]
    assert dict(outcome.tally) == {"cluster 1": 3, "cluster 2": 2, "cluster 3": 1}
    assert (outcome.status.value, outcome.margin, label_of(outcome)) == ("decided", 1, "cluster 1")


def test_the_decision_is_what_the_largest_cluster_claims_in_its_own_words() -> None:
    outcome = outcome_of(SPOKEN)
    assert str(outcome.decision).startswith("Close the c")
    assert "Deliveries need access on weekdays" in str(outcome.decision)
    assert "Shops" not in str(outcome.decision)


def test_every_claim_stands_where_it_says_and_cites_whoever_says_it() -> None:
    outcome = outcome_of(SPOKEN)
    said = {ballot.agent_id: str(ballot.answer) for ballot in SPOKEN}
    assert outcome.synthesis is not None
    assert outcome.synthesis.claims
    for claim in outcome.synthesis.claims:
        assert claim.source in claim.agents
        assert set(claim.agents) <= set(outcome.synthesis.clusters[claim.cluster].agents)
        assert sentences_of(said[claim.source])[claim.sentence] == claim.text
    deliveries = next(claim for claim in outcome.synthesis.claims if "Deliveries" in str(claim.text))
    assert deliveries.agents == ("archon-1", "archon-6")


def test_other_clusters_are_the_dissent_with_their_reasons() -> None:
    outcome = outcome_of(SPOKEN)
    assert outcome.dissent.percentage == 50.0
    assert [(each.answer, each.agents, each.reasons) for each in outcome.dissent.positions] == [
        ("cluster 2", ("archon-2", "archon-5"), ("reason 2", "reason 5")),
        ("cluster 3", ("archon-7",), ("reason 7",)),
    ]


def test_equal_clusters_are_an_honest_tie_that_a_lottery_may_break() -> None:
    even = ballots(WEEKENDS[0], SHOPS[0])
    assert (outcome_of(even).status.value, outcome_of(even).decision) == ("tied", None)
    drawn = count(Rule(RuleKind.SYNTHESIS, tie_break="lottery"), (), even, kind="text", seed=3)
    assert (drawn.status.value, drawn.tie_break) == ("decided", "lottery")
    assert label_of(drawn) in {"cluster 1", "cluster 2"}


def test_without_a_text_there_is_no_majority() -> None:
    outcome = outcome_of(ballots(None, None))
    assert (outcome.status.value, outcome.decision, dict(outcome.tally)) == ("no_majority", None, {})


def test_the_same_text_is_one_cluster_however_common_its_words() -> None:
    assert members(outcome_of(ballots("yes", "yes", "no"))) == [("archon-1", "archon-2"), ("archon-3",)]


def test_texts_without_spaces_between_words_are_compared_too() -> None:
    texts = ("周末关闭市中心的私人汽车交通", "周末应该关闭市中心的汽车交通", "商店会失去顾客")
    assert members(outcome_of(ballots(*texts))) == [("archon-1", "archon-2"), ("archon-3",)]


@given(st.permutations(SPOKEN))
def test_the_order_of_ballots_changes_neither_clusters_nor_claims(shuffled: list[Ballot]) -> None:
    def shape(outcome: Outcome) -> object:
        assert outcome.synthesis is not None
        clusters = [set(each.agents) for each in outcome.synthesis.clusters]
        return clusters, [(each.text, set(each.agents)) for each in outcome.synthesis.claims], outcome.decision

    assert shape(outcome_of(shuffled)) == shape(outcome_of(SPOKEN))


GIVEN = Synthesis(
    "a model",
    (Cluster(("archon-1", "archon-2"), "archon-2"), Cluster(("archon-3",), "archon-3")),
    (
        Claim(0, "archon-2", 0, ("archon-1", "archon-2"), "Close it."),
        Claim(0, "archon-2", 1, (), "Nobody says this."),
        Claim(0, "archon-2", 1, ("archon-2", "archon-3"), "Cites another cluster."),
        Claim(0, "archon-1", 1, ("archon-2",), "Is not said by its source."),
        Claim(7, "archon-1", 1, ("archon-1",), "Is of no cluster."),
        Claim(1, "archon-3", 0, ("archon-3",), "Leave it open."),
    ),
)


def test_a_claim_without_a_citation_is_dropped() -> None:
    outcome = outcome_of(ballots("a", "b", "c"), GIVEN)
    assert outcome.synthesis is not None
    assert [claim.text for claim in outcome.synthesis.claims] == ["Close it.", "Leave it open."]
    assert outcome.decision == "Close it."


def test_clusters_that_were_witnessed_are_counted_without_any_text() -> None:
    whole = outcome_of(SPOKEN)
    assert whole.synthesis is not None
    bare = replace(whole.synthesis, claims=tuple(replace(claim, text=None) for claim in whole.synthesis.claims))
    silent = [replace(ballot, answer=None if ballot.abstains else "0" * 64) for ballot in SPOKEN]
    again = outcome_of(silent, bare)
    assert (again.status, dict(again.tally), again.margin, label_of(again)) == (
        whole.status,
        dict(whole.tally),
        whole.margin,
        label_of(whole),
    )
    assert again.decision is None
    assert [each.agents for each in again.dissent.positions] == [each.agents for each in whole.dissent.positions]


@pytest.mark.parametrize(
    "clusters",
    [
        (Cluster(("archon-1",), "archon-1"),),
        (Cluster(("archon-1", "archon-2", "archon-2"), "archon-1"),),
        (Cluster(("archon-1", "archon-2", "archon-9"), "archon-1"),),
        (Cluster(("archon-1",), "archon-2"), Cluster(("archon-2",), "archon-2")),
    ],
)
def test_clusters_of_others_than_who_answered_are_refused(clusters: tuple[Cluster, ...]) -> None:
    with pytest.raises(ValueError, match="cluster"):
        outcome_of(ballots("a", "b"), Synthesis("a model", clusters))


def test_vectors_decide_who_is_alike_where_they_are_given() -> None:
    alike = [[1.0, 0.1, 0.9], [0.1, 1.0, 0.2], [0.9, 0.2, 1.0]]
    found = synthesise(ballots("one", "two", "three"), alike=alike, at_least=0.8, method="a model")
    assert [cluster.agents for cluster in found.clusters] == [("archon-1", "archon-3"), ("archon-2",)]
    assert found.method == "a model"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 3.5 million. Too much.", ["It costs 3.5 million.", "Too much."]),
        ("- first\n* second\n3) third", ["first", "second", "third"]),
        ("一。二！三", ["一。", "二！", "三"]),
        ("...\n!!!\n", []),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, sentences: list[str]) -> None:
    assert sentences_of(text) == sentences


def test_72_texts_of_64_kib_are_compared_by_how_they_begin() -> None:
    chance = random.Random(5)
    words = [f"word{n}" for n in range(500)]
    texts = [" ".join(chance.choices(words, k=9_000))[: 64 * 1024] for _ in range(72)]
    assert sum(len(agents) for agents in members(outcome_of(ballots(*texts)))) == 72


def test_a_decision_without_its_texts_is_none() -> None:
    assert decision_of(Synthesis("m", (), (Claim(0, "a", 0, ("a",)),)), "cluster 1") is None
