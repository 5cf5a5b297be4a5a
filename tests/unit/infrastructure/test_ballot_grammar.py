"""The grammar in which a small model writes its ballot: one line, and nothing that the reader would refuse."""

from __future__ import annotations

import json
import re

import pytest

from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot_reader import read_ballot
from infrastructure.orchestrators.ballot_grammar import ballot_grammar
from infrastructure.orchestrators.ballot_schema import ballot_schema


def grammar_of(expected: AnswerFormat) -> str:
    return ballot_grammar(ballot_schema(expected, confidence_steps=True, reason_max_chars=40))


def as_pattern(grammar: str) -> re.Pattern[str]:
    """The grammar as a regular expression: it has one rule, literals, classes, groups, alternatives and repetitions."""
    body = grammar.removeprefix("root ::= ").rstrip("\n")
    tokens = re.findall(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\{[0-9,]+\}|[()|?]', body)
    return re.compile("".join(_pattern(token) for token in tokens), re.DOTALL)


def _pattern(token: str) -> str:
    if not token.startswith('"'):
        return token
    unicode = re.sub(r"\\U([0-9A-F]{8})", lambda found: chr(int(found[1], 16)), token[1:-1])
    return re.escape(re.sub(r"\\(.)", r"\1", unicode))


def ballot(answer: object) -> str:
    return json.dumps({"answer": answer, "confidence": 0.5, "reasoning": "because it is so"}, ensure_ascii=False)


OPTIONS = ('say "yes"', "back\\slash", "na\u00efve \u6c7d\u8f66")


@pytest.mark.parametrize(
    ("expected", "allowed", "refused"),
    [
        (AnswerFormat(AnswerKind.VERDICT), ["yes", "no", "abstain"], ["maybe", None, 1]),
        (AnswerFormat(AnswerKind.CHOICE, OPTIONS), [*OPTIONS, None], ["another", list(OPTIONS)]),
        (AnswerFormat(AnswerKind.APPROVAL, OPTIONS), [[], list(OPTIONS[:2]), None], [["another"], "yes"]),
        (AnswerFormat(AnswerKind.RANKING, OPTIONS), [list(OPTIONS[::-1]), None], [[OPTIONS[0]] * 3, []]),
        (AnswerFormat(AnswerKind.SCORE, minimum=1, maximum=5), [1, 5, None], [0, 6, "3"]),
        (AnswerFormat(AnswerKind.PROBABILITY), [0.0, 0.35, 1.0, None], [1.5, -0.1]),
        (AnswerFormat(AnswerKind.NUMBER, unit="km"), [0, -12.25, None], ["12 km", 1e30]),
        (AnswerFormat(AnswerKind.TEXT), ["it depends", None], [3, ""]),
    ],
    ids=lambda value: value.kind.value if isinstance(value, AnswerFormat) else None,
)
def test_the_grammar_allows_ballots_that_can_be_read_and_no_others(
    expected: AnswerFormat, allowed: list[object], refused: list[object]
) -> None:
    pattern = as_pattern(grammar_of(expected))
    for answer in allowed:
        assert pattern.fullmatch(ballot(answer)), answer
        read_ballot("archon-1", ballot(answer), expected)
    for answer in refused:
        assert not pattern.fullmatch(ballot(answer)), answer


def test_a_ballot_is_one_line_that_cannot_go_on_for_ever() -> None:
    pattern = as_pattern(grammar_of(AnswerFormat(AnswerKind.VERDICT)))
    for reply in (
        json.dumps(json.loads(ballot("yes")), indent=1),
        ballot("yes") + " ",
        ballot("yes").replace("so", "so" * 40),
    ):
        assert not pattern.fullmatch(reply)


def test_a_reason_holds_nothing_that_could_end_its_string_early() -> None:
    pattern = as_pattern(grammar_of(AnswerFormat(AnswerKind.VERDICT)))
    for reason in ('a "quoted" reason', "a back\\slash there", "a line\nbreak there"):
        assert not pattern.fullmatch(ballot("yes").replace("because it is so", reason))
