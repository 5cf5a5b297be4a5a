"""A deliberation: what was asked of whom, and the states it moves through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import uuid4

from domain.errors.deliberation import FieldProblem, IllegalTransitionError, InvalidSpecificationError
from domain.models.agent import Roster
from domain.models.budget import Limits, Quorum, Sampling, Usage
from domain.models.control import Control
from domain.models.outcome import Outcome
from domain.models.protocol import Protocol
from domain.models.question import AnswerFormat, Question
from domain.models.roll_call import RollCall
from domain.models.round import AgentRecord, Round
from domain.models.text import text_problem
from domain.models.topic import ORIGIN
from domain.protocols.round_format import answers_in, counted_answers
from domain.voting.rule import Rule

__all__ = [
    "MAX_METADATA",
    "MAX_METADATA_BYTES",
    "SEED_BOUNDS",
    "Deliberation",
    "DeliberationStatus",
    "Specification",
    "WitnessSpan",
]

SEED_BOUNDS = (-(2**63), 2**63 - 1)
MAX_METADATA = 32
MAX_METADATA_BYTES = 1024
_MAX_OPTIONS_BYTES = 8_192
_MAX_OPTIONS_BYTES_OF_SEVERAL_ROUNDS = 4_096
_MAX_MEMBERS_BYTES = 40_000


class DeliberationStatus(StrEnum):
    """Where a deliberation stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    INQUORATE = "inquorate"
    CANCELLED = "cancelled"
    HALTED = "halted"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow."""
        return self not in {DeliberationStatus.QUEUED, DeliberationStatus.RUNNING}


_FOLLOWS: Mapping[DeliberationStatus, frozenset[DeliberationStatus]] = {
    DeliberationStatus.QUEUED: frozenset(
        {DeliberationStatus.RUNNING, DeliberationStatus.CANCELLED, DeliberationStatus.FAILED}
    ),
    DeliberationStatus.RUNNING: frozenset(status for status in DeliberationStatus if status.is_terminal),
}


def _json_bytes(value: object) -> int:
    # Whatever has no UTF-8 is refused for that by the check of its own field.
    return len(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


@dataclass(frozen=True, slots=True)
class Specification:
    """Everything that was asked for, checked: what is run is exactly this.

    `origin` is where its topic came from, where the caller's own metadata do not say so.
    """

    question: Question
    roster: Roster
    rule: Rule
    protocol: Protocol = field(default_factory=Protocol)
    quorum: Quorum = field(default_factory=Quorum)
    limits: Limits = field(default_factory=Limits)
    sampling: Sampling = field(default_factory=Sampling)
    metadata: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    control: Control | None = None
    origin: str | None = None

    def check(self) -> None:
        """Raise `InvalidSpecificationError` with every problem of every part."""
        if found := self.problems():
            raise InvalidSpecificationError(found)

    def problems(self) -> list[FieldProblem]:
        """Everything that keeps it from being run, part by part; the roster is one that was assembled, or is answered for elsewhere."""
        found = [
            *self.question.problems(),
            *self.protocol.problems(),
            *self.rule.problems(self.counted_answers),
            *self.quorum.problems(),
            *self.limits.problems(),
            *self.sampling.problems(),
            *([] if self.control is None else self.control.problems()),
            *self._metadata_problems(),
            *self._record_problems(),
        ]
        if self.seed is not None and not SEED_BOUNDS[0] <= self.seed <= SEED_BOUNDS[1]:
            found.append(FieldProblem("/seed", "must fit into 64 bits"))
        if self.rule.needs_seed and self.seed is None:
            found.append(FieldProblem("/seed", "a lottery draws from the seed, so it needs one"))
        return found

    @property
    def counted_answers(self) -> AnswerFormat:
        """What the rule counts in the end."""
        return counted_answers(self.protocol, self.question.answer, len(self.roster.agents))

    @property
    def topic_origin(self) -> str | None:
        """Where the topic came from; None where nobody said, and once that was erased."""
        return self.metadata.get(ORIGIN, self.origin)

    def answers_in(self, round_number: int) -> AnswerFormat:
        """The format in which the answers of that round are recorded."""
        return answers_in(self.protocol, self.question.answer, len(self.roster.agents), round_number)

    def _record_problems(self) -> list[FieldProblem]:
        """What would not fit into the entries that record it, of which each has an end: options stand in the last one four times."""
        found = []
        options = _json_bytes(self.question.answer.options)
        several = self.protocol.has_several_rounds
        most = _MAX_OPTIONS_BYTES_OF_SEVERAL_ROUNDS if several else _MAX_OPTIONS_BYTES
        if options > most:
            problem = f"take {options} bytes together as JSON, at most {most} are taken"
            found.append(FieldProblem("/answer/options", problem))
        members = _json_bytes([(agent.id, agent.model) for agent in self.roster.agents])
        if members > _MAX_MEMBERS_BYTES:
            problem = (
                f"the ids and models take {members} bytes together as JSON, at most {_MAX_MEMBERS_BYTES} are taken"
            )
            found.append(FieldProblem("/agents", problem))
        return found

    def _metadata_problems(self) -> list[FieldProblem]:
        found = []
        if len(self.metadata) > MAX_METADATA:
            problem = f"has {len(self.metadata)} entries, at most {MAX_METADATA} are taken"
            found.append(FieldProblem("/metadata", problem))
        for name, value in self.metadata.items():
            wrong_name = text_problem(name, max_bytes=MAX_METADATA_BYTES)
            if wrong_name:
                found.append(FieldProblem("/metadata", f"the name of an entry {wrong_name}"))
            if wrong_value := text_problem(value, max_bytes=MAX_METADATA_BYTES):
                # A name that cannot be shown is not repeated.
                shown = wrong_name is None and name.isprintable()
                steps = ["metadata", name] if shown else ["metadata"]
                found.append(FieldProblem.at(steps, wrong_value if shown else f"the value of an entry {wrong_value}"))
        return found


@dataclass(frozen=True, slots=True)
class WitnessSpan:
    """Where the entries of a deliberation stand in the log, and the log (size, root in hex) as it was at its end."""

    first_index: int
    last_index: int
    tree_size: int
    root_hash: str


@dataclass(frozen=True, slots=True)
class Deliberation:
    """One question put to one roster. Moves only along legal transitions, and never out of a terminal state."""

    id: str
    specification: Specification
    created_at: datetime
    orchestrator: str = ""
    simulated: bool = False
    key_name: str | None = None
    status: DeliberationStatus = DeliberationStatus.QUEUED
    started_at: datetime | None = None
    finished_at: datetime | None = None
    roll_call: RollCall = field(default_factory=RollCall)
    rounds: tuple[Round, ...] = ()
    outcome: Outcome | None = None
    failures: tuple[AgentRecord, ...] = ()
    usage: Usage = field(default_factory=Usage)
    models: tuple[str, ...] = ()
    reason: str | None = None
    cancel_requested: bool = False
    # What the log adds to a deliberation does not make it another one, so neither takes part in comparisons. The salt is that of
    # the question's commitment, with which the prompts are committed to; empty where it is not at hand.
    witness: WitnessSpan | None = field(default=None, compare=False)
    question_salt: bytes = field(default=b"", compare=False, repr=False)
    erased: bool = False

    @classmethod
    def accept(
        cls, specification: Specification, *, at: datetime, orchestrator: str, simulated: bool, key_name: str | None
    ) -> Deliberation:
        """A new deliberation, queued. Raises `InvalidSpecificationError`; there is no other way in."""
        specification.check()
        return cls(
            id=str(uuid4()),
            specification=specification,
            created_at=at,
            orchestrator=orchestrator,
            simulated=simulated,
            key_name=key_name,
        )

    def start(self, *, at: datetime) -> Deliberation:
        """The same deliberation, running. Raises `IllegalTransitionError`."""
        self._must_allow(DeliberationStatus.RUNNING)
        return replace(self, status=DeliberationStatus.RUNNING, started_at=at)

    def end(
        self,
        status: DeliberationStatus,
        *,
        at: datetime,
        rounds: tuple[Round, ...] = (),
        outcome: Outcome | None = None,
        reason: str | None = None,
        besides: Usage | None = None,
    ) -> Deliberation:
        """The same deliberation, ended as `status`.

        The roll call, the failures and the usage are derived from the rounds, so they cannot disagree with them; `besides` is what calls
        took that are no agent's. An outcome stands only on a completed one. It ends no earlier than it began, whatever the clock says.
        Raises `IllegalTransitionError`.
        """
        self._must_allow(status)
        if (outcome is not None) != (status is DeliberationStatus.COMPLETED):
            raise IllegalTransitionError(
                present=self.status.value, wanted=f"{status.value} with another kind of outcome"
            )
        last = {record.agent_id: record for round_ in rounds for record in round_.records}
        usage = Usage()
        for round_ in rounds:
            for record in round_.records:
                usage += record.usage
        if besides is not None:
            usage += besides
        return replace(
            self,
            status=status,
            finished_at=max(at, self.started_at or self.created_at),
            rounds=rounds,
            outcome=outcome,
            reason=reason,
            roll_call=RollCall.of(record.state for record in last.values()),
            failures=tuple(r for round_ in rounds for r in round_.records if not r.state.took_part),
            usage=usage,
            models=tuple(sorted({r.model for round_ in rounds for r in round_.records if r.model})),
        )

    def _must_allow(self, wanted: DeliberationStatus) -> None:
        if wanted not in _FOLLOWS.get(self.status, frozenset()):
            raise IllegalTransitionError(present=self.status.value, wanted=wanted.value)
