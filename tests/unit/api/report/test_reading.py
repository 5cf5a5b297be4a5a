"""What counts as a number in a document that somebody else wrote."""

from __future__ import annotations

import math

import pytest

from api.report.reading import number


@pytest.mark.parametrize("value", [0, -1, 2.5, 10**300])
def test_a_finite_number_is_taken_as_it_is(value: float) -> None:
    assert number(value) == value


@pytest.mark.parametrize("value", [True, "1", None, [1], math.nan, -math.inf, 10**400, -(10**400)], ids=range(8))
def test_what_is_no_finite_number_is_none(value: object) -> None:
    assert number(value) is None
