"""Leave goes round: every API key and every batch has its turn, and within a batch who came first goes first."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from infrastructure.orchestrators.provider_limiter import ProviderLimiter
from infrastructure.stubs.virtual_time import run_in_virtual_time
from tests.unit.infrastructure.limited_calls import enter, limiter
from tests.virtual_time import pass_time


async def test_within_a_batch_it_is_first_come_first_served() -> None:
    one = limiter(concurrency=1)
    place = await enter(one)
    order: list[int] = []

    async def agent(number: int) -> None:
        mine = await enter(one)
        order.append(number)
        mine.leave(1)

    tasks = [asyncio.create_task(agent(number)) for number in range(10)]
    await pass_time(1)
    place.leave(1)
    await asyncio.gather(*tasks)
    assert order == list(range(10))


async def served(one: ProviderLimiter, sizes: dict[tuple[str, str], int]) -> list[tuple[str, str]]:
    """Whose calls got leave, in order, when all wait and one goes at a time."""
    place = await enter(one, group="first", batch="first")
    order: list[tuple[str, str]] = []

    async def agent(group: str, batch: str) -> None:
        mine = await enter(one, group=group, batch=batch)
        order.append((group, batch))
        mine.leave(1)

    tasks = [asyncio.create_task(agent(*whose)) for whose, size in sizes.items() for _ in range(size)]
    await pass_time(1)
    place.leave(1)
    await asyncio.gather(*tasks)
    return order


async def test_a_batch_of_three_is_not_stuck_behind_ten_of_72() -> None:
    sizes = {("key", f"large {n}"): 72 for n in range(10)} | {("key", "small"): 3}
    order = await served(limiter(concurrency=1), sizes)
    assert max(at for at, whose in enumerate(order) if whose[1] == "small") < 3 * 11


async def test_an_api_key_with_many_batches_gets_no_more_than_one_with_a_single_batch() -> None:
    sizes = {("greedy", f"batch {n}"): 10 for n in range(10)} | {("modest", "only"): 10}
    order = await served(limiter(concurrency=1), sizes)
    assert Counter(group for group, _ in order[:20]) == {"greedy": 10, "modest": 10}


@given(st.dictionaries(st.tuples(st.sampled_from("xyz"), st.sampled_from("abcd")), st.integers(1, 12), min_size=1))
@settings(max_examples=50, deadline=None)
def test_nobody_waits_for_more_than_one_turn_of_each_other_key_and_batch(sizes: dict[tuple[str, str], int]) -> None:
    order = run_in_virtual_time(served(limiter(concurrency=1), sizes))
    assert Counter(order) == sizes
    groups = len({group for group, _ in sizes})
    for group in {group for group, _ in sizes}:
        places = [at for at, (whose, _) in enumerate(order) if whose == group]
        assert all(after - before <= groups for before, after in pairwise(places))
        batches = sum(each == group for each, _ in sizes)
        turns = [batch for whose, batch in order if whose == group]
        for batch in set(turns):
            mine = [at for at, each in enumerate(turns) if each == batch]
            assert all(after - before <= batches for before, after in pairwise(mine))
