"""What was made of deliberations after their end, as documents: recounts, resolutions, track records, and where topics came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.documents import outcome_with_reasons, rule_document
from application.services.recount_service import Recount
from application.services.resolution_service import Resolution
from application.services.topic_balance import TopicShares
from domain.analysis.track_record import Bin, Standing, TrackRecord
from domain.models.question import AnswerKind
from domain.voting.weights import UNITS_OF_A_WEIGHTED_VOTE

__all__ = ["recount_document", "resolution_document", "topics_document", "track_record_document"]


def recount_document(recount: Recount) -> dict[str, Any]:
    """The recount of the contract, section 1, with its place in the log."""
    return {
        "deliberation_id": recount.deliberation.id,
        "rule": rule_document(recount.rule),
        "outcome": None if recount.outcome is None else outcome_with_reasons(recount.outcome),
        "leaf_index": recount.index,
    }


def resolution_document(resolution: Resolution) -> dict[str, Any]:
    """The resolution of the contract, section 1, with what is known of everybody by now."""
    scores, record = resolution.scores, resolution.record
    truth = resolution.truth
    answer = resolution.deliberation.specification.question.answer
    by_model: dict[str, list[float]] = {}
    for given in resolution.given:
        score = scores.agents.get(given.agent_id)
        if given.model is not None and score is not None:
            by_model.setdefault(given.model, []).append(score)
    return {
        "deliberation_id": resolution.deliberation.id,
        "answer": list(truth) if isinstance(truth, tuple) else truth,
        "brier": scores.brier,
        "correct": scores.correct,
        "error": scores.error if answer.kind is not AnswerKind.PROBABILITY else None,
        "agents": [
            {"agent_id": agent_id, "score": score, **_learned(record.agents.get(agent_id))}
            for agent_id, score in scores.agents.items()
        ],
        "models": [
            {
                "model": model,
                "score": sum(found) / len(found),
                "answers": len(found),
                **_learned(record.models.get(model)),
            }
            for model, found in sorted(by_model.items())
        ],
        "calibration": _calibration(resolution.calibration),
        "leaf_index": resolution.index,
    }


def track_record_document(record: TrackRecord) -> dict[str, Any]:
    """Everybody who answered a question that was resolved, the best first."""
    return {
        "questions": record.questions,
        "agents": _standings(record.agents),
        "models": _standings(record.models),
        "calibration": _calibration(record.calibration),
    }


def topics_document(shares: TopicShares) -> dict[str, Any]:
    """Where the topics of the last days came from, and what to think about."""
    return {"days": shares.days, "counts": dict(shares.counts), "warning": shares.warning}


def _standings(found: Mapping[str, Standing]) -> list[dict[str, Any]]:
    ordered = sorted(found.items(), key=lambda item: (-item[1].weight, item[0]))
    return [
        {
            "name": name,
            "questions": standing.questions,
            "score": standing.score,
            "skill": float(standing.skill),
            "weight": standing.weight / UNITS_OF_A_WEIGHTED_VOTE,
        }
        for name, standing in ordered
    ]


def _learned(standing: Standing | None) -> dict[str, Any]:
    if standing is None:
        return {"questions": 0, "weight": 1.0}
    return {"questions": standing.questions, "weight": standing.weight / UNITS_OF_A_WEIGHTED_VOTE}


def _calibration(bins: Sequence[Bin]) -> list[dict[str, Any]]:
    return [
        {"from": each.low, "to": each.high, "count": each.count, "stated": each.stated, "right": each.right}
        for each in bins
    ]
