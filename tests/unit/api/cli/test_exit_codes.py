"""Exit codes: what scripts rely on."""

import signal

import pytest

from api.cli.exit_codes import ExitCode, code_of_error, code_of_signal, code_of_status
from api.cli.http_exchange import ServerRefusedError
from domain.errors.agent import AgentInvocationError
from domain.errors.conclave_error import ConclaveError
from domain.errors.configuration import ConfigurationError
from domain.errors.deliberation import (
    DeliberationEndedError,
    DeliberationNotFoundError,
    InvalidSpecificationError,
    QueueFullError,
    RecordMismatchError,
    ServiceStoppingError,
)
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError(variable="X", problem="p", remedy="r"), ExitCode.USAGE),
        (InvalidSpecificationError.at("/question", "p"), ExitCode.USAGE),
        (DeliberationNotFoundError(deliberation_id="x"), ExitCode.USAGE),
        (DependencyUnavailableError(dependency="d", problem="p"), ExitCode.DEPENDENCY_AWAY),
        (AgentInvocationError("the model does not start"), ExitCode.DEPENDENCY_AWAY),
        (ServiceStoppingError(), ExitCode.DEPENDENCY_AWAY),
        (
            RecordMismatchError(deliberation_id="d", agent_id="a", round_number=0, recorded="r", found="f"),
            ExitCode.VERIFICATION_REFUSED,
        ),
        (SystemHaltedError("stop"), ExitCode.ENDED_BADLY),
        (QueueFullError(waiting=1, limit=1, retry_after_s=1), ExitCode.ENDED_BADLY),
        (DeliberationEndedError(deliberation_id="d", status="completed"), ExitCode.ENDED_BADLY),
        (ConclaveError("x"), ExitCode.ENDED_BADLY),
    ],
)
def test_an_error_ends_in_its_code(error: ConclaveError, code: ExitCode) -> None:
    assert code_of_error(error) is code


@pytest.mark.parametrize(
    ("status", "slug", "code"),
    [
        (422, "invalid-specification", ExitCode.USAGE),
        (422, "something-new", ExitCode.USAGE),
        (401, "unauthenticated", ExitCode.USAGE),
        (404, "deliberation-not-found", ExitCode.USAGE),
        (409, "deliberation-ended", ExitCode.ENDED_BADLY),
        (429, "queue-full", ExitCode.ENDED_BADLY),
        (500, "internal", ExitCode.ENDED_BADLY),
        (502, "", ExitCode.DEPENDENCY_AWAY),
        (503, "dependency-unavailable", ExitCode.DEPENDENCY_AWAY),
        (503, "system-halted", ExitCode.ENDED_BADLY),
        (503, "record-mismatch", ExitCode.VERIFICATION_REFUSED),
    ],
)
def test_a_refusal_of_a_server_ends_as_the_same_error_here(status: int, slug: str, code: ExitCode) -> None:
    assert code_of_error(ServerRefusedError("no", http_status=status, problem_slug=slug)) is code


@pytest.mark.parametrize("status", ["inquorate", "cancelled", "halted", "failed", "running"])
def test_only_a_completed_deliberation_is_done(status: str) -> None:
    assert code_of_status({"status": status}) is ExitCode.ENDED_BADLY
    assert code_of_status({"status": "completed"}) is ExitCode.DONE


def test_signals_end_as_shells_have_it() -> None:
    assert code_of_signal(signal.SIGINT) == ExitCode.INTERRUPTED
    assert code_of_signal(signal.SIGTERM) == ExitCode.TERMINATED
