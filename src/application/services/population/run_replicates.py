"""The use case of running the same population under several seeds, to tell what is chance from what is the rule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeAlias

from application.ports.population_record import PopulationRecord, Resumption
from application.ports.run_observer import RunObserver
from application.services.population.report import with_replicates
from application.services.population.run_population import RunPopulation
from application.services.stop_signal import StopSignal
from domain.models.deliberation import DeliberationStatus
from domain.models.population import PopulationSpecification
from domain.models.run import JsonValue, RunEnding

__all__ = ["OpenReplicate", "Replicate", "RunReplicates"]


@dataclass(frozen=True, slots=True)
class Replicate:
    """The population under one seed as it was found: to be begun, to be gone on with, or ended, with its report."""

    case: RunPopulation
    resumption: Resumption | None = None
    report: Mapping[str, JsonValue] | None = None


OpenReplicate: TypeAlias = Callable[[PopulationSpecification], AbstractContextManager[Replicate]]
"""Opens the population that this describes."""


class RunReplicates:
    """Runs one population after the other under the seeds that follow its own. Whatever ends it can be resumed where it ended."""

    def __init__(
        self, spec: PopulationSpecification, *, open_replicate: OpenReplicate, record: PopulationRecord
    ) -> None:
        self._spec = spec
        self._open = open_replicate
        self._record = record

    async def run(self, first: Mapping[str, JsonValue], observer: RunObserver, stop: StopSignal) -> RunEnding:
        """`first` is the report under the specification's own seed; it is written anew with the intervals.

        Raises `PopulationError`; what was done before is kept then.
        """
        planned = self._spec.seeds
        reports = [first]
        for seed in range(self._spec.seed + 1, self._spec.seed + planned):
            if stop.is_set:
                break
            observer.note("population.seed", {"seed": seed, "done": len(reports), "planned": planned})
            ending = await self._run_one(replace(self._spec, seed=seed, seeds=1), observer, stop)
            if ending.status is not DeliberationStatus.COMPLETED:
                break
            reports.append(ending.result)
        report = await asyncio.to_thread(with_replicates, first, reports, planned=planned)
        await asyncio.to_thread(self._record.finish, report)
        if len(reports) < planned and stop.reason is not None:
            return RunEnding(stop.reason.status, report)
        return RunEnding(DeliberationStatus.COMPLETED, report)

    async def _run_one(self, spec: PopulationSpecification, observer: RunObserver, stop: StopSignal) -> RunEnding:
        with self._open(spec) as replicate:
            if replicate.report is not None:
                return RunEnding(DeliberationStatus.COMPLETED, replicate.report)
            return await replicate.case.run(observer, stop, resumption=replicate.resumption)
