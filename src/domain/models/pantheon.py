"""The pantheon: nine roles in a row, the steps that they may carry out, and what a run of them is asked and answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from domain.errors.deliberation import FieldProblem
from domain.models.run import JsonValue
from domain.models.text import MAX_QUESTION_BYTES, clean, text_problem

__all__ = [
    "CONDUCTOR",
    "MAX_CYCLES",
    "MAX_PLAN_STEPS",
    "ROW",
    "STEPS",
    "TRANSPORTS",
    "Handoff",
    "PantheonRequest",
    "PantheonResult",
    "PantheonStatus",
    "Role",
    "RoleFailure",
    "StepOutput",
    "StepRefusal",
    "arguments_from_rest",
    "command_line",
    "named_steps",
    "plan_digest",
    "refusals_of",
]

CONDUCTOR = "pantheon"
"""Who begins each cycle by a message to the observer, and is told its end by the improver."""

TRANSPORTS = ("memory", "redis", "file", "shm")
MAX_CYCLES = 1_000
MAX_REST_CYCLES = 100
MAX_PLAN_STEPS = 16

_MAX_STEP_NAME = 200
_MAX_NAMED = 100
_MAX_ARGUMENT_NAME = 64
# The plan goes by two names: that of the option, and that of the list that a run shows.
_PLAN_ARGUMENTS = ("steps", "step")
_ARGUMENTS = ("task", *_PLAN_ARGUMENTS, "transport", "cycles")


class Role(StrEnum):
    """One of the nine, in the order in which a cycle passes them."""

    OBSERVER = "observer"
    REASONER = "reasoner"
    ACTOR = "actor"
    VALIDATOR = "validator"
    EXECUTOR = "executor"
    MEMORY = "memory"
    ANALYZER = "analyzer"
    LEARNER = "learner"
    IMPROVER = "improver"

    @property
    def plans(self) -> bool:
        """Whether it names steps: those of this cycle, or those it proposes for the next."""
        return self in {Role.REASONER, Role.ACTOR, Role.IMPROVER}


ROW = tuple(Role)


def _echo(task: str) -> str:
    return task


def _word_count(task: str) -> int:
    return len(task.split())


def _sha256(task: str) -> str:
    return hashlib.sha256(task.encode()).hexdigest()


STEPS: Mapping[str, Callable[[str], str | int]] = MappingProxyType(
    {"echo": _echo, "word_count": _word_count, "sha256": _sha256}
)
"""All that can ever be carried out, by name. Each is given the task and nothing else; words are what white space parts."""


class PantheonStatus(StrEnum):
    """How a run ended, in its document."""

    EXECUTED = "executed"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Handoff:
    """One message from role to role; `latency_us` is from just before it was sent until it was received, in microseconds."""

    cycle: int
    sender: str
    recipient: str
    latency_us: float

    def document(self) -> dict[str, JsonValue]:
        """As in the document of the run."""
        return {"cycle": self.cycle, "from": self.sender, "to": self.recipient, "latency_us": self.latency_us}


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step gave: a text, or a number where it counts."""

    step: str
    output: str | int

    def document(self) -> dict[str, JsonValue]:
        """As in the document of the run."""
        return {"step": self.step, "output": self.output}


@dataclass(frozen=True, slots=True)
class StepRefusal:
    """A step that was not carried out, and why."""

    step: str
    reason: str

    def document(self) -> dict[str, JsonValue]:
        """As in the document of the run."""
        return {"step": self.step, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class RoleFailure:
    """Why a run failed: whose fault it was, None where nobody's, a machine-readable kind, and the words."""

    role: str | None
    kind: str
    message: str

    def document(self) -> dict[str, JsonValue]:
        """As in the document of the run."""
        return {"role": self.role, "kind": self.kind, "message": self.message}


@dataclass(frozen=True, slots=True)
class PantheonResult:
    """What came of a run. `executed` and `rejected` hold those of all its cycles, in the order in which they happened.

    `cycles` counts those that ran to their end. `refused` counts the messages that came from nobody of this run. `remarks` are what
    roles of the operator's said, `learned` and `proposal` what the Learner and the Improver said last.
    """

    task: str
    status: PantheonStatus
    cycles: int
    simulated: bool = False
    handoffs: tuple[Handoff, ...] = ()
    executed: tuple[StepOutput, ...] = ()
    rejected: tuple[StepRefusal, ...] = ()
    failure: RoleFailure | None = None
    refused: int = 0
    remarks: tuple[Mapping[str, JsonValue], ...] = ()
    learned: Mapping[str, JsonValue] | None = None
    proposal: Mapping[str, JsonValue] | None = None

    def document(self) -> dict[str, JsonValue]:
        """The document of the public contract, section 7, and what it leaves free after that."""
        return {
            "task": self.task,
            "status": self.status.value,
            "cycles": self.cycles,
            "simulated": self.simulated,
            "handoffs": [handoff.document() for handoff in self.handoffs],
            "executed": [step.document() for step in self.executed],
            "rejected": [step.document() for step in self.rejected],
            "failure": None if self.failure is None else self.failure.document(),
            "refused": self.refused,
            "remarks": [dict(remark) for remark in self.remarks],
            "learned": None if self.learned is None else dict(self.learned),
            "proposal": None if self.proposal is None else dict(self.proposal),
        }


@dataclass(frozen=True, slots=True)
class PantheonRequest:
    """What a run is asked: the task, a plan where it is fixed, and how many cycles. Any step may be named; not any is carried out."""

    task: str
    steps: tuple[str, ...] | None = None
    cycles: int = 1

    def problems(self) -> list[FieldProblem]:
        """What keeps it from being run, by argument."""
        found = []
        if problem := text_problem(self.task, max_bytes=MAX_QUESTION_BYTES):
            found.append(FieldProblem("/task", problem))
        if not 1 <= self.cycles <= MAX_CYCLES:
            found.append(FieldProblem("/cycles", f"must be 1 to {MAX_CYCLES}"))
        return found


def named_steps(names: Sequence[str]) -> tuple[str, ...]:
    """Names as they may travel and be shown, whoever gave them: cut to 200 characters, and to 100 names.

    Neither cut can make an allowed step, or an allowed plan, of another one.
    """
    return tuple(clean(name)[:_MAX_STEP_NAME] for name in names[:_MAX_NAMED])


def refusals_of(plan: Sequence[str], allowed: Sequence[str]) -> list[StepRefusal]:
    """Every step of a plan that cannot be carried out as a whole, those that are why first; empty for one that can."""
    if not plan:
        return [StepRefusal("", "the plan names no step")]
    if len(plan) > MAX_PLAN_STEPS:
        reason = f"the plan names more than {MAX_PLAN_STEPS} steps"
        return [StepRefusal(step, reason) for step in plan]
    known = ", ".join(allowed)
    refused = [StepRefusal(step, f"no such step is allowed; there is {known}") for step in plan if step not in allowed]
    if not refused:
        return []
    reason = f"its plan is rejected as a whole, for {refused[0].step!r}"
    return refused + [StepRefusal(step, reason) for step in plan if step in allowed]


def plan_digest(run_id: str, cycle: int, task: str, plan: Sequence[str]) -> str:
    """SHA-256 (hex) over what an approval is for: this plan, of this task, in this cycle of this run."""
    said = json.dumps([run_id, cycle, task, list(plan)], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


def arguments_from_rest(document: Mapping[str, object]) -> tuple[dict[str, JsonValue], list[FieldProblem]]:
    """The arguments of `POST /v1/runs` with their defaults, and what is wrong with them by JSON pointer (RFC 6901).

    `{"task": TEXT, "steps": [NAME, ...] | null, "transport": NAME, "cycles": 1 to 100}`; only `task` has to be given, and `step`, as the
    option is called, may stand for `steps`. Nothing in it names code, a file or a folder.
    """
    found = [
        FieldProblem(
            f"/arguments/{name}" if name.isidentifier() and len(name) <= _MAX_ARGUMENT_NAME else "/arguments",
            "is no argument of a pantheon run",
        )
        for name in document
        if name not in _ARGUMENTS
    ]
    plan_argument = "step" if "step" in document and "steps" not in document else "steps"
    task, steps = document.get("task"), document.get(plan_argument)
    transport, cycles = document.get("transport", TRANSPORTS[0]), document.get("cycles", 1)
    if not isinstance(task, str):
        found.append(FieldProblem("/arguments/task", "must be a text"))
    elif problem := text_problem(task, max_bytes=MAX_QUESTION_BYTES):
        found.append(FieldProblem("/arguments/task", problem))
    if all(name in document for name in _PLAN_ARGUMENTS):
        found.append(FieldProblem("/arguments/step", "is another name of steps: give one of the two"))
    found += _problems_of_steps(steps, f"/arguments/{plan_argument}")
    if transport not in TRANSPORTS:
        found.append(FieldProblem("/arguments/transport", f"must be one of {', '.join(TRANSPORTS)}"))
    if isinstance(cycles, bool) or not isinstance(cycles, int) or not 1 <= cycles <= MAX_REST_CYCLES:
        found.append(FieldProblem("/arguments/cycles", f"must be a whole number from 1 to {MAX_REST_CYCLES}"))
    if found:
        return {}, found
    checked: dict[str, JsonValue] = {"task": str(task), "transport": str(transport), "cycles": int(str(cycles))}
    checked["steps"] = [str(step) for step in steps] if isinstance(steps, list) else None
    return checked, []


def _problems_of_steps(steps: object, pointer: str) -> list[FieldProblem]:
    if steps is None:
        return []
    if not isinstance(steps, list) or not 1 <= len(steps) <= MAX_PLAN_STEPS:
        return [FieldProblem(pointer, f"must be a list of 1 to {MAX_PLAN_STEPS} names")]
    return [
        FieldProblem(f"{pointer}/{number}", problem)
        for number, step in enumerate(steps)
        if (problem := _problem_of_name(step))
    ]


def _problem_of_name(step: object) -> str | None:
    if not isinstance(step, str):
        return "must be a text"
    if problem := text_problem(step, max_bytes=_MAX_STEP_NAME):
        return problem
    return None if step.isprintable() else "must be printable"


def command_line(arguments: Mapping[str, JsonValue]) -> list[str]:
    """The command that runs these arguments, each in one word, so that no text can pass for an option."""
    steps = arguments.get("steps")
    return [
        "pantheon",
        "run",
        f"--task={arguments['task']}",
        *(f"--step={step}" for step in (steps if isinstance(steps, list) else [])),
        f"--transport={arguments.get('transport', TRANSPORTS[0])}",
        f"--cycles={arguments.get('cycles', 1)}",
    ]
