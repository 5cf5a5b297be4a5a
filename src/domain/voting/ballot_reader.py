"""Reads a model's reply as a ballot: tolerant of wrapping, strict about what is inside."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from domain.errors.deliberation import UnreadableBallotError
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.text import clean, fold
from domain.voting.ballot import Answer, Ballot

__all__ = ["read_ballot"]

MAX_DEPTH = 32
_MAX_CANDIDATES = 64
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)
# What a model that thinks aloud has thought, before what it says.
_THOUGHT_BEGIN, _THOUGHT_END = "<think>", "</think>"

_MAX_LOOSE_CANDIDATES = 4
_MAX_LOOSE_CHARACTERS = 16_384
# What a JSON object is made of where it is written as Python writes one, or with a comma too many.
_LOOSE_TOKEN = re.compile(
    r""" (?P<double>"(?:[^"\\]|\\.)*") | (?P<single>'(?:[^'\\]|\\.)*') | (?P<extra>,(?=\s*[}\]]))
       | (?P<word>\b(?:None|True|False)\b) | (?P<open>[{\[]) | (?P<close>[}\]]) """,
    re.DOTALL | re.VERBOSE,
)
_MAX_NUMBER_CHARACTERS = 128
_NUMBER_WITH_UNIT = re.compile(
    r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*(\D{0,64})", re.ASCII
)
_MAX_REFUSAL_CHARACTERS = 300
_REFUSAL = re.compile(
    r"(?:(?:i'm|i am) (?:very |truly )?sorry|sorry|i apologi[sz]e|unfortunately)?[,.;:]?\s*(?:but )?"
    r"(?:as an ai(?: language)? (?:model|assistant)[,.]? ?)?"
    r"i(?: am|'m)? ?(?:can't|cannot|can not|won't|will not|unable to|not able to|must decline to|decline to)"
    r" (?:help|assist|answer|respond|comply|engage|provide|participate|discuss|fulfil|take part|continue)",
    re.IGNORECASE,
)
_WORDS = {"None": "null", "True": "true", "False": "false"}
_IN_SINGLE_QUOTES = re.compile(r"""\\(.)|(")""", re.DOTALL)


def read_ballot(agent_id: str, reply: str, expected: AnswerFormat) -> Ballot:
    """The ballot in `reply`.

    The JSON object may be fenced, surrounded by prose or follow thoughts in `<think>`, but there must be exactly one that holds an
    answer, and the answer must be of the expected kind. Where there is none, one in single quotes, with Python's words or with a
    comma too many is taken, as long as it can be read in one way only. Raises `UnreadableBallotError` otherwise; its kind is one of
    `empty_reply`, `unreadable_reply`, `several_answers`, `refusal` and `wrong_answer`. Whatever else the object holds has no
    effect: the ballot is that of `agent_id`, whoever signs it.
    """
    if not reply.strip():
        raise UnreadableBallotError(kind="empty_reply", problem="it is empty")
    document = _only_answer(reply)
    confidence = _confidence(document.get("confidence"))
    reasoning = document.get("reasoning")
    if reasoning is not None and not isinstance(reasoning, str):
        raise UnreadableBallotError(kind="wrong_answer", problem="its reasoning is no text")
    answer = _answer(document["answer"], expected)
    return Ballot(agent_id, answer, confidence, None if reasoning is None else clean(reasoning))


def _only_answer(reply: str) -> dict[str, Any]:
    whole = _parse(reply.strip())
    if isinstance(whole, dict) and "answer" in whole:
        return whole
    said = _without_thoughts(reply)
    fenced = [
        found
        for block in _FENCE.findall(said)
        if isinstance(found := _parse(block.strip()), dict) and "answer" in found
    ]
    candidates = fenced or list(_embedded_objects(said)) or list(_loose_objects(said))
    if not candidates and _declines(said.strip()):
        raise UnreadableBallotError(kind="refusal", problem="it declines to answer")
    if not candidates:
        raise UnreadableBallotError(kind="unreadable_reply", problem="it holds no JSON object with an answer")
    if any(candidate["answer"] != candidates[0]["answer"] for candidate in candidates[1:]):
        raise UnreadableBallotError(kind="several_answers", problem="it holds several different answers")
    return candidates[0]


def _without_thoughts(reply: str) -> str:
    if reply.lstrip().startswith(_THOUGHT_BEGIN):
        thought, end, said = reply.partition(_THOUGHT_END)
        return said if end else thought
    return reply


def _embedded_objects(reply: str) -> Iterator[dict[str, Any]]:
    position, tried = reply.find("{"), 0
    while position >= 0 and tried < _MAX_CANDIDATES:
        tried += 1
        try:
            found, end = _DECODER.raw_decode(reply, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            if isinstance(found, dict) and "answer" in found:
                yield found
        position = reply.find("{", end)


def _loose_objects(reply: str) -> Iterator[dict[str, Any]]:
    position = reply.find("{")
    for _ in range(_MAX_LOOSE_CANDIDATES):
        if position < 0:
            return
        strict, length = _strictly(reply[position : position + _MAX_LOOSE_CHARACTERS])
        found = _parse(strict)
        if isinstance(found, dict) and "answer" in found:
            yield found
        position = reply.find("{", position + length)


def _strictly(text: str) -> tuple[str, int]:
    """The object that `text` begins with as strict JSON, and how long it is; nothing, and 1, where it has no end.

    An apostrophe within single quotes ends them too early, and what is left is no JSON: such a text is not guessed at.
    """
    parts: list[str] = []
    at = depth = 0
    for token in _LOOSE_TOKEN.finditer(text):
        parts.append(text[at : token.start()])
        at, found = token.end(), token.group()
        if token["single"]:
            parts.append(f'"{_IN_SINGLE_QUOTES.sub(_in_double_quotes, found[1:-1])}"')
        elif not token["extra"]:
            parts.append(_WORDS.get(found, found))
        depth += bool(token["open"]) - bool(token["close"])
        if not depth:
            return "".join(parts), at
    return "", 1


def _in_double_quotes(found: re.Match[str]) -> str:
    return "'" if found[1] == "'" else r"\"" if found[2] else found[0]


def _parse(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key stands twice")
    return document


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct_keys, parse_constant=_refuse_constant)


def _confidence(value: Any) -> float | None:
    if value is None:
        return None
    number = _number_in(value, unit=None, in_percent=True) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        raise UnreadableBallotError(kind="wrong_answer", problem="its confidence is no number from 0 to 1")
    return float(number)


def _number_in(text: str, *, unit: str | None, in_percent: bool) -> float | None:
    """The number that a text is, alone or with the unit that was asked for; None for one with other words or separators.

    Where percent stand for hundredths, `70%` is 0.7.
    """
    found = _NUMBER_WITH_UNIT.fullmatch(text.strip()) if len(text) <= _MAX_NUMBER_CHARACTERS else None
    if found is None:
        return None
    number, named = found[1], fold(found[2])
    if named == "%" and in_percent:
        return float(_hundredth(number))
    return float(number) if not named or (unit is not None and named == fold(unit)) else None


def _hundredth(number: str) -> Decimal:
    """A hundredth of the number in these digits, without a rounding of its own."""
    return Decimal(number).scaleb(-2)


def _declines(text: str) -> bool:
    """Whether the text is a formula of refusal and little more; an answer may well begin with one and go on."""
    return len(text) <= _MAX_REFUSAL_CHARACTERS and _REFUSAL.match(" ".join(text.split()).replace("’", "'")) is not None


def _answer(value: Any, expected: AnswerFormat) -> Answer:
    if value is None:
        return None
    kind = expected.kind
    if kind is AnswerKind.CHOICE:
        return _option(value, expected.options)
    if kind is AnswerKind.VERDICT:
        verdict = _option(value, ("yes", "no", "abstain"))
        return None if verdict == "abstain" else verdict
    if kind.is_estimate:
        return _number(value, expected)
    if kind is AnswerKind.TEXT:
        if not isinstance(value, str) or not fold(value):
            raise UnreadableBallotError(kind="wrong_answer", problem="its answer is no text")
        if _declines(value):
            raise UnreadableBallotError(kind="refusal", problem="it declines to answer")
        return clean(value)
    return _options(value, expected)


def _option(value: Any, options: tuple[str, ...]) -> str:
    if isinstance(value, str) and value in options:
        return value
    # Nothing invisible may turn one answer into another, so only what a reader can see is folded.
    if isinstance(value, str) and value.strip().isprintable():
        folded = fold(value)
        for option in options:
            if fold(option) == folded:
                return option
    raise UnreadableBallotError(kind="wrong_answer", problem="its answer is none of the options")


def _options(value: Any, expected: AnswerFormat) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UnreadableBallotError(kind="wrong_answer", problem="its answer is no list of options")
    if any(item is None or item == "" for item in value):
        raise UnreadableBallotError(kind="wrong_answer", problem="its list of options has a gap")
    named = tuple(_option(item, expected.options) for item in value)
    if len(set(named)) < len(named):
        raise UnreadableBallotError(kind="wrong_answer", problem="its answer names an option twice")
    if expected.kind is AnswerKind.RANKING and not named:
        raise UnreadableBallotError(kind="wrong_answer", problem="its ranking is empty")
    return named


def _number(value: Any, expected: AnswerFormat) -> float:
    is_probability = expected.kind is AnswerKind.PROBABILITY
    said = _number_in(value, unit=expected.unit, in_percent=is_probability) if isinstance(value, str) else value
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise UnreadableBallotError(kind="wrong_answer", problem="its answer is no number")
    try:
        number = float(said)
    except OverflowError:
        number = math.inf
    low, high = (0.0, 1.0) if is_probability else (expected.minimum, expected.maximum)
    if not math.isfinite(number) or (low is not None and number < low) or (high is not None and number > high):
        raise UnreadableBallotError(kind="wrong_answer", problem="its answer is outside the range asked for")
    return number
