"""Deliberations as the domain ends them, in documents: what the views are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

from rich.cells import cell_len
from rich.console import Console

from api.documents import deliberation_document, output_document
from application.services.deliberation_output_service import WitnessedOutput
from domain.analysis.decision import decide
from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause
from domain.voting.ballot import Answer
from domain.voting.rule import Rule, default_rule

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
OPTIONS = ("yes", "no", "weekends only")


@dataclass(frozen=True)
class Said:
    """How one agent ends: with an answer and a reason, or in another state with kind and message."""

    answer: Answer = None
    reason: str | None = None
    state: AgentState = AgentState.ANSWERED
    kind: str = ""
    message: str = ""
    agent_id: str | None = None
    attempts: int = 1


@dataclass(frozen=True)
class Sample:
    """A document with its outputs."""

    document: Mapping[str, Any]
    outputs: Sequence[Mapping[str, Any]]


def choice(options: Sequence[str] = OPTIONS) -> AnswerFormat:
    return AnswerFormat(AnswerKind.CHOICE, tuple(options))


def answers(*counted: tuple[Answer, int]) -> list[Said]:
    """So many agents with each answer, each with a reason of its own."""
    return [
        Said(answer, f"reason {number} for {answer}") for answer, count in counted for number in range(1, count + 1)
    ]


def ended(
    said: Sequence[Said],
    *,
    answer: AnswerFormat | None = None,
    question: str = "Should the city centre be closed to private cars?",
    rule: Rule | None = None,
    status: DeliberationStatus = DeliberationStatus.COMPLETED,
    reason: str | None = None,
    simulated: bool = False,
    orchestrator: str = "openai",
    models: Sequence[str] = ("model-a",),
    seconds: float = 12.3,
) -> Sample:
    """The deliberation in which this was said."""
    answer = choice() if answer is None else answer
    chosen = rule or default_rule(answer.kind)
    assert chosen is not None
    agents = [Agent(one.agent_id or f"archon-{place}", Persona("A view.")) for place, one in enumerate(said, start=1)]
    specification = Specification(Question(question, None, answer), Roster.assemble("archons", agents), chosen)
    accepted = Deliberation.accept(
        specification, at=START, orchestrator=orchestrator, simulated=simulated, key_name=None
    )
    records = [
        _record(agent.id, one, models[place % len(models)] if models else None)
        for place, (agent, one) in enumerate(zip(agents, said, strict=True))
    ]
    running = accepted.start(at=START)
    rounds, outcome = decide(running, records)
    done = running.end(
        status,
        at=START + timedelta(seconds=seconds),
        rounds=rounds,
        outcome=outcome if status is DeliberationStatus.COMPLETED else None,
        reason=reason,
    )
    shown = [WitnessedOutput(record, place, bytes(32), erased=False) for place, record in enumerate(records)]
    return Sample(deliberation_document(done), [output_document(output) for output in shown])


def _record(agent_id: str, said: Said, model: str | None) -> AgentRecord:
    return AgentRecord(
        0,
        agent_id,
        said.state,
        said.attempts,
        START,
        START + timedelta(seconds=1),
        content="{}" if said.state.took_part else None,
        answer=said.answer,
        reasoning=said.reason,
        failure=FailureCause(said.kind, said.message) if not said.state.took_part else None,
        model=model if said.state.took_part else None,
        usage=Usage(said.attempts, 100, 10, 0.001),
    )


def console(width: int = 80, *, encoding: str = "utf-8", terminal: bool = False) -> Console:
    """A console that writes into memory; `printed` reads it."""
    return Console(
        file=_Encoded(encoding),
        width=width,
        force_terminal=terminal,
        color_system=None,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={},
    )


def printed(target: Console) -> str:
    assert isinstance(target.file, _Encoded)
    return target.file.getvalue()


def widest(text: str) -> int:
    """Cells of the widest line."""
    return max(cell_len(line) for line in text.split("\n"))


class _Encoded(StringIO):
    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain StringIO has none
        return self._encoding
