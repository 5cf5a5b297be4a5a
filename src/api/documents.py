"""Domain objects as the JSON documents of the public contract: what REST answers and `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from api.common_ground_document import proceedings_of, statement_document, statements_document
from api.worth_document import worth_document
from application.ports.usage_reader import UsageItem
from application.services.deliberation_output_service import WitnessedOutput
from application.services.quote_service import Amount, Quote
from domain.analysis.worth import Worth
from domain.models.agent import Roster
from domain.models.budget import Usage
from domain.models.control import control_id
from domain.models.deliberation import Deliberation, Specification, WitnessSpan
from domain.models.event import Event
from domain.models.halt import HaltState
from domain.models.outcome import Outcome, Synthesis
from domain.models.question import AnswerFormat
from domain.models.round import AgentRecord, Round
from domain.models.run import Run
from domain.models.run_event import RunEvent
from domain.protocols.poll import Savings, savings_of
from domain.voting.rule import Rule
from domain.voting.synthesis import cluster_name
from domain.voting.weights import UNITS_OF_A_WEIGHTED_VOTE
from domain.witness.result_documents import outcome_document, round_document, usage_document

__all__ = [
    "answer_document",
    "deliberation_document",
    "event_document",
    "halt_document",
    "moment",
    "outcome_with_reasons",
    "output_document",
    "quote_document",
    "roster_document",
    "rule_document",
    "run_document",
    "run_event_document",
    "usage_item_document",
]


def moment(at: datetime | None) -> str | None:
    """A time in RFC 3339, UTC, or None."""
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def deliberation_document(
    deliberation: Deliberation, worth: Worth | None = None, control: Deliberation | None = None
) -> dict[str, Any]:
    """The deliberation of the contract, section 1.

    `worth` is what earlier ones say of it as well, and `control` the one that it is compared with; None where that was not asked.
    """
    specification = deliberation.specification
    proceedings = proceedings_of(deliberation)
    return {
        "id": deliberation.id,
        "status": deliberation.status.value,
        "question": None if deliberation.erased else specification.question.text,
        "context": specification.question.context,
        "answer": answer_document(specification.question.answer),
        **_terms(specification),
        "created_at": moment(deliberation.created_at),
        "started_at": moment(deliberation.started_at),
        "finished_at": moment(deliberation.finished_at),
        "orchestrator": deliberation.orchestrator,
        "simulated": deliberation.simulated,
        "models": list(deliberation.models),
        "reason": deliberation.reason,
        "cancel_requested": deliberation.cancel_requested,
        "roll_call": deliberation.roll_call.as_counts(),
        "rounds": [_round(round_) for round_ in deliberation.rounds],
        "saved": _saved(savings_of(deliberation)),
        "statement": statement_document(deliberation, proceedings),
        "statements": statements_document(proceedings),
        "outcome": None if deliberation.outcome is None else outcome_with_reasons(deliberation.outcome, worth),
        "worth": None if worth is None else worth_document(worth),
        "control": _control(deliberation, control),
        "failures": _failures(deliberation),
        "fallbacks": _fallbacks(deliberation),
        "usage": _usage_document(deliberation.usage),
        "witness": None if deliberation.witness is None else _witness(deliberation.witness),
        "erased": deliberation.erased,
    }


def _control(deliberation: Deliberation, control: Deliberation | None) -> dict[str, Any] | None:
    """What one model said alone; without tally until that has ended, and without status where it could not be accepted."""
    asked = deliberation.specification.control
    if asked is None:
        return None
    outcome = None if control is None else control.outcome
    return {
        "deliberation_id": control_id(deliberation.id),
        "model": asked.model,
        "status": None if control is None else control.status.value,
        "asked": None if control is None else len(control.specification.roster.agents),
        "outcome_status": None if outcome is None else outcome.status.value,
        "decision": None if outcome is None else outcome.decision,
        "tally": None if outcome is None else dict(outcome.tally),
    }


def _witness(span: WitnessSpan) -> dict[str, Any]:
    return {
        "first_index": span.first_index,
        "last_index": span.last_index,
        "tree_size": span.tree_size,
        "root_hash": span.root_hash,
    }


def _terms(specification: Specification) -> dict[str, Any]:
    limits, sampling = specification.limits, specification.sampling
    return {
        "protocol": {
            "kind": specification.protocol.kind.value,
            **_present(specification.protocol.settings()),
        },
        "rule": rule_document(specification.rule),
        "agents": {"roster": specification.roster.name, "count": len(specification.roster.agents)},
        "quorum": {"min_answered_fraction": specification.quorum.min_answered_fraction},
        "limits": {
            "agent_timeout_s": limits.agent_timeout_s,
            "deadline_s": limits.deadline_s,
            "max_attempts": limits.max_attempts,
            "max_total_tokens": limits.max_total_tokens,
            "max_cost_usd": limits.max_cost_usd,
        },
        "sampling": {"temperature": sampling.temperature, "max_output_tokens": sampling.max_output_tokens},
        "metadata": dict(specification.metadata),
        "origin": specification.topic_origin,
        "seed": specification.seed,
    }


def rule_document(rule: Rule) -> dict[str, Any]:
    """The rule with what is set of it; learned weights as votes, by agent."""
    weights = {agent_id: units / UNITS_OF_A_WEIGHTED_VOTE for agent_id, units in rule.weights.items()}
    return {
        "kind": rule.kind.value,
        **_present({"fraction": rule.fraction}),
        **rule.settings(),
        **({"weights": weights} if weights else {}),
    }


def answer_document(answer: AnswerFormat) -> dict[str, Any]:
    """The kind of answer with what belongs to that kind."""
    options = {"options": list(answer.options)} if answer.kind.has_options else {}
    bounds = _present({"min": answer.minimum, "max": answer.maximum, "unit": answer.unit})
    return {"kind": answer.kind.value, **options, **bounds}


def output_document(output: WitnessedOutput) -> dict[str, Any]:
    """One agent's outcome in one round, with its place in the log."""
    record = output.record
    return {
        "agent_id": record.agent_id,
        "round": record.round_number,
        "attempt": record.attempts,
        "state": record.state.value,
        "content": record.content,
        "truncated": record.truncated,
        "answer": list(record.answer) if isinstance(record.answer, tuple) else record.answer,
        "confidence": record.confidence,
        "reasoning": record.reasoning,
        "failure": None
        if record.failure is None
        else {
            "kind": record.failure.kind,
            "message": None if output.erased else record.failure.message,
            "attempts": record.attempts,
        },
        "started_at": moment(record.started_at),
        "finished_at": moment(record.finished_at),
        "duration_seconds": round(record.duration_seconds, 6),
        "model_asked": record.model_asked,
        "model": record.model,
        "fell_back": record.fell_back,
        "usage": _usage_document(record.usage),
        "leaf_index": output.leaf_index,
        "leaf_hash": output.leaf_hash.hex(),
        "erased": output.erased,
    }


def event_document(event: Event) -> dict[str, Any]:
    """One event, as it stands in the `data` of the stream."""
    return {
        "sequence": event.sequence,
        "type": event.type,
        "at": moment(event.at),
        "deliberation_id": event.deliberation_id,
        **event.data,
    }


def run_document(run: Run) -> dict[str, Any]:
    """The run of the contract, section 1, with why it ended as it did where its result does not say so."""
    return {
        "id": run.id,
        "kind": run.kind.value,
        "status": run.status.value,
        "started_at": moment(run.started_at),
        "finished_at": moment(run.finished_at),
        "arguments": dict(run.arguments),
        "result": None if run.result is None else dict(run.result),
        "reason": run.reason,
    }


def run_event_document(event: RunEvent) -> dict[str, Any]:
    """One event of a run, as it stands in the `data` of the stream."""
    own = {"sequence": event.sequence, "type": event.type, "at": moment(event.at), "run_id": event.run_id}
    return {**own, **{name: value for name, value in event.data.items() if name not in own}}


def quote_document(quote: Quote) -> dict[str, Any]:
    """What a deliberation would take, of the contract, section 1, with what its asker should know besides."""
    return {
        "calls": _amount(quote.calls),
        "tokens": _amount(quote.tokens),
        "cost_usd": _amount(quote.cost_usd),
        "notices": list(quote.notices),
    }


def _amount(amount: Amount) -> dict[str, Any]:
    return {"expected": amount.expected, "at_most": amount.at_most}


def usage_item_document(item: UsageItem) -> dict[str, Any]:
    """What the calls of one deliberation, key, provider, model or day took."""
    return {
        "key": item.key,
        "calls": item.calls,
        "input_tokens": item.input_tokens,
        "output_tokens": item.output_tokens,
        "cost_usd": item.cost_usd,
        "uncertain_tokens": item.uncertain_tokens,
        "uncertain_usd": item.uncertain_usd,
    }


def roster_document(roster: Roster) -> dict[str, Any]:
    """A roster with its agents."""
    return {
        "name": roster.name,
        "description": roster.description,
        "agents": [
            {"id": agent.id, "name": agent.persona.name, "persona": agent.persona.text, "model": agent.model}
            for agent in roster.agents
        ],
    }


def outcome_with_reasons(outcome: Outcome, worth: Worth | None = None) -> dict[str, Any]:
    """What the record says of it, with the reasons of each position, which are texts and stand beside the record.

    Effective votes are in no record, because they are measured on other deliberations.
    """
    document = outcome_document(outcome)
    if worth is not None and worth.effective_votes is not None:
        document["effective_votes"] = round(worth.effective_votes, 2)
    if outcome.places:
        places = dict(zip(outcome.tally, outcome.places, strict=True))
        # Who shares a place stands by name, and `places` says so.
        document["ranking"] = sorted(places, key=lambda option: (places[option], option))
        document["places"] = places
    if outcome.synthesis is not None:
        document["decision"] = outcome.decision
        document["synthesis"] = _synthesis(outcome.synthesis)
    for shown, position in zip(document["dissent"]["positions"], outcome.dissent.positions, strict=True):
        shown["reasons"] = list(position.reasons)
    return document


def _synthesis(synthesis: Synthesis) -> dict[str, Any]:
    return {
        "method": synthesis.method,
        "chosen": synthesis.chosen,
        "clusters": [
            {"name": cluster_name(place), "agents": list(cluster.agents), "representative": cluster.representative}
            for place, cluster in enumerate(synthesis.clusters)
        ],
        "claims": [
            {
                "cluster": cluster_name(claim.cluster),
                "text": claim.text,
                "agents": list(claim.agents),
                "source": claim.source,
            }
            for claim in synthesis.claims
        ],
    }


def _fallbacks(deliberation: Deliberation) -> list[dict[str, Any]] | None:
    """Who was asked at another model of the route than the first; None where a page shows no rounds to tell it from."""
    if not deliberation.rounds and deliberation.roll_call.asked:
        return None
    return [
        {
            "agent_id": record.agent_id,
            "round": record.round_number,
            "asked": record.model_asked,
            "answered": record.model,
        }
        for round_ in deliberation.rounds
        for record in round_.records
        if record.fell_back
    ]


def _round(round_: Round) -> dict[str, Any]:
    """As in the record, with the purpose also of the blind one."""
    return {"purpose": round_.purpose, "kept": [], **round_document(round_)}


def _saved(savings: Savings | None) -> dict[str, Any] | None:
    if savings is None:
        return None
    return {"agents": savings.agents, "calls": savings.calls, "cost_usd": savings.cost_usd}


def _failures(deliberation: Deliberation) -> list[dict[str, Any]]:
    """Each failure with the round of the ballot that its agent kept in the tally, None where it had none."""
    kept = {
        (round_.number, agent_id): number for round_ in deliberation.rounds for agent_id, number in round_.kept.items()
    }
    return [
        {
            **_failure(record, erased=deliberation.erased),
            "from_round": kept.get((record.round_number, record.agent_id)),
        }
        for record in deliberation.failures
    ]


def _failure(record: AgentRecord, *, erased: bool) -> dict[str, Any]:
    return {
        "agent_id": record.agent_id,
        "round": record.round_number,
        "state": record.state.value,
        "kind": record.failure.kind if record.failure else record.state.value,
        "message": None if erased else record.failure.message if record.failure else "",
        "attempts": record.attempts,
        "duration_seconds": round(record.duration_seconds, 6),
    }


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def halt_document(state: HaltState) -> dict[str, Any]:
    """The halt of the contract, section 1. In doubt it reads as halted, with the channel that is away and why."""
    return {
        "halted": state.halted,
        "reason": state.reason,
        "since": moment(state.since),
        "channels": {
            name: {"halted": channel.halted, "reachable": channel.reachable} for name, channel in state.channels.items()
        },
    }


def _usage_document(usage: Usage) -> dict[str, Any]:
    """As in the record, with what nobody knows also where that is nothing."""
    uncertain = {"uncertain_tokens": usage.uncertain_tokens, "uncertain_usd": usage.uncertain_usd}
    return {**usage_document(usage), **uncertain}
