"""Who answers for the agents, chosen by the settings, and what traces the calls to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from api.bootstrap.desk import open_desk
from api.bootstrap.process import Purpose
from api.bootstrap.work_queue import shares_queue
from application.ports.agent_orchestrator import AgentOrchestratorProtocol
from application.ports.model_desk import ModelDesk
from application.ports.provider_standing import ProviderStanding
from application.services.deliberation_service import OrchestratorIdentity
from domain.errors.configuration import ConfigurationError
from domain.models.agent_pool import AgentPool

if TYPE_CHECKING:
    from infrastructure.orchestrators.provider_desk import ProviderDesk
    from infrastructure.rosters.file_roster_source import FileRosterSource
    from infrastructure.settings import OrchestratorKind, Settings
    from infrastructure.stubs.crash_points import CrashPlan
    from infrastructure.telemetry.open_telemetry import OpenTelemetryTracer
    from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics

__all__ = ["Voices", "observed", "open_tracer", "open_voices", "rosters_of", "standings"]

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


@dataclass(frozen=True, slots=True)
class Voices:
    """Who answers for the agents, what to say about it, how many it answers at a time, and over which desk models are asked."""

    orchestrator: AgentOrchestratorProtocol
    identity: OrchestratorIdentity
    at_a_time: int
    notices: tuple[str, ...] = ()
    works: bool = True
    desk: ModelDesk | None = None
    provider_desk: ProviderDesk | None = None


async def open_voices(
    settings: Settings,
    purpose: Purpose,
    stack: AsyncExitStack,
    tracer: OpenTelemetryTracer | None = None,
    metrics: PrometheusMetrics | None = None,
) -> Voices:
    """Those that the settings choose, closed with `stack`; for `READ` none that costs anything.

    Raises `ConfigurationError`, and `EmbeddedModelError` where the local model does not start.
    """
    from infrastructure.settings import OrchestratorKind, choose_orchestrator

    slots = min(settings.llm_max_concurrency or settings.max_concurrent_agents, settings.max_concurrent_agents)
    kind = OrchestratorKind.SIMULATED if purpose is Purpose.READ else choose_orchestrator(settings)
    asks_models = kind in {OrchestratorKind.OPENAI, OrchestratorKind.CREWAI}
    desk = open_desk(settings, slots, stack, tracer) if asks_models else None
    if desk is not None and metrics is not None:
        metrics.watch_limiters(desk.limiters)
        metrics.watch_breakers(desk.open_breakers)
    if purpose is Purpose.SERVE and shares_queue(settings, purpose):
        return _voices_of_workers(_identity(settings, kind), desk)
    if desk is not None and kind is OrchestratorKind.CREWAI:
        return await _open_crewai(settings, desk, slots, stack)
    if desk is not None:
        return Voices(desk, _identity(settings, kind), slots, desk=desk, provider_desk=desk)
    if kind is OrchestratorKind.LOCAL:
        return await _open_local_model(settings, slots, stack)
    from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub

    simulated = OrchestratorIdentity("simulated", simulated=True)
    return Voices(AgentOrchestratorStub(), simulated, settings.max_concurrent_agents, (_SIMULATED_NOTICE,))


def _identity(settings: Settings, kind: OrchestratorKind) -> OrchestratorIdentity:
    """As documents name them. What is replayed was once answered by a model, so it is not simulated."""
    from infrastructure.settings import OrchestratorKind

    if kind in {OrchestratorKind.OPENAI, OrchestratorKind.CREWAI} and settings.replay_dir is not None:
        return OrchestratorIdentity("replay", simulated=False)
    return OrchestratorIdentity(kind.value, simulated=kind is OrchestratorKind.SIMULATED)


def _voices_of_workers(identity: OrchestratorIdentity, desk: ProviderDesk | None) -> Voices:
    """Those of the workers: this process only says who they are, and refuses what they could not ask."""
    from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub

    notices = (_SIMULATED_NOTICE,) if identity.simulated else ()
    return Voices(AgentOrchestratorStub(), identity, 1, notices, works=False, desk=desk, provider_desk=desk)


async def _open_crewai(settings: Settings, desk: ProviderDesk, slots: int, stack: AsyncExitStack) -> Voices:
    from infrastructure.orchestrators.crewai_orchestrator import CrewAIAdapter, CrewDesk
    from infrastructure.settings import OrchestratorKind

    adapter = CrewAIAdapter(models=desk, storage_dir=settings.data_dir / "crewai", crews_dir=settings.rosters_dir)
    await stack.enter_async_context(adapter)
    return Voices(adapter, _identity(settings, OrchestratorKind.CREWAI), slots, desk=CrewDesk(desk), provider_desk=desk)


async def _open_local_model(settings: Settings, slots: int, stack: AsyncExitStack) -> Voices:
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
    return Voices(WatchedOrchestrator(client, model), identity, slots, (_LOCAL_NOTICE.format(model=model.alias),))


def standings(voices: Voices, pool: AgentPool) -> Sequence[ProviderStanding]:
    """How those stand who answer: providers and models where models are asked over a desk, else the one that answers here."""
    if voices.provider_desk is not None:
        return list(voices.provider_desk.standings())
    # Its slots are those of the pool, so that what it is asked now is what the pool gave out.
    return [ProviderStanding(voices.identity.name, max_concurrency=voices.at_a_time, in_flight=pool.active_count)]


def rosters_of(settings: Settings) -> FileRosterSource:
    """The built-in rosters and the operator's own, in which a member may have a crew where CrewAI asks it."""
    from infrastructure.rosters.file_roster_source import FileRosterSource
    from infrastructure.settings import OrchestratorKind

    return FileRosterSource(settings.rosters_dir, takes_crews=settings.orchestrator is OrchestratorKind.CREWAI)


def open_tracer(settings: Settings, stack: AsyncExitStack) -> OpenTelemetryTracer | None:
    """What draws traces, where a collector for them is named. Raises `ConfigurationError`."""
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


def observed(
    orchestrator: AgentOrchestratorProtocol, tracer: OpenTelemetryTracer | None, crash: CrashPlan | None
) -> AgentOrchestratorProtocol:
    """That orchestrator, whose log lines name the agent asked, and whose calls are spans where there are traces."""
    from infrastructure.telemetry.named_calls import NamedCalls

    if crash is not None:
        orchestrator = crash.orchestrator(orchestrator)
    return NamedCalls(orchestrator if tracer is None else tracer.traced(orchestrator))
