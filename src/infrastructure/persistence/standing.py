"""How a deliberation stands: what is kept of one that ended, and what the records of one at work say so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from domain.models.budget import Usage
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.outcome import Outcome
from domain.models.roll_call import RollCall
from domain.models.round import AgentRecord, Round

__all__ = ["Result", "RoundResult", "as_it_stands", "shown_on_a_page", "without_texts"]


@dataclass(frozen=True, slots=True)
class RoundResult:
    """What is kept of a finished round beside its records: the order in which they stand, the tally, and which ballots were kept."""

    number: int
    roll_call: RollCall
    tally: Mapping[str, float]
    agents: tuple[str, ...]
    purpose: str = "answer"
    kept: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What is kept of a deliberation that ended, beside its records; its failures are without the texts that stand there."""

    roll_call: RollCall
    rounds: tuple[RoundResult, ...]
    outcome: Outcome | None
    failures: tuple[AgentRecord, ...]
    usage: Usage
    models: tuple[str, ...]
    reason: str | None

    @classmethod
    def of(cls, deliberation: Deliberation) -> Result:
        """What is to be kept of this one."""
        return cls(
            deliberation.roll_call,
            tuple(
                RoundResult(
                    round_.number,
                    round_.roll_call,
                    round_.tally,
                    tuple(record.agent_id for record in round_.records),
                    round_.purpose,
                    round_.kept,
                )
                for round_ in deliberation.rounds
            ),
            deliberation.outcome,
            tuple(without_texts(record) for record in deliberation.failures),
            deliberation.usage,
            deliberation.models,
            deliberation.reason,
        )

    def at_a_glance(self, deliberation: Deliberation) -> Deliberation:
        """That deliberation as it ended, without its rounds, its failures without texts."""
        return replace(
            deliberation,
            rounds=(),
            roll_call=self.roll_call,
            outcome=self.outcome,
            failures=self.failures,
            usage=self.usage,
            models=self.models,
            reason=self.reason,
        )

    def in_full(self, deliberation: Deliberation, records: Iterable[AgentRecord]) -> Deliberation:
        """That deliberation as it ended, with its rounds made of these records."""
        by_place = {(record.round_number, record.agent_id): record for record in records}
        rounds = tuple(
            Round(
                kept.number,
                tuple(by_place[place] for agent_id in kept.agents if (place := (kept.number, agent_id)) in by_place),
                kept.tally,
                kept.purpose,
                kept.kept,
            )
            for kept in self.rounds
        )
        failures = tuple(by_place.get((lost.round_number, lost.agent_id), lost) for lost in self.failures)
        return replace(self.at_a_glance(deliberation), rounds=rounds, failures=failures)


def without_texts(record: AgentRecord) -> AgentRecord:
    """How the agent ended, without what it said."""
    return replace(record, content=None, answer=None, reasoning=None)


def shown_on_a_page(deliberation: Deliberation) -> Deliberation:
    """That deliberation without its rounds, its failures without texts."""
    return replace(deliberation, rounds=(), failures=tuple(without_texts(lost) for lost in deliberation.failures))


def as_it_stands(deliberation: Deliberation, records: Iterable[AgentRecord]) -> Deliberation:
    """An unfinished deliberation with what these records say so far: rounds, roll call, failures, usage and models."""
    by_round: dict[int, list[AgentRecord]] = {}
    for record in records:
        by_round.setdefault(record.round_number, []).append(record)
    rounds = tuple(Round(number, tuple(by_round[number])) for number in sorted(by_round))
    # The domain derives these when a deliberation ends, so a copy is ended to learn what they are now.
    running = replace(deliberation, status=DeliberationStatus.RUNNING)
    counted = running.end(DeliberationStatus.CANCELLED, at=deliberation.created_at, rounds=rounds)
    return replace(
        deliberation,
        rounds=rounds,
        roll_call=counted.roll_call,
        failures=counted.failures,
        usage=counted.usage,
        models=counted.models,
    )
