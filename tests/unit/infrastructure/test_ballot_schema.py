"""Holds the schema of a reply to what the ballot reader reads: whatever fits the one has to pass the other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot_reader import read_ballot
from infrastructure.orchestrators.ballot_schema import ballot_schema, response_format

OPTIONS = ("north", 'so"uth', "øst")


def answer_of(expected: AnswerFormat, **bounds: Any) -> dict[str, Any]:
    answer: dict[str, Any] = ballot_schema(expected, **bounds)["properties"]["answer"]
    return answer


@pytest.mark.parametrize("kind", AnswerKind)
def test_a_ballot_has_exactly_three_fields_as_strict_mode_wants_it(kind: AnswerKind) -> None:
    options = OPTIONS if kind.has_options else ()
    schema = ballot_schema(AnswerFormat(kind, options, minimum=0, maximum=5))
    assert list(schema["properties"]) == schema["required"] == ["answer", "confidence", "reasoning"]
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (AnswerFormat(AnswerKind.VERDICT), {"type": "string", "enum": ["yes", "no", "abstain"]}),
        (AnswerFormat(AnswerKind.CHOICE, OPTIONS), {"type": ["string", "null"], "enum": [*OPTIONS, None]}),
        (
            AnswerFormat(AnswerKind.APPROVAL, OPTIONS),
            {
                "type": ["array", "null"],
                "items": {"type": "string", "enum": list(OPTIONS)},
                "minItems": 0,
                "maxItems": 3,
            },
        ),
        (
            AnswerFormat(AnswerKind.RANKING, OPTIONS),
            {
                "type": ["array", "null"],
                "items": {"type": "string", "enum": list(OPTIONS)},
                "minItems": 1,
                "maxItems": 3,
            },
        ),
        (
            AnswerFormat(AnswerKind.SCORE, minimum=1, maximum=10),
            {"type": ["number", "null"], "minimum": 1, "maximum": 10},
        ),
        (AnswerFormat(AnswerKind.PROBABILITY), {"type": ["number", "null"], "minimum": 0, "maximum": 1}),
        (AnswerFormat(AnswerKind.NUMBER, unit="euros"), {"type": ["number", "null"]}),
        (AnswerFormat(AnswerKind.TEXT), {"type": ["string", "null"]}),
    ],
)
def test_each_kind_of_answer_has_its_schema(expected: AnswerFormat, answer: dict[str, Any]) -> None:
    assert answer_of(expected) == answer


def test_confidence_is_a_number_from_0_to_1() -> None:
    confidence = ballot_schema(AnswerFormat())["properties"]["confidence"]
    assert confidence == {"type": "number", "minimum": 0, "maximum": 1}


def test_confidence_in_steps_is_one_of_eleven_numbers() -> None:
    confidence = ballot_schema(AnswerFormat(), confidence_steps=True)["properties"]["confidence"]
    assert confidence == {"type": "number", "enum": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}


@pytest.mark.parametrize(
    ("expected", "count"),
    [
        (AnswerFormat(AnswerKind.PROBABILITY), 21),
        (AnswerFormat(AnswerKind.SCORE, minimum=1, maximum=10), 10),
        (AnswerFormat(AnswerKind.SCORE, minimum=0, maximum=1), 21),
        (AnswerFormat(AnswerKind.SCORE, minimum=-0.3, maximum=0.7), 21),
        (AnswerFormat(AnswerKind.SCORE, minimum=-1e6, maximum=1e9), 21),
        (AnswerFormat(AnswerKind.SCORE, minimum=1e-9, maximum=1.0000001e-9), 21),
    ],
)
def test_every_step_of_a_range_is_a_ballot_within_it(expected: AnswerFormat, count: int) -> None:
    *steps, abstention = answer_of(expected, confidence_steps=True)["enum"]
    assert abstention is None
    assert len(steps) == count
    assert steps == sorted(steps)
    for step in steps:
        reply = json.dumps({"answer": step, "confidence": 0.5, "reasoning": "r"})
        assert read_ballot("a", reply, expected).answer == step
    if expected.minimum is not None:
        assert (steps[0], steps[-1]) == (expected.minimum, expected.maximum)


def test_a_bound_on_reasons_bounds_every_text() -> None:
    schema = ballot_schema(AnswerFormat(AnswerKind.TEXT), reason_max_chars=50)["properties"]
    assert schema["reasoning"] == {"type": "string", "maxLength": 50}
    assert schema["answer"] == {"type": ["string", "null"], "maxLength": 200}


def test_without_a_bound_no_length_is_named_because_strict_mode_refuses_it() -> None:
    assert "maxLength" not in json.dumps(ballot_schema(AnswerFormat(AnswerKind.TEXT)))


def test_the_schema_travels_as_a_strict_response_format() -> None:
    wanted = response_format(AnswerFormat())
    assert wanted["type"] == "json_schema"
    assert wanted["json_schema"]["strict"] is True
    assert wanted["json_schema"]["schema"] == ballot_schema(AnswerFormat())


def test_the_same_format_is_rendered_the_same_so_that_grammars_can_be_cached() -> None:
    expected = AnswerFormat(AnswerKind.CHOICE, OPTIONS)
    assert json.dumps(response_format(expected)) == json.dumps(response_format(expected))
