"""Holds the rendered requests to the API's form, and the memory of what models refuse to what was really refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.models.budget import Sampling
from domain.models.question import AnswerFormat, AnswerKind
from infrastructure.orchestrators.ballot_schema import response_format
from infrastructure.orchestrators.chat_request import ChatRequestWriter, Dialect
from infrastructure.orchestrators.prompts import build_prompt

CONTEXT = ContextBundle("t", 'Is "72" enough?\n\t\\ø\x00\x1f', "Some context.")
REQUEST = AgentRequest(
    "archon-1", CONTEXT, persona="A baker: «ø»", expected=AnswerFormat(), sampling=Sampling(0.3, 77), seed=7
)


def writer() -> ChatRequestWriter:
    return ChatRequestWriter(confidence_steps=False, reason_max_chars=None)


def written(request: AgentRequest = REQUEST, *, model: str = "m-1", dialect: Dialect | None = None) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(writer().write(request, model=model, dialect=dialect or Dialect()))
    return document


def test_a_request_is_what_the_api_takes() -> None:
    prompt = build_prompt(REQUEST)
    assert written() == {
        "model": "m-1",
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
        "max_tokens": 77,
        "temperature": 0.3,
        "seed": 7,
        "response_format": response_format(AnswerFormat()),
    }


def test_without_a_seed_none_is_sent() -> None:
    assert "seed" not in written(replace(REQUEST, seed=None))


@pytest.mark.parametrize("seed", [-1, 2**31, 2**64 + 5])
def test_a_seed_fits_into_31_bits(seed: int) -> None:
    assert 0 <= written(replace(REQUEST, seed=seed))["seed"] < 2**31


def test_a_request_for_plain_text_asks_for_no_schema() -> None:
    assert "response_format" not in written(replace(REQUEST, expected=None))


def test_a_hostile_model_name_stays_a_name() -> None:
    assert written(model='"},"x":"\ud800')["model"] == '"},"x":"?'


def test_what_members_share_comes_first_and_is_the_same_bytes() -> None:
    one, other = (writer().write(replace(REQUEST, persona=text), model="m", dialect=Dialect()) for text in ("A.", "B."))
    assert one[: one.index(b"<persona")] == other[: other.index(b"<persona")]


def test_a_context_that_was_copied_with_another_text_is_not_taken_for_the_first() -> None:
    shared = writer()
    shared.write(REQUEST, model="m", dialect=Dialect())
    changed = replace(REQUEST, context=replace(CONTEXT, background="Other context."))
    assert b"Other context." in shared.write(changed, model="m", dialect=Dialect())


def test_many_long_contexts_are_not_kept() -> None:
    shared = writer()
    for n in range(20):
        context = ContextBundle("t", f"{n}", "x" * 500_000)
        shared.write(replace(REQUEST, context=context), model="m", dialect=Dialect())
    assert 1 <= len(shared._remembered) <= 4
    assert shared._characters == sum(part.characters for part in shared._remembered.values()) <= 4 * 1024 * 1024


def test_many_short_contexts_are_not_kept() -> None:
    shared = writer()
    for n in range(200):
        shared.write(replace(REQUEST, context=ContextBundle("t", f"{n}")), model="m", dialect=Dialect())
    assert len(shared._remembered) == 64


@pytest.mark.parametrize(
    ("complaint", "plainer"),
    [
        ("'response_format' of type 'json_schema' is not supported with this model.", Dialect(structured=False)),
        ("Invalid schema for response_format 'ballot'", Dialect(structured=False)),
        ("This model does not support Structured Outputs", Dialect(structured=False)),
        (
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            Dialect(limit_name="max_completion_tokens", temperature=False),
        ),
        ("Unsupported value: 'temperature' does not support 0.7", Dialect(temperature=False)),
        ("seed: Extra inputs are not permitted", Dialect(seed=False)),
    ],
)
def test_a_refused_parameter_is_left_out_from_then_on(complaint: str, plainer: Dialect) -> None:
    learned = Dialect().without_what_is_refused(complaint)
    assert learned == plainer
    assert learned.without_what_is_refused(complaint) is None


@pytest.mark.parametrize("complaint", ["", "This prompt is too long", "the seed of doubt", "Invalid model"])
def test_a_complaint_about_something_else_changes_nothing(complaint: str) -> None:
    assert Dialect().without_what_is_refused(complaint) is None


def test_a_plain_dialect_sends_no_schema_temperature_or_seed() -> None:
    dialect = Dialect(structured=False, limit_name="max_completion_tokens", temperature=False, seed=False)
    assert set(written(dialect=dialect)) == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize("kind", AnswerKind)
def test_a_request_for_each_kind_of_answer_is_json(kind: AnswerKind) -> None:
    expected = AnswerFormat(kind, ("a", 'b"') if kind.has_options else (), minimum=0, maximum=1e300)
    assert written(replace(REQUEST, expected=expected))["response_format"]["json_schema"]["strict"] is True
