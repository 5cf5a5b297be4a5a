"""Latencies in short, and what chance has to say about heads and tails."""

from __future__ import annotations

import math
import statistics

import pytest

from application.services.swarm.figures import latency_histogram, latency_summary, split_p_value


@pytest.mark.parametrize(
    ("heads", "tails", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (64, 64, 1.0),
        (10, 0, 2 / 1024),
        (8, 2, 112 / 1024),
        # R: binom.test(60, 100)$p.value
        (60, 40, 0.05688793),
        (40, 60, 0.05688793),
    ],
)
def test_the_split_is_tested_exactly_on_both_sides(heads: int, tails: int, p: float) -> None:
    assert split_p_value(heads, tails) == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize("flips", [1, 2, 7, 20])
def test_p_values_are_the_sum_of_what_is_no_likelier(flips: int) -> None:
    for heads in range(flips + 1):
        ways = [math.comb(flips, each) for each in range(flips + 1)]
        expected = sum(way for way in ways if way <= ways[heads]) / 2**flips
        assert split_p_value(heads, flips - heads) == pytest.approx(expected)


def test_ten_thousand_flips_are_within_a_floats_range() -> None:
    assert split_p_value(10_000, 0) == 0.0
    assert 0.04 < split_p_value(5_100, 4_900) < 0.05


def test_no_latencies_are_nought() -> None:
    assert set(latency_summary([]).values()) == {0.0}
    assert latency_histogram([]) == []


def test_latencies_are_summed_up_in_microseconds_by_nearest_rank() -> None:
    seconds = [number / 1e6 for number in range(100, 0, -1)]
    found = latency_summary(seconds)
    assert (found["min"], found["max"]) == (1.0, 100.0)
    assert [found[name] for name in ("p50", "p95", "p99")] == [50.0, 95.0, 99.0]
    assert found["mean"] == 50.5
    assert found["std_dev"] == pytest.approx(statistics.pstdev(range(1, 101)), abs=0.1)


def test_a_histogram_counts_each_latency_in_one_range() -> None:
    found = latency_histogram([1e-6, 2e-6, 2.1e-6, 20e-6, 1e6])
    assert sum(each["count"] for each in found) == 5
    assert found[:3] == [{"up_to_us": 1, "count": 1}, {"up_to_us": 2, "count": 1}, {"up_to_us": 5, "count": 1}]
    assert found[-1]["count"] == 1
