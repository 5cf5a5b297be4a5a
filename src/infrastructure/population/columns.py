"""The columns of a population: one array for each property, one row for each agent, in the order of their communities."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.models.population import GRID, GRID_BITS, PopulationSpecification
from infrastructure.population.arena import Arena, Layout
from infrastructure.population.randomness import Purpose, draw, key_of

__all__ = ["HIGH", "LOW", "NOBODY", "NORMAL", "Columns", "add_columns", "on_grid"]

HIGH, NORMAL, LOW = 0, 1, 2
NOBODY = 2**32 - 1
"""Stands in `peers` where nobody was heard yet."""

_PIECE = 1 << 24
_OPTIONAL = {"memory": np.uint8, "metrics": np.int64, "peers": np.uint32}


@dataclass(frozen=True, slots=True)
class Columns:
    """Views of the shared columns. A row that is not `alive` is free; `generation` counts who has had it.

    `opinion` has two buffers: that of tick t is the one at t % 2. Each `state` is so many bytes of the agent's own. `memory`, `metrics`
    and `peers` are as wide as was asked for, and no part of the population where that is 0.
    """

    id: NDArray[np.uint64]
    generation: NDArray[np.uint32]
    alive: NDArray[np.uint8]
    type: NDArray[np.uint16]
    priority: NDArray[np.uint8]
    opinion: NDArray[np.float64]
    bound: NDArray[np.float64]
    susceptibility: NDArray[np.float64]
    activity: NDArray[np.float64]
    state: NDArray[np.uint8]
    memory: NDArray[np.uint8]
    metrics: NDArray[np.int64]
    peers: NDArray[np.uint32]
    # Of all agents: how many rows were ever given out, which are free, and how many of those there are.
    born: NDArray[np.int64]
    free: NDArray[np.uint32]
    free_count: NDArray[np.int64]

    @classmethod
    def of(cls, arena: Arena) -> Columns:
        """The columns that lie in `arena`."""
        found = {field.name: arena[f"column.{field.name}"] for field in fields(cls) if field.name not in _OPTIONAL}
        rows = found["id"].shape[0]
        for name, kind in _OPTIONAL.items():
            there = f"column.{name}" in arena
            found[name] = arena[f"column.{name}"] if there else np.zeros((rows, 0), kind)
        return cls(**found)

    @property
    def rows(self) -> int:
        """How many rows there are, free ones included."""
        return int(self.id.shape[0])

    def at(self, tick: int) -> Iterator[tuple[str, NDArray[Any]]]:
        """All columns after `tick`, by name and in order."""
        for field in fields(self):
            column = getattr(self, field.name)
            if field.name not in _OPTIONAL or column.shape[1]:
                yield field.name, column[tick % 2] if field.name == "opinion" else column

    def state_hash(self, tick: int, *, beside: Iterable[tuple[str, NDArray[Any]]] = ()) -> str:
        """SHA-256 in hex over the SHA-256 of each 16 MiB of each column in agent order, with the columns' names and types.

        Columns `beside` these, of what is attached to the population, follow them.
        """
        pieces: list[tuple[str, memoryview]] = []
        for name, column in (*self.at(tick), *beside):
            flat = np.ascontiguousarray(column).reshape(-1).view(np.uint8).data
            label = f"{name} {column.dtype.str} {column.shape}"
            pieces += [
                (f"{label} {start}", flat[start : start + _PIECE]) for start in range(0, max(1, len(flat)), _PIECE)
            ]
        # The digests are made by the C library outside of the interpreter's lock.
        with ThreadPoolExecutor(2) as threads:
            digests = list(threads.map(lambda piece: hashlib.sha256(piece[1]).digest(), pieces))
        whole = hashlib.sha256()
        for (label, _), digest in zip(pieces, digests, strict=True):
            whole.update(label.encode() + b"\0" + digest)
        return whole.hexdigest()


def add_columns(layout: Layout, spec: PopulationSpecification) -> None:
    """Make room for the columns of that population."""
    rows = spec.agents
    for name, kind, shape in (
        ("id", np.uint64, (rows,)),
        ("generation", np.uint32, (rows,)),
        ("alive", np.uint8, (rows,)),
        ("type", np.uint16, (rows,)),
        ("priority", np.uint8, (rows,)),
        ("opinion", np.float64, (2, rows)),
        ("bound", np.float64, (rows,)),
        ("susceptibility", np.float64, (rows,)),
        ("activity", np.float64, (rows,)),
        # States that lie in tiers lie nowhere else.
        ("state", np.uint8, (rows, 0 if spec.tiers else spec.state_bytes)),
        ("born", np.int64, (1,)),
        ("free", np.uint32, (rows,)),
        ("free_count", np.int64, (1,)),
        ("memory", np.uint8, (rows, spec.memory_bytes)),
        ("metrics", np.int64, (rows, spec.metrics)),
        ("peers", np.uint32, (rows, spec.peers)),
    ):
        if name not in _OPTIONAL or shape[-1]:
            layout.add(f"column.{name}", kind, *shape)


def on_grid(opinions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Opinions in units of 1 / GRID, rounded half to even."""
    return np.rint(opinions * GRID).astype(np.int64)


def first_opinions(seed: int, ids: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Opinions uniform on 0-1 and on the grid, by the agents' ids."""
    bits = draw(key_of(seed, 0, Purpose.OPINION), ids) >> np.uint64(64 - GRID_BITS)
    return bits.astype(np.float64) * (1.0 / GRID)


def first_priorities(spec: PopulationSpecification, ids: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Priorities in the shares that the specification names, by the agents' ids."""
    percent = (draw(key_of(spec.seed, 0, Purpose.PRIORITY), ids) >> np.uint64(32)) * np.uint64(100) >> np.uint64(32)
    found = np.full(ids.shape, NORMAL, np.uint8)
    found[percent < np.uint64(spec.high_priority)] = HIGH
    found[percent >= np.uint64(100 - spec.low_priority)] = LOW
    return found
