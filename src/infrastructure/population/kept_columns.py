"""The columns of a population as its last snapshot has them, for whoever reads them in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors.population import DamagedRecordError, PopulationFolderError
from domain.models.population import PopulationSpecification
from infrastructure.population.arena import Arena, Layout
from infrastructure.population.columns import Columns, add_columns
from infrastructure.population.population_about import specification_in
from infrastructure.population.slab import Slab
from infrastructure.population.snapshots import DamagedSnapshotError, Snapshots

__all__ = ["KeptColumns", "Named", "columns_in"]

_PLAIN = ("id", "generation", "alive", "type", "priority", "bound", "susceptibility", "activity")
_BYTES = frozenset({"state", "memory"})
_OF_THE_WHOLE = frozenset({"born", "free", "free_count"})
_CHUNK = 1 << 18
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Named:
    """A column of words: for each row the place of its word in `words`, 0 for none."""

    places: NDArray[Any]
    words: Sequence[str]


@dataclass(frozen=True, slots=True)
class KeptColumns:
    """All rows after `tick`, by the names of the columns and in their order; free rows are those that are not `alive`."""

    specification: PopulationSpecification
    tick: int
    columns: Mapping[str, NDArray[Any] | Named]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.specification.agents

    def chunks(self) -> Iterator[dict[str, NDArray[Any] | Named]]:
        """The rows in pieces, one after the other."""
        for start in range(0, self.rows, _CHUNK):
            part = slice(start, min(start + _CHUNK, self.rows))
            yield {
                name: Named(column.places[part], column.words) if isinstance(column, Named) else column[part]
                for name, column in self.columns.items()
            }


def columns_in(folder: Path, *, tick: int | None = None, with_bytes: bool = False) -> KeptColumns:
    """The columns after that tick, or after that of the last snapshot; before the first snapshot as they began.

    What a snapshot leaves out since it can be computed is computed. Agents' own bytes come along `with_bytes` alone. Reads beside a process
    that runs the population. Raises `PopulationFolderError` and `DamagedRecordError`.
    """
    spec = specification_in(folder)
    snapshots = Snapshots(folder / "snapshots")
    found, at = _snapshot(snapshots, folder, tick)
    begun = _beginning(spec)
    known: dict[str, NDArray[Any]] = {name: found.get(name, getattr(begun, name)) for name in _PLAIN}
    known["opinion"] = found.get("opinion", begun.opinion[0])
    first = begun.opinion[0].copy()
    # Whoever came later began with another opinion than the row's first agent.
    first[(known["generation"] != 1) | (begun.generation != 1)] = np.nan
    known["first_opinion"] = first
    for name, column in found.items():
        beside = name not in known and name not in _OF_THE_WHOLE and column.shape[:1] == (spec.agents,)
        if beside and (with_bytes or name not in _BYTES):
            known[name.replace(".", "_")] = column
    columns: dict[str, NDArray[Any] | Named] = {"row": np.arange(spec.agents, dtype=np.uint32)}
    columns |= known
    columns["alive"] = known["alive"].astype(np.bool_)
    if spec.archetypes:
        columns["community"] = Named(known["type"], ["", *(one.name for one in spec.archetypes)])
        columns["began_with"] = Named(known["type"], ["", *(one.answer for one in spec.archetypes)])
    columns["simulated"] = np.ones(spec.agents, np.bool_)
    return KeptColumns(spec, at, columns)


def _snapshot(snapshots: Snapshots, folder: Path, tick: int | None) -> tuple[dict[str, NDArray[Any]], int]:
    problem = "is not there"
    for _ in range(_LOOKS):
        known = snapshots.ticks()
        at = tick if tick is not None else max(known, default=0)
        if not at:
            return {}, 0
        try:
            return snapshots.read(at), at
        except DamagedSnapshotError as error:
            problem = str(error)
            # A run that goes on has let go of it meanwhile, and has a later one.
            if tick is not None or at in snapshots.ticks():
                break
    if tick is not None and tick not in known:
        named = ", ".join(map(str, known)) or "none"
        raise PopulationFolderError(
            folder=str(folder), problem=f"has no snapshot of tick {tick}", remedy=f"There are those of: {named}."
        )
    good = snapshots.last_good(one for one in known if one < at)
    raise DamagedRecordError(path=str(snapshots.path(at)), problem=problem, last_good_tick=good)


def _beginning(spec: PopulationSpecification) -> Columns:
    """As everybody began, without the bytes that are nobody's yet."""
    layout = Layout()
    add_columns(layout, replace(spec, state_bytes=256, memory_bytes=0, metrics=0, peers=0))
    columns = Columns.of(Arena(layout, shared=False))
    slab = Slab(columns, spec)
    slab.open()
    slab.spawn(spec.begin_with or spec.agents)
    if spec.archetypes:
        slab.seed()
    return columns
