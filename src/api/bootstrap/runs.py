"""Runs from the settings: the one of this process, and those that a server starts, reads and ends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from api.bootstrap.halting import open_halting
from api.bootstrap.storage import prepare_database
from application.services.run_holding import public_reason
from application.services.run_service import RunForm, RunService
from domain.errors.conclave_error import ConclaveError
from domain.errors.halt import SystemHaltedError
from domain.models.deliberation import DeliberationStatus
from domain.models.halt import HaltCondition
from domain.models.run import JsonValue, Run, RunKind
from domain.models.run_event import new_run_id

if TYPE_CHECKING:
    from application.ports.halt_checker import HaltChecker
    from application.ports.run_registry import RunRecord
    from infrastructure.halt.dual_channel_halt_checker import DualChannelHaltChecker
    from infrastructure.runs.file_run_registry import FileRunRegistry
    from infrastructure.settings import Settings

__all__ = ["OpenRun", "form_of", "make_runs", "open_run", "run_registry"]

# The modules that know how a kind of run is described, once there are runs of that kind.
_FORMS: Mapping[RunKind, str] = {
    RunKind.SWARM: "domain.models.swarm",
    RunKind.PANTHEON: "domain.models.pantheon",
    RunKind.SOAK: "domain.models.soak",
    RunKind.POPULATION: "domain.models.population",
}


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run of this process that may begin, and the halt that it obeys."""

    record: RunRecord
    halt: DualChannelHaltChecker


def run_registry(settings: Settings) -> FileRunRegistry:
    """The runs of this data folder."""
    from infrastructure.runs.file_run_registry import FileRunRegistry

    return FileRunRegistry(settings.data_dir / "runs")


def form_of(kind: RunKind) -> RunForm | None:
    """How runs of that kind are described, None while there are none."""
    if kind not in _FORMS:
        return None
    module = import_module(_FORMS[kind])
    return RunForm(check=module.arguments_from_rest, command_line=module.command_line)


def make_runs(settings: Settings, halt: HaltChecker) -> RunService:
    """The runs of this data folder, as a server starts and ends its own and reads all."""
    from infrastructure.runs.file_run_series import FileRunSeries
    from infrastructure.runs.run_processes import ProcessLauncher, environment_of_runs

    registry = run_registry(settings)
    providers = {} if settings.providers is None else settings.providers.providers
    environment = environment_of_runs(
        os.environ,
        also=[provider.api_key_env for provider in providers.values() if provider.api_key_env is not None],
        sources=Path(__file__).resolve().parents[2],
    )
    # Whatever said so here, the run is to use the same folder.
    environment["CONCLAVE_DATA_DIR"] = str(settings.data_dir)
    return RunService(
        registry=registry,
        launcher=ProcessLauncher(registry.folder, environment),
        form_of=form_of,
        halt=halt,
        series=FileRunSeries(registry.folder),
    )


@asynccontextmanager
async def open_run(settings: Settings, kind: RunKind, arguments: Mapping[str, JsonValue]) -> AsyncIterator[OpenRun]:
    """A run that is registered, or the one that a server announced and started this process for.

    Raises `SystemHaltedError` while the system is halted or that is in doubt, and `DependencyUnavailableError` where it cannot be
    registered; nothing has begun then.
    """
    registry = run_registry(settings)
    record: RunRecord | None = None
    try:
        if settings.run_id is not None:
            record = registry.take_over(settings.run_id, at=_now())
        registry.prepare()
        await prepare_database(settings)
        async with open_halting(settings, lambda: None) as halting:
            await halting.checker.first_look()
            state = halting.checker.state
            if state.condition is not HaltCondition.OPEN:
                raise SystemHaltedError(state.reason)
            if record is None:
                at = _now()
                run = Run(new_run_id(at), kind, DeliberationStatus.RUNNING, arguments, started_at=at)
                record = registry.register(run)
            yield OpenRun(record, halting.checker)
    except ConclaveError as error:
        if record is not None:
            # A run that ended by itself stays as it ended.
            status = DeliberationStatus.HALTED if isinstance(error, SystemHaltedError) else DeliberationStatus.FAILED
            record.end(status, at=_now(), reason=public_reason(error))
        raise
    finally:
        if record is not None:
            record.close()


def _now() -> datetime:
    return datetime.now(UTC)
