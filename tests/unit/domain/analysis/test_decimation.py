"""Long lines in few points: no peak or dip is lost, short ones stay as they are, and quantiles stay close to the true ones."""

from __future__ import annotations

import random

import pytest

from domain.analysis.decimation import Decimation
from domain.analysis.quantile_sketch import QuantileSketch


def decimated(values: list[float], *, max_points: int = 20) -> tuple[list[float], list[float | None]]:
    decimation = Decimation(1, max_points=max_points)
    for place, value in enumerate(values):
        decimation.add(place, [value])
    positions, (line,) = decimation.points()
    return positions, line


def test_a_line_that_fits_stands_as_it_came() -> None:
    assert decimated([3.0, 1.0, 2.0]) == ([0, 1, 2], [3.0, 1.0, 2.0])


@pytest.mark.parametrize("rows", [11, 19, 20, 21, 1_000, 12_345])
def test_there_are_never_more_points_than_asked_for_and_the_ends_stay(rows: int) -> None:
    positions, line = decimated([0.0] * rows)
    assert len(positions) == len(line) <= 20
    assert (positions[0], positions[-1]) == (0, rows - 1)
    assert positions == sorted(positions)


@pytest.mark.parametrize("at", [0, 1, 499, 500, 998, 999])
def test_one_peak_and_one_dip_among_a_thousand_rows_are_seen(at: int) -> None:
    values = [5.0] * 1_000
    values[at] = 99.0
    values[999 - at] = -99.0
    _, line = decimated(values)
    assert max(value for value in line if value is not None) == 99.0
    assert min(value for value in line if value is not None) == -99.0


def test_a_rise_stays_a_rise() -> None:
    _, line = decimated([float(value) for value in range(5_000)])
    assert line == sorted(line, key=lambda value: value or 0.0)


def test_a_fall_stays_a_fall() -> None:
    _, line = decimated([float(-value) for value in range(5_000)])
    assert line == sorted(line, key=lambda value: value or 0.0, reverse=True)


def test_a_gap_in_one_line_leaves_the_other_whole() -> None:
    decimation = Decimation(2, max_points=8)
    for place in range(100):
        decimation.add(place, [1.0, None if place < 50 else 2.0])
    _, (whole, gapped) = decimation.points()
    assert set(whole) == {1.0}
    assert gapped[0] is None
    assert gapped[-1] == 2.0


def test_peak_and_dip_are_seen_where_many_rows_have_one_place() -> None:
    decimation = Decimation(1, max_points=4)
    for place, value in ((0, 1.0), (0, -5.0), (0, 9.0), (0, 2.0), (1, 3.0)):
        decimation.add(place, [value])
    positions, (line,) = decimation.points()
    assert (positions, line) == ([0, 0, 1], [-5.0, 9.0, 3.0])


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="3 values"):
        Decimation(2, max_points=8).add(0, [1.0, 2.0, 3.0])


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="four at least"):
        Decimation(1, max_points=3)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99])
def test_a_quantile_is_within_a_tenth_of_a_percent_of_the_true_one(share: float) -> None:
    draw = random.Random(5)
    values = sorted(draw.lognormvariate(0, 2) for _ in range(10_000))
    sketch = QuantileSketch()
    for value in values:
        sketch.add(value)
    true = values[int(share * len(values)) - 1]
    found = sketch.quantile(share)
    assert found == pytest.approx(true, rel=0.0011)


def test_zeros_are_counted_and_nothing_is_outside_what_was_seen() -> None:
    sketch = QuantileSketch()
    assert (sketch.quantile(0.5), sketch.mean) == (None, None)
    for value in (0.0, 0.0, 0.0, 7.0):
        sketch.add(value)
    assert (sketch.quantile(0.5), sketch.quantile(1.0), sketch.mean) == (0.0, 7.0, 1.75)
