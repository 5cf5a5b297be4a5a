"""What a tick of a population would take on this machine, from a few ticks of a smaller one."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from domain.models.population import PopulationSpecification
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.snapshots import Snapshots

__all__ = ["Calibration", "calibrated"]

# Large enough that its columns are in no cache either.
_AGENTS = 200_000
_WARM_TICKS = 3
_TICKS = 20
_LONGEST_S = 2.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """`tick_s` is what a tick of the whole would take; it was measured with `agents`, over `ticks` ticks, and grows with agents."""

    agents: int
    ticks: int
    tick_s: float


def calibrated(spec: PopulationSpecification, *, cache: Path | None) -> Calibration:
    """Take at most twenty ticks of at most 200,000 of its agents. Raises what opening an engine raises."""
    agents = spec.agents if spec.edge_file is not None else min(spec.agents, _AGENTS)
    small = replace(spec, agents=agents, engine="local", ticks=_WARM_TICKS + _TICKS)
    with tempfile.TemporaryDirectory(prefix="conclave-population-") as folder:
        engine = LocalEngine(small, snapshots=Snapshots(Path(folder)), cache=cache)
        try:
            taken = _taken(engine)
        finally:
            engine.close()
    return Calibration(agents, len(taken), statistics.median(taken) * spec.agents / agents)


def _taken(engine: LocalEngine) -> list[float]:
    """The times of ticks in seconds, the first few left out: until then memory is touched and loops are compiled."""
    times: list[float] = []
    until = time.perf_counter() + _LONGEST_S
    for number in range(1, _WARM_TICKS + _TICKS + 1):
        began = time.perf_counter()
        engine.tick(number)
        ended = time.perf_counter()
        if number > _WARM_TICKS:
            times.append(ended - began)
            if ended >= until:
                break
    return times
