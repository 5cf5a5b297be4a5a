"""Drop-out against Fisher's own numbers."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.analysis.dropout import LEVEL, dropping_out, fisher_tail


def test_the_lady_who_tasted_tea_is_right_by_chance_once_in_seventy() -> None:
    assert fisher_tail(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert fisher_tail(3, 4, 1, 4) == pytest.approx(17 / 70)


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_the_tail_is_what_listing_every_draw_gives(asked: int, elsewhere: int, data: st.DataObject) -> None:
    missing = data.draw(st.integers(0, asked))
    missing_elsewhere = data.draw(st.integers(0, elsewhere))
    draws = list(combinations(range(asked + elsewhere), missing + missing_elsewhere))
    reached = sum(sum(place < asked for place in draw) >= missing for draw in draws)
    assert fisher_tail(missing, asked, missing_elsewhere, elsewhere) == pytest.approx(reached / len(draws))


def test_a_model_that_drops_out_is_named_with_its_numbers() -> None:
    (found,) = dropping_out("model", {"slow": [True] * 8 + [False] * 16, "fast": [False] * 48})
    assert (found.kind, found.group, found.missing, found.asked) == ("model", "slow", 8, 24)
    assert (found.missing_elsewhere, found.asked_elsewhere) == (0, 48)
    assert found.p_value < LEVEL


def test_a_model_that_drops_out_no_more_than_the_other_is_not_named() -> None:
    assert dropping_out("model", {"a": [True] * 4 + [False] * 20, "b": [True] * 4 + [False] * 20}) == ()


def test_a_model_that_stays_is_not_named_for_staying() -> None:
    found = dropping_out("model", {"slow": [True] * 12 + [False] * 12, "fast": [False] * 24})
    assert [each.group for each in found] == ["slow"]


def test_one_agent_that_is_missing_says_nothing_of_its_kind() -> None:
    personas = {f"persona {number}": [number == 3] for number in range(72)}
    assert dropping_out("persona", personas) == ()
    assert dropping_out("model", {"rare": [True], "usual": [False] * 71}) == ()


def test_one_model_alone_is_compared_with_nobody() -> None:
    assert dropping_out("model", {"only": [True] * 30 + [False] * 42}) == ()


def test_nobody_missing_is_no_drop_out() -> None:
    assert dropping_out("model", {"a": [False] * 10, "b": [False] * 10}) == ()


def test_random_drop_out_raises_the_warning_no_oftener_than_its_level() -> None:
    draw, warned = random.Random(11), 0
    for _ in range(400):
        groups = {name: [draw.random() < 0.15 for _ in range(12)] for name in "abcdef"}
        warned += bool(dropping_out("model", groups))
    assert warned <= 400 * LEVEL


def test_many_groups_are_corrected_for_by_the_method_of_holm() -> None:
    # By itself 3 of 6 against 3 of 66 has p = 0.009; with twelve groups it is no warning any more.
    groups = {"a": [True] * 3 + [False] * 3, **{f"g{n}": [n < 3] + [False] * 5 for n in range(11)}}
    assert fisher_tail(3, 6, 3, 66) < 0.01
    assert dropping_out("model", groups) == ()
    assert dropping_out("model", {"a": groups["a"], "rest": [True] * 3 + [False] * 63}) != ()
