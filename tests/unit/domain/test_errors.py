"""The error tree: facts as attributes, one slug each, and whole after pickling."""

from __future__ import annotations

import pickle

import pytest

import domain.errors
from domain.errors.agent import AgentAlreadyActiveError, AgentInvocationError, AgentPoolExhaustedError
from domain.errors.conclave_error import ConclaveError
from domain.errors.configuration import ConfigurationError
from domain.errors.deliberation import (
    DeliberationEndedError,
    FieldProblem,
    InvalidSpecificationError,
    QueueFullError,
    RecordMismatchError,
    UnreadableBallotError,
)
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import HaltChannelUnreachableError, HaltNotClearableError, SystemHaltedError
from domain.errors.witness import EntryRecordedError
from domain.models.roll_call import AgentState

EXAMPLES: list[ConclaveError] = [
    AgentPoolExhaustedError(requested=73, available=72, capacity=72),
    AgentAlreadyActiveError(agent_id="archon-1", batch_id="b"),
    AgentInvocationError(
        "lost", agent_id="archon-1", kind="reset", state=AgentState.FAILED, retryable=True, retry_after_s=1
    ),
    SystemHaltedError("drill"),
    HaltChannelUnreachableError(channel="file", problem="a folder is in its place"),
    HaltNotClearableError(problem="it is away", remedy="Bring it back.", unreachable=["file"]),
    EntryRecordedError(sha256="ab"),
    InvalidSpecificationError([FieldProblem("/question", "must not be empty")]),
    DeliberationEndedError(deliberation_id="d", status="completed"),
    QueueFullError(waiting=100, limit=100, retry_after_s=5),
    UnreadableBallotError(kind="empty_reply", problem="it is empty"),
    RecordMismatchError(deliberation_id="d", agent_id="a", round_number=0, recorded="x", found="y"),
    ConfigurationError(variable="CONCLAVE_QUEUE", problem="is not known", remedy="Use embedded."),
    DependencyUnavailableError(dependency="database", problem="it is away"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_with_its_facts(error: ConclaveError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(again), str(again), again.__dict__) == (type(error), str(error), error.__dict__)


def test_every_exported_error_is_in_the_drawn_tree_and_has_its_own_slug() -> None:
    drawn = domain.errors.__doc__ or ""
    kinds = [
        kind
        for name in domain.errors.__all__
        if isinstance(kind := getattr(domain.errors, name), type) and issubclass(kind, ConclaveError)
    ]
    assert [kind.__name__ for kind in kinds if kind.__name__ not in drawn] == []
    slugs = [kind.slug for kind in kinds]
    assert len(set(slugs)) == len(slugs)


def test_an_unknown_name_is_not_exported() -> None:
    with pytest.raises(AttributeError):
        domain.errors.NoSuchError  # noqa: B018
