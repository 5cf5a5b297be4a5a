"""Results as documents: what entries record of rounds, outcomes and usage, and what the contract shows of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.synthesis import label_of

if TYPE_CHECKING:
    from domain.models.budget import Usage
    from domain.models.outcome import Outcome, Synthesis
    from domain.models.round import Round

__all__ = ["outcome_document", "recorded_outcome", "round_document", "synthesis_document", "usage_document"]


def usage_document(usage: Usage) -> dict[str, Any]:
    """Calls, tokens and US dollars, and where there are calls whose end nobody knows, what those may have taken at most."""
    document: dict[str, Any] = {
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_usd,
    }
    if usage.uncertain_tokens or usage.uncertain_usd:
        document["uncertain_tokens"] = usage.uncertain_tokens
        document["uncertain_usd"] = usage.uncertain_usd
    return document


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """The outcome as the contract shows it, without the reasons of its positions and the texts of its claims."""
    document: dict[str, Any] = {
        "status": outcome.status.value,
        "decision": label_of(outcome),
        "rule": outcome.rule,
        "tally": dict(outcome.tally),
        "margin": outcome.margin,
        "spread": outcome.spread,
        "dissent": {
            "percentage": outcome.dissent.percentage,
            "positions": [
                {"answer": position.answer, "count": position.count, "agents": list(position.agents)}
                for position in outcome.dissent.positions
            ],
        },
        "blind_tally": dict(outcome.blind_tally),
        "changed": [
            {"agent_id": change.agent_id, "from": change.before, "to": change.after} for change in outcome.changed
        ],
        "effective_votes": outcome.effective_votes,
        "robustness": {"rules_agreeing": list(outcome.rules_agreeing), "votes_to_flip": outcome.votes_to_flip},
    }
    # What a rule does not give is left out, so that the outcomes of earlier versions read as they were written.
    if outcome.places:
        document["places"] = list(outcome.places)
    if outcome.tie_break is not None:
        document["tie_break"] = outcome.tie_break
    if outcome.outliers:
        document["outliers"] = list(outcome.outliers)
    if outcome.synthesis is not None:
        document["synthesis"] = synthesis_document(outcome.synthesis)
    return document


def synthesis_document(synthesis: Synthesis) -> dict[str, Any]:
    """Clusters with their agents, and claims as where they stand in the answers; `agents` of a claim are places in its cluster."""
    return {
        "method": synthesis.method,
        "clusters": [
            {"agents": list(cluster.agents), "representative": cluster.agents.index(cluster.representative)}
            for cluster in synthesis.clusters
        ],
        "claims": [
            {
                "cluster": claim.cluster,
                "source": synthesis.clusters[claim.cluster].agents.index(claim.source),
                "sentence": claim.sentence,
                "agents": [synthesis.clusters[claim.cluster].agents.index(agent) for agent in claim.agents],
            }
            for claim in synthesis.claims
        ],
    }


def recorded_outcome(outcome: Outcome, answers: AnswerFormat) -> dict[str, Any]:
    """The outcome as it is recorded: who changed is told by places of the options of the question, and of lists not from what to what."""
    document = outcome_document(outcome)
    for change in document["changed"]:
        for name in ("from", "to"):
            change[name] = _place_of(change[name], answers)
    return document


def round_document(round_: Round) -> dict[str, Any]:
    """Number, roll call and tally of a finished round; of a later one also its purpose, and from which round ballots were kept."""
    document = {"round": round_.number, "roll_call": round_.roll_call.as_counts(), "tally": dict(round_.tally)}
    if round_.number:
        document["purpose"] = round_.purpose
    if round_.kept:
        document["kept"] = [{"agent_id": agent_id, "from_round": number} for agent_id, number in round_.kept.items()]
    return document


def _place_of(named: str, answers: AnswerFormat) -> int | str | None:
    if answers.kind is AnswerKind.CHOICE:
        return answers.options.index(named)
    return None if answers.kind.has_options else named
