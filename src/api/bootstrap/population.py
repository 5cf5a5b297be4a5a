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
    from application.ports.message_bus import MessageBus
    from application.ports.population_engine import PopulationEngine
    from application.ports.population_record import Resumption
    from application.ports.run_observer import RunObserver
    from application.services.population.run_population import RunPopulation
    from application.services.population.run_replicates import Replicate
    from application.services.stop_signal import StopSignal
    from domain.models.archetype import Archetype, Decision
    from domain.models.population import PopulationSpecification
    from domain.models.population_counts import PopulationCounts
    from infrastructure.population.population_folder import PopulationFolder
    from infrastructure.population.thinking.minds import Minds
    from infrastructure.settings import Settings

__all__ = [
    "DEFAULT_OUT",
    "OpenedPopulation",
    "beginning_from",
    "bench_population",
    "open_population",
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
    minds: Minds | None = None
    open_bus: Callable[[], MessageBus] | None = None

    async def run(self, observer: RunObserver, stop: StopSignal) -> RunEnding:
        """Run it until its last tick or the wish to end. Raises `PopulationError`."""
        from application.services.population.run_replicates import RunReplicates
        from domain.models.population_counts import PopulationCounts
        from infrastructure.population.population_folder import is_waiting_for_seeds

        counts = PopulationCounts()
        found = None if self.resumption is not None else await asyncio.to_thread(self._finished_already)
        if found is None:
            ending = await self._case(counts).run(observer, stop, resumption=self.resumption)
            if ending.status is not DeliberationStatus.COMPLETED:
                return ending
            found = dict(ending.result)
        if not is_waiting_for_seeds(found):
            return RunEnding(DeliberationStatus.COMPLETED, found)
        seeds = RunReplicates(
            self.specification, open_replicate=lambda spec: self._open_replicate(spec, counts), record=self.folder
        )
        return await seeds.run(found, observer, stop)

    def _case(self, counts: PopulationCounts) -> RunPopulation:
        from application.services.population.run_population import RunPopulation
        from infrastructure.population.process_usage import cores, resident_now

        return RunPopulation(
            self.specification,
            open_engine=self._open_engine,
            record=self.folder,
            cores=cores(),
            counts=counts,
            memory=resident_now,
        )

    @contextmanager
    def _open_replicate(self, spec: PopulationSpecification, counts: PopulationCounts) -> Iterator[Replicate]:
        """The population under another seed, in a folder of its own, of which the report and the ticks are kept."""
        from application.services.population.run_replicates import Replicate
        from domain.errors.population import DamagedRecordError
        from infrastructure.population.population_folder import PopulationFolder

        folder = PopulationFolder(self.folder.replicates / f"seed-{spec.seed}")
        try:
            report, resumption = folder.finished, None
            if report is None:
                try:
                    resumption = folder.rewind() if folder.is_begun else None
                except DamagedRecordError:
                    # It is taken again from its beginning, which comes to the same.
                    resumption = folder.rewind(0)
                if resumption is None:
                    folder.start(spec)
            opened = OpenedPopulation(spec, folder, self.cache, minds=self.minds, open_bus=self.open_bus)
            yield Replicate(opened._case(counts), resumption, report)
            if folder.finished is not None:
                folder.lighten()
        finally:
            folder.close()

    def _finished_already(self) -> dict[str, JsonValue] | None:
        found = self.folder.finished
        return None if found is None else dict(found)

    def _open_engine(self, tick: int) -> PopulationEngine:
        from infrastructure.population.engines import open_engine
        from infrastructure.population.local_engine import LocalEngine

        snapshots = self.folder.snapshots

        def local() -> PopulationEngine:
            return LocalEngine(
                self.specification,
                snapshots=snapshots,
                tick=tick,
                cache=self.cache,
                folder=self.folder.folder,
                minds=self.minds,
                open_bus=self.open_bus,
            )

        return open_engine(self.specification, local, snapshots=snapshots, tick=tick, cache=self.cache)


@contextmanager
def open_population(
    settings: Settings, spec: PopulationSpecification, *, out: Path | None = None, bus_url: str | None = None
) -> Iterator[OpenedPopulation]:
    """A new population in `out`, else in the folder that a server chose, else in ./population.

    `bus_url` is where the bus of its external rows lies, else where the settings say.

    Raises `NotEnoughMemoryError`, `InvalidPopulationError`, `EdgeFileError` and `ConfigurationError` before anything is written
    or removed, and `PopulationFolderError`.
    """
    from api.bootstrap.minds import minds_of
    from infrastructure.population.population_folder import PopulationFolder
    from infrastructure.population.sources import require_sources

    _require_room(spec)
    require_sources(spec)
    minds, open_bus = minds_of(settings, spec), _bus_of(settings, spec, bus_url)
    folder = PopulationFolder(out or settings.run_folder or Path(DEFAULT_OUT))
    try:
        folder.start(spec)
        yield OpenedPopulation(spec, folder, settings.data_dir / _CACHE, minds=minds, open_bus=open_bus)
    finally:
        folder.close()


@contextmanager
def resume_population(
    settings: Settings, out: Path, *, from_tick: int | None = None, bus_url: str | None = None
) -> Iterator[OpenedPopulation]:
    """The population that lies in `out`, from its last snapshot or from that of a tick; a finished one only gives its report.

    Raises `PopulationFolderError`, `DamagedRecordError`, `NotEnoughMemoryError` and `ConfigurationError`.
    """
    from api.bootstrap.minds import minds_of
    from infrastructure.population.population_folder import PopulationFolder, is_waiting_for_seeds

    folder = PopulationFolder(out, existing=True)
    try:
        spec = folder.specification
        report = folder.finished if from_tick is None else None
        if report is not None and not is_waiting_for_seeds(report):
            yield OpenedPopulation(spec, folder, settings.data_dir / _CACHE)
            return
        _require_room(spec)
        minds, open_bus = minds_of(settings, spec), _bus_of(settings, spec, bus_url)
        resumption = folder.rewind(from_tick) if report is None else None
        yield OpenedPopulation(spec, folder, settings.data_dir / _CACHE, resumption, minds, open_bus)
    finally:
        folder.close()


async def beginning_from(settings: Settings, deliberation_id: str) -> tuple[list[Archetype], Decision]:
    """The agents of a stored deliberation as archetypes, each by the last ballot that it cast, and what they decided.

    Raises `DeliberationNotFoundError`, `RecordMismatchError` where what is stored is not what was witnessed, and
    `InvalidPopulationError` where no answer has a place between others.
    """
    from api.bootstrap.opening import open_conclave
    from api.bootstrap.process import Purpose
    from domain.models.archetype import archetypes_of, decision_of

    async with open_conclave(settings, purpose=Purpose.READ) as conclave:
        deliberation = await conclave.deliberations.get(deliberation_id)
        outputs = await conclave.outputs.outputs(deliberation_id)
    last = {}
    for record in sorted((output.record for output in outputs), key=lambda record: record.round_number):
        ballot = record.ballot()
        if ballot is not None:
            last[record.agent_id] = ballot
    form, ballots = deliberation.specification.question.answer, list(last.values())
    decided = None if deliberation.outcome is None else deliberation.outcome.decision
    return archetypes_of(form, ballots), decision_of(form, ballots, decided)


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


def _bus_of(settings: Settings, spec: PopulationSpecification, url: str | None) -> Callable[[], MessageBus] | None:
    """What opens the bus of its external rows; None where there are none. Raises `ConfigurationError`."""
    if not spec.external:
        return None
    from api.bootstrap.buses import make_bus

    def opened() -> MessageBus:
        return make_bus(settings, spec.bus, name=spec.bus_name, url=url)

    # One that cannot be made is refused before anything is written; it does nothing until it is called.
    opened()
    return opened


def _require_room(spec: PopulationSpecification) -> None:
    from infrastructure.population.engines import require_engine
    from infrastructure.population.local_engine import batch_of, shards_and_workers
    from infrastructure.population.making import chosen_kernel
    from infrastructure.population.memory_plan import plan_memory

    require_engine(spec)
    shards, workers = shards_and_workers(spec)
    plan_memory(spec, shards=shards, workers=workers, batch=batch_of(chosen_kernel(spec.kernel))).require()
