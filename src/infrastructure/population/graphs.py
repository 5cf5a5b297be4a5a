"""The graphs that populations know each other by, made from a seed with whole arrays at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.models.population import LOCALITY, PopulationSpecification
from infrastructure.population.adjacency import Adjacency, both_ways
from infrastructure.population.edge_file import read_edges
from infrastructure.population.randomness import Purpose, draw, key_of, pairing_of, pairs_in_order, partners_of

__all__ = ["REWIRED", "WITHIN", "graph_of"]

REWIRED = 0.1
"""The share of edges of a small world that lead anywhere."""

WITHIN = 0.9
"""The share of edges that stay in the community, where there are communities."""


def graph_of(spec: PopulationSpecification) -> Adjacency | None:
    """The graph of that population, None for `mixed`, in which everybody meets a fresh partner each tick.

    Raises `EdgeFileError`.
    """
    if spec.edge_file is not None:
        return both_ways(spec.agents, *read_edges(spec.edge_file, spec.agents))
    makers = {
        "random": _random,
        "small_world": _small_world,
        "scale_free": _scale_free,
        "communities": _communities,
    }
    maker = makers.get(spec.graph)
    return maker(spec) if maker else None


def _key(spec: PopulationSpecification, part: int) -> int:
    return key_of(spec.seed, 0, Purpose.GRAPH, part)


def _random(spec: PopulationSpecification) -> Adjacency:
    """Everybody has exactly `degree` neighbours: those beside it in degree / 2 random circles through all agents, and for an odd
    degree a random partner. Connected, and no agent knows itself (union of Hamilton cycles; Wormald, 1999).
    """
    rows, degree = spec.agents, spec.degree
    targets = np.empty((rows, degree), np.uint32)
    for circle in range(degree // 2):
        order = pairs_in_order(pairing_of(_key(spec, circle), rows)).astype(np.uint32)
        targets[order, 2 * circle] = np.roll(order, -1)
        targets[order, 2 * circle + 1] = np.roll(order, 1)
    if degree % 2:
        numbers = np.arange(rows, dtype=np.uint64)
        partners = partners_of(pairing_of(_key(spec, degree), rows), numbers)
        # Of an odd number of agents one has no partner: it goes without that neighbour.
        if rows % 2:
            ends = numbers < partners
            one = _pairs(targets[:, : degree - 1])
            return both_ways(
                rows,
                np.concatenate([one[0], numbers[ends].astype(np.uint32)]),
                np.concatenate([one[1], partners[ends].astype(np.uint32)]),
            )
        targets[:, degree - 1] = partners
    return Adjacency(np.arange(rows + 1, dtype=np.int64) * degree, targets.reshape(-1))


def _pairs(targets: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    forward = targets[:, ::2]
    return np.repeat(np.arange(len(targets), dtype=np.uint32), forward.shape[1]), forward.reshape(-1)


def _small_world(spec: PopulationSpecification) -> Adjacency:
    """A ring in which everybody knows the degree / 2 next on either side, and a tenth of the edges lead anywhere (Watts and
    Strogatz, 1998).
    """
    rows, half = spec.agents, _half(spec)
    ends = np.repeat(np.arange(rows, dtype=np.uint32), half)
    steps = np.tile(np.arange(1, half + 1, dtype=np.uint32), rows)
    others = ((ends.astype(np.uint64) + steps) % np.uint64(rows)).astype(np.uint32)
    edges = np.arange(ends.size, dtype=np.uint64)
    rewired = _below(draw(_key(spec, 0), edges), REWIRED)
    others[rewired] = _anybody_else(draw(_key(spec, 1), edges[rewired]), ends[rewired], rows)
    return both_ways(rows, ends, others)


def _scale_free(spec: PopulationSpecification) -> Adjacency:
    """Each agent joins degree / 2 earlier ones, with a chance that grows with how many they know (Barabasi and Albert, 1999), all
    at once: an edge copies one end of a random earlier edge, found by a hash (Sanders and Schulz, 2016).
    """
    rows, half = spec.agents, _half(spec)
    seats = np.arange(rows * half, dtype=np.uint64)
    # Place 2e is the agent whose edge e is, place 2e + 1 what it leads to: that of a random earlier place.
    places = _up_to(draw(_key(spec, 0), seats), 2 * seats + np.uint64(1))
    found = places.copy()
    open_ = np.flatnonzero(found & np.uint64(1))
    while open_.size:
        found[open_] = places[found[open_] >> np.uint64(1)]
        open_ = open_[(found[open_] & np.uint64(1)) == 1]
    ends = (seats // np.uint64(half)).astype(np.uint32)
    others = ((found >> np.uint64(1)) // np.uint64(half)).astype(np.uint32)
    return both_ways(rows, ends, others)


def _communities(spec: PopulationSpecification) -> Adjacency:
    """Nine of ten edges stay among the hundred agents of a community, the rest lead anywhere (planted partition)."""
    rows, half = spec.agents, _half(spec)
    ends = np.repeat(np.arange(rows, dtype=np.uint32), half)
    edges = np.arange(ends.size, dtype=np.uint64)
    first = (ends // LOCALITY) * np.uint32(LOCALITY)
    size = np.minimum(np.uint32(LOCALITY), np.uint32(rows) - first)
    draws = draw(_key(spec, 0), edges)
    others = first + _up_to(draws, size.astype(np.uint64)).astype(np.uint32)
    # Whoever would know itself, or lives alone, knows somebody elsewhere.
    away = ~_below(draw(_key(spec, 1), edges), WITHIN) | (others == ends)
    others[away] = _anybody_else(draw(_key(spec, 2), edges[away]), ends[away], rows)
    return both_ways(rows, ends, others)


def _half(spec: PopulationSpecification) -> int:
    return max(1, spec.degree // 2)


def _below(draws: NDArray[np.uint64], chance: float) -> NDArray[np.bool_]:
    return draws < np.uint64(int(chance * 2**64))


def _up_to(draws: NDArray[np.uint64], sizes: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """Numbers below `sizes`, which are below 2^32."""
    found: NDArray[np.uint64] = (draws >> np.uint64(32)) * sizes >> np.uint64(32)
    return found


def _anybody_else(draws: NDArray[np.uint64], ends: NDArray[np.uint32], rows: int) -> NDArray[np.uint32]:
    steps = _up_to(draws, np.uint64(max(1, rows - 1))) + np.uint64(1)
    return ((ends.astype(np.uint64) + steps) % np.uint64(rows)).astype(np.uint32)
