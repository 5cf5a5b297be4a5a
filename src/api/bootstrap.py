"""Settings in, open service and its closer out: the only module of the doors that sees the infrastructure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from api.conclave import Check, Conclave, Health
from application.ports.agent_orchestrator import AgentOrchestratorProtocol
from application.services.acceptance import Acceptance
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_output_service import DeliberationOutputService
from application.services.deliberation_service import DeliberationService, OrchestratorIdentity
from domain.errors.conclave_error import ConclaveError
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.agent_pool import AgentPool

if TYPE_CHECKING:
    from application.ports.halt_channel import HaltChannel
    from application.ports.witness_log import WitnessLog
    from application.ports.work_queue import WorkQueue
    from application.services.halt_service import HaltService
    from application.services.log_audit import AuditReport
    from application.services.verification import VerificationTools
    from application.services.witness_service import WitnessService
    from domain.errors.witness import LogUnverifiedError
    from domain.witness.checkpoint import VerifierKey
    from infrastructure.halt.dual_channel_halt_checker import DualChannelHaltChecker
    from infrastructure.persistence.database import Database
    from infrastructure.persistence.own_log import OwnLog
    from infrastructure.queues.process_locks import ProcessLocks
    from infrastructure.settings import OrchestratorKind, Settings
    from infrastructure.stubs.crash_points import CrashPlan
    from infrastructure.telemetry.open_telemetry import OpenTelemetryTracer
    from infrastructure.witness.cosigning_witness import CosigningWitness

__all__ = [
    "Purpose",
    "audit_log",
    "configure_logging",
    "examine",
    "load_settings",
    "open_conclave",
    "open_cosigner",
    "open_halt",
    "run",
    "upgrade_database",
    "verification_tools",
]

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)
_DEFAULT_ORIGIN = "conclave.local/witness"
_RECORD_WATCH_S = 0.25
# What is in a queue of its own process costs nothing to look for; in a shared one each look asks the database.
_OWN_SWEEP_S = 1.0
_SHARED_SWEEP_S = 5.0
# Where exactly it does not verify may name anchors, whose addresses are not for everybody who may ask why it is halted.
_RECORD_HALTS = "the witness log does not verify; `conclave witness fsck` says where"

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
    WORK = "work"
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

    `SERVE` takes over what other processes left, or passes everything on where the queue is shared; `WORK` works on what is in that
    queue; `ASK` runs what it is given; `READ` opens nothing but the database. Raises `ConfigurationError` and
    `DependencyUnavailableError`.
    """
    from infrastructure.persistence.database import open_database
    from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
    from infrastructure.rosters.file_roster_source import FileRosterSource
    from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics

    _make_data_folder(settings)
    async with AsyncExitStack() as stack:
        await _prepare_database(settings)
        database = await open_database(settings.database_url)
        stack.push_async_callback(database.close)
        metrics = PrometheusMetrics()
        repository = SqlDeliberationRepository(database, metrics=metrics)
        stack.push_async_callback(repository.close)
        signs = purpose is not Purpose.WORK
        crash = _crash_plan(settings)
        store = repository if crash is None else crash.store(repository)
        witness = _open_witness(settings, database, signs=signs, crash=crash)
        halting = await stack.enter_async_context(_open_halting(settings, lambda: witness.problem, crash=crash))
        halt = halting.checker
        metrics.watch_log(lambda: max(repository.tree_size, witness.tree_size), lambda: witness.problem is None)
        metrics.watch_anchors(lambda: len(witness.anchor_problems))
        if purpose is not Purpose.READ:
            await witness.check_at_start()
            if signs:
                await witness.note_key()
            if witness.problem is not None:
                halt.hold(_RECORD_HALTS)
            await halt.first_look()
            # Now rather than while the first halt waits for it.
            await halting.log.open()
        tracer = None if purpose is Purpose.READ else _open_tracer(settings, stack)
        voices = await _open_voices(settings, purpose, stack, tracer)
        identity = voices.identity
        pool = AgentPool(voices.at_a_time)
        fan_out = ConcurrentDeliberationService(
            orchestrator=_observed(voices.orchestrator, tracer, crash), halt_checker=halt, pool=pool, metrics=metrics
        )
        queue = _open_queue(settings, purpose, stack)
        queue = queue if crash is None else crash.queue(queue)
        registry = _open_registry(settings, stack)
        if voices.works:
            deliberations = DeliberationService.with_worker(
                fan_out=fan_out,
                store=store,
                queue=queue,
                halt_checker=halt,
                orchestrator=identity,
                metrics=metrics,
                registry=registry,
                tracer=tracer,
                max_running=settings.max_running_deliberations,
                takes_over=purpose in {Purpose.SERVE, Purpose.WORK},
                queued_sweep_s=_SHARED_SWEEP_S if purpose is Purpose.WORK else _OWN_SWEEP_S,
            )
        else:
            deliberations = DeliberationService(
                repository=store,
                reader=store,
                leases=store,
                queue=queue,
                halt_checker=halt,
                orchestrator=identity,
                metrics=metrics,
                process=registry.own,
            )
        metrics.watch_pool(pool, lambda: fan_out.waiting_count)
        metrics.watch_halt(
            lambda: halt.state.halted,
            lambda: {name: channel.reachable for name, channel in halt.state.channels.items()},
        )
        metrics.watch_deliberations(lambda: deliberations.running_count, lambda: deliberations.queued_count)

        async def look_at_database() -> Health:
            try:
                await repository.check()
            except DependencyUnavailableError as error:
                return Health(works=False, detail=error.problem)
            return Health(works=True)

        async def look_at_record() -> Health:
            problem = witness.problem
            return Health(works=problem is None, detail="" if problem is None else problem.problem)

        if purpose is not Purpose.READ:
            if signs:
                stack.push_async_callback(_publish_last, witness)
            await deliberations.start()
            stack.push_async_callback(deliberations.stop, drain_s=0.0)
            await stack.enter_async_context(_kept_record(witness, halt, signs=signs))
            await stack.enter_async_context(_settled_halts(halting.service))
        yield Conclave(
            deliberations=deliberations,
            acceptance=Acceptance(deliberations=deliberations, reader=repository),
            outputs=DeliberationOutputService(repository, metrics=metrics),
            witness=witness,
            halt=halting.service,
            rosters=FileRosterSource(settings.rosters_dir),
            fan_out=fan_out,
            keys=settings.keyring(),
            health={"database": look_at_database, "record": look_at_record, **_looks_at_channels(halt)},
            render_metrics=metrics.render,
            data_dir=settings.data_dir,
            orchestrator=identity.name,
            simulated=identity.simulated,
            notices=[*settings.notices, *voices.notices],
            http_telemetry={} if tracer is None else tracer.http_telemetry(),
        )


def _shares_queue(settings: Settings, purpose: Purpose) -> bool:
    from infrastructure.settings import QueueKind

    return settings.queue is QueueKind.PROCRASTINATE and purpose in {Purpose.SERVE, Purpose.WORK}


def _open_queue(settings: Settings, purpose: Purpose, stack: AsyncExitStack) -> WorkQueue:
    """The queue of all workers where it is shared, else one of this process alone."""
    if _shares_queue(settings, purpose):
        from infrastructure.queues.procrastinate_queue import ProcrastinateQueue

        shared = ProcrastinateQueue(settings.database_url)
        stack.push_async_callback(shared.close)
        return shared
    if purpose is Purpose.WORK:
        raise ConfigurationError(
            variable="CONCLAVE_QUEUE",
            problem="the server works on its deliberations itself, so there is nothing for a worker to do",
            remedy="Set it to procrastinate, here and for the server, with a postgresql:// address of the database.",
        )
    from infrastructure.queues.embedded_queue import EmbeddedQueue

    return EmbeddedQueue()


def _open_registry(settings: Settings, stack: AsyncExitStack) -> ProcessLocks:
    from infrastructure.queues.process_locks import ProcessLocks

    locks = ProcessLocks(settings.data_dir / "processes")
    stack.callback(locks.close)
    return locks


def _crash_plan(settings: Settings) -> CrashPlan | None:
    """What kills this process at a named point, where a test asks for it."""
    if settings.crash_at is None:
        return None
    from infrastructure.stubs.crash_points import CrashAt, CrashPlan

    return CrashPlan(CrashAt.parse(settings.crash_at))


def _open_witness(
    settings: Settings, database: Database, *, signs: bool, crash: CrashPlan | None = None
) -> WitnessService:
    """With `signs` it has the log's key; without, it compares with what others signed, and anchors nothing."""
    from application.services.witness_service import WitnessService
    from infrastructure.persistence.sql_witness_log import SqlWitnessLog
    from infrastructure.witness.anchors import open_anchor, parse_anchors
    from infrastructure.witness.ed25519 import SigningKey
    from infrastructure.witness.key_file import open_signing_key
    from infrastructure.witness.signer import CheckpointSigner

    origin = settings.witness_origin or _DEFAULT_ORIGIN
    if not signs:
        nobody = CheckpointSigner(SigningKey.generate(), origin)
        return WitnessService(log=SqlWitnessLog(database), signer=nobody, tools=verification_tools())
    key_file = settings.witness_key_file or settings.data_dir / "witness.key"
    anchors = [open_anchor(spec) for spec in parse_anchors(",".join(settings.witness_anchors))]
    signer = CheckpointSigner(open_signing_key(key_file, create=True, name=origin), origin)
    log: WitnessLog = SqlWitnessLog(database)
    if crash is not None:
        log = crash.witness_log(log)
    return WitnessService(log=log, signer=signer, anchors=anchors, tools=verification_tools())


@dataclass(frozen=True, slots=True)
class _Halting:
    """The halt as this process has it: what watches it, what changes it, and where that is recorded."""

    checker: DualChannelHaltChecker
    service: HaltService
    log: OwnLog


@asynccontextmanager
async def _open_halting(
    settings: Settings,
    log_problem: Callable[[], LogUnverifiedError | None],
    *,
    stale_s: float = 1.0,
    crash: CrashPlan | None = None,
) -> AsyncIterator[_Halting]:
    """Needs no channel to be there, and watches none of them before it is asked."""
    from application.services.halt_service import HaltService
    from infrastructure.halt.dual_channel_halt_checker import DualChannelHaltChecker
    from infrastructure.halt.note_files import HaltNoteFiles
    from infrastructure.persistence.own_log import OwnLog

    channels = _halt_channels(settings)
    if crash is not None:
        channels = [crash.halt_channel(channel) for channel in channels]
    checker = DualChannelHaltChecker(channels=channels, stale_s=stale_s)
    log = OwnLog(settings.database_url)
    notes = HaltNoteFiles(settings.halt_file)
    entries = log if crash is None else crash.entry_log(log)
    service = HaltService(channels=channels, watch=checker, log=entries, notes=notes, log_problem=log_problem)
    try:
        yield _Halting(checker, service, log)
    finally:
        checker.close()
        for channel in channels:
            channel.close()
        await log.close()


@asynccontextmanager
async def open_halt(settings: Settings, *, checks_log: bool = False) -> AsyncIterator[HaltService]:
    """Sets, clears and shows the halt, with every channel read once, whether or not there is a database; watches nothing.

    With `checks_log` nothing is added to a log that does not verify: whoever halts does not wait for that. Raises
    `ConfigurationError`.
    """
    found: list[LogUnverifiedError] = []
    _make_data_folder(settings)
    # Nothing is read again by itself here, so that nothing can be too old.
    async with _open_halting(settings, lambda: found[0] if found else None, stale_s=float("inf")) as halting:
        state = await halting.service.look()
        if checks_log and state.channels["database"].reachable:
            async with open_conclave(settings, purpose=Purpose.READ) as conclave:
                await conclave.witness.check_at_start()
                found += [] if conclave.witness.problem is None else [conclave.witness.problem]
        yield halting.service


def _halt_channels(settings: Settings) -> list[HaltChannel]:
    """The one that reaches every process first: it is cleared last."""
    from infrastructure.halt.file_channel import FileHaltChannel
    from infrastructure.persistence.sql_halt_channel import SqlHaltChannel

    channels: list[HaltChannel] = [SqlHaltChannel(settings.database_url), FileHaltChannel(settings.halt_file)]
    if settings.halt_redis_url is not None:
        from infrastructure.halt.redis_channel import RedisHaltChannel

        channels.append(RedisHaltChannel(settings.halt_redis_url))
    return channels


@asynccontextmanager
async def _settled_halts(service: HaltService) -> AsyncIterator[None]:
    """Within it halts that took effect without the log are recorded once it is back."""
    task = asyncio.create_task(service.settle_for_ever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _looks_at_channels(halt: DualChannelHaltChecker) -> dict[str, Callable[[], Awaitable[Health]]]:
    def look_at(name: str) -> Callable[[], Awaitable[Health]]:
        async def look() -> Health:
            channel = halt.state.channels[name]
            return Health(works=channel.reachable, detail=channel.problem)

        return look

    return {f"halt.{name}": look_at(name) for name in halt.state.channels}


@asynccontextmanager
async def _kept_record(witness: WitnessService, halt: DualChannelHaltChecker, *, signs: bool) -> AsyncIterator[None]:
    """Within it the log is signed and published as it grows, and everything stands still while it does not verify."""

    async def watch() -> None:
        halted_here = witness.problem is not None
        while True:
            await asyncio.sleep(_RECORD_WATCH_S)
            if witness.problem is not None and not halted_here:
                halted_here = True
                halt.hold(_RECORD_HALTS)
            elif witness.problem is None and halted_here:
                halted_here = False
                halt.let_go()

    keep = witness.publish_for_ever if signs else witness.watch_for_ever
    tasks = [asyncio.create_task(watch()), asyncio.create_task(keep())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _publish_last(witness: WitnessService) -> None:
    """Sign what was added last, so that the next start compares with all of it."""
    try:
        await witness.publish()
    except ConclaveError as error:
        _logger.warning("the last checkpoint was not published: %s", error)


def upgrade_database(settings: Settings) -> str:
    """Bring the database to the present schema; returns its revision."""
    from infrastructure.persistence.migrate import current_revision, upgrade

    _make_data_folder(settings)
    url = settings.owner_database_url or settings.database_url
    upgrade(url, application_url=settings.database_url if settings.owner_database_url else None)
    return current_revision(url) or "empty"


def verification_tools() -> VerificationTools:
    """What checks a bundle or an export offline: signatures and canonical JSON. Needs no settings and no database."""
    from application.services.verification import VerificationTools
    from infrastructure.witness.canonical_json import parse_canonical
    from infrastructure.witness.ed25519 import verify_signature

    return VerificationTools(check_signature=verify_signature, parse_canonical=parse_canonical)


async def audit_log(settings: Settings, *, progress: Callable[[int], None]) -> tuple[AuditReport, Mapping[str, str]]:
    """Check all of the log, what is stored of deliberations, and what was signed of it here and at the anchors.

    `progress` is told how many entries were seen.

    Returns what was found sound, and by anchor why one could not be asked. Raises `VerificationRefusedError` and `LogUnverifiedError`.
    """
    from application.services.log_audit import audit
    from infrastructure.persistence.database import open_database
    from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
    from infrastructure.persistence.sql_witness_log import SqlWitnessLog
    from infrastructure.witness.canonical_json import read_json

    async with open_conclave(settings, purpose=Purpose.READ) as conclave:
        database = await open_database(settings.database_url)
        deliberations = SqlDeliberationRepository(database)
        try:
            report = await audit(
                SqlWitnessLog(database),
                key=conclave.witness.verifier_key,
                tools=verification_tools(),
                deliberations=deliberations,
                read_json=read_json,
                progress=progress,
            )
        finally:
            await deliberations.close()
            await database.close()
        await conclave.witness.check_at_start()
        if conclave.witness.problem is not None:
            raise conclave.witness.problem
        return report, dict(conclave.witness.anchor_problems)


def open_cosigner(settings: Settings, *, name: str, logs: Mapping[str, VerifierKey]) -> CosigningWitness:
    """A witness for the logs of these origins, with a key and a store of its own in the data folder.

    Raises `ConfigurationError` and `DependencyUnavailableError`.
    """
    from infrastructure.witness.cosigning_witness import CosigningWitness
    from infrastructure.witness.key_file import open_signing_key

    _make_data_folder(settings)
    key_file, store = settings.data_dir / "cosigner.key", settings.data_dir / "cosigned.db"
    if key_file.exists() and not store.exists():
        raise ConfigurationError(
            variable="CONCLAVE_DATA_DIR",
            problem=f"there is the key {str(key_file)!r}, but no longer the record of what it has cosigned",
            remedy="Bring cosigned.db back, or move the key away and have the logs take the new one.",
        )
    try:
        # Before the key, so that no key is ever older than its record.
        store.touch(mode=0o600)
    except OSError as error:
        raise ConfigurationError(
            variable="CONCLAVE_DATA_DIR",
            problem=f"{str(store)!r} cannot be made ({error.strerror})",
            remedy="Name a folder that this user may write to.",
        ) from error
    try:
        return CosigningWitness(store, key=open_signing_key(key_file, create=True, name=name), name=name, logs=logs)
    except ValueError as error:
        raise ConfigurationError(
            variable="--name",
            problem=f"{name!r} cannot name a witness",
            remedy="Give a name without blanks and plus signs.",
        ) from error


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
    works: bool = True


def _open_tracer(settings: Settings, stack: AsyncExitStack) -> OpenTelemetryTracer | None:
    """What draws traces, where a collector for them is named."""
    if settings.traces_endpoint is None:
        return None
    from importlib.metadata import version

    try:
        from infrastructure.telemetry.open_telemetry import OpenTelemetryTracer
    except ImportError as error:
        raise ConfigurationError(
            variable="CONCLAVE_TRACES_ENDPOINT",
            problem=f"traces need OpenTelemetry ({error})",
            remedy="Install it: uv pip install 'archon-conclave[tracing]'",
        ) from None
    tracer = OpenTelemetryTracer(settings.traces_endpoint, version=version("archon-conclave"))
    stack.push_async_callback(tracer.close)
    return tracer


def _observed(
    orchestrator: AgentOrchestratorProtocol, tracer: OpenTelemetryTracer | None, crash: CrashPlan | None
) -> AgentOrchestratorProtocol:
    """That orchestrator, whose log lines name the agent asked, and whose calls are spans where there are traces."""
    from infrastructure.telemetry.named_calls import NamedCalls

    if crash is not None:
        orchestrator = crash.orchestrator(orchestrator)
    return NamedCalls(orchestrator if tracer is None else tracer.traced(orchestrator))


async def _open_voices(
    settings: Settings, purpose: Purpose, stack: AsyncExitStack, tracer: OpenTelemetryTracer | None = None
) -> _Voices:
    from infrastructure.settings import OrchestratorKind, choose_orchestrator

    slots = min(settings.llm_max_concurrency or settings.max_concurrent_agents, settings.max_concurrent_agents)
    kind = OrchestratorKind.SIMULATED if purpose is Purpose.READ else choose_orchestrator(settings)
    if purpose is Purpose.SERVE and _shares_queue(settings, purpose):
        return _voices_of_workers(kind)
    if kind is OrchestratorKind.OPENAI:
        return await _open_provider(settings, slots, stack, tracer)
    if kind is OrchestratorKind.LOCAL:
        return await _open_local_model(settings, slots, stack)
    from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub

    simulated = OrchestratorIdentity("simulated", simulated=True)
    return _Voices(AgentOrchestratorStub(), simulated, settings.max_concurrent_agents, (_SIMULATED_NOTICE,))


def _voices_of_workers(kind: OrchestratorKind) -> _Voices:
    """Those of the workers: this process only says who they are."""
    from infrastructure.settings import OrchestratorKind
    from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub

    is_simulated = kind is OrchestratorKind.SIMULATED
    identity = OrchestratorIdentity(kind.value, simulated=is_simulated)
    notices = (_SIMULATED_NOTICE,) if is_simulated else ()
    return _Voices(AgentOrchestratorStub(), identity, 1, notices, works=False)


async def _open_provider(
    settings: Settings, slots: int, stack: AsyncExitStack, tracer: OpenTelemetryTracer | None
) -> _Voices:
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
        call_headers=tracer.call_headers if tracer is not None and settings.traces_to_llm else None,
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
        await asyncio.to_thread(_examine_role, settings),
        await _examine_record(settings),
        *await asyncio.to_thread(_examine_halt, settings),
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


def _examine_role(settings: Settings) -> Check:
    from infrastructure.persistence.privileges import rights_beyond_appending

    name = "database role"
    if settings.database_url.startswith("sqlite"):
        return Check(
            name,
            works=True,
            detail="SQLite has none: triggers refuse changes of the record, but whoever may write the file can drop them",
            remedy="Use Postgres and a role that does not own the tables where that is not enough.",
        )
    try:
        excess = rights_beyond_appending(settings.database_url)
    except DependencyUnavailableError as error:
        return Check(name, works=False, detail=error.problem, remedy=error.remedy)
    if not excess:
        return Check(name, works=True, detail="adds to the record and cannot change it")
    return Check(
        name,
        works=False,
        detail=f"the application can do more to the record than add to it: {', '.join(excess)}",
        remedy="CONCLAVE_DATABASE_URL: name a role that owns nothing, and the owner in CONCLAVE_OWNER_DATABASE_URL only; "
        "then run: conclave db upgrade",
    )


async def _examine_record(settings: Settings) -> Check:
    name = "record"
    try:
        async with open_conclave(settings, purpose=Purpose.READ) as conclave:
            witness = conclave.witness
            await witness.check_at_start()
    except ConfigurationError as error:
        return Check(name, works=False, detail=error.problem, remedy=f"{error.variable}: {error.remedy}")
    except DependencyUnavailableError as error:
        return Check(name, works=False, detail=error.problem, remedy=error.remedy)
    if witness.problem is not None:
        return Check(name, works=False, detail=witness.problem.problem, remedy=witness.problem.remedy)
    if witness.anchor_problems:
        away = "; ".join(f"{anchor}: {problem}" for anchor, problem in witness.anchor_problems.items())
        return Check(name, works=False, detail=f"anchors: {away}", remedy="CONCLAVE_WITNESS_ANCHORS: mend these.")
    anchors = "" if settings.witness_anchors else "; no anchors, so a rollback of all of it would not be seen"
    return Check(name, works=True, detail=f"continues its last checkpoint, key {witness.verifier_key.name}{anchors}")


def _examine_halt(settings: Settings) -> list[Check]:
    from domain.errors.halt import HaltChannelUnreachableError

    remedies = {
        "database": "See what is said of the database.",
        "file": "CONCLAVE_HALT_FILE: name a file in a folder that is there; nothing else may be in its place.",
        "redis": "Check that it runs, and what CONCLAVE_HALT_REDIS_URL says.",
    }
    checks = []
    for channel in _halt_channels(settings):
        name = f"halt, channel {channel.name}"
        try:
            found = channel.read()
        except HaltChannelUnreachableError as error:
            checks.append(Check(name, works=False, detail=error.problem, remedy=remedies[channel.name]))
        else:
            detail = f"set: {found.reason or 'without a reason'}" if found.halted else "clear"
            checks.append(Check(name, works=True, detail=detail))
        finally:
            channel.close()
    return checks


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
