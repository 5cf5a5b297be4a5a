"""A population from the settings: its folder, its engine and the use case over both."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from domain.models.deliberation import DeliberationStatus
from domain.models.run import JsonValue, RunEnding

if TYPE_CHECKING:
    from application.ports.population_engine import PopulationEngine
    from application.ports.population_record import Resumption
    from application.ports.run_observer import RunObserver
    from application.services.stop_signal import StopSignal
    from domain.models.archetype import Archetype
    from domain.models.population import PopulationSpecification
    from infrastructure.population.population_folder import PopulationFolder
    from infrastructure.settings import Settings

__all__ = [
    "DEFAULT_OUT",
    "OpenedPopulation",
    "archetypes_from",
    "bench_population",
    "open_population",
    "plan_population",
    "resume_population",
]

DEFAULT_OUT = "population"

_CACHE = "numba"


@dataclass(frozen=True, slots=True)
class OpenedPopulation:
    """One population that is ready to be run, once."""

    specification: PopulationSpecification
    folder: PopulationFolder
    cache: Path
    resumption: Resumption | None = None

    async def run(self, observer: RunObserver, stop: StopSignal) -> RunEnding:
        """Run it until its last tick or the wish to end. Raises `PopulationError`."""
        from application.services.population.run_population import RunPopulation
        from infrastructure.population.process_usage import cores

        if self.resumption is None and (report := await asyncio.to_thread(self._finished_already)) is not None:
            return RunEnding(DeliberationStatus.COMPLETED, report)
        case = RunPopulation(self.specification, open_engine=self._open_engine, record=self.folder, cores=cores())
        return await case.run(observer, stop, resumption=self.resumption)

    def _finished_already(self) -> dict[str, JsonValue] | None:
        found = self.folder.finished
        return None if found is None else dict(found)

    def _open_engine(self, tick: int) -> PopulationEngine:
        from infrastructure.population.local_engine import LocalEngine

        return LocalEngine(self.specification, snapshots=self.folder.snapshots, tick=tick, cache=self.cache)


@contextmanager
def open_population(
    settings: Settings, spec: PopulationSpecification, *, out: Path | None = None
) -> Iterator[OpenedPopulation]:
    """A new population in `out`, else in the folder that a server chose, else in ./population.

    Raises `NotEnoughMemoryError` and `InvalidPopulationError` before anything is written, and `PopulationFolderError`.
    """
    from infrastructure.population.population_folder import PopulationFolder

    _require_room(spec)
    folder = PopulationFolder(out or settings.run_folder or Path(DEFAULT_OUT))
    try:
        folder.start(spec)
        yield OpenedPopulation(spec, folder, settings.data_dir / _CACHE)
    finally:
        folder.close()


@contextmanager
def resume_population(settings: Settings, out: Path, *, from_tick: int | None = None) -> Iterator[OpenedPopulation]:
    """The population that lies in `out`, from its last snapshot or from that of a tick; a finished one only gives its report.

    Raises `PopulationFolderError`, `DamagedRecordError` and `NotEnoughMemoryError`.
    """
    from infrastructure.population.population_folder import PopulationFolder

    folder = PopulationFolder(out, existing=True)
    try:
        spec = folder.specification
        if from_tick is None and folder.finished is not None:
            yield OpenedPopulation(spec, folder, settings.data_dir / _CACHE)
            return
        _require_room(spec)
        yield OpenedPopulation(spec, folder, settings.data_dir / _CACHE, folder.rewind(from_tick))
    finally:
        folder.close()


async def archetypes_from(settings: Settings, deliberation_id: str) -> list[Archetype]:
    """The agents of a stored deliberation as archetypes, each by the last ballot that it cast.

    Raises `DeliberationNotFoundError`, `RecordMismatchError` where what is stored is not what was witnessed, and
    `InvalidPopulationError` where no answer has a place between others.
    """
    from api.bootstrap.opening import open_conclave
    from api.bootstrap.process import Purpose
    from domain.models.archetype import archetypes_of

    async with open_conclave(settings, purpose=Purpose.READ) as conclave:
        deliberation = await conclave.deliberations.get(deliberation_id)
        outputs = await conclave.outputs.outputs(deliberation_id)
    last = {}
    for record in sorted((output.record for output in outputs), key=lambda record: record.round_number):
        ballot = record.ballot()
        if ballot is not None:
            last[record.agent_id] = ballot
    return archetypes_of(deliberation.specification.question.answer, list(last.values()))


def bench_population(
    settings: Settings, *, kernel: str, ticks: int, kill_at: int, say: Callable[[str], None]
) -> dict[str, JsonValue]:
    """The table of targets as measured on this machine now. Raises `InvalidPopulationError`, `PopulationError`."""
    from domain.models.population_targets import judged
    from infrastructure.population.making import chosen_kernel
    from infrastructure.population.measuring import Measuring
    from infrastructure.population.process_usage import cores

    chosen = chosen_kernel(kernel)
    figures = Measuring(kernel=chosen, cache=settings.data_dir / _CACHE, say=say).figures(ticks=ticks, kill_at=kill_at)
    table = judged(figures, kernel=chosen)
    return {
        "kernel": chosen,
        "cores": cores(),
        "ticks": ticks,
        "load": list(os.getloadavg()),
        "targets": list(table),
        "missed": [str(row["name"]) for row in table if row["verdict"] == "miss"],
    }


def plan_population(spec: PopulationSpecification) -> dict[str, JsonValue]:
    """What that population needs and what this machine has. Raises `InvalidPopulationError`."""
    from infrastructure.population.local_engine import batch_of, shards_and_workers
    from infrastructure.population.making import chosen_kernel
    from infrastructure.population.memory_plan import plan_memory
    from infrastructure.population.process_usage import cores

    kernel = chosen_kernel(spec.kernel)
    shards, workers = shards_and_workers(spec)
    plan = plan_memory(spec, shards=shards, workers=workers, batch=batch_of(kernel))
    return {
        "agents": spec.agents,
        "state_bytes": spec.state_bytes,
        "kernel": kernel,
        "shards": shards,
        "workers": workers,
        "cores": cores(),
        "needed_bytes": plan.needed_bytes,
        "available_bytes": plan.available_bytes,
        "fits": plan.needed_bytes <= plan.available_bytes,
        "fits_agents": plan.fits_agents,
    }


def _require_room(spec: PopulationSpecification) -> None:
    from infrastructure.population.local_engine import batch_of, shards_and_workers
    from infrastructure.population.making import chosen_kernel
    from infrastructure.population.memory_plan import plan_memory

    shards, workers = shards_and_workers(spec)
    plan_memory(spec, shards=shards, workers=workers, batch=batch_of(chosen_kernel(spec.kernel))).require()
