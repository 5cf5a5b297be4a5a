"""Settings in, open service and its closer out: the only module of the doors that sees the infrastructure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from api.conclave import Check, Conclave, Health
from application.ports.agent_orchestrator import AgentOrchestratorProtocol
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_output_service import DeliberationOutputService
from application.services.deliberation_service import DeliberationService, OrchestratorIdentity
from domain.errors.conclave_error import ConclaveError
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.agent_pool import AgentPool

if TYPE_CHECKING:
    from infrastructure.settings import Settings

__all__ = ["Purpose", "configure_logging", "examine", "load_settings", "open_conclave", "run", "upgrade_database"]

_T = TypeVar("_T")

_LOCAL_NOTICE = (
    "Answered by the small model {model} on this machine: it shows the machinery, not wisdom. "
    "Set CONCLAVE_LLM_BASE_URL to ask a larger one."
)
# Well above what the grammar lets a ballot be, so that none is cut off.
_LOCAL_OUTPUT_TOKENS = 512
_LOCAL_REASON_CHARACTERS = 40
_SIMULATED_NOTICE = (
    "Simulated: no model was asked, so the answers mean nothing. Set CONCLAVE_LLM_BASE_URL to ask a real one."
)


class Purpose(Enum):
    """What the service is opened for."""

    SERVE = "serve"
    ASK = "ask"
    READ = "read"


def load_settings() -> Settings:
    """The settings of this process. Raises `ConfigurationError` naming the variable."""
    from infrastructure.settings import load_settings as load

    return load()


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """The result of `main`, run in the one event loop of this process."""
    from infrastructure.event_loop import run as run_in_loop

    return run_in_loop(main)


def configure_logging(settings: Settings) -> None:
    """Send the log to stderr as the settings say, without any of their secrets."""
    from infrastructure.telemetry.logs import configure_logging as configure

    configure(settings.log_format, settings.log_level, secrets=settings.secret_values())


@asynccontextmanager
async def open_conclave(settings: Settings, *, purpose: Purpose) -> AsyncIterator[Conclave]:
    """The open service, closed in the reverse order on the way out.

    `SERVE` takes over what other processes left, `ASK` runs what it is given, `READ` opens nothing but the database. Raises
    `ConfigurationError` and `DependencyUnavailableError`.
    """
    from infrastructure.persistence.database import open_database
    from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
    from infrastructure.rosters.file_roster_source import FileRosterSource
    from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
    from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics

    _make_data_folder(settings)
    async with AsyncExitStack() as stack:
        await _prepare_database(settings)
        database = await open_database(settings.database_url)
        stack.push_async_callback(database.close)
        repository = SqlDeliberationRepository(database)
        stack.push_async_callback(repository.close)
        halt = HaltCheckerStub()
        metrics = PrometheusMetrics()
        voices = await _open_voices(settings, purpose, stack)
        identity = voices.identity
        pool = AgentPool(voices.at_a_time)
        fan_out = ConcurrentDeliberationService(
            orchestrator=voices.orchestrator, halt_checker=halt, pool=pool, metrics=metrics
        )
        deliberations = DeliberationService(
            fan_out=fan_out,
            repository=repository,
            reader=repository,
            leases=repository,
            halt_checker=halt,
            orchestrator=identity,
            metrics=metrics,
            max_running=settings.max_running_deliberations,
            takes_over=purpose is Purpose.SERVE,
        )
        metrics.watch_pool(pool, lambda: fan_out.waiting_count)
        metrics.watch_halt(lambda: halt.halted)
        metrics.watch_deliberations(lambda: deliberations.running_count, lambda: deliberations.queued_count)

        async def look_at_database() -> Health:
            try:
                await repository.check()
            except DependencyUnavailableError as error:
                return Health(works=False, detail=error.problem)
            return Health(works=True)

        if purpose is not Purpose.READ:
            await deliberations.start()
            stack.push_async_callback(deliberations.stop, drain_s=0.0)
        yield Conclave(
            deliberations=deliberations,
            outputs=DeliberationOutputService(repository),
            rosters=FileRosterSource(settings.rosters_dir),
            fan_out=fan_out,
            keys=settings.keyring(),
            health={"database": look_at_database},
            render_metrics=metrics.render,
            data_dir=settings.data_dir,
            orchestrator=identity.name,
            simulated=identity.simulated,
            notices=[*settings.notices, *voices.notices],
        )


def upgrade_database(settings: Settings) -> str:
    """Bring the database to the present schema; returns its revision."""
    from infrastructure.persistence.migrate import current_revision, upgrade

    _make_data_folder(settings)
    url = settings.owner_database_url or settings.database_url
    upgrade(url)
    return current_revision(url) or "empty"


def _make_data_folder(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            variable="CONCLAVE_DATA_DIR",
            problem=f"the folder cannot be made ({error.strerror})",
            remedy="Name a folder that this user may write to.",
        ) from error


async def _prepare_database(settings: Settings) -> None:
    from infrastructure.persistence.migrate import is_current, upgrade

    if settings.database_url.startswith("sqlite"):
        await asyncio.to_thread(upgrade, settings.database_url)
    elif not await asyncio.to_thread(is_current, settings.database_url):
        raise ConfigurationError(
            variable="CONCLAVE_DATABASE_URL",
            problem="the database has not the present schema",
            remedy="Run: conclave db upgrade",
        )


@dataclass(frozen=True, slots=True)
class _Voices:
    """Who answers for the agents, what to say about it, and how many it answers at a time."""

    orchestrator: AgentOrchestratorProtocol
    identity: OrchestratorIdentity
    at_a_time: int
    notices: tuple[str, ...] = ()


async def _open_voices(settings: Settings, purpose: Purpose, stack: AsyncExitStack) -> _Voices:
    from infrastructure.settings import OrchestratorKind, choose_orchestrator

    slots = min(settings.llm_max_concurrency or settings.max_concurrent_agents, settings.max_concurrent_agents)
    kind = OrchestratorKind.SIMULATED if purpose is Purpose.READ else choose_orchestrator(settings)
    if kind is OrchestratorKind.OPENAI:
        return await _open_provider(settings, slots, stack)
    if kind is OrchestratorKind.LOCAL:
        return await _open_local_model(settings, slots, stack)
    from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub

    simulated = OrchestratorIdentity("simulated", simulated=True)
    return _Voices(AgentOrchestratorStub(), simulated, settings.max_concurrent_agents, (_SIMULATED_NOTICE,))


async def _open_provider(settings: Settings, slots: int, stack: AsyncExitStack) -> _Voices:
    from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator

    if settings.llm_base_url is None:
        raise ConfigurationError(
            variable="CONCLAVE_LLM_BASE_URL", problem="it is not set", remedy="Give the address with its /v1."
        )
    provider = OpenAIOrchestrator(
        base_url=settings.llm_base_url,
        api_key=None if settings.llm_api_key is None else settings.llm_api_key.get_secret_value(),
        model=settings.llm_model,
        # As many as slots, so that nobody waits inside the client, where waiting would count against the agent's time.
        max_connections=slots,
    )
    await stack.enter_async_context(provider)
    return _Voices(provider, OrchestratorIdentity("openai", simulated=False), slots)


async def _open_local_model(settings: Settings, slots: int, stack: AsyncExitStack) -> _Voices:
    from infrastructure.orchestrators.embedded_model import EmbeddedModel, WatchedOrchestrator, find_local_model
    from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator

    model_file = find_local_model(settings.local_model)
    if model_file is None:
        raise ConfigurationError(
            variable="CONCLAVE_LOCAL_MODEL", problem="there is no model file", remedy="Run: conclave doctor"
        )
    model = EmbeddedModel(model_file=model_file)
    base_url = await model.start()
    stack.push_async_callback(model.stop)
    # The model writes so many answers at a time; whoever waits for one of its slots waits for one of ours instead, where
    # waiting does not count against the agent's time.
    slots = min(slots, model.slots)
    client = OpenAIOrchestrator(
        base_url=base_url,
        api_key=model.api_key,
        model=model.alias,
        max_connections=slots,
        confidence_steps=True,
        reason_max_chars=_LOCAL_REASON_CHARACTERS,
        grammar=True,
        max_output_tokens=_LOCAL_OUTPUT_TOKENS,
    )
    await stack.enter_async_context(client)
    identity = OrchestratorIdentity("local", simulated=False)
    return _Voices(WatchedOrchestrator(client, model), identity, slots, (_LOCAL_NOTICE.format(model=model.alias),))


async def examine(settings: Settings) -> list[Check]:
    """Look at every setting and dependency, and say what to do about what is not well."""
    return [
        Check("data folder", works=True, detail=str(settings.data_dir)),
        await _examine_database(settings),
        await _examine_orchestrator(settings),
        _examine_rosters(settings),
        _examine_doors(settings),
    ]


async def _examine_database(settings: Settings) -> Check:
    try:
        async with open_conclave(settings, purpose=Purpose.READ) as conclave:
            health = await conclave.health["database"]()
    except ConfigurationError as error:
        return Check("database", works=False, detail=error.problem, remedy=error.remedy)
    except DependencyUnavailableError as error:
        return Check("database", works=False, detail=error.problem, remedy=error.remedy)
    kind = "SQLite" if settings.database_url.startswith("sqlite") else "Postgres"
    return Check("database", works=health.works, detail=f"{kind}, durable, present schema {health.detail}".strip())


async def _examine_orchestrator(settings: Settings) -> Check:
    async with AsyncExitStack() as stack:
        try:
            voices = await _open_voices(settings, Purpose.ASK, stack)
            listing = getattr(voices.orchestrator, "list_models", None)
            models = await listing() if listing is not None else []
        except ConfigurationError as error:
            return Check("orchestrator", works=False, detail=error.problem, remedy=f"{error.variable}: {error.remedy}")
        except ConclaveError as error:
            return Check("orchestrator", works=False, detail=str(error), remedy="Check that the model runs.")
        offered = f", offers {', '.join(models[:5])}" if models else ""
        return Check(
            "orchestrator", works=True, detail=f"{voices.identity.name}{offered}", remedy=" ".join(voices.notices)
        )


def _examine_rosters(settings: Settings) -> Check:
    from infrastructure.rosters.file_roster_source import FileRosterSource

    source = FileRosterSource(settings.rosters_dir)
    found = ", ".join(f"{name} ({len(source.get(name).agents)})" for name in source.names())
    problems = source.problems()
    if problems:
        unusable = "; ".join(str(problem) for problem in problems)
        return Check(
            "rosters", works=False, detail=f"{found}; {unusable}", remedy="CONCLAVE_ROSTERS_DIR: mend these files."
        )
    return Check("rosters", works=True, detail=found)


def _examine_doors(settings: Settings) -> Check:
    keys = settings.keyring()
    who = "API keys configured" if keys else "no API keys: the server answers on loopback only"
    return Check("doors", works=True, detail=who)
