"""Tiers and kernels: the same states after ticks of compiled loops and of numpy, in any number of shards."""

from __future__ import annotations

from pathlib import Path

from tests.population.towns import specification, ticked, town


def test_kernels_and_shards_come_to_the_same_states(tmp_path: Path, compiled: Path) -> None:
    found = set()
    for kernel, shards in (("numba", 1), ("numpy", 2), ("numba", 24)):
        spec = specification(agents=2_500, tiers=True, kernel=kernel, shards=shards, seed=9)
        with town(tmp_path, spec, cache=compiled) as engine:
            ticked(engine, 5)
            found.add(engine.state_hash())
    assert len(found) == 1
