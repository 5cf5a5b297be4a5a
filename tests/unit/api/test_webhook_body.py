"""What is posted to webhooks: the document as it is shown, and never more than the bound."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from api.webhook_body import MAX_BODY_BYTES, webhook_body
from application.ports.webhook_outbox import WebhookDelivery

DELIVERY = WebhookDelivery(
    "d-1", "ops", "01a1", "deliberation.completed", datetime(2026, 1, 1, tzinfo=UTC), attempts=1, age_s=0
)
AT = "2026-01-01T00:00:00Z"


def document(reason: str, *, agents: int = 72) -> dict[str, Any]:
    dissent = {"positions": [{"answer": "no", "count": 1, "agents": ["a"], "reasons": [reason]} for _ in range(agents)]}
    outcome = {"status": "decided", "decision": "yes", "rule": "plurality", "margin": 1, "dissent": dissent}
    return {"id": "01a1", "status": "completed", "question": "Ja — oder nein?", "outcome": outcome}


def test_a_body_holds_the_deliberation_as_it_is_shown() -> None:
    body = json.loads(webhook_body(DELIVERY, document("so"), at=AT))
    assert body == {
        "type": "deliberation.completed",
        "at": AT,
        "deliberation_id": "01a1",
        "deliberation": document("so"),
    }


@pytest.mark.parametrize(("length", "agents", "kept"), [(65_536, 72, 2_000), (65_536, 720, 200)])
def test_long_texts_are_cut_and_that_is_said(length: int, agents: int, kept: int) -> None:
    whole = webhook_body(DELIVERY, document("x" * length, agents=agents), at=AT)
    body = json.loads(whole)
    reason = body["deliberation"]["outcome"]["dissent"]["positions"][0]["reasons"][0]
    assert len(whole) <= MAX_BODY_BYTES
    assert body["truncated"] is True
    assert (len(reason), reason[-1]) == (kept, "…")
    assert body["deliberation"]["outcome"]["decision"] == "yes"


def test_what_is_too_long_even_so_keeps_the_first_of_each_list() -> None:
    whole = webhook_body(DELIVERY, document("ü" * 1_000, agents=5_000), at=AT)
    body = json.loads(whole)
    assert len(whole) <= MAX_BODY_BYTES
    assert len(body["deliberation"]["outcome"]["dissent"]["positions"]) == 5
    assert body["deliberation"]["question"] == "Ja — oder nein?"


def test_at_the_last_there_is_what_came_of_it() -> None:
    long = document("so")
    long["outcome"]["tally"] = {f"{number:_>1000}": 1 for number in range(300)}
    whole = webhook_body(DELIVERY, long, at=AT)
    body = json.loads(whole)
    assert len(whole) <= MAX_BODY_BYTES
    assert body["deliberation"]["outcome"] == {"status": "decided", "decision": "yes", "rule": "plurality", "margin": 1}


def test_a_deliberation_without_an_outcome_can_be_cut_too() -> None:
    failed = {**document("x"), "status": "failed", "outcome": None, "failures": ["m" * 100] * 5_000}
    body = json.loads(webhook_body(DELIVERY, failed, at=AT))
    assert (body["deliberation"]["status"], body["deliberation"]["outcome"]) == ("failed", None)
