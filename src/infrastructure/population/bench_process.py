"""A process that runs one population and prints what was measured, so that its memory and its end are its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from application.ports.population_engine import PopulationEngine, TickOutcome
from application.ports.run_observer import NullRunObserver
from application.services.population.run_population import RunPopulation
from application.services.stop_signal import StopSignal
from domain.models.population import PopulationSpecification
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.population_folder import PopulationFolder
from infrastructure.population.process_usage import cores

__all__ = ["main"]


class _Watched:
    """An engine that kills its process after one tick, or notes when it was taken."""

    def __init__(self, engine: PopulationEngine, *, kill_at: int, note_at: int) -> None:
        self._engine, self._kill_at, self._note_at = engine, kill_at, note_at
        self.noted = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def tick(self, number: int) -> TickOutcome:
        outcome = self._engine.tick(number)
        if number == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self._note_at:
            self.noted = time.perf_counter()
        return outcome


def main() -> None:
    """Run what the first argument says, as JSON: a folder, a specification or that it is resumed, and a tick to be killed at."""
    began = time.perf_counter()
    task = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(_measured(task, began))))  # noqa: T201 - its answer to whoever started it


async def _measured(task: dict[str, Any], began: float) -> dict[str, Any]:
    resumed = "specification" not in task
    folder = PopulationFolder(Path(task["folder"]), existing=resumed)
    try:
        resumption = None
        if resumed:
            spec = folder.specification
            resumption = folder.rewind()
        else:
            spec = PopulationSpecification.from_document(task["specification"])
            folder.start(spec)
        engines: list[_Watched] = []

        def open_engine(tick: int) -> PopulationEngine:
            engine = LocalEngine(
                spec, snapshots=folder.snapshots, tick=tick, cache=Path(task["cache"]), folder=folder.folder
            )
            # Once it is a tick further than before, the population is back.
            watched = _Watched(engine, kill_at=task.get("kill_at", 0), note_at=task.get("note_at", 0))
            engines.append(watched)
            return watched

        case = RunPopulation(spec, open_engine=open_engine, record=folder, cores=cores())
        ending = await case.run(NullRunObserver(), StopSignal(), resumption=resumption)
        back = engines[-1].noted
        return {**ending.result, "back_s": back - began if back else None}
    finally:
        folder.close()


if __name__ == "__main__":
    main()
