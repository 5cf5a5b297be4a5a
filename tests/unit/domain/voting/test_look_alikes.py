"""Options that a reader would take for each other are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.models.look_alikes import look_alike_keys
from domain.models.question import AnswerFormat, AnswerKind

# Latin on the left; on the right what looks the same and is not.
ALIKE = [
    ("yes", "YES"),
    ("weekends only", "weekends  only"),
    ("weekends only", "weekendsonly"),
    ("weekends only", " weekends only "),
    ("weekends only", "weekends\u00a0only"),
    ("yes", "y\u0435s"),
    ("pay", "\u0440\u0430\u0443"),
    ("CAT", "\u0421\u0410\u0422"),
    ("cat", "\u0421\u0410\u0422"),
    ("Nikon", "\u039dikon"),
    ("no", "n\u03bf"),
    ("yes", "yes\u200b"),
    ("yes", "y\u2060es"),
    ("yes", "ye\ufe0fs"),
    ("yes", "\u3164yes"),
    ("yes", "\uff59\uff45\uff53"),
    ("yes", "\U0001d432\U0001d41e\U0001d42c"),
    ("first", "\ufb01rst"),
    ("caf\u00e9", "cafe\u0301"),
    ("co-op", "co\u2010op"),
    ("co-op", "co\u2013op"),
    ("it's", "it\u2019s"),
    ("Model O1", "Model 01"),
    ("Plan I", "Plan 1"),
    ("Plan l", "Plan I"),
    ("stra\u00dfe", "STRASSE"),
]
DIFFERENT = [
    ("yes", "no"),
    ("fail", "fall"),
    ("FAIL", "FALL"),
    ("modern", "modem"),
    ("caf\u00e9", "cafe"),
    ("option 1", "option 2"),
    ("10", "100"),
    ("-1", "1"),
    ("\u0434\u0430", "\u043d\u0435\u0442"),
    ("\u8d5e\u6210", "\u53cd\u5bf9"),
    ("+", "-"),
    ("Plan A", "Plan B"),
]


def pointers(*options: str) -> list[str]:
    return [problem.pointer for problem in AnswerFormat(AnswerKind.CHOICE, options).problems()]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_look_alikes_are_refused_where_the_second_stands(one: str, other: str) -> None:
    assert pointers(one, "something else", other) == ["/answer/options/2"]
    assert pointers(other, one) == ["/answer/options/1"]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_reads_differently_is_taken(one: str, other: str) -> None:
    assert pointers(one, other) == []


@pytest.mark.parametrize("kind", [AnswerKind.APPROVAL, AnswerKind.RANKING])
def test_look_alikes_are_refused_for_every_kind_that_has_options(kind: AnswerKind) -> None:
    found = AnswerFormat(kind, ("a", "b", "\u0430")).problems()
    assert [problem.message for problem in found] == ["reads the same as option number 1"]


@pytest.mark.parametrize("blank", ["\u3164", "\u2800", "\u200b", "\ufe0f"])
def test_an_option_that_shows_nothing_is_refused(blank: str) -> None:
    assert pointers("yes", blank) == ["/answer/options/1"]


@given(st.text(alphabet=st.characters(max_codepoint=126, min_codepoint=32), max_size=20), st.text(" \t", max_size=3))
def test_case_and_spaces_alone_tell_no_texts_apart(text: str, space: str) -> None:
    assert look_alike_keys(text)[0] == look_alike_keys(space.join(text.upper()))[0]
