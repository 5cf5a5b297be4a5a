"""What takes part in a population's ticks beside its columns: tiers of state, inference, thinking agents, rows of other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from application.ports.message_bus import MessageBus
from application.ports.population_engine import Access
from domain.models.population import PopulationSpecification
from domain.models.run import JsonValue
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.columns import Columns
from infrastructure.population.mover import Mover
from infrastructure.population.slab import Slab
from infrastructure.population.thinking.minds import Minds

__all__ = ["Attachment", "Host"]


@dataclass(frozen=True, slots=True)
class Host:
    """The population that something is attached to; `folder` is where it may keep files, None where nothing is written."""

    spec: PopulationSpecification
    columns: Columns
    slab: Slab
    graph: Adjacency | None
    kernel: str
    folder: Path | None
    # Whatever changes opinions does it through this.
    mover: Mover | None = None
    # What may be asked for opinions: models, rosters, functions.
    minds: Minds | None = None
    # The bus over which others speak for rows, and which community blocks rest, None where none ever does.
    open_bus: Callable[[], MessageBus] | None = None
    rest: NDArray[np.uint8] | None = None


class Attachment(Protocol):
    """Takes its turn once a tick, when all agents have been stepped; all calls come one after the other.

    What it does to the columns depends on the specification, the tick and the columns alone, so that a resumed population, another
    number of shards and another kernel come to the same `state_hash`.
    """

    @property
    def name(self) -> str:
        """Its key in the report and the beginning of its columns' names."""
        ...

    @property
    def access(self) -> Access | None:
        """How fast states are reached, where it is what keeps them."""
        ...

    def after_tick(self, tick: int) -> bool:
        """Take part in `tick`, whose opinions are those of `columns.opinion[tick % 2]`; whether rows beside opinions were changed."""
        ...

    def columns(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """What of it belongs to the state of the population: hashed, kept in each snapshot, by name and in order."""
        ...

    def restore(self, found: Mapping[str, NDArray[Any]], tick: int) -> None:
        """Begin with these columns after `tick`. Raises `KeyError` or `ValueError` where they are not its own."""
        ...

    def document(self) -> Mapping[str, JsonValue]:
        """What it measured and did, for the report."""
        ...

    def close(self) -> None:
        """Let go of everything; may be called at any moment, and twice."""
        ...
