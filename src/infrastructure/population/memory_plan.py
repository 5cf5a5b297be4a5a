"""How much memory a population needs and how much there is, asked before anything is allocated."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from domain.errors.population import NotEnoughMemoryError
from domain.models.population import MAX_AGENTS, PopulationSpecification
from infrastructure.population.field import layout_of

__all__ = ["MemoryPlan", "available_bytes", "plan_memory"]

_PROGRAM = 160 << 20
_EACH_PROCESS = 60 << 20
# Of each agent in one worker: its row, also as an index, its counter for random numbers, and where its neighbours begin.
_WORKING_BYTES_PER_AGENT = 4 + 8 + 8 + 8
# Of each agent in every worker: what it heard, and its bound.
_HEARING_BYTES_PER_AGENT = 16 + 8
# Of each message, where what agents heard is written down: it is copied, joined and sorted.
_WRITING_BYTES_PER_MESSAGE = 40
# While it is looked who could be moved by whom.
_FOLLOWING_BYTES = 64 << 20
# Of each agent that acts by inference: its row, its features, its pull, and how it was read before and after.
_INFERRING_BYTES_PER_AGENT = 8 + 8 + 2 + 2
# Besides: what is known already, activations, and the libraries that compute them.
_INFERRING_BYTES = 64 << 20
_TORCH_BYTES = 512 << 20
# Of each agent that thinks: its object, its notes and their vectors.
_THINKING_BYTES = 64 << 10
# While a graph is sorted, for each end of an edge.
_SORTING_BYTES_PER_END = 48
_MARGIN = 0.95
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes: what the columns and what everything takes, what is free, and how many agents would fit with these options."""

    state_bytes: int
    needed_bytes: int
    available_bytes: int
    fits_agents: int

    def require(self) -> None:
        """Raise `NotEnoughMemoryError` where it does not fit."""
        if self.needed_bytes > self.available_bytes:
            raise NotEnoughMemoryError(
                needed_bytes=self.needed_bytes, available_bytes=self.available_bytes, fits_agents=self.fits_agents
            )


def plan_memory(spec: PopulationSpecification, *, shards: int, workers: int, batch: int) -> MemoryPlan:
    """What that population needs on this machine now."""
    edges = _edges(spec)
    layout = layout_of(spec, shards=shards, workers=workers, batch=batch, edges=edges)
    ends = edges or 0
    sorting = ends * _SORTING_BYTES_PER_END if spec.graph not in {"random", "mixed"} else ends * 8
    # What is sorted is given back before the agents are spawned, but the columns lie there already.
    writing = spec.agents * spec.messages * _WRITING_BYTES_PER_MESSAGE if spec.metrics or spec.peers else 0
    writing += _FOLLOWING_BYTES if spec.dormancy else 0
    hearing = workers * _HEARING_BYTES_PER_AGENT
    working = spec.agents * (_WORKING_BYTES_PER_AGENT + hearing) + writing + _minds(spec) + _tiers(spec)
    needed = layout.size + working + sorting + _PROGRAM + workers * _EACH_PROCESS
    free = available_bytes()
    each = max(1.0, (needed - _PROGRAM - workers * _EACH_PROCESS) / spec.agents)
    fits = int(max(0.0, (free - _PROGRAM - workers * _EACH_PROCESS) / each))
    return MemoryPlan(
        state_bytes=spec.agents * spec.state_bytes,
        needed_bytes=needed,
        available_bytes=free,
        fits_agents=min(fits, MAX_AGENTS),
    )


def available_bytes() -> int:
    """Memory that may be taken without swapping: of the machine, or of the control group where that is less."""
    found = [_of_machine()]
    limit = _number_in(_CGROUP / "memory.max")
    if limit is not None:
        found.append(limit - (_number_in(_CGROUP / "memory.current") or 0))
    return int(max(0, min(found)) * _MARGIN)


def _minds(spec: PopulationSpecification) -> int:
    needed = spec.thinkers * _THINKING_BYTES
    if spec.inference != "none":
        needed += spec.agents * _INFERRING_BYTES_PER_AGENT + _INFERRING_BYTES
    return needed + (_TORCH_BYTES if spec.inference == "torch" else 0)


def _tiers(spec: PopulationSpecification) -> int:
    if not spec.tiers:
        return 0
    from infrastructure.population.tiers.opening import tier_bytes

    return tier_bytes(spec)


def _edges(spec: PopulationSpecification) -> int | None:
    if spec.graph == "mixed":
        return None
    if spec.edge_file is not None:
        try:
            # No line that names two agents is shorter than four bytes.
            return spec.edge_file.stat().st_size // 4 * 2
        except OSError:
            return 0
    return spec.agents * spec.degree


def _of_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE")) // 2
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
