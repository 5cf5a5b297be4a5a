"""How much is chance: intervals over populations that differ by their seed alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from application.services.population.intervals import LEVEL, RESAMPLES, replicates_document


def reports(means: Sequence[float | None]) -> list[dict[str, Any]]:
    return [
        {
            "seed": seed,
            "state_hash": f"{seed}",
            "groups": {"final": 2},
            "subgroups": [{"answer": "yes", "final": {"share": 0.5, "mean": mean}}],
            "opinions": {
                "final": {
                    "mean": mean or 0.0,
                    "variance": (mean or 0.0) / 10,
                    "communities": [{"name": "a", "answer": "yes", "mean": mean or 0.0}],
                }
            },
        }
        for seed, mean in enumerate(means)
    ]


def test_an_interval_lies_around_the_mean_over_seeds() -> None:
    found: Any = replicates_document(reports([0.4, 0.5, 0.6, 0.7]), planned=4)
    mean = found["mean"]
    assert mean["value"] == pytest.approx(0.55)
    assert 0.4 <= mean["low"] < mean["value"] < mean["high"] <= 0.7
    assert found["variance"]["low"] == pytest.approx(mean["low"] / 10)
    assert found["answers"][0]["mean"] == mean
    assert found["communities"][0]["mean"] == mean
    assert (found["level"], found["resamples"], found["done"], found["planned"]) == (LEVEL, RESAMPLES, 4, 4)
    assert [run["seed"] for run in found["runs"]] == [0, 1, 2, 3]


def test_the_same_seeds_give_the_same_intervals() -> None:
    values = [0.1, 0.9, 0.4]
    assert replicates_document(reports(values), planned=3) == replicates_document(reports(values), planned=3)


def test_what_comes_out_the_same_every_time_is_no_chance() -> None:
    found: Any = replicates_document(reports([0.3] * 5), planned=5)
    assert found["mean"]["low"] == found["mean"]["high"] == pytest.approx(0.3)
    assert found["groups"] == {"value": 2.0, "low": 2.0, "high": 2.0}


def test_one_seed_says_nothing_about_chance() -> None:
    found: Any = replicates_document(reports([0.3]), planned=3)
    assert found["mean"] == {"value": 0.3, "low": None, "high": None}
    assert (found["done"], found["planned"]) == (1, 3)
    empty: Any = replicates_document([], planned=3)
    assert empty["mean"] == {"value": None, "low": None, "high": None}


def test_a_subgroup_that_nobody_is_left_in_has_no_interval() -> None:
    found: Any = replicates_document(reports([0.3, None]), planned=2)
    assert found["answers"][0]["mean"] == {"value": None, "low": None, "high": None}


def test_nearly_all_intervals_hold_the_mean_that_was_drawn_from() -> None:
    source = random.Random(5)
    held = 0
    for _ in range(60):
        found: Any = replicates_document(reports([source.gauss(0.5, 0.1) for _ in range(30)]), planned=30)
        held += found["mean"]["low"] <= 0.5 <= found["mean"]["high"]
    # Percentile intervals of thirty are a little short; three standard deviations below what they promise.
    assert held >= 60 * (LEVEL - 0.02) - 3 * math.sqrt(60 * LEVEL * (1 - LEVEL))
