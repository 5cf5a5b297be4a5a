"""A role given to a model or to a deliberation: both are recorded deliberations, of one member or of many."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Any, Protocol

from application.services.pantheon.function_mind import names_in
from application.services.pantheon.mind import Brief, Opinion
from domain.errors.conclave_error import ConclaveError
from domain.errors.halt import SystemHaltedError
from domain.errors.pantheon import RoleFailedError
from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Limits
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.outcome import OutcomeStatus
from domain.models.pantheon import STEPS, Role, named_steps
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord
from domain.voting.rule import Rule, RuleKind

__all__ = ["QUESTIONS", "AskedMind", "Deliberating", "Inquiry"]

_WIND_UP_S = 10.0
_CANCEL_S = 1.5
_MAX_TOLD = 2_000

QUESTIONS: Mapping[Role, str] = MappingProxyType(
    {
        Role.OBSERVER: "Is the task in the context clear enough to be worked on? Say in the reasoning what you observe in it.",
        Role.REASONER: "Which of these plans serves the task in the context best?",
        Role.ACTOR: "Which of these plans should be declared for execution, given the task and the plan in the context?",
        Role.VALIDATOR: "May the plan in the context be carried out for its task? Answer yes only if nothing speaks against it.",
        Role.EXECUTOR: "Do the outputs in the context look complete for the plan? Say in the reasoning what is missing, if anything.",
        Role.MEMORY: "Is anything in this cycle worth remembering? Say in the reasoning what.",
        Role.ANALYZER: "Are the measures in the context in order? Say in the reasoning what stands out.",
        Role.LEARNER: "Is there something to learn from what the context says was done? Say in the reasoning what.",
        Role.IMPROVER: "Which of these plans should the next cycle carry out?",
    }
)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """How a role is asked: one `model` (None is the default one), or the first `agents` of a roster.

    `options` are the answers to choose from: for a role that plans each is a plan, its steps parted by commas.
    """

    model: str | None = None
    persona: str | None = None
    agents: int | None = None
    roster: str = "archons"
    question: str | None = None
    options: tuple[str, ...] = ()
    timeout_s: float = 120.0

    @property
    def is_deliberation(self) -> bool:
        """Whether many are asked."""
        return self.agents is not None


class Deliberating(Protocol):
    """The part of the open service that a role needs: deliberations are recorded, limited, budgeted, retried and halted there."""

    async def submit(self, specification: Specification) -> Deliberation:
        """Accept one: stored when this returns."""
        ...

    async def wait(self, deliberation_id: str, *, timeout_s: float | None) -> Deliberation:
        """The deliberation once it ended, or as it is after `timeout_s` seconds."""
        ...

    async def cancel(self, deliberation_id: str) -> Deliberation:
        """Ask for its end."""
        ...


class AskedMind:
    """Puts the role's question to its model or its members and takes what they decide as the role's opinion.

    The task and what became of it are the context, fenced as the words of others. What a model says is data: a decision, names of steps
    that the Validator looks at, a remark. An undecided Validator does not approve; other roles that are undecided leave things as they
    are. A model that fails is the role's failure.
    """

    def __init__(self, service: Deliberating, inquiry: Inquiry, *, role: Role, roster: Roster | None = None) -> None:
        """`roster` is who is asked where many are."""
        self._service = service
        self._inquiry = inquiry
        self._role = role
        self._roster = roster

    @property
    def patience_s(self) -> float:
        """Seconds after which it counts as hanging: a little more than the deliberation has, which ends by itself."""
        return self._inquiry.timeout_s + 2 * _WIND_UP_S

    def specification(self, brief: Brief) -> Specification:
        """What is put to those asked."""
        inquiry, role = self._inquiry, self._role
        return Specification(
            question=Question(inquiry.question or QUESTIONS[role], _context(brief), self._answers()),
            roster=self._asked(),
            rule=self._rule(),
            limits=Limits(agent_timeout_s=inquiry.timeout_s, deadline_s=inquiry.timeout_s + _WIND_UP_S),
            metadata={"origin": "pantheon", "role": role.value},
        )

    async def consult(self, role: Role, brief: Brief) -> Opinion:
        """The opinion in what was decided. Raises `RoleFailedError`, `SystemHaltedError` and what the service raises."""
        accepted = await self._service.submit(self.specification(brief))
        try:
            ended = await self._service.wait(accepted.id, timeout_s=self._inquiry.timeout_s + 1.5 * _WIND_UP_S)
        except asyncio.CancelledError:
            # Until its end is on record, or the service would be closed under it.
            with contextlib.suppress(ConclaveError):
                await self._service.cancel(accepted.id)
                await self._service.wait(accepted.id, timeout_s=_CANCEL_S)
            raise
        if ended.status is DeliberationStatus.HALTED:
            raise SystemHaltedError(ended.reason)
        if ended.status is DeliberationStatus.COMPLETED:
            return self._opinion(ended)
        proposed = self._proposed_otherwise(ended)
        if proposed is not None:
            return Opinion(steps=proposed, simulated=ended.simulated)
        if not ended.status.is_terminal:
            with contextlib.suppress(ConclaveError):
                await self._service.cancel(accepted.id)
        raise self._failure(role, ended)

    def _answers(self) -> AnswerFormat:
        options = self._inquiry.options or (_plans() if self._role.plans else ())
        return AnswerFormat(AnswerKind.CHOICE, options) if options else AnswerFormat(AnswerKind.VERDICT)

    def _rule(self) -> Rule:
        # A verdict needs the half of all asked, so that silence is no approval.
        return Rule(RuleKind.PLURALITY) if self._answers().options else Rule(RuleKind.THRESHOLD, 0.5)

    def _asked(self) -> Roster:
        if self._roster is not None:
            return self._roster
        persona = self._inquiry.persona or f"You are the {self._role.value.capitalize()} of a row of nine roles."
        return Roster.assemble("pantheon", [Agent(self._role.value, Persona(persona), self._inquiry.model)])

    def _opinion(self, ended: Deliberation) -> Opinion:
        outcome = ended.outcome
        decision = None
        if outcome is not None and outcome.status is OutcomeStatus.DECIDED and isinstance(outcome.decision, str):
            decision = outcome.decision
        remark = self._remark(ended, decision)
        steps = names_in(decision) if decision is not None and self._role.plans else None
        approves = decision == "yes" if self._role is Role.VALIDATOR else None
        return Opinion(remark, steps, approves, ended.simulated)

    def _remark(self, ended: Deliberation, decision: str | None) -> str:
        said = "undecided" if decision is None else decision
        if not self._inquiry.is_deliberation:
            record = ended.rounds[-1].records[0]
            return f"{said}: {record.reasoning}" if record.reasoning else said
        tally = {} if ended.outcome is None else ended.outcome.tally
        counts = ", ".join(f"{option}: {votes}" for option, votes in tally.items() if votes)
        return f"{said} ({counts} of {ended.roll_call.asked})"

    def _proposed_otherwise(self, ended: Deliberation) -> tuple[str, ...] | None:
        """The steps that a single model named although it was to choose a plan: the Validator tells what is wrong with them."""
        if self._inquiry.is_deliberation or not self._role.plans:
            return None
        invalid = [record for record in _records(ended) if record.state is AgentState.INVALID and record.content]
        return _names_in_reply(invalid[0].content or "") if invalid else None

    def _failure(self, role: Role, ended: Deliberation) -> RoleFailedError:
        failures = ended.failures
        causes = [record.failure for record in failures if record.failure is not None]
        kind = causes[0].kind if causes else "timeout" if not ended.status.is_terminal else ended.status.value
        names = [record.model_asked or record.agent_id for record in failures]
        words = causes[0].message if causes else ended.reason or f"its deliberation is {ended.status.value}"
        whom = f"{', '.join(dict.fromkeys(names))}: " if names else ""
        problem = f"{whom}{words.rstrip('.')} (deliberation {ended.id})"
        return RoleFailedError(role=role.value, kind=kind, problem=problem)


def _records(ended: Deliberation) -> Sequence[AgentRecord]:
    return ended.rounds[-1].records if ended.rounds else ()


def _plans() -> tuple[str, ...]:
    """Every choice of allowed steps, in their order."""
    names = tuple(STEPS)
    return tuple(", ".join(chosen) for size in range(len(names), 0, -1) for chosen in combinations(names, size))


def _names_in_reply(content: str) -> tuple[str, ...] | None:
    """The names in `{"answer": TEXT or [TEXT, ...]}`, None where the reply is anything else."""
    try:
        answer = json.loads(content)["answer"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if isinstance(answer, str):
        return names_in(answer) or None
    if isinstance(answer, list) and answer and all(isinstance(name, str) for name in answer):
        return named_steps(answer)
    return None


def _context(brief: Brief) -> str:
    """The brief as JSON, outputs cut, so that it fits into any prompt that takes the task."""
    told: dict[str, Any] = dict(brief)
    executed = told.get("executed")
    if isinstance(executed, list):
        told["executed"] = [
            {**done, "output": done["output"][:_MAX_TOLD] if isinstance(done["output"], str) else done["output"]}
            for done in executed
        ]
    return json.dumps(told, ensure_ascii=False, indent=1)
