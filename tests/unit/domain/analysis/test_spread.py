"""Entropy, polarisation, movement and sustained agreement against closed forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.analysis.groupthink import SUSTAINED, largest_share, sustained_agreement
from domain.analysis.movement import Flow, movement_of
from domain.analysis.spread import entropy_bits, polarisation_of_counts, polarisation_of_estimates
from domain.models.outcome import Change

_counts = st.lists(st.integers(0, 100), min_size=1, max_size=8).filter(any)


def test_answers_that_are_all_the_same_have_no_entropy() -> None:
    assert entropy_bits([72, 0, 0]) == 0


@pytest.mark.parametrize("size", [2, 4, 8])
def test_answers_held_equally_have_the_logarithm_of_their_number(size: int) -> None:
    assert entropy_bits([9] * size) == pytest.approx(math.log2(size))


def test_the_entropy_of_a_known_tally_is_right() -> None:
    assert entropy_bits([2, 1, 1]) == pytest.approx(1.5)


def test_nobody_has_no_entropy_and_no_polarisation() -> None:
    assert entropy_bits([]) is None
    assert polarisation_of_counts([0, 0]) is None
    assert polarisation_of_estimates([], 0, 1) is None


@given(_counts)
def test_polarisation_is_between_none_and_two_equal_camps(counts: list[int]) -> None:
    found = polarisation_of_counts(counts)
    assert found is not None
    assert 0 <= found <= 1 + 1e-12


def test_two_equal_camps_are_wholly_polarised_and_one_camp_not_at_all() -> None:
    assert polarisation_of_counts([36, 36]) == pytest.approx(1)
    assert polarisation_of_counts([72]) == 0
    assert polarisation_of_counts([24, 24, 24]) == pytest.approx(8 / 9)


def test_estimates_at_both_ends_are_wholly_polarised_and_equal_ones_not_at_all() -> None:
    assert polarisation_of_estimates([0, 0, 10, 10], 0, 10) == pytest.approx(1)
    assert polarisation_of_estimates([7, 7, 7], 0, 10) == pytest.approx(0)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20))
def test_estimates_of_any_size_are_polarised_between_zero_and_one(numbers: list[float]) -> None:
    found = polarisation_of_estimates(numbers, -1e308, 1e308)
    assert found is not None
    assert 0 <= found <= 1 + 1e-9


def test_changers_who_went_to_the_blind_leader_conformed() -> None:
    changes = [Change("a", "no", "yes"), Change("b", "no", "yes"), Change("c", "no", "later"), Change("d", "yes", "no")]
    found = movement_of(changes, changeable=10, blind_tally={"yes": 6, "no": 4, "later": 0})
    assert found.blind_leader == "yes"
    assert found.conformity == pytest.approx(2 / 3)
    assert found.flows == (Flow("no", "yes", 2), Flow("no", "later", 1), Flow("yes", "no", 1))


def test_without_a_leader_nobody_can_conform() -> None:
    found = movement_of([Change("a", "no", "yes")], changeable=2, blind_tally={"yes": 1, "no": 1})
    assert (found.blind_leader, found.conformity) == (None, None)


def test_ten_deliberations_in_a_row_above_nine_tenths_are_a_warning() -> None:
    assert sustained_agreement([0.95] * SUSTAINED).is_warning
    assert sustained_agreement([0.2, *[0.91] * SUSTAINED]).is_warning


def test_nine_in_a_row_or_one_that_is_only_nine_tenths_are_none() -> None:
    assert not sustained_agreement([0.95] * (SUSTAINED - 1)).is_warning
    assert not sustained_agreement([*[0.95] * (SUSTAINED - 1), 0.9]).is_warning


def test_the_largest_share_is_of_what_was_counted() -> None:
    assert largest_share({"yes": 3, "no": 1}) == 0.75
    assert largest_share({"yes": 0}) is None
