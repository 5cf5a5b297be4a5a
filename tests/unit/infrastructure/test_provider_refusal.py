"""Holds the reading of refusals to naming each one as what it is, in few words that carry no secret."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.provider_refusal import SettingNames, complaint_in, refusal

NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
FAILED, THROTTLED = AgentState.FAILED, AgentState.THROTTLED


def refused(status: int, message: str = "No.", *, code: str | None = None, **headers: str) -> AgentInvocationError:
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(status, headers=found, body=body, host="models.example:8080", now=lambda: NOON)


@pytest.mark.parametrize(
    ("status", "kind", "state", "retryable"),
    [
        (300, "redirect_refused", FAILED, False),
        (304, "redirect_refused", FAILED, False),
        (308, "redirect_refused", FAILED, False),
        (400, "refused_by_provider", FAILED, False),
        (401, "unauthorised", FAILED, False),
        (402, "quota_exhausted", THROTTLED, False),
        (403, "unauthorised", FAILED, False),
        (404, "not_found", FAILED, False),
        (408, "server_error", FAILED, True),
        (413, "refused_by_provider", FAILED, False),
        (422, "refused_by_provider", FAILED, False),
        (429, "rate_limited", THROTTLED, True),
        (500, "server_error", FAILED, True),
        (503, "server_error", FAILED, True),
        (529, "server_error", FAILED, True),
        (999, "server_error", FAILED, True),
    ],
)
def test_each_status_is_named_as_what_it_is(status: int, kind: str, state: AgentState, retryable: bool) -> None:
    error = refused(status)
    assert (error.kind, error.state, error.retryable) == (kind, state, retryable)
    assert f"models.example:8080 answered {status}" in str(error)


@pytest.mark.parametrize("status", [308, 400, 401, 402, 403, 404, 408, 429, 500, 502, 503, 529])
def test_a_call_that_was_refused_took_nothing(status: int) -> None:
    assert refused(status).usage == Usage()


@pytest.mark.parametrize("status", [504, 524])
def test_what_a_gateway_gave_up_waiting_for_may_have_been_paid(status: int) -> None:
    assert refused(status).usage is None


def test_a_message_names_the_settings_of_its_provider() -> None:
    names = SettingNames("base_url of [providers.p]", "P_API_KEY", "models of [providers.p]")
    told = [
        str(refusal(status, headers={}, body=b'{"error": "model"}' if status == 404 else b"", host="h", names=names))
        for status in (302, 401, 404)
    ]
    assert [name in text for name, text in zip((names.base_url, names.api_key, names.model), told, strict=True)] == [
        True
    ] * 3
    assert "CONCLAVE" not in "".join(told)


def test_what_a_user_wrote_and_a_provider_repeats_is_no_sign_of_an_empty_account() -> None:
    assert (
        refused(400, "Invalid text: 'insufficient_quota, your credit balance is too low'").kind == "refused_by_provider"
    )
    assert refused(429, "Slow down. You said: billing_error").kind == "rate_limited"


def test_a_404_that_speaks_of_the_model_is_an_unknown_model() -> None:
    assert refused(404, "The model 'gone' does not exist.").kind == "unknown_model"
    assert refused(404, "Not here.", code="model_not_found").kind == "unknown_model"


def test_a_page_that_was_not_found_is_no_unknown_model() -> None:
    page = b"<html><title>Our new models</title></html>"
    assert refusal(404, headers={}, body=page, host="h").kind == "not_found"


def test_an_empty_account_is_throttled_but_not_asked_again() -> None:
    error = refused(429, code="insufficient_quota")
    assert (error.kind, error.state, error.retryable) == ("quota_exhausted", THROTTLED, False)


@pytest.mark.parametrize("status", [401, 403])
def test_the_text_of_an_authorisation_error_is_not_repeated(status: int) -> None:
    assert "sk-1234" not in str(refused(status, "Incorrect API key provided: sk-1234"))


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_the_time_a_provider_asks_for_is_passed_on(status: int) -> None:
    assert refused(status, Retry_After="7").retry_after_s == 7


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", ""),
        (b"overloaded", "overloaded"),
        (b'{"error": {"message": "too long"}}', "too long"),
        (b'{"error": "too long"}', "too long"),
        (b'{"detail": "too long"}', "too long"),
        (b'{"detail": [{"msg": "x"}]}', ""),
        (b'{"error": {"message": null, "code": 7}}', "7"),
        (b'{"error": {"error": {"error": {"error": "deep"}}}}', ""),
        (b"[1]", ""),
        (b"null", ""),
        (b"[" * 100_000, "[" * 200),
        (b"a\x1b[31mb\r\nc\x00d\xe2\x80\xaee", "a [31mb c d e"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"<!doctype html><h1>x</h1>", "a page of HTML, as proxies and sign-in pages send it"),
        (b"x" * 100_000, "x" * 200),
    ],
)
def test_a_complaint_is_one_short_line_of_printable_characters(body: bytes, complaint: str) -> None:
    assert complaint_in(body) == complaint
