"""The hemicycle seats any number of agents, each once, those of one position together, told apart without colour."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest

from api.report.hemicycle import places
from api.report.marks import COLOURS, drawn, letter_of, mark
from api.report.page import report_of
from domain.models.question import AnswerFormat, AnswerKind
from tests.html_reader import HtmlReader
from tests.report_specimens import ended, page


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 12, 71, 72, 73, 200, 1_000])
def test_so_many_places_lie_on_the_half_circle_and_none_on_another(count: int) -> None:
    found, apart = places(count)
    assert len(found) == count
    assert all(place.y > -1e-9 and math.hypot(place.x, place.y) < 1 + 1e-9 for place in found)
    nearest = min((math.dist((a.x, a.y), (b.x, b.y)) for a, b in combinations(found[:200], 2)), default=2.0)
    # Measured along the arc, which is longer than the chord.
    assert nearest > 0.6 * apart


def test_seventy_two_places_stand_in_five_rows() -> None:
    found, _ = places(72)
    assert len({round(math.hypot(place.x, place.y), 6) for place in found}) == 5


@pytest.mark.parametrize("count", [1, 2, 12, 72, 400])
def test_places_go_from_left_to_right(count: int) -> None:
    found, _ = places(count)
    angles = [math.atan2(place.y, -place.x) for place in found]
    assert all(after >= before - 1e-5 for before, after in pairwise(angles))


def test_letters_are_different_for_any_number_of_positions() -> None:
    letters = [letter_of(place) for place in range(800)]
    assert letters[:2] + letters[25:28] + letters[701:703] == ["A", "B", "Z", "AA", "AB", "ZZ", "AAA"]
    assert len(set(letters)) == 800


def test_positions_of_one_colour_differ_in_letter_and_those_of_different_colours_in_shape_as_well() -> None:
    shapes = {drawn(place, "answered", 0, 0, 10, is_lettered=False).partition(">")[2] for place in range(COLOURS)}
    assert len(shapes) == COLOURS
    assert mark(0) != mark(COLOURS)


def test_every_seat_is_told_with_its_agent_and_the_whole_is_told_in_words() -> None:
    found = page(ended(("yes",) * 40 + ("no",) * 30 + (None,) * 2))
    (seats,) = (each for each in found.all("svg") if "72 seats" in (each.get("aria-label") or ""))
    assert seats["aria-label"] == "72 seats. yes: 40, no: 30, abstained: 2"
    assert "archon-71: abstained" in found.words


def test_numbers_sit_from_the_lowest_to_the_highest() -> None:
    numbers = AnswerFormat(AnswerKind.NUMBER)
    (seats,) = (
        str(each["aria-label"])
        for each in page(ended((9.0, 1.0, 5.0, 5.0, 5.0, 5.0, 2.0, 8.0), answer=numbers)).all("svg")
        if "seats" in (each.get("aria-label") or "")
    )
    assert seats.index("below") < seats.index("middle half") < seats.index("above")


@pytest.mark.parametrize("count", [1, 2, 5_000])
def test_any_number_of_agents_makes_a_page_of_bounded_size(count: int) -> None:
    document, _ = ended(("yes",))
    document |= {"roll_call": {"asked": count, "answered": count}, "agents": {"roster": "x", "count": count}}
    html = report_of(document).html
    assert HtmlReader(html).words.count(f"yes: {count}") >= (count != 5_000)
    assert len(html) < 1_500_000


def test_fifty_options_have_fifty_marks() -> None:
    options = tuple(f"option {number}" for number in range(50))
    found = page(ended(options + options[:1], answer=AnswerFormat(AnswerKind.CHOICE, options)))
    assert "AX option 49" in found.words
