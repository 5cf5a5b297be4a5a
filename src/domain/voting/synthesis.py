"""Synthesis: texts in clusters of agents who say much the same, and the claims of each cluster in the words of its agents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from domain.models.outcome import Claim, Cluster, Outcome, OutcomeStatus, Synthesis
from domain.models.text import cut_to_bytes
from domain.voting.ballot import Ballot
from domain.voting.lottery import drawn
from domain.voting.similarity import by_words, clusters_of, words_of
from domain.voting.tally import report_dissent

__all__ = [
    "BY_WORDS",
    "cluster_name",
    "decision_of",
    "label_of",
    "sentences_of",
    "synthesis_outcome",
    "synthesise",
]

BY_WORDS = "tf-idf"
"""The method that compares texts by their words alone."""

_ALIKE_BY_WORDS = 0.3
_SAME_CLAIM = 0.6
_MAX_SENTENCES = 6
_MAX_CHARACTERS = 8 * 1024
_MAX_CLAIMS_OF_A_CLUSTER = 5
_MAX_CLAIMS = 24
_MAX_CLAIM_BYTES = 1_024
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_MARKS = re.compile(r"^[\s\-*•#>]+|^\d+[.)]\s+")


def cluster_name(place: int) -> str:
    """What the cluster at that place is called in a tally: they are numbered from 1."""
    return f"cluster {place + 1}"


def sentences_of(text: str) -> list[str]:
    """The first sentences of a text, without marks of lists; a long one is cut."""
    found = []
    for part in _END_OF_SENTENCE.split(text[:_MAX_CHARACTERS]):
        sentence = cut_to_bytes(_MARKS.sub("", part.strip()).strip(), _MAX_CLAIM_BYTES)[0]
        if any(letter.isalnum() for letter in sentence):
            found.append(sentence)
        if len(found) == _MAX_SENTENCES:
            break
    return found


def synthesise(
    ballots: Sequence[Ballot],
    *,
    alike: Sequence[Sequence[float]] | None = None,
    at_least: float = _ALIKE_BY_WORDS,
    method: str = BY_WORDS,
) -> Synthesis:
    """The clusters and claims of the texts of these ballots, in whatever order they stand.

    `alike` says how alike each two of those who answered are, in their order, where something else than their words does.
    """
    spoken = [ballot for ballot in ballots if isinstance(ballot.answer, str)]
    # In the order of their texts, so that who stands where in the roster decides nothing.
    order = sorted(range(len(spoken)), key=lambda place: (str(spoken[place].answer), spoken[place].agent_id))
    texts = [str(spoken[place].answer) for place in order]
    groups = _same([(tuple(words_of(text)) or text) if alike is None else text for text in texts])
    if alike is None:
        matrix = by_words([words_of(texts[group[0]]) for group in groups])
    else:
        matrix = [[alike[order[one[0]]][order[other[0]]] for other in groups] for one in groups]
    found = []
    for places in clusters_of(matrix, at_least=at_least, sizes=[len(group) for group in groups]):
        nearest = _centre(places, matrix, groups)
        agents = [spoken[place].agent_id for place in sorted(order[at] for group in places for at in groups[group])]
        found.append(Cluster(tuple(agents), spoken[order[groups[nearest][0]]].agent_id))
    clusters = tuple(sorted(found, key=lambda cluster: (-len(cluster.agents), sorted(cluster.agents))))
    return Synthesis(method, clusters, _claims(clusters, {each.agent_id: str(each.answer) for each in spoken}))


def synthesis_outcome(
    ballots: Sequence[Ballot], synthesis: Synthesis | None = None, *, lottery_seed: int | None = None
) -> Outcome:
    """The outcome by the size of clusters: the largest is what most say, equal ones are a tie; `no_majority` without a text.

    A claim that cites nobody who answered is dropped. Raises `ValueError` when the clusters of `synthesis` are not exactly those
    who answered, each once.
    """
    found = synthesise(ballots) if synthesis is None else synthesis
    answered = [ballot.agent_id for ballot in ballots if isinstance(ballot.answer, str)]
    if sorted(answered) != sorted(agent for cluster in found.clusters for agent in cluster.agents):
        raise ValueError("the clusters do not hold each agent that answered once")
    if any(cluster.representative not in cluster.agents for cluster in found.clusters):
        raise ValueError("a cluster is represented by an agent that is not in it")
    found = replace(found, claims=tuple(claim for claim in found.claims if _is_cited(claim, found.clusters)))
    tally = {cluster_name(place): len(cluster.agents) for place, cluster in enumerate(found.clusters)}
    if not tally:
        return Outcome(OutcomeStatus.NO_MAJORITY, "synthesis", tally=tally, margin=0, synthesis=found)
    most = max(tally.values())
    first = [name for name, count in tally.items() if count == most]
    second = max((count for count in tally.values() if count < most), default=0)
    won = first[0] if len(first) == 1 else None
    tie_break = None
    if won is None and lottery_seed is not None:
        won, tie_break = drawn(first, lottery_seed)[0], "lottery"
    names = {agent: cluster_name(place) for place, cluster in enumerate(found.clusters) for agent in cluster.agents}
    return Outcome(
        OutcomeStatus.TIED if won is None else OutcomeStatus.DECIDED,
        "synthesis",
        decision=None if won is None else decision_of(found, won),
        tally=tally,
        margin=most - second if len(first) == 1 else 0,
        dissent=report_dissent(ballots, lambda ballot: names[ballot.agent_id], won),
        tie_break=tie_break,
        synthesis=replace(found, chosen=won),
    )


def decision_of(synthesis: Synthesis, name: str) -> str | None:
    """The claims of the cluster of that name as one text; None where their texts are not at hand."""
    said = [claim.text for claim in synthesis.claims if cluster_name(claim.cluster) == name]
    return " ".join(text for text in said if text) or None


def label_of(outcome: Outcome) -> str | float | None:
    """The decision as the log holds it, which holds no texts: of a synthesis the name of the cluster."""
    return outcome.decision if outcome.synthesis is None else outcome.synthesis.chosen


def _is_cited(claim: Claim, clusters: Sequence[Cluster]) -> bool:
    if not 0 <= claim.cluster < len(clusters):
        return False
    agents = clusters[claim.cluster].agents
    return bool(claim.agents) and claim.source in claim.agents and set(claim.agents) <= set(agents)


def _claims(clusters: Sequence[Cluster], texts: dict[str, str]) -> tuple[Claim, ...]:
    claims: list[Claim] = []
    for place, cluster in enumerate(clusters):
        room = min(_MAX_CLAIMS_OF_A_CLUSTER, _MAX_CLAIMS - len(claims))
        claims += _claims_of(place, cluster, texts)[:room]
    return tuple(claims)


def _claims_of(place: int, cluster: Cluster, texts: dict[str, str]) -> list[Claim]:
    """What the agents of a cluster say, each sentence once with all who say it: what most say first."""
    said = sorted(
        (sentence, agent, number)
        for agent in cluster.agents
        for number, sentence in enumerate(sentences_of(texts[agent]))
    )
    groups = _same([tuple(words_of(sentence)) or sentence for sentence, _, _ in said])
    alike = by_words([words_of(said[group[0]][0]) for group in groups])
    claims = []
    for places in clusters_of(alike, at_least=_SAME_CLAIM, sizes=[len(group) for group in groups]):
        sentence, source, number = said[groups[_centre(places, alike, groups)][0]]
        citing = {said[at][1] for group in places for at in groups[group]}
        agents = tuple(agent for agent in cluster.agents if agent in citing)
        claims.append(Claim(place, source, number, agents, sentence))
    return sorted(claims, key=lambda claim: (-len(claim.agents), claim.sentence, str(claim.text)))


def _same(keys: Sequence[object]) -> list[list[int]]:
    """The places of equal keys together, in the order in which each key comes first."""
    groups: dict[object, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def _centre(places: Sequence[int], alike: Sequence[Sequence[float]], groups: Sequence[Sequence[int]]) -> int:
    """Of these groups of the same text the one that is most like all of them; of several the first."""
    return max(places, key=lambda one: (sum(alike[one][other] * len(groups[other]) for other in places), -one))
