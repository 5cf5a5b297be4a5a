"""How texts are folded for a search, and what a search text and its dates may be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from domain.errors.deliberation import InvalidSpecificationError
from domain.models.search import MAX_WORDS, Search, folded, found_in_decision, search_of, searched_text
from tests.deliberation_specimens import NOON, deliberation, ended, record, started


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("  Two\twords\r\n", "two words"),
        ("STRASSE Straße", "strasse strasse"),
        ("Évreux E\u0301vreux", "evreux evreux"),
        ("Ångström Å", "angstrom a"),
        ("ΣΊΣΥΦΟΣ σίσυφος", "σισυφοσ σισυφοσ"),
        ("ＡＢＣ１２ ﬁ ²", "abc12 fi 2"),
        ("İI ı", "ii ı"),
        ("한국어", "한국어".encode().decode()),
        ("a\u200bb\u202ec\u2066d\ufeff", "abcd"),
        ("a\x00b\x1bc\x07", "abc"),
        ("\ud800x", "x"),
        ("क्\u200dषि", "कषि"),
        ("\u0301\u0301", ""),
        ("👩\u200d💻 ok", "👩💻 ok"),
    ],
)
def test_a_text_is_folded_to_what_a_reader_would_look_for(text: str, seen: str) -> None:
    import unicodedata

    assert folded(text) == unicodedata.normalize("NFKD", seen)


@pytest.mark.parametrize("text", ["Café Ünïcode Ǆ ß ſ", "한국어 日本 हिन्दी", "a\u0345b", "ΰ ᾳ ﬃ", "\u1e9e Ⅷ ℃"])
def test_folding_twice_changes_nothing_any_more(text: str) -> None:
    assert folded(folded(text)) == folded(text)


def test_case_never_matters_whatever_the_letter() -> None:
    letters = [chr(code) for code in range(0x250) if chr(code).isalpha()]
    assert [each for each in letters if folded(each.upper().lower()) != folded(each.upper())] == []


def test_the_words_of_a_search_are_folded_and_counted_once() -> None:
    assert Search.words_of("  Café CAFE\u0301 cars ") == ("cafe", "cars")
    assert Search.words_of(None) == Search.words_of("\u200b") == ()


def test_a_search_has_an_end() -> None:
    many = " ".join(str(number) for number in range(MAX_WORDS))
    assert len(Search.words_of(many)) == MAX_WORDS
    for text, problem in ((f"{many} more", "has 33 words"), ("x" * 513, "has 513 characters")):
        with pytest.raises(InvalidSpecificationError, match=problem):
            Search.words_of(text)


def test_dates_are_whole_days_and_moments_are_moments() -> None:
    day = search_of(since="2026-11-21", until="2026-11-21")
    assert (day.since, day.until) == (datetime(2026, 11, 21, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC))
    moment = search_of(since="2026-11-21T13:00:00+01:00", until="2026-11-21t12:00:00.123456z")
    assert moment.since == datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert moment.until == datetime(2026, 11, 21, 12, 0, 0, 123457, tzinfo=UTC)
    assert search_of(until="9999-12-31").until is None


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2026-02-30",
        "20260221",
        "2026-W01-1",
        "2026-11-21T12:00:00",
        "0001-01-01T00:00:00+14:00",
        "٢٠٢٦-٠١-٠١",
        " ",
        "2026-1-1",
    ],
)
def test_what_is_no_time_is_refused_where_it_stands(text: str) -> None:
    for name, given in (("from", {"since": text}), ("to", {"until": text})):
        with pytest.raises(InvalidSpecificationError) as refusal:
            search_of(None, pointer="/query", **given)
        assert [problem.pointer for problem in refusal.value.problems] == [f"/query/{name}"]


def test_an_end_before_the_beginning_is_refused() -> None:
    with pytest.raises(InvalidSpecificationError, match="before"):
        search_of(since="2026-11-22", until="2026-11-21")


def test_every_problem_of_a_search_is_named_at_once() -> None:
    with pytest.raises(InvalidSpecificationError) as refusal:
        search_of("x" * 600, since="x", until="y")
    assert [problem.pointer for problem in refusal.value.problems] == ["/search", "/from", "/to"]


def test_a_decision_is_searched_as_it_is_shown() -> None:
    running = started(deliberation())
    outcome = ended(running, [record(0), record(1), record(2, answer="no")]).outcome
    assert outcome is not None
    assert found_in_decision(outcome) == "yes"
    assert found_in_decision(replace(outcome, decision=0.1 + 0.2)) == "0.3"
    assert found_in_decision(replace(outcome, decision=None)) == found_in_decision(None) == ""


def test_a_word_that_goes_across_two_texts_is_found_in_neither() -> None:
    fresh = deliberation()
    assert "yes\nno" in searched_text(fresh)
    assert not Search(words=("yesno",)).matches(fresh)


def test_nothing_searched_for_keeps_everything() -> None:
    fresh = deliberation()
    assert Search().keeps_all
    assert Search().matches(fresh)
    assert not Search(simulated=True).keeps_all
    assert not Search(since=NOON, until=NOON).matches(fresh)
