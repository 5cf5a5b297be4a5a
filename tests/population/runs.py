"""Runs of populations for tests: the use case over a real folder and a real engine, with ways to end it in the middle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from application.ports.population_engine import PopulationEngine
from application.ports.run_observer import NullRunObserver
from application.services.population.run_population import RunPopulation
from application.services.stop_signal import StopSignal
from domain.models.population import PopulationSpecification
from domain.models.run import JsonValue, RunEnding
from infrastructure.population.engines import open_engine as open_engine_of
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.population_folder import PopulationFolder

__all__ = ["Listener", "resumed", "run_in"]

Wrap = Callable[[PopulationEngine], PopulationEngine]


@dataclass
class Listener(NullRunObserver):
    """Remembers what it was told."""

    notes: list[tuple[str, Mapping[str, JsonValue]]] = field(default_factory=list)

    def note(self, type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002 - named as the field of an event
        """Remember it."""
        self.notes.append((type, data))


def _case(spec: PopulationSpecification, folder: PopulationFolder, cache: Path | None, wrap: Wrap) -> RunPopulation:
    def open_engine(tick: int) -> PopulationEngine:
        def local() -> PopulationEngine:
            return LocalEngine(spec, snapshots=folder.snapshots, tick=tick, cache=cache, folder=folder.folder)

        return wrap(open_engine_of(spec, local, snapshots=folder.snapshots, tick=tick, cache=cache))

    return RunPopulation(spec, open_engine=open_engine, record=folder, cores=2)


async def run_in(
    out: Path,
    spec: PopulationSpecification,
    *,
    cache: Path | None = None,
    stop: StopSignal | None = None,
    observer: Listener | None = None,
    wrap: Wrap = lambda engine: engine,
) -> RunEnding:
    """A new population in `out`; `wrap` may put something in the engine's place."""
    folder = PopulationFolder(out)
    try:
        folder.start(spec)
        return await _case(spec, folder, cache, wrap).run(observer or Listener(), stop or StopSignal())
    finally:
        folder.close()


async def resumed(
    out: Path, *, from_tick: int | None = None, cache: Path | None = None, wrap: Wrap = lambda engine: engine
) -> RunEnding:
    """What lies in `out`, taken to its end; `wrap` may put something in the engine's place."""
    folder = PopulationFolder(out, existing=True)
    try:
        spec, resumption = folder.specification, folder.rewind(from_tick)
        return await _case(spec, folder, cache, wrap).run(Listener(), StopSignal(), resumption=resumption)
    finally:
        folder.close()
