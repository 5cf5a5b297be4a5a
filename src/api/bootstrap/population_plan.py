"""What a population would need and what this machine has, before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from domain.models.run import JsonValue

if TYPE_CHECKING:
    from domain.models.population import PopulationSpecification
    from infrastructure.settings import Settings

__all__ = ["plan_population"]

_OPINION_BYTES = 8
# Three are kept while the next one is written.
_SNAPSHOTS = 4
# A version and a checksum; and as much of old states as of present ones lies in the cold tier before it is tidied.
_TIER_BYTES = 12
_VERSIONS = 2


def plan_population(
    settings: Settings, spec: PopulationSpecification, *, out: Path, calibrate: bool
) -> dict[str, JsonValue]:
    """Memory, cores, devices, networks, disk, and what a tick would take, measured where `calibrate` asks for it and it fits.

    `fits` says whether memory and disk are enough. Raises `InvalidPopulationError` and `EdgeFileError`.
    """
    from infrastructure.population.calibration import calibrated
    from infrastructure.population.local_engine import batch_of, shards_and_workers
    from infrastructure.population.machine import cuda_devices, free_disk_bytes, networks
    from infrastructure.population.making import chosen_kernel
    from infrastructure.population.memory_plan import plan_memory
    from infrastructure.population.process_usage import cores

    kernel = chosen_kernel(spec.kernel)
    shards, workers = shards_and_workers(spec)
    plan = plan_memory(spec, shards=shards, workers=workers, batch=batch_of(kernel))
    snapshots = spec.agents * (_OPINION_BYTES + spec.tiers * _TIER_BYTES) * _SNAPSHOTS
    states = spec.tiers * spec.agents * spec.state_bytes * _VERSIONS
    free = free_disk_bytes(out)
    in_memory = plan.needed_bytes <= plan.available_bytes
    measured = calibrated(spec, cache=settings.data_dir / "numba") if calibrate and in_memory else None
    devices: list[JsonValue] = [{"name": device.name, "memory_bytes": device.memory_bytes} for device in cuda_devices()]
    known: list[JsonValue] = [{"name": network.name, "mbit_s": network.mbit_s} for network in networks()]
    tick: dict[str, JsonValue] | None = None
    if measured is not None:
        tick = {
            "expected_ms": measured.tick_s * 1e3,
            "messages_per_second": spec.agents * spec.messages * spec.activity / measured.tick_s,
            "measured_agents": measured.agents,
            "measured_ticks": measured.ticks,
        }
    return {
        "agents": spec.agents,
        "state_bytes": spec.state_bytes,
        "kernel": kernel,
        "shards": shards,
        "workers": workers,
        "cores": cores(),
        "devices": devices,
        "networks": known,
        # All messages of one machine stay in its memory.
        "network_bytes_per_tick": 0,
        "needed_bytes": plan.needed_bytes,
        "available_bytes": plan.available_bytes,
        "fits_agents": plan.fits_agents,
        "disk": {"snapshots_bytes": snapshots, "states_bytes": states, "free_bytes": free},
        "tick": tick,
        "fits": in_memory and snapshots + states <= free,
    }
