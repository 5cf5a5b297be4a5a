"""How a population begins: who knows whom, which shard has whom, and all agents in their rows."""

from __future__ import annotations

import time

from domain.models.population import PopulationSpecification
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.arena import Arena
from infrastructure.population.columns import Columns
from infrastructure.population.field import shards_of_blocks
from infrastructure.population.slab import Slab

__all__ = ["populate"]


def populate(arena: Arena, spec: PopulationSpecification, graph: Adjacency | None, *, shards: int) -> float:
    """Put the graph and the agents into an empty arena; seconds that the agents took."""
    if graph is not None:
        arena["graph.offsets"][:] = graph.offsets
        arena["graph.targets"][:] = graph.targets
    arena["shard.of_block"][:] = shards_of_blocks(spec, shards)
    slab = Slab(Columns.of(arena), spec)
    began = time.perf_counter()
    slab.open()
    slab.spawn(spec.begin_with or spec.agents)
    if spec.archetypes:
        slab.seed()
    return time.perf_counter() - began
