"""Writes down as a JSON schema which reply is wanted, in the part of JSON Schema that providers agree on."""

from __future__ import annotations

from typing import Any

from domain.models.question import AnswerFormat, AnswerKind

__all__ = ["ballot_schema", "response_format"]

_HUNDREDTHS_A_STEP = 5
_MOST_WHOLE_STEPS = 100
_EVEN_STEPS = 20
# A free text is the answer itself and may be longer than a reason for one.
_TEXT_TO_REASON = 4


def response_format(
    expected: AnswerFormat, *, confidence_steps: bool = False, reason_max_chars: int | None = None
) -> dict[str, Any]:
    """The `response_format` of a chat completion that asks for a ballot (OpenAI, structured outputs)."""
    schema = ballot_schema(expected, confidence_steps=confidence_steps, reason_max_chars=reason_max_chars)
    return {"type": "json_schema", "json_schema": {"name": "ballot", "strict": True, "schema": schema}}


def ballot_schema(
    expected: AnswerFormat, *, confidence_steps: bool = False, reason_max_chars: int | None = None
) -> dict[str, Any]:
    """The schema of `{"answer", "confidence", "reasoning"}`; an answer of null abstains.

    With `confidence_steps` every number of a known range is one of a list, for llama.cpp, which ignores `minimum` and
    `maximum`.
    `reason_max_chars` bounds the texts, for models that would write until they are cut off.
    """
    confidence = _steps(0.0, 1.0, tenths=True) if confidence_steps else None
    return {
        "type": "object",
        "properties": {
            "answer": _answer(expected, steps=confidence_steps, reason_max_chars=reason_max_chars),
            "confidence": {"type": "number", "enum": confidence}
            if confidence is not None
            else {"type": "number", "minimum": 0, "maximum": 1},
            "reasoning": _text(reason_max_chars),
        },
        "required": ["answer", "confidence", "reasoning"],
        "additionalProperties": False,
    }


def _answer(expected: AnswerFormat, *, steps: bool, reason_max_chars: int | None) -> dict[str, Any]:
    kind = expected.kind
    if kind is AnswerKind.VERDICT:
        return {"type": "string", "enum": ["yes", "no", "abstain"]}
    if kind is AnswerKind.CHOICE:
        return {"type": ["string", "null"], "enum": [*expected.options, None]}
    if kind.has_options:
        return {
            "type": ["array", "null"],
            "items": {"type": "string", "enum": list(expected.options)},
            "minItems": 1 if kind is AnswerKind.RANKING else 0,
            "maxItems": len(expected.options),
        }
    if kind is AnswerKind.TEXT:
        longest = None if reason_max_chars is None else _TEXT_TO_REASON * reason_max_chars
        return {**_text(longest), "type": ["string", "null"]}
    low, high = (0.0, 1.0) if kind is AnswerKind.PROBABILITY else (expected.minimum, expected.maximum)
    if low is None or high is None:
        return {"type": ["number", "null"]}
    if steps:
        return {"type": ["number", "null"], "enum": [*_steps(low, high), None]}
    return {"type": ["number", "null"], "minimum": low, "maximum": high}


def _text(max_chars: int | None) -> dict[str, Any]:
    return {"type": "string"} if max_chars is None else {"type": "string", "maxLength": max_chars}


def _steps(low: float, high: float, *, tenths: bool = False) -> list[float]:
    """Numbers from `low` to `high`, both among them: the whole ones where there are a few, else twenty even steps."""
    if tenths:
        return [tenth / 10 for tenth in range(11)]
    if low == 0 and high == 1:
        return [hundredth / 100 for hundredth in range(0, 101, _HUNDREDTHS_A_STEP)]
    if float(low).is_integer() and float(high).is_integer() and 2 <= high - low <= _MOST_WHOLE_STEPS:
        return [low + step for step in range(int(high - low) + 1)]
    between = (low + (high - low) * step / _EVEN_STEPS for step in range(1, _EVEN_STEPS))
    return [low, *(min(max(float(f"{number:.6g}"), low), high) for number in between), high]
