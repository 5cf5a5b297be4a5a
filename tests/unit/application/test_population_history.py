"""How often the opinions of a population are sampled: enough to draw, and never too often."""

from __future__ import annotations

from itertools import pairwise

import pytest

from application.ports.population_engine import CommunitySummary, OpinionSummary
from application.ports.population_record import Sample
from application.services.population.history import MAX_SAMPLES, OpinionHistory

OPINIONS = OpinionSummary(0.5, 0.1, [1] * 100, [CommunitySummary("a", "yes", 10, 0.25, 0.0)])


def sampled(history: OpinionHistory, ticks: range, *, cost: float = 0.0) -> int:
    """How many samples were taken in these ticks, a second each."""
    taken = 0
    for tick in ticks:
        if history.due(tick, float(tick)):
            history.add(tick, OPINIONS, resident_bytes=7, began=float(tick), ended=tick + cost)
            taken += 1
    return taken


def test_a_short_population_is_sampled_at_every_tick() -> None:
    history = OpinionHistory()
    assert sampled(history, range(101)) == 101
    assert [sample.tick for sample in history.samples] == list(range(101))


@pytest.mark.parametrize("ticks", [199, 200, 201, 1_000, 100_000])
def test_however_long_it_runs_there_are_at_most_two_hundred_samples(ticks: int) -> None:
    history = OpinionHistory()
    taken = sampled(history, range(ticks + 1))
    gaps = {late.tick - early.tick for early, late in pairwise(history.samples)}
    assert min(ticks + 1, MAX_SAMPLES // 2) <= len(history.samples) <= MAX_SAMPLES
    assert history.samples[0].tick == 0
    assert max(gaps) <= max(1, 2 * ticks // (MAX_SAMPLES // 2))
    assert taken <= MAX_SAMPLES + 100 * ticks.bit_length()


def test_thinned_samples_are_to_be_written_anew() -> None:
    history = OpinionHistory()
    thinned = [history.add(tick, OPINIONS, resident_bytes=0, began=0.0, ended=0.0) for tick in range(MAX_SAMPLES + 2)]
    assert [tick for tick, wrote in enumerate(thinned) if wrote] == [MAX_SAMPLES]
    assert [sample.tick for sample in history.samples[:3]] == [0, 2, 4]


def test_a_sample_that_took_long_is_not_followed_before_twenty_times_that() -> None:
    history = OpinionHistory()
    taken = sampled(history, range(101), cost=0.5)
    assert taken == 10
    assert [sample.tick for sample in history.samples[:2]] == [0, 11]


def test_a_history_goes_on_as_far_apart_as_before() -> None:
    whole, first = OpinionHistory(), OpinionHistory()
    sampled(whole, range(1_000))
    sampled(first, range(500))
    second = OpinionHistory([Sample.from_document(sample.document()) for sample in first.samples])
    sampled(second, range(500, 1_000))
    assert [sample.tick for sample in second.samples] == [sample.tick for sample in whole.samples]


@pytest.mark.parametrize(
    "wrong", [{"tick": -1}, {"stride": 0}, {"histogram": []}, {"histogram": None}, {"mean": "x"}, {"communities": 3}]
)
def test_what_is_no_sample_is_refused(wrong: dict[str, object]) -> None:
    sample = Sample(3, 1, 0.5, 0.1, (1, 2), (0.25,), 7)
    assert Sample.from_document(sample.document()) == sample
    with pytest.raises((TypeError, ValueError)):
        Sample.from_document({**sample.document(), **wrong})
