"""The parts of tiers by themselves: who is popular, what a state holds, how often it is hot, and how long things take."""

from __future__ import annotations

import numpy as np
import pytest

from domain.models.population import GRID, PopulationSpecification
from infrastructure.population.memory_plan import plan_memory
from infrastructure.population.tiers.access_times import AccessTimes
from infrastructure.population.tiers.hit_rates import rehearsed, uniform_hit_rate, zipf_hit_rate
from infrastructure.population.tiers.popularity import Popularity
from infrastructure.population.tiers.records import HEAD, digest_of, digests_of, noted

AGENTS = 20_000


def test_the_popular_are_drawn_as_often_as_zipf_says() -> None:
    drawn = np.concatenate([Popularity(agents=AGENTS, seed=3).ranks(tick, 50_000) for tick in range(1, 21)])
    weights = np.arange(1, AGENTS + 1) ** -1.2
    expected = weights / weights.sum()
    found = np.bincount(drawn, minlength=AGENTS) / drawn.size
    assert found[:10] == pytest.approx(expected[:10], rel=0.02)
    # The tail as a whole, in which hardly anybody is drawn twice.
    for beyond in (100, 1_000, 10_000):
        assert found[beyond:].sum() == pytest.approx(expected[beyond:].sum(), rel=0.02)


def test_every_rank_has_a_row_of_its_own_and_another_seed_another_order() -> None:
    ranks = np.arange(AGENTS)
    rows = Popularity(agents=AGENTS, seed=3).rows(ranks)
    assert np.array_equal(np.sort(rows), ranks)
    assert not np.array_equal(rows, Popularity(agents=AGENTS, seed=4).rows(ranks))
    # The popular do not sit together.
    assert np.median(np.diff(np.sort(rows[:200]))) > 10


def test_the_same_tick_draws_the_same_and_another_others() -> None:
    popularity = Popularity(agents=AGENTS, seed=3)
    assert np.array_equal(popularity.ranks(5, 100), Popularity(agents=AGENTS, seed=3).ranks(5, 100))
    assert not np.array_equal(popularity.ranks(5, 100), popularity.ranks(6, 100))
    assert not np.array_equal(popularity.ranks(5, 100), popularity.ranks(5, 100, part=1))


def test_the_weights_of_ten_million_fit_their_words() -> None:
    # Ranks of the last agents are drawn, and none beyond them: no sum has gone round.
    ranks = Popularity(agents=10_000_000, seed=1).ranks(1, 2_000_000)
    assert 9_000_000 < int(ranks.max()) < 10_000_000
    assert int(ranks.min()) == 0


@pytest.mark.parametrize("agents", [1, 2, 3, 7])
def test_a_handful_of_agents_has_its_popular_ones_too(agents: int) -> None:
    popularity = Popularity(agents=agents, seed=1)
    rows = popularity.rows(popularity.ranks(1, 500))
    assert set(rows.tolist()) == set(range(agents))


def test_a_state_counts_visits_and_keeps_the_last_opinions() -> None:
    words = np.zeros((2, 32), np.int64)
    ids = np.array([4, 9], np.uint64)
    for tick in range(1, 41):
        words = noted(words, ids=ids, visits=np.array([1, 3]), opinions=np.array([tick, tick * GRID // 50]), tick=tick)
    assert words[:, :HEAD].tolist() == [
        [4, 40, 40, 40, 40, sum(range(1, 41))],
        [9, 40, 120, 40, 40 * GRID // 50, sum(tick * GRID // 50 for tick in range(1, 41))],
    ]
    # Twenty-six have room; the 27th took the place of the first.
    assert sorted(words[0, HEAD:].tolist()) == list(range(15, 41))


def test_who_takes_a_row_over_begins_with_nothing_of_who_left() -> None:
    words = noted(
        np.zeros((1, 32), np.int64), ids=np.array([4], np.uint64), visits=np.array([5]), opinions=np.array([7]), tick=1
    )
    after = noted(words, ids=np.array([8], np.uint64), visits=np.array([1]), opinions=np.array([2]), tick=2)
    assert after[0, :HEAD].tolist() == [8, 2, 1, 2, 2, 2]
    assert np.count_nonzero(after[0, HEAD:]) == 1


def test_a_digest_changes_with_every_bit_and_with_the_order() -> None:
    words = np.arange(1, 33, dtype=np.int64).reshape(1, 32) * 1_000_003
    state = words.tobytes()
    digest = int(digests_of(words)[0])
    assert digest == digest_of(state)
    for bit in range(0, len(state) * 8, 37):
        other = bytearray(state)
        other[bit // 8] ^= 1 << bit % 8
        assert digest_of(bytes(other)) != digest
    assert digest_of(words[:, ::-1].tobytes()) != digest


def test_a_tenth_that_is_hot_answers_most_of_what_is_asked_for_and_a_tenth_where_nobody_is_popular() -> None:
    popularity = Popularity(agents=100_000, seed=2)
    # No choice of a tenth can do better than 94.3 % here, and the most popular tenth would be that choice.
    assert 0.915 < zipf_hit_rate(popularity, agents=100_000, slots=10_000, draws=400_000) < 0.943
    # A tenth, and a little more: what one batch asks for twice is there the second time.
    assert 0.1 < uniform_hit_rate(agents=100_000, slots=10_000, seed=2) < 0.11


def test_a_rehearsal_leaves_both_tiers_full_and_nobody_in_two_of_them() -> None:
    hot, warm = rehearsed(Popularity(agents=5_000, seed=2), agents=5_000, slots=(500, 1_000))
    assert np.all(hot.key_at >= 0)
    assert not set(hot.key_at.tolist()) & set(warm.key_at[warm.key_at >= 0].tolist())
    # Who is most popular is hot.
    assert np.all(hot.place_of[:50] >= 0)


def test_percentiles_are_those_of_what_was_counted() -> None:
    times = AccessTimes()
    assert times.latency().p50 is None
    times.add(np.full(98, 10e-6))
    times.add(np.full(1, 5e-3), times=2)
    assert times.count == 100
    latency = times.latency()
    assert latency.p50 == pytest.approx(10, rel=0.13)
    assert latency.p99 == pytest.approx(5_000, rel=0.13)


def test_the_plan_counts_the_tiers_in_place_of_the_column() -> None:
    given = {"agents": 100_000, "state_bytes": 4_096}
    plain, tiered = (
        plan_memory(PopulationSpecification(**given, tiers=tiers), shards=2, workers=2, batch=4_000).needed_bytes  # type: ignore[arg-type]
        for tiers in (False, True)
    )
    columns = 100_000 * 4_096
    # A tenth hot, a fifth warm at the most, and what says where each state is.
    assert plain - columns + 0.3 * columns < tiered < plain - columns + 0.4 * columns
