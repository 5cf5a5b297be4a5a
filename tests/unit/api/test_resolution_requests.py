"""What a request tells of how a question turned out, and what is said of a body that tells nothing."""

from __future__ import annotations

import pytest

from api.requests import ResolutionRequest
from domain.errors.deliberation import InvalidSpecificationError


def told_of(body: object) -> list[tuple[str, str]]:
    with pytest.raises(InvalidSpecificationError) as error:
        ResolutionRequest.read(body)
    return [(problem.pointer, problem.message) for problem in error.value.problems]


@pytest.mark.parametrize("answer", [None, {}, {"index": 0}, ["trams", 7], [None]])
def test_an_answer_of_no_kind_is_told_which_kinds_there_are(answer: object) -> None:
    assert told_of({"answer": answer}) == [("/answer", "must be an option, a list of options, yes, no or a number")]


def test_a_missing_answer_is_told_to_be_required() -> None:
    assert told_of({}) == [("/answer", "Field required")]


def test_an_unknown_field_is_told_beside_a_bad_answer() -> None:
    assert [pointer for pointer, _ in told_of({"answer": None, "truth": "trams"})] == ["/truth", "/answer"]
