"""Small populations for tests: an engine in a folder of the test's, taken through its ticks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from application.ports.population_engine import TickOutcome
from domain.models.population import PopulationSpecification
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.snapshots import Snapshots

__all__ = ["opinions_after", "opinions_of", "specification", "ticked", "town"]


def specification(**given: Any) -> PopulationSpecification:
    """A small one; what is named differs."""
    return PopulationSpecification(**{"agents": 300, "ticks": 10, "shards": 2, "kernel": "numpy", **given})


@contextmanager
def town(folder: Path, spec: PopulationSpecification, *, cache: Path | None = None) -> Iterator[LocalEngine]:
    """An open engine."""
    engine = LocalEngine(spec, snapshots=Snapshots(folder / "snapshots"), cache=cache)
    try:
        yield engine
    finally:
        engine.close()


def ticked(engine: LocalEngine, ticks: int) -> list[TickOutcome]:
    """What the next ticks came to."""
    first = engine.ticks_taken + 1
    return [engine.tick(number) for number in range(first, first + ticks)]


def opinions_of(engine: LocalEngine) -> NDArray[np.float64]:
    """All opinions now."""
    found: NDArray[np.float64] = engine.columns.opinion[engine.ticks_taken % 2].copy()
    return found


def opinions_after(
    folder: Path, spec: PopulationSpecification, ticks: int, *, begin: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """All opinions after so many ticks in one shard, which began with `begin` where it is given."""
    with town(folder, replace(spec, shards=1)) as engine:
        if begin is not None:
            engine.columns.opinion[0][:] = begin
            engine.refresh()
        ticked(engine, ticks)
        return opinions_of(engine)
