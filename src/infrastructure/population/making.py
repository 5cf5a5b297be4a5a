"""Makes the parts of a worker from names: its kernel, its behaviour, and itself."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from domain.errors.deliberation import FieldProblem
from domain.errors.population import InvalidPopulationError
from domain.models.population import BEHAVIOURS, PopulationSpecification
from infrastructure.population.arena import Arena
from infrastructure.population.attachment import Attachment, Host
from infrastructure.population.field import Behaviour, Field
from infrastructure.population.kernel import Kernel
from infrastructure.population.own_behaviour import load_behaviour
from infrastructure.population.shard_worker import ShardWorker

__all__ = ["attachments_of", "behaviour_of", "chosen_kernel", "make_worker"]


def chosen_kernel(wanted: str) -> str:
    """The kernel that will be used: the best one installed, unless one is named. Raises `InvalidPopulationError`."""
    installed = find_spec("numba") is not None
    if wanted == "numba" and not installed:
        problem = "'numba' is not installed here: install the extra `population`, or leave it to numpy"
        raise InvalidPopulationError([FieldProblem("/kernel", problem)])
    if wanted == "auto":
        return "numba" if installed else "numpy"
    return wanted


def behaviour_of(spec: PopulationSpecification) -> Behaviour:
    """As the kernels know it."""
    return Behaviour(BEHAVIOURS.index(spec.behaviour)) if spec.behaviour in BEHAVIOURS else Behaviour.OWN


def attachments_of(host: Host) -> list[Attachment]:
    """What that population is run with beside its columns, in the order of their turns; imported only where it is asked for."""
    found: list[Attachment] = []
    if host.spec.inference != "none" or host.spec.thinkers:
        from infrastructure.population.thinking.attaching import attached_minds

        found += attached_minds(host)
    if host.spec.external:
        from infrastructure.population.external.rows import ExternalRows

        found.append(ExternalRows(host))
    if host.spec.tiers:
        from infrastructure.population.tiers.state_tiers import StateTiers

        found.append(StateTiers(host))
    return found


def make_worker(
    arena: Arena,
    spec: PopulationSpecification,
    *,
    kernel: str,
    worker: int,
    workers: int,
    batch: int,
    cache: Path | None,
    orphaned: Callable[[], bool] = lambda: False,
    beside: Callable[[], None] | None = None,
) -> ShardWorker:
    """Worker number `worker` of `workers`. Raises `InvalidPopulationError` where the user's behaviour cannot be made."""
    behaviour = behaviour_of(spec)
    field = Field.of(arena, spec, behaviour, worker=worker, workers=workers)
    own = load_behaviour(spec.behaviour) if behaviour is Behaviour.OWN else None
    return ShardWorker(field, _kernel(kernel, field, cache), batch=batch, own=own, orphaned=orphaned, beside=beside)


def _kernel(name: str, field: Field, cache: Path | None) -> Kernel:
    if name == "numba":
        from infrastructure.population.numba_kernel import NumbaKernel, keep_compiled_in

        keep_compiled_in(cache)
        return NumbaKernel(field)
    from infrastructure.population.numpy_kernel import NumpyKernel

    return NumpyKernel(field)
