"""Opens the engine that a population names; what an engine needs beyond numpy is imported only where it is chosen."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from application.ports.population_engine import PopulationEngine
from domain.errors.deliberation import FieldProblem
from domain.errors.population import InvalidPopulationError
from domain.models.population import PopulationSpecification
from infrastructure.population.local_engine import batch_of
from infrastructure.population.making import chosen_kernel
from infrastructure.population.snapshots import Snapshots
from infrastructure.population.torch_device import HOW_TO_INSTALL_TORCH

__all__ = ["open_engine", "require_engine"]

_HOW_TO_INSTALL = {
    "ray": "install the extra `ray`",
    "torch": HOW_TO_INSTALL_TORCH,
}


def require_engine(spec: PopulationSpecification) -> None:
    """Raise `InvalidPopulationError` where the package of its engine is not installed here."""
    how = _HOW_TO_INSTALL.get(spec.engine)
    if how is not None and find_spec(spec.engine) is None:
        raise InvalidPopulationError([FieldProblem("/engine", f"{spec.engine!r} is not installed here: {how}")])


def open_engine(
    spec: PopulationSpecification,
    local: Callable[[], PopulationEngine],
    *,
    snapshots: Snapshots,
    tick: int,
    cache: Path | None,
) -> PopulationEngine:
    """The engine with the columns after `tick`; `local` opens that of this machine. Raises what its engine raises."""
    if spec.engine == "local":
        return local()
    require_engine(spec)
    if spec.engine == "ray":
        from infrastructure.population.ray_engine import RayEngine

        batch = batch_of(chosen_kernel(spec.kernel))
        return RayEngine(spec, snapshots=snapshots, batch=batch, tick=tick, cache=cache)
    from infrastructure.population.torch_engine import TorchEngine

    return TorchEngine(spec, snapshots=snapshots, tick=tick)
