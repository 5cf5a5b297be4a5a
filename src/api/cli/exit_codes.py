"""The exit codes of the command line, and which error ends in which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domain.errors.conclave_error import ConclaveError

__all__ = ["ExitCode", "code_of_error", "code_of_signal", "code_of_status"]


class ExitCode(IntEnum):
    """What a script may rely on. Codes above 128 are 128 plus the number of a signal, as shells have it."""

    DONE = 0
    ENDED_BADLY = 1
    USAGE = 2
    VERIFICATION_REFUSED = 3
    DEPENDENCY_AWAY = 4
    INTERRUPTED = 130
    READER_LEFT = 141
    TERMINATED = 143


_BY_SLUG: Mapping[str, ExitCode] = {
    "configuration": ExitCode.USAGE,
    "invalid-specification": ExitCode.USAGE,
    "invalid-roster": ExitCode.USAGE,
    "roster-not-found": ExitCode.USAGE,
    "deliberation-not-found": ExitCode.USAGE,
    **dict.fromkeys(
        ("invalid-run", "invalid-population", "edge-file", "not-enough-memory", "run-not-found", "run-taken"),
        ExitCode.USAGE,
    ),
    "too-many-runs": ExitCode.DEPENDENCY_AWAY,
    **dict.fromkeys(("record-mismatch", "verification-refused", "log-unverified"), ExitCode.VERIFICATION_REFUSED),
    "dependency-unavailable": ExitCode.DEPENDENCY_AWAY,
    "bus-unavailable": ExitCode.DEPENDENCY_AWAY,
    # Counted in the roll call where one agent is meant; whatever else it reaches is a model that nobody can ask.
    "agent-invocation": ExitCode.DEPENDENCY_AWAY,
    "halt-not-clearable": ExitCode.DEPENDENCY_AWAY,
    "halt-channel-unreachable": ExitCode.DEPENDENCY_AWAY,
    "service-stopping": ExitCode.DEPENDENCY_AWAY,
}
_BY_HTTP_STATUS: Mapping[int, ExitCode] = {
    **dict.fromkeys((400, 401, 403, 404, 405, 413, 415, 422), ExitCode.USAGE),
    **dict.fromkeys((502, 503, 504), ExitCode.DEPENDENCY_AWAY),
}


def code_of_error(error: ConclaveError) -> ExitCode:
    """The exit code of a command that this error ended; a server's refusal ends as the same error here would."""
    slug = getattr(error, "problem_slug", "") or error.slug
    if slug in _BY_SLUG:
        return _BY_SLUG[slug]
    if slug == "system-halted":
        return ExitCode.ENDED_BADLY
    return _BY_HTTP_STATUS.get(getattr(error, "http_status", 0), ExitCode.ENDED_BADLY)


def code_of_status(deliberation: Mapping[str, Any]) -> ExitCode:
    """The exit code of having held this deliberation: only a completed one is done, whatever it decided."""
    return ExitCode.DONE if deliberation.get("status") == "completed" else ExitCode.ENDED_BADLY


def code_of_signal(number: int) -> int:
    """The exit code of a command that this signal ended."""
    return 128 + number
