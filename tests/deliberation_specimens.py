"""Deliberations, records and entries for tests: whole, varied, and the same in every run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from application.ports.deliberation_repository import Commit
from domain.analysis.decision import decide
from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Limits, Quorum, Sampling, Usage
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.money import Charge, Hold, Reservation, picodollars
from domain.models.protocol import Protocol
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause, Round
from domain.voting.ballot import Answer
from domain.voting.rule import Rule, RuleKind
from domain.witness.entry import agent_ended, call_intended, deliberation_ended, round_started

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
OPTIONS = ("yes", "no", "weekends only")


@dataclass(frozen=True)
class Intent:
    """An intent to call that `committing` makes an entry of."""

    number: int


class SettableClock:
    """A clock that stands still until a test sets it."""

    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> datetime:
        """The time that was set."""
        return self.time

    def monotonic(self) -> float:
        """Seconds from noon."""
        return (self.time - NOON).total_seconds()

    def advance(self, seconds: float) -> None:
        """Let that much time pass."""
        self.time += timedelta(seconds=seconds)


def specification(*, agents: int = 3) -> Specification:
    """A specification in which no field has its default."""
    return Specification(
        question=Question(
            'Soll die "Innenstadt" für Autos gesperrt werden? 🚗 \\u0000 日本',
            "Zeile eins\nZeile zwei\t\u2028drei",
            AnswerFormat(AnswerKind.CHOICE, OPTIONS),
        ),
        roster=Roster.assemble(
            "wise",
            [
                Agent(
                    f"archon-{number}", Persona(f"Persona {number} – zögert", f"Name {number}"), f"model-{number % 2}"
                )
                for number in range(agents)
            ],
            description="a few",
        ),
        rule=Rule(RuleKind.THRESHOLD, 0.1 + 0.2),
        protocol=Protocol(wave_size=2),
        quorum=Quorum(1 / 3),
        limits=Limits(1.5, 100.25, 3, 1_000, 0.1),
        sampling=Sampling(0.0, 77),
        metadata={"origin": "scheduled", "ключ": "значение"},
        seed=-(2**63),
    )


def deliberation(*, agents: int = 3, key_name: str | None = None) -> Deliberation:
    """A new one, queued."""
    return Deliberation.accept(
        specification(agents=agents), at=NOON, orchestrator="openai", simulated=True, key_name=key_name
    )


def record(agent: int, *, answer: Answer = "yes", round_number: int = 0, content: str | None = None) -> AgentRecord:
    """How an agent that answered ended."""
    return AgentRecord(
        round_number,
        f"archon-{agent}",
        AgentState.ABSTAINED if answer is None else AgentState.ANSWERED,
        1,
        NOON + timedelta(seconds=agent),
        NOON + timedelta(seconds=agent, microseconds=1),
        content=json.dumps({"answer": answer}) if content is None else content,
        answer=answer,
        confidence=0.1 * agent,
        reasoning=f"because of {agent} – ☂",
        model_asked=f"model-{agent % 2}",
        model="small",
        usage=Usage(1, 200 + agent, 50, 0.1 + 0.2),
        truncated=agent == 1,
        duration_seconds=1 / 3,
    )


def failed(agent: int, *, state: AgentState = AgentState.TIMED_OUT, round_number: int = 0) -> AgentRecord:
    """How an agent that gave nothing usable ended; an invalid one has content all the same."""
    return AgentRecord(
        round_number,
        f"archon-{agent}",
        state,
        2,
        None,
        NOON,
        content="mumble" if state is AgentState.INVALID else None,
        failure=FailureCause("agent_timeout", "no answer within 1.5 s"),
        usage=Usage(calls=2),
    )


def intent(number: int) -> Intent:
    """One of many intents to call, told apart by `number`."""
    return Intent(number)


def committing(
    deliberation_id: str,
    intents: Sequence[Intent] = (),
    records: Sequence[AgentRecord] = (),
    deliberation: Deliberation | None = None,
    *,
    answers: AnswerFormat | None = None,
) -> Commit:
    """What is stored in one step: intents, ends of agents, and the end of the deliberation when it is over; one event each,
    but two for the end of a deliberation that had rounds. The same facts make the same entries.
    """
    entries = [
        call_intended(
            deliberation_id,
            at=NOON + timedelta(microseconds=each.number),
            round_number=0,
            agent_id=f"archon-{each.number}",
            attempt=1,
            model=None,
            prompt=None,
            prompt_salt=b"",
        )
        for each in intents
    ]
    given = answers if answers is not None else AnswerFormat(AnswerKind.CHOICE, OPTIONS)
    for each in records:
        ending = agent_ended(deliberation_id, each, given, salts=lambda size: bytes(range(size)))
        if any(each.agent_id == f"archon-{begun.number}" for begun in intents):
            took = each.usage
            cost, reserved = picodollars(took.cost_usd), Reservation("", "2026-11-21", Hold())
            ending.charge = Charge(
                1, "small", took.input_tokens, took.output_tokens, cost, is_certain=True, reserved=reserved
            )
        entries.append(ending)
    if deliberation is not None and deliberation.status.is_terminal:
        entries.append(deliberation_ended(deliberation, cause=deliberation.reason))
    return Commit(deliberation_id, entries, deliberation)


def opening(running: Deliberation) -> Commit:
    """The start of a deliberation, which makes one event."""
    return Commit(running.id, [round_started(running.id, 1, ["archon-1"], at=NOON)], running)


def started(queued: Deliberation) -> Deliberation:
    """The same one, running."""
    return queued.start(at=NOON)


def ended(running: Deliberation, records: Sequence[AgentRecord]) -> Deliberation:
    """The same one, completed with these records."""
    rounds, outcome = decide(running, records)
    return running.end(DeliberationStatus.COMPLETED, at=NOON + timedelta(seconds=2), rounds=rounds, outcome=outcome)


def revised(running: Deliberation, rounds: Sequence[Sequence[AgentRecord]]) -> Deliberation:
    """The same one, failed after several rounds."""
    return running.end(
        DeliberationStatus.FAILED,
        at=NOON + timedelta(seconds=3),
        rounds=tuple(
            Round(number, tuple(records), {"no": number, "yes": 0})
            for number, records in zip(count(), rounds, strict=False)
        ),
        reason="interrupted: the service was shut down",
    )


def without_texts(records: Sequence[AgentRecord]) -> tuple[AgentRecord, ...]:
    """These records as a list of deliberations shows them."""
    return tuple(replace(each, content=None, answer=None, reasoning=None) for each in records)
