"""What can go wrong with a run, from its description to its cancellation."""

from __future__ import annotations

from typing import ClassVar

from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import InvalidSpecificationError

__all__ = [
    "InvalidRunError",
    "RunEndedError",
    "RunKeyTakenError",
    "RunNotFoundError",
    "RunTakenError",
    "TooManyRunsError",
]


class InvalidRunError(InvalidSpecificationError):
    """A run was described in a way that cannot be run. Names every bad field, never its content."""

    slug: ClassVar[str] = "invalid-run"


class RunNotFoundError(ConclaveError):
    """There is no run with that id that the caller may see."""

    slug: ClassVar[str] = "run-not-found"

    def __init__(self, *, run_id: str) -> None:
        super().__init__("there is no such run that you may see: list them to find its id.")
        self.run_id = run_id


class RunEndedError(ConclaveError):
    """The run has already ended, so it can no longer be cancelled."""

    slug: ClassVar[str] = "run-ended"

    def __init__(self, *, run_id: str, status: str) -> None:
        super().__init__(f"run {run_id!r} has already ended as {status!r}: there is nothing to stop.")
        self.run_id = run_id
        self.status = status


class RunTakenError(ConclaveError):
    """The run is not one that waits to be run: it ended, or another process runs it."""

    slug: ClassVar[str] = "run-taken"

    def __init__(self, *, run_id: str, status: str) -> None:
        super().__init__(
            f"run {run_id!r} is {status!r} and cannot be begun: leave CONCLAVE_RUN_ID unset to begin a new one."
        )
        self.run_id = run_id
        self.status = status


class RunKeyTakenError(ConclaveError):
    """The idempotency key stands for another run already, so nothing was stored. `body_sha256` (hex) is of the body that came with it."""

    slug: ClassVar[str] = "run-key-taken"

    def __init__(self, *, run_id: str, body_sha256: str) -> None:
        super().__init__(
            f"this idempotency key stands for run {run_id!r} already: answer with that one if the bodies are the same."
        )
        self.run_id = run_id
        self.body_sha256 = body_sha256


class TooManyRunsError(ConclaveError):
    """As many runs as may are under way; the caller should come back later."""

    slug: ClassVar[str] = "too-many-runs"

    def __init__(self, *, running: int, limit: int, retry_after_s: int) -> None:
        super().__init__(f"{running} runs are under way and {limit} may be: try again in {retry_after_s} s.")
        self.running = running
        self.limit = limit
        self.retry_after_s = retry_after_s
