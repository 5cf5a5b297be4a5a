"""Every refusal as a problem document (RFC 9457): the one table of HTTP statuses, and the answers made from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from api.rest.json_response import encode
from domain.counted import counted
from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import DeliberationEndedError, FieldProblem, InvalidSpecificationError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.run import RunEndedError

__all__ = [
    "INTERNAL",
    "MAX_ERRORS",
    "PROBLEMS",
    "ProblemKind",
    "RequestRefusedError",
    "answer_problems",
    "problem",
    "problem_document",
]

_logger = logging.getLogger(__name__)

MAX_ERRORS = 50
INTERNAL = "internal"
_MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """What one kind of refusal is called and answered with; `retry_after_s` where coming back later may help."""

    status: int
    title: str
    retry_after_s: int | None = None


PROBLEMS: Mapping[str, ProblemKind] = {
    "malformed-request": ProblemKind(400, "Not HTTP"),
    "malformed-json": ProblemKind(400, "The body is not JSON"),
    "unauthenticated": ProblemKind(401, "A key is needed"),
    "forbidden": ProblemKind(403, "The key's role does not allow this"),
    "foreign-caller": ProblemKind(403, "Only local callers are served"),
    "foreign-page": ProblemKind(403, "The request came from another site's page"),
    "token-mismatch": ProblemKind(403, "The page's token is missing or outdated"),
    "not-found": ProblemKind(404, "Nothing is here"),
    "deliberation-not-found": ProblemKind(404, "No such deliberation"),
    "run-not-found": ProblemKind(404, "No such run"),
    "roster-not-found": ProblemKind(404, "No such roster"),
    "method-not-allowed": ProblemKind(405, "Not with this method"),
    "body-timeout": ProblemKind(408, "The body came too slowly"),
    "agent-already-active": ProblemKind(409, "The agent is already at work"),
    "idempotency-in-progress": ProblemKind(409, "A request under this key is still being accepted", 1),
    "halt-not-clearable": ProblemKind(409, "The halt cannot be cleared now"),
    "not-halted": ProblemKind(409, "There is no halt"),
    "deliberation-ended": ProblemKind(409, "The deliberation has already ended"),
    "run-ended": ProblemKind(409, "The run has already ended"),
    "illegal-transition": ProblemKind(409, "Not from the present state"),
    "body-too-large": ProblemKind(413, "The body is too large"),
    "unsupported-media-type": ProblemKind(415, "The body has to be JSON"),
    "idempotency-key-reused": ProblemKind(422, "The key came with another body before"),
    "invalid-request": ProblemKind(422, "The request cannot be accepted"),
    "invalid-roster": ProblemKind(422, "The roster cannot be used"),
    "invalid-specification": ProblemKind(422, "The deliberation cannot be run as described"),
    "invalid-run": ProblemKind(422, "The run cannot be run as described"),
    "unreadable-ballot": ProblemKind(422, "Not a ballot"),
    "agent-pool-exhausted": ProblemKind(429, "No agent is free", 5),
    "queue-full": ProblemKind(429, "The queue is full", 5),
    "too-many-streams": ProblemKind(429, "Too many event streams are open", 5),
    "too-many-runs": ProblemKind(429, "As many runs as may be are under way", 10),
    INTERNAL: ProblemKind(500, "Something went wrong here"),
    "agent-error": ProblemKind(500, "Something went wrong here"),
    "agent-invocation": ProblemKind(500, "Something went wrong here"),
    "budget-exceeded": ProblemKind(500, "Something went wrong here"),
    "bus-closed": ProblemKind(500, "Something went wrong here"),
    "bus-error": ProblemKind(500, "Something went wrong here"),
    "inbox-full": ProblemKind(500, "Something went wrong here"),
    "invalid-message": ProblemKind(500, "Something went wrong here"),
    "name-taken": ProblemKind(500, "Something went wrong here"),
    "payload-too-large": ProblemKind(500, "Something went wrong here"),
    "receive-timeout": ProblemKind(500, "Something went wrong here"),
    "request-timeout": ProblemKind(500, "Something went wrong here"),
    "unknown-agent": ProblemKind(500, "Something went wrong here"),
    "unreadable-message": ProblemKind(500, "Something went wrong here"),
    "conclave-error": ProblemKind(500, "Something went wrong here"),
    "configuration": ProblemKind(500, "Something went wrong here"),
    "deliberation-error": ProblemKind(500, "Something went wrong here"),
    "deliberation-exists": ProblemKind(500, "Something went wrong here"),
    "idempotency-key-taken": ProblemKind(500, "Something went wrong here"),
    "call-exists": ProblemKind(500, "Something went wrong here"),
    "lease-lost": ProblemKind(500, "Something went wrong here"),
    "run-taken": ProblemKind(500, "Something went wrong here"),
    "run-key-taken": ProblemKind(500, "Something went wrong here"),
    # Ends of a run in its own process: none of them is raised while a request is answered, but for the first.
    "invalid-population": ProblemKind(422, "The population cannot be run as described"),
    **dict.fromkeys(
        (
            "role-failed",
            "population-error",
            "not-enough-memory",
            "population-full",
            "edge-file",
            "behaviour-failed",
            "messages-lost",
            "shard-lost",
            "state-conflict",
            "state-store-full",
            "population-folder",
            "damaged-record",
            "population-diverged",
        ),
        ProblemKind(500, "Something went wrong here"),
    ),
    "record-exists": ProblemKind(500, "Something went wrong here"),
    "entry-recorded": ProblemKind(500, "Something went wrong here"),
    "witness-error": ProblemKind(500, "Something went wrong here"),
    "bus-unavailable": ProblemKind(503, "What carries the agents' messages is away", 2),
    "dependency-unavailable": ProblemKind(503, "Something this service needs is away", 2),
    "halt-channel-unreachable": ProblemKind(503, "A channel of the halt is away", 2),
    "log-unverified": ProblemKind(503, "The witness log does not verify", 60),
    "record-mismatch": ProblemKind(503, "What is stored does not match its record", 60),
    "verification-refused": ProblemKind(503, "The record does not verify", 60),
    "service-stopping": ProblemKind(503, "The service is shutting down", 5),
    "system-halted": ProblemKind(503, "The system is halted", 30),
}


class RequestRefusedError(Exception):
    """A request is turned away at the door; `slug` names its row in the table, `detail` never holds what was sent."""

    def __init__(
        self, slug: str, detail: str, *, errors: Sequence[FieldProblem] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, noun: str, errors: Sequence[FieldProblem]) -> RequestRefusedError:
        """One that cannot be accepted (422) because of those fields, parameters or headers."""
        return cls("invalid-request", _refused(len(errors), noun), errors=errors)


def problem_document(
    slug: str, detail: str, *, errors: Sequence[FieldProblem] = (), facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`{"type", "title", "status", "detail"}`, with `errors` as `[{"pointer", "detail"}]` (RFC 6901) where there are any."""
    kind = PROBLEMS[slug]
    document: dict[str, Any] = {
        "type": f"urn:conclave:problem:{slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        **(facts or {}),
    }
    if errors:
        document["errors"] = [{"pointer": found.pointer, "detail": found.message} for found in errors[:MAX_ERRORS]]
        if len(errors) > MAX_ERRORS:
            document["further_errors"] = len(errors) - MAX_ERRORS
    return document


def problem(
    slug: str,
    detail: str,
    *,
    errors: Sequence[FieldProblem] = (),
    facts: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    retry_after_s: int | None = None,
) -> Response:
    """The answer for one refusal, with `Retry-After` (seconds) where its kind has one."""
    kind = PROBLEMS[slug]
    response = Response(
        encode(problem_document(slug, detail, errors=errors, facts=facts)),
        status_code=kind.status,
        headers=dict(headers or {}),
        media_type=_MEDIA_TYPE,
    )
    if kind.retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, retry_after_s or kind.retry_after_s))
    return response


def answer_problems(app: Starlette) -> None:
    """Have `app` answer whatever is raised on purpose as a problem document."""
    app.add_exception_handler(ConclaveError, _conclave_error)
    app.add_exception_handler(RequestRefusedError, _refusal)
    app.add_exception_handler(RequestValidationError, _bad_parameters)
    app.add_exception_handler(HTTPException, _no_route)


async def _conclave_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ConclaveError)  # noqa: S101 - the framework picks the handler by class
    slug = error.slug if error.slug in PROBLEMS else INTERNAL
    if PROBLEMS[slug].status == 500:
        _logger.error("a request ended in an error that no caller can cause", exc_info=error)
        return problem(INTERNAL, "It is logged here; trying again may help.")
    retry_after_s = getattr(error, "retry_after_s", None)
    if isinstance(error, InvalidSpecificationError):
        return problem(slug, _refused(len(error.problems), "field"), errors=error.problems)
    if isinstance(error, DependencyUnavailableError):
        # What exactly is wrong with it names hosts and paths, which are for the operator alone.
        _logger.warning("a request was turned away: %s", error)
        told = error.told or f"{error.dependency} is away; nothing is lost."
        return problem(slug, told, retry_after_s=retry_after_s)
    if slug in {"log-unverified", "verification-refused"}:
        # Where it went wrong names anchors, whose addresses may be secrets.
        _logger.error("a request was turned away: %s", error)
        return problem(slug, "Nothing is recorded until an operator has looked; `conclave witness fsck` says where.")
    if slug == "invalid-roster":
        _logger.warning("a request was turned away: %s", error)
        return problem(slug, "Its file is broken; `conclave doctor` says how.")
    facts = {"state": error.status} if isinstance(error, DeliberationEndedError | RunEndedError) else None
    return problem(slug, str(error), facts=facts, retry_after_s=retry_after_s)


async def _refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefusedError)  # noqa: S101 - the framework picks the handler by class
    return problem(error.slug, error.detail, errors=error.errors, headers=error.headers)


async def _bad_parameters(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - the framework picks the handler by class
    errors = [FieldProblem("".join(f"/{step}" for step in found["loc"][:2]), found["msg"]) for found in error.errors()]
    return problem("invalid-request", _refused(len(errors), "parameter"), errors=errors)


def _refused(count: int, noun: str) -> str:
    return f"{counted(count, noun)} cannot be accepted."


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the framework picks the handler by class
    if error.status_code == 405:
        allowed = _allowed_methods(request)
        return problem("method-not-allowed", f"Use {', '.join(allowed)}.", headers={"Allow": ", ".join(allowed)})
    if error.status_code == 404:
        return problem("not-found", "There is nothing at this address; /docs lists what there is.")
    _logger.error("a request ended in a status that nothing here raises", exc_info=error)
    return problem(INTERNAL, "It is logged here; trying again may help.")


def _allowed_methods(request: Request) -> list[str]:
    """Every method of every route at this address: the framework names those of the first route only."""
    allowed: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            allowed |= route.methods or set()
    return sorted(allowed | ({"HEAD"} if "GET" in allowed else set()))
