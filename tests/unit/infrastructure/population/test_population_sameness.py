"""What must not matter: shards, workers and kernels. And what must hold on every tick: nothing is lost."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.models.population import BEHAVIOURS, GRAPHS, GRID, PopulationSpecification
from infrastructure.population.balance import Move, move_for
from tests.population.towns import opinions_of, specification, ticked, town

KERNELS = ("numba", "numpy")


def _hash_after(spec: PopulationSpecification, cache: Path, *, ticks: int = 4) -> str:
    with tempfile.TemporaryDirectory() as folder, town(Path(folder), spec, cache=cache) as engine:
        ticked(engine, ticks)
        return engine.state_hash()


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_kernels_and_shards_come_to_the_same_columns(behaviour: str, graph: str, compiled: Path) -> None:
    given = {"behaviour": behaviour, "graph": graph, "agents": 1_250, "seed": 11, "bound": 0.3}
    found = {
        _hash_after(specification(**given, kernel=kernel, shards=shards), compiled)
        for kernel, shards in (("numba", 1), ("numba", 2), ("numba", 24), ("numpy", 7), ("numpy", 24))
    }
    assert len(found) == 1


specifications: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "agents": st.integers(10, 700),
        "behaviour": st.sampled_from(BEHAVIOURS),
        "graph": st.sampled_from(GRAPHS),
        "degree": st.integers(1, 9),
        "messages": st.integers(1, 4),
        "activity": st.sampled_from((0.0, 0.4, 1.0)),
        "high_priority": st.sampled_from((0, 30)),
        "low_priority": st.sampled_from((0, 20)),
        "bound": st.floats(0, 1),
        "seed": st.integers(0, 2**63 - 1),
    }
)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(specifications)
def test_whatever_the_population_its_shards_and_kernel_do_not_matter(compiled: Path, found: dict[str, Any]) -> None:
    hashes = {
        _hash_after(specification(**found, kernel=kernel, shards=shards), compiled, ticks=3)
        for kernel, shards in (("numpy", 1), ("numba", 2), ("numpy", 7), ("numba", 24))
    }
    assert len(hashes) == 1


@settings(max_examples=10, deadline=None, derandomize=True)
@given(specifications, st.sampled_from(KERNELS), st.integers(0, 100))
def test_every_message_is_delivered_or_has_expired(
    compiled: Path, found: dict[str, Any], kernel: str, retired: int
) -> None:
    spec = specification(**found, kernel=kernel, shards=5)
    with tempfile.TemporaryDirectory() as folder, town(Path(folder), spec, cache=compiled) as engine:
        everybody = spec.activity == 1.0 and spec.graph in {"random", "mixed"} and spec.degree % 2 == 0
        for outcome in ticked(engine, 2):
            assert outcome.sent == outcome.delivered + outcome.expired + outcome.refused
            assert not outcome.expired
            assert outcome.sent == spec.agents * spec.messages or not everybody
        leavers = np.arange(spec.agents, dtype=np.uint32)[: spec.agents * retired // 100]
        engine.slab.retire(leavers)
        engine.refresh()
        for outcome in ticked(engine, 2):
            assert outcome.sent == outcome.delivered + outcome.expired + outcome.refused
            assert outcome.alive == spec.agents - leavers.size
            assert not outcome.expired or leavers.size
        # Of the last tick, as the opinions are.
        assert outcome.opinion_sum == int((opinions_of(engine)[leavers.size :] * GRID).sum())


def test_messages_to_who_has_left_expire_and_who_came_instead_is_heard(tmp_path: Path, compiled: Path) -> None:
    for kernel in KERNELS:
        with town(tmp_path, specification(kernel=kernel), cache=compiled) as engine:
            left = np.arange(100, dtype=np.uint32)
            engine.slab.retire(left)
            engine.refresh()
            (gone,) = ticked(engine, 1)
            rows = engine.slab.spawn(100, tick=1)
            engine.refresh()
            (back,) = ticked(engine, 1)

            assert gone.expired
            assert gone.sent == 200
            assert not back.expired
            assert back.delivered == 300
            assert sorted(rows) == list(left)
            assert np.all(engine.columns.generation[left] == 2)
            assert np.array_equal(np.sort(engine.columns.id[left]), np.arange(300, 400))


def test_processes_come_to_the_same_columns_as_threads(tmp_path: Path, compiled: Path) -> None:
    spec = {"agents": 900, "graph": "communities", "seed": 4, "shards": 7}
    threads = _hash_after(specification(**spec, workers="threads"), compiled)
    with town(tmp_path, specification(**spec, workers="processes")) as engine:
        assert engine.facts.workers == "processes"
        ticked(engine, 4)
        assert engine.state_hash() == threads


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_agents_that_move_to_another_shard_are_not_missed(tmp_path: Path, workers: str) -> None:
    spec = specification(agents=2_000, shards=5, workers=workers, graph="communities", seed=8)
    with town(tmp_path / "still", spec) as still, town(tmp_path / "moved", spec) as moved:
        ticked(still, 6)
        ticked(moved, 2)
        for shard in (0, 3):
            moved.migrate(Move(np.arange(shard, 15, 3), shard))
            ticked(moved, 2)
        assert moved.measures().migrated_agents == 900
        assert moved.state_hash() == still.state_hash()


def test_the_slowest_worker_gives_blocks_to_the_fastest() -> None:
    block_shard = np.array([0] * 40 + [1] * 40 + [2] * 20, np.uint16)
    move = move_for(block_shard, np.array([30.0, 10.0]), shards=3)
    assert move is not None
    # Worker 0 has the shards 0 and 2, worker 1 the shard 1; a tenth of 60 blocks is moved.
    assert move.blocks.tolist() == list(range(34, 40))
    assert move.shard == 1
    assert move_for(block_shard, np.array([11.0, 10.0]), shards=3) is None
    assert move_for(block_shard, np.array([11.0]), shards=3) is None


def test_another_seed_is_another_population(compiled: Path) -> None:
    assert len({_hash_after(specification(seed=seed), compiled) for seed in range(5)}) == 5


def test_full_rings_hold_messages_up_and_lose_none(tmp_path: Path) -> None:
    # Everybody speaks to one agent, so that one shard is sent everything.
    star = tmp_path / "star.txt"
    star.write_text("\n".join(f"0 {other}" for other in range(1, 3_000)))
    spec = specification(agents=3_000, graph=str(star), messages=40, shards=24, bound=1.0)
    with town(tmp_path, spec) as engine:
        (outcome,) = ticked(engine, 1)
    assert outcome.delivered == outcome.sent == 120_000
