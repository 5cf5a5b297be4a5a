"""The kernel that is made of numpy: pieces of any size, rings that are nearly full, and the columns of the other kernel."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.models.population import BEHAVIOURS, GRID
from infrastructure.population import local_engine
from infrastructure.population.arena import Arena
from infrastructure.population.field import Behaviour, Count, Field, TickKeys, layout_of
from infrastructure.population.founding import populate
from infrastructure.population.graphs import graph_of
from infrastructure.population.numpy_kernel import NumpyKernel
from infrastructure.population.numpy_pieces import fitting, orders
from infrastructure.population.randomness import GOLDEN, draw, finish
from tests.population.towns import specification, ticked, town


def _hash_after(cache: Path, **given: Any) -> str:
    with tempfile.TemporaryDirectory() as folder, town(Path(folder), specification(**given), cache=cache) as engine:
        ticked(engine, 3)
        return engine.state_hash()


@pytest.mark.parametrize("agents", [1_000, 1_037, 1_050])
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_two_shards_come_to_the_columns_of_the_other_kernel(
    behaviour: str, agents: int, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pieces of so few messages go round in rings of as few, which are full again and again.
    monkeypatch.setattr(local_engine, "batch_of", lambda kernel: 200)
    given = {"behaviour": behaviour, "agents": agents, "seed": 5, "bound": 0.3, "shards": 2, "workers": "threads"}
    assert _hash_after(compiled, **given, kernel="numpy") == _hash_after(compiled, **given, kernel="numba")


def test_bounds_and_priorities_of_each_agent_come_to_the_columns_of_the_other_kernel(compiled: Path) -> None:
    found = set()
    for kernel in ("numpy", "numba"):
        spec = specification(agents=1_200, shards=2, kernel=kernel, high_priority=20, low_priority=30, seed=2)
        with tempfile.TemporaryDirectory() as folder, town(Path(folder), spec, cache=compiled) as engine:
            engine.columns.bound[:] = np.linspace(0, 0.5, 1_200)
            engine.columns.susceptibility[::2] = 0.25
            engine.refresh()
            ticked(engine, 3)
            found.add(engine.state_hash())
    assert len(found) == 1


def _kernel() -> tuple[NumpyKernel, Field]:
    """Worker 0 of two, in rings that hold 512 messages."""
    spec = specification(agents=2_000, shards=2, seed=3)
    graph = graph_of(spec)
    assert graph is not None
    arena = Arena(layout_of(spec, shards=2, workers=2, batch=200, edges=graph.targets.size), shared=False)
    populate(arena, spec, graph, shards=2)
    field = Field.of(arena, spec, Behaviour.BOUNDED_CONFIDENCE, worker=0, workers=2)
    kernel = NumpyKernel(field)
    kernel.refresh(0)
    kernel.begin(TickKeys.of(spec, 1))
    return kernel, field


def _sent(kernel: NumpyKernel, field: Field, start: int, stop: int) -> tuple[int, int]:
    position = np.zeros((field.lanes, field.shards), np.int64)
    place, sent = kernel.emit(0, start, stop, position)
    if sent:
        field.heads[:, 0, :] = position
    return place, sent


def test_nothing_is_sent_while_a_ring_is_nearly_full() -> None:
    kernel, field = _kernel()
    field.heads[0, 0, 1] = field.capacity - 100
    assert _sent(kernel, field, 0, 200) == (0, 0)
    field.tails[0, 1, 0] = field.capacity - 100
    assert _sent(kernel, field, 0, 200) == (200, 200)


def test_as_many_messages_are_sent_as_fit_in_their_order() -> None:
    kernel, field = _kernel()
    field.heads[0, 0, 1] = field.capacity - 130
    place, sent = _sent(kernel, field, 0, 700)
    assert 130 <= place == sent < 700
    assert field.heads[0, 0, 1] == field.capacity
    assert field.heads[0, 0, 0] == sent - 130


def test_a_piece_that_begins_amid_a_community_says_the_opinions_of_its_senders() -> None:
    kernel, field = _kernel()
    assert _sent(kernel, field, 37, 237) == (237, 200)
    for dest in (0, 1):
        ring = slice(dest * field.capacity, dest * field.capacity + int(field.heads[0, 0, dest]))
        senders = (field.who[ring] & np.uint64(2**32 - 1)).astype(np.int64)
        assert np.array_equal(field.values[ring] / GRID, field.columns.opinion[0][senders])


def test_what_went_round_in_a_ring_is_heard() -> None:
    kernel, field = _kernel()
    for start in range(0, 800, 200):
        assert _sent(kernel, field, start, start + 200) == (start + 200, 200)
        kernel.drain()
        field.tails[0, 1, 0] = field.heads[0, 0, 1]
    assert field.counts[0, Count.DELIVERED] == field.tails[0, 0, 0] == field.heads[0, 0, 0]
    assert field.heads[0, 0, 0] + field.heads[0, 0, 1] == 800


def test_every_micro_batch_is_counted_once_when_it_has_arrived() -> None:
    kernel, field = _kernel()
    for number in (1, 2, 3):
        _sent(kernel, field, 200 * number, 200 * number + 200)
        field.batch_times[0, number] = 1
        field.pair_batch[0] = number
        if number != 2:
            kernel.drain()
    assert field.latencies[0, 0].sum() == 3
    assert field.latencies[0, 1].sum() == 0


def test_each_bin_has_its_messages_in_their_order() -> None:
    key = np.array([1, 0, 1, 1, 0], np.uint8)
    assert [order.tolist() for order in orders(key, 2)] == [[1, 4], [0, 2, 3]]
    assert [order.tolist() for order in orders(key * 2, 3)] == [[1, 4], [], [0, 2, 3]]
    assert fitting(key, np.array([2, 3])) == 5
    assert fitting(key, np.array([2, 2])) == 3


def test_finished_counters_are_what_is_drawn() -> None:
    counters = np.arange(1_000, dtype=np.uint64)
    words = counters * np.uint64(GOLDEN) + np.uint64(12_345)
    finish(words)
    assert np.array_equal(words, draw(12_345, counters))
