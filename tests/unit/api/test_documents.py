"""Documents tell what was asked of whom: fallbacks by name, and what is uncertain beside what was spent."""

from __future__ import annotations

from dataclasses import replace

from api.documents import deliberation_document, output_document, quote_document
from application.services.deliberation_output_service import WitnessedOutput
from application.services.quote_service import Amount, Quote
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation
from tests.deliberation_specimens import deliberation, ended, failed, record, started

_UNCERTAIN = Usage(2, 10, 5, 0.01, 1_500, 0.07)


def _ended() -> Deliberation:
    fell_back = replace(record(0), model_asked="default", model="gemini/flash", fell_back=True, usage=_UNCERTAIN)
    return ended(started(deliberation()), [fell_back, record(1), replace(failed(2), model_asked="m", fell_back=True)])


def test_every_fallback_is_named_with_who_was_asked_and_who_answered() -> None:
    assert deliberation_document(_ended())["fallbacks"] == [
        {"agent_id": "archon-0", "round": 0, "asked": "default", "answered": "gemini/flash"},
        {"agent_id": "archon-2", "round": 0, "asked": "m", "answered": None},
    ]


def test_an_agent_that_names_a_route_and_is_answered_by_its_first_model_has_not_fallen_back() -> None:
    first = replace(record(0), model_asked="default", model="openai/small")
    assert deliberation_document(ended(started(deliberation()), [first, record(1), record(2)]))["fallbacks"] == []


def test_a_page_that_shows_no_rounds_does_not_say_that_nobody_fell_back() -> None:
    assert deliberation_document(replace(_ended(), rounds=()))["fallbacks"] is None
    assert deliberation_document(deliberation())["fallbacks"] == []


def test_what_is_uncertain_stands_beside_what_was_spent() -> None:
    usage = deliberation_document(_ended())["usage"]
    assert (usage["uncertain_tokens"], usage["uncertain_usd"]) == (1_500, 0.07)
    assert usage["cost_usd"] == 0.01 + record(1).usage.cost_usd


def test_an_output_says_whether_its_agent_fell_back() -> None:
    shown = output_document(WitnessedOutput(replace(record(0), fell_back=True), 1, bytes(32), erased=False))
    assert shown["fell_back"] is True
    assert shown["usage"]["uncertain_usd"] == 0.0


def test_what_is_not_known_of_a_quote_is_null() -> None:
    quote = Quote(Amount(1, 2), Amount(3, 4), Amount(None, None), ("The price is not known.",))
    assert quote_document(quote) == {
        "calls": {"expected": 1, "at_most": 2},
        "tokens": {"expected": 3, "at_most": 4},
        "cost_usd": {"expected": None, "at_most": None},
        "notices": ["The price is not known."],
    }
