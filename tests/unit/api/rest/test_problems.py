"""Every refusal has a row in the table of statuses, and its document says what RFC 9457 asks for."""

from __future__ import annotations

import inspect
import json

import pytest
from starlette.applications import Starlette
from starlette.requests import Request

import domain.errors
from api.rest.problems import MAX_ERRORS, PROBLEMS, answer_problems, problem, problem_document
from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import FieldProblem
from domain.errors.dependency import DependencyUnavailableError

ERRORS = [
    error
    for name in domain.errors.__all__
    if inspect.isclass(error := getattr(domain.errors, name)) and issubclass(error, ConclaveError)
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_domain_error_has_a_status(error: type[ConclaveError]) -> None:
    assert error.slug in PROBLEMS


LATER = {slug for slug, kind in PROBLEMS.items() if kind.status in {429, 503}} | {"idempotency-in-progress"}


@pytest.mark.parametrize("slug", sorted(LATER))
def test_whoever_should_come_back_later_is_told_when(slug: str) -> None:
    assert int(problem(slug, "detail").headers["retry-after"]) >= 1


@pytest.mark.parametrize("slug", [slug for slug in PROBLEMS if slug not in LATER])
def test_whoever_should_not_come_back_is_not_told_to(slug: str) -> None:
    assert "retry-after" not in problem(slug, "detail").headers


def test_the_error_says_how_long_to_wait_when_it_knows() -> None:
    assert problem("queue-full", "detail", retry_after_s=7).headers["retry-after"] == "7"


def test_a_problem_is_a_problem_document() -> None:
    answer = problem("system-halted", "detail")
    assert answer.media_type == "application/problem+json"
    assert json.loads(bytes(answer.body)) == {
        "type": "urn:conclave:problem:system-halted",
        "title": PROBLEMS["system-halted"].title,
        "status": 503,
        "detail": "detail",
    }


def test_a_flood_of_bad_fields_is_counted_but_not_listed() -> None:
    errors = [FieldProblem(f"/{number}", "is off") for number in range(MAX_ERRORS + 3)]
    document = problem_document("invalid-request", "detail", errors=errors)
    assert len(document["errors"]) == MAX_ERRORS
    assert document["further_errors"] == 3


@pytest.mark.parametrize(
    ("told", "detail"),
    [(None, "database is away; nothing is lost."), ("The disk is full.", "The disk is full.")],
    ids=["away", "told"],
)
async def test_of_what_is_away_callers_hear_what_they_may(told: str | None, detail: str) -> None:
    app = Starlette()
    answer_problems(app)
    error = DependencyUnavailableError(dependency="database", problem="10.0.0.1 is silent", told=told, retry_after_s=7)
    answer = await app.exception_handlers[ConclaveError](Request({"type": "http"}), error)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert json.loads(bytes(answer.body))["detail"] == detail
