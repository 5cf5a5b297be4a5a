"""The pool of agent slots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors.agent import AgentAlreadyActiveError, AgentPoolExhaustedError
from domain.models.agent_pool import MAX_CONCURRENT_AGENTS, AgentPool


def test_a_fresh_pool_has_seventy_two_free_slots() -> None:
    pool = AgentPool()
    assert (MAX_CONCURRENT_AGENTS, pool.active_count, pool.available_count, pool.is_exhausted) == (72, 0, 72, False)


def test_a_pool_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        AgentPool(max_concurrent=0)


def test_acquiring_takes_a_slot_and_releasing_gives_it_back() -> None:
    pool = AgentPool(max_concurrent=2)
    pool.acquire("archon-1", "batch")
    assert (pool.active_count, pool.available_count, pool.active_agents) == (1, 1, frozenset({"archon-1"}))
    assert pool.release("archon-1", "batch")
    assert pool.active_count == 0


def test_the_same_agent_twice_in_one_batch_is_refused_not_merged() -> None:
    pool = AgentPool()
    pool.acquire("archon-1", "batch")
    with pytest.raises(AgentAlreadyActiveError) as refused:
        pool.acquire("archon-1", "batch")
    assert (refused.value.agent_id, refused.value.batch_id, pool.active_count) == ("archon-1", "batch", 1)


def test_the_same_agent_in_two_batches_holds_two_slots() -> None:
    pool = AgentPool()
    pool.acquire("archon-1", "a")
    pool.acquire("archon-1", "b")
    pool.release("archon-1", "a")
    assert pool.active_count == 1
    assert pool.is_active("archon-1", "b")


def test_a_full_pool_refuses_and_says_how_full_it_is() -> None:
    pool = AgentPool(max_concurrent=1)
    pool.acquire("archon-1")
    with pytest.raises(AgentPoolExhaustedError) as refused:
        pool.acquire("archon-2")
    assert (refused.value.requested, refused.value.available, refused.value.capacity) == (1, 0, 1)
    assert pool.is_exhausted


def test_releasing_what_is_not_held_changes_nothing() -> None:
    pool = AgentPool()
    pool.acquire("archon-1", "a")
    assert not pool.release("archon-1", "b")
    assert pool.active_count == 1


def test_a_batch_gets_all_its_slots_or_none() -> None:
    pool = AgentPool(max_concurrent=3)
    pool.acquire("archon-0", "other")
    refused = pool.try_acquire_batch(["archon-1", "archon-2", "archon-3"], "batch")
    assert not refused
    assert refused.reason == "3 slots wanted, 2 free (FR10)"
    assert pool.active_count == 1
    assert pool.try_acquire_batch(["archon-1", "archon-2"], "batch")
    assert pool.is_exhausted


def test_a_batch_that_names_an_agent_twice_gets_nothing() -> None:
    pool = AgentPool()
    assert not pool.try_acquire_batch(["archon-1", "archon-1"], "batch").acquired
    assert pool.active_count == 0


def test_a_batch_with_an_active_agent_gets_nothing() -> None:
    pool = AgentPool()
    pool.acquire("archon-1", "batch")
    assert not pool.try_acquire_batch(["archon-1", "archon-2"], "batch").acquired
    assert pool.active_count == 1


def test_releasing_a_batch_counts_what_was_held() -> None:
    pool = AgentPool()
    pool.try_acquire_batch(["archon-1", "archon-2"], "batch")
    assert pool.release_batch(["archon-1", "archon-2", "archon-3"], "batch") == 2
    assert pool.active_count == 0


def test_listeners_hear_of_each_release_and_of_nothing_else() -> None:
    pool = AgentPool()
    heard: list[int] = []
    pool.on_release(lambda: heard.append(pool.active_count))
    pool.acquire("archon-1")
    pool.acquire("archon-2")
    pool.release("archon-1")
    pool.release("archon-1")
    assert heard == [1]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.integers(0, 5)), max_size=60))
def test_active_and_available_always_sum_to_the_capacity(steps: list[tuple[bool, str, int]]) -> None:
    pool = AgentPool(max_concurrent=4)
    held: set[tuple[str, str]] = set()
    for takes, batch, number in steps:
        agent = f"archon-{number}"
        if not takes:
            assert pool.release(agent, batch) == ((batch, agent) in held)
            held.discard((batch, agent))
        elif (batch, agent) in held:
            with pytest.raises(AgentAlreadyActiveError):
                pool.acquire(agent, batch)
        elif len(held) == 4:
            with pytest.raises(AgentPoolExhaustedError):
                pool.acquire(agent, batch)
        else:
            pool.acquire(agent, batch)
            held.add((batch, agent))
        assert (pool.active_count, pool.available_count) == (len(held), 4 - len(held))
