"""What can go wrong with a deliberation, its specification or its ballots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from domain.errors.conclave_error import ConclaveError

__all__ = [
    "CallExistsError",
    "DeliberationEndedError",
    "DeliberationError",
    "DeliberationExistsError",
    "DeliberationNotFoundError",
    "FieldProblem",
    "IllegalTransitionError",
    "InvalidRosterError",
    "InvalidSpecificationError",
    "LeaseLostError",
    "QueueFullError",
    "RecordExistsError",
    "RecordMismatchError",
    "RosterNotFoundError",
    "ServiceStoppingError",
    "UnreadableBallotError",
    "steps_of",
]


class DeliberationError(ConclaveError):
    """Root of the errors about deliberations."""

    slug: ClassVar[str] = "deliberation-error"


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field that cannot be accepted: where it is (RFC 6901 JSON pointer) and what is wrong with it."""

    pointer: str
    message: str

    @classmethod
    def at(cls, steps: Iterable[str | int], message: str) -> FieldProblem:
        """The problem of the field that these steps lead to."""
        return cls("".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps), message)


def steps_of(pointer: str) -> tuple[str, ...]:
    """The steps that a JSON pointer leads along."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


class InvalidSpecificationError(DeliberationError):
    """A deliberation was described in a way that cannot be run. Names every bad field, never its content."""

    slug: ClassVar[str] = "invalid-specification"

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__("; ".join(f"{p.pointer or '/'}: {p.message}" for p in problems))
        self.problems = tuple(problems)

    @classmethod
    def at(cls, pointer: str, message: str) -> InvalidSpecificationError:
        """The error for one bad field."""
        return cls([FieldProblem(pointer, message)])


# No state of its own: what has ended stays as it ended, and its texts are gone.
_ERASED = "erased"


class IllegalTransitionError(DeliberationError):
    """A deliberation was told to move to a state that cannot follow its present one."""

    slug: ClassVar[str] = "illegal-transition"

    def __init__(self, *, present: str, wanted: str) -> None:
        message = f"a deliberation that is {present!r} cannot become {wanted!r}: read its state again."
        super().__init__("the texts of the deliberation are erased already." if present == _ERASED else message)
        self.present = present
        self.wanted = wanted


class DeliberationEndedError(DeliberationError):
    """The deliberation has already ended, so it can no longer be cancelled."""

    slug: ClassVar[str] = "deliberation-ended"

    def __init__(self, *, deliberation_id: str, status: str) -> None:
        super().__init__(f"deliberation {deliberation_id!r} has already ended as {status!r}: there is nothing to stop.")
        self.deliberation_id = deliberation_id
        self.status = status


class DeliberationNotFoundError(DeliberationError):
    """There is no deliberation with that id that the caller may see."""

    slug: ClassVar[str] = "deliberation-not-found"

    def __init__(self, *, deliberation_id: str) -> None:
        super().__init__("there is no such deliberation that you may see: list them to find its id.")
        self.deliberation_id = deliberation_id


class DeliberationExistsError(DeliberationError):
    """A deliberation with that id is already stored; it is never replaced."""

    slug: ClassVar[str] = "deliberation-exists"

    def __init__(self, *, deliberation_id: str) -> None:
        super().__init__(f"deliberation {deliberation_id!r} is already stored: read it, or accept a new one.")
        self.deliberation_id = deliberation_id


class RosterNotFoundError(DeliberationError):
    """There is no roster of that name."""

    slug: ClassVar[str] = "roster-not-found"

    def __init__(self, *, known: Sequence[str]) -> None:
        super().__init__(f"there is no roster of that name; known are {', '.join(known)}.")
        self.known = tuple(known)


class InvalidRosterError(DeliberationError):
    """A roster file cannot be used. Names the file and the first thing wrong in it."""

    slug: ClassVar[str] = "invalid-roster"

    def __init__(self, *, source: str, problem: str) -> None:
        super().__init__(f"roster {source!r} cannot be used: {problem}.")
        self.source = source
        self.problem = problem


class QueueFullError(DeliberationError):
    """As many deliberations wait as may; the caller should come back later."""

    slug: ClassVar[str] = "queue-full"

    def __init__(self, *, waiting: int, limit: int, retry_after_s: int) -> None:
        super().__init__(f"{waiting} deliberations wait and {limit} may: try again in {retry_after_s} s.")
        self.waiting = waiting
        self.limit = limit
        self.retry_after_s = retry_after_s


class ServiceStoppingError(DeliberationError):
    """The service is shutting down and takes no new work."""

    slug: ClassVar[str] = "service-stopping"

    def __init__(self, *, retry_after_s: int = 5) -> None:
        super().__init__(f"the service is shutting down: try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class LeaseLostError(DeliberationError):
    """Another worker has taken the deliberation over, so nothing more is recorded by the one that held it before."""

    slug: ClassVar[str] = "lease-lost"

    def __init__(self, *, deliberation_id: str, lease: str) -> None:
        super().__init__(
            f"deliberation {deliberation_id!r} is no longer held under lease {lease!r}: whoever holds it now goes on with it."
        )
        self.deliberation_id = deliberation_id
        self.lease = lease


class CallExistsError(DeliberationError):
    """That attempt of that call was intended before; it is never made a second time."""

    slug: ClassVar[str] = "call-exists"

    def __init__(self, *, deliberation_id: str, round_number: int, agent_id: str, attempt: int) -> None:
        super().__init__(
            f"attempt {attempt} of agent {agent_id!r} in round {round_number} of deliberation {deliberation_id!r} is recorded "
            "already: go on under the next number."
        )
        self.deliberation_id = deliberation_id
        self.round_number = round_number
        self.agent_id = agent_id
        self.attempt = attempt


class UnreadableBallotError(DeliberationError):
    """A reply could not be read as a ballot of the kind that was asked for."""

    slug: ClassVar[str] = "unreadable-ballot"

    def __init__(self, *, kind: str, problem: str) -> None:
        super().__init__(f"the reply is no ballot: {problem}.")
        self.kind = kind
        self.problem = problem


class RecordMismatchError(DeliberationError):
    """What is stored is not what was recorded, so it is not shown. Names the agent's output, or else which part of the deliberation.

    `recorded` and `found` are hashes or facts of the public log, never texts; `index` is the entry that tells, where there is one.
    """

    slug: ClassVar[str] = "record-mismatch"

    def __init__(
        self,
        *,
        deliberation_id: str,
        recorded: str,
        found: str,
        agent_id: str | None = None,
        round_number: int | None = None,
        part: str | None = None,
        index: int | None = None,
    ) -> None:
        whose = "" if agent_id is None else f"output of agent {agent_id!r} in round {round_number} of "
        which = "" if part is None else f" ({part})"
        super().__init__(
            f"the stored {whose}deliberation {deliberation_id!r} does not match its record{which}: the database was changed from "
            "outside; restore it or ask an auditor."
        )
        self.deliberation_id = deliberation_id
        self.agent_id = agent_id
        self.round_number = round_number
        self.part = part
        self.recorded = recorded
        self.found = found
        self.index = index


class RecordExistsError(DeliberationError):
    """How that agent ended in that round is already recorded, and a record is never replaced."""

    slug: ClassVar[str] = "record-exists"

    def __init__(self, *, deliberation_id: str, round_number: int, agent_id: str) -> None:
        super().__init__(
            f"agent {agent_id!r} already has a record in round {round_number} of deliberation {deliberation_id!r}: "
            "read that one, an agent ends once a round."
        )
        self.deliberation_id = deliberation_id
        self.round_number = round_number
        self.agent_id = agent_id
