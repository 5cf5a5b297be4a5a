"""Reading replies as ballots: tolerant of the wrapping, strict about the ballot."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors.deliberation import UnreadableBallotError
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot_reader import read_ballot

CHOICE = AnswerFormat(AnswerKind.CHOICE, ("yes", "no", "weekends only"))
VERDICT = AnswerFormat(AnswerKind.VERDICT)
SCORE = AnswerFormat(AnswerKind.SCORE, minimum=1, maximum=10)
RANKING = AnswerFormat(AnswerKind.RANKING, ("a", "b", "c"))


def refused(reply: str, expected: AnswerFormat = CHOICE) -> str:
    with pytest.raises(UnreadableBallotError) as error:
        read_ballot("archon-1", reply, expected)
    return error.value.kind


def test_a_plain_ballot_is_read_with_confidence_and_reasoning() -> None:
    ballot = read_ballot("archon-1", '{"answer": "no", "confidence": 0.7, "reasoning": "Deliveries."}', CHOICE)
    assert (ballot.agent_id, ballot.answer, ballot.confidence, ballot.reasoning) == (
        "archon-1",
        "no",
        0.7,
        "Deliveries.",
    )


@pytest.mark.parametrize(
    "reply",
    [
        '```json\n{"answer": "no"}\n```',
        'Let me think {carefully}.\n```\n{"answer": "no"}\n```\nThat is all.',
        'I would say {"answer": "no", "confidence": 1} because of the braces } {.',
        '{"note": 1} and then {"answer": "no"}',
        '{"answer": "no"} {"answer": "no"}',
        ' \n{"answer": " NO "}\n',
    ],
)
def test_wrapping_around_the_one_ballot_is_tolerated(reply: str) -> None:
    assert read_ballot("archon-1", reply, CHOICE).answer == "no"


@pytest.mark.parametrize(
    "reply",
    [
        "{'answer': 'no', 'confidence': 0.7, 'reasoning': 'He said \"never\".'}",
        """{'answer': 'no', "reasoning": "It's late."}""",
        r"{'answer': 'no', 'reasoning': 'It\'s a \"trap\" \\ \n.'}",
        '{"answer": "no", "confidence": 0.7,}',
        '{"answer": "no", "notes": [1, 2, ], }',
        "{'answer': 'no', 'sure': True, 'second': None}",
        "```python\n{'answer': 'no'}\n```",
        "Well, {'answer': 'no'} it is, isn't it?",
        "{'note': 1} and then {'answer': 'no'}",
    ],
)
def test_a_ballot_written_as_python_would_is_read(reply: str) -> None:
    assert read_ballot("archon-1", reply, CHOICE).answer == "no"


def test_what_stood_in_single_quotes_is_kept_letter_by_letter() -> None:
    reply = r"""{'answer': 'no', 'reasoning': 'It\'s "late", None too soon,}\n \u00f8'}"""
    assert read_ballot("archon-1", reply, CHOICE).reasoning == 'It\'s "late", None too soon,}\n \u00f8'


@pytest.mark.parametrize(
    "reply",
    [
        "{'answer': 'no', 'reasoning': 'It's late.'}",
        "{'answer': 'no'",
        "{answer: 'no'}",
        "{'answer': no}",
        "{'answer': 'no' 'yes'}",
        "{'answer': ('no')}",
        "{'answer': 'no', 'answer': 'yes'}",
        "{'answer': " * 5000,
        "{[" * 50_000,
    ],
)
def test_what_can_be_read_in_no_way_or_in_two_is_not_guessed_at(reply: str) -> None:
    assert refused(reply) == "unreadable_reply"


def test_two_different_answers_in_single_quotes_are_several() -> None:
    assert refused("{'answer': 'no'} {'answer': 'yes'}") == "several_answers"


def test_a_strict_ballot_is_taken_before_a_loose_one() -> None:
    assert read_ballot("archon-1", """{'answer': 'yes'} {"answer": "no"}""", CHOICE).answer == "no"


@pytest.mark.parametrize(
    "reply",
    [
        '<think>Perhaps {"answer": "yes"}?</think>\n{"answer": "no"}',
        '<think>\n```json\n{"answer": "yes"}\n```\n</think>\n```json\n{"answer": "no"}\n```',
        '{"answer": "no", "reasoning": "</think> is a mark"}',
        '<think>Hm.</think> {"answer": "no", "reasoning": "</think> is a mark"}',
    ],
)
def test_what_a_model_thought_is_no_ballot(reply: str) -> None:
    assert read_ballot("archon-1", reply, CHOICE).answer == "no"


def test_null_abstains() -> None:
    assert read_ballot("archon-1", '{"answer": null}', CHOICE).abstains


def test_a_verdict_of_abstain_abstains() -> None:
    assert read_ballot("archon-1", '{"answer": "abstain"}', VERDICT).abstains


def test_an_option_that_looks_alike_after_folding_is_the_option() -> None:
    assert read_ballot("archon-1", '{"answer": "Weekends  ONLY"}', CHOICE).answer == "weekends only"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("", "empty_reply"),
        (" \n\t", "empty_reply"),
        ("no", "unreadable_reply"),
        ("yes, definitely yes", "unreadable_reply"),
        ('["no"]', "unreadable_reply"),
        ('{"answer": "no"', "unreadable_reply"),
        ('{"answer": "no", "answer": "yes"}', "unreadable_reply"),
        ('{"answer": "no", "confidence": NaN}', "unreadable_reply"),
        ('{"answer": "yes"} {"answer": "no"}', "several_answers"),
        ('{"answer": "maybe"}', "wrong_answer"),
        ('{"answer": 1}', "wrong_answer"),
        ('{"answer": ["no"]}', "wrong_answer"),
        ('{"answer": "no", "confidence": 100}', "wrong_answer"),
        ('{"answer": "no", "confidence": true}', "wrong_answer"),
        ('{"answer": "no", "reasoning": {"a": 1}}', "wrong_answer"),
        ('{"answer": "\\u0000no"}', "wrong_answer"),
        ("{" * 100_000, "unreadable_reply"),
        ('{"answer":' * 5_000, "unreadable_reply"),
        ('{"answer": ' + "9" * 5_000 + "}", "unreadable_reply"),
    ],
)
def test_what_is_no_ballot_is_refused_with_its_kind(reply: str, kind: str) -> None:
    assert refused(reply) == kind


def test_numbers_are_read_within_their_range_only() -> None:
    assert read_ballot("archon-1", '{"answer": 7}', SCORE).answer == 7.0
    for answer in ("0.99", "10.01", '"seven"', "true", "1e999", "9" * 400):
        assert refused(f'{{"answer": {answer}}}', SCORE) == "wrong_answer"


def test_a_probability_lies_between_zero_and_one() -> None:
    probability = AnswerFormat(AnswerKind.PROBABILITY)
    assert read_ballot("archon-1", '{"answer": 1}', probability).answer == 1.0
    assert refused('{"answer": 70}', probability) == "wrong_answer"


def test_a_ranking_names_known_options_once() -> None:
    assert read_ballot("archon-1", '{"answer": ["b", "A"]}', RANKING).answer == ("b", "a")
    for answer in ('["a", "a"]', '["a", "z"]', "[]", '"a"'):
        assert refused(f'{{"answer": {answer}}}', RANKING) == "wrong_answer"


def test_nobody_can_approve_of_nothing_by_accident_but_may_on_purpose() -> None:
    approval = AnswerFormat(AnswerKind.APPROVAL, ("a", "b"))
    assert read_ballot("archon-1", '{"answer": []}', approval).answer == ()


def test_nul_and_lone_surrogates_in_the_reasoning_are_made_showable() -> None:
    ballot = read_ballot("archon-1", '{"answer": "no", "reasoning": "a\\u0000b\\ud800c"}', CHOICE)
    assert ballot.reasoning == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


@given(st.text(max_size=200))
def test_any_text_is_a_ballot_or_refused_and_never_a_crash(reply: str) -> None:
    with contextlib.suppress(UnreadableBallotError):
        ballot = read_ballot("archon-1", reply, CHOICE)
        assert ballot.answer is None or ballot.answer in CHOICE.options


@given(st.sampled_from(CHOICE.options), st.text(max_size=40).filter(lambda text: "{" not in text and "`" not in text))
def test_prose_without_braces_around_a_ballot_never_changes_it(option: str, prose: str) -> None:
    reply = prose + json.dumps({"answer": option}) + prose
    assert read_ballot("archon-1", reply, CHOICE).answer == option
