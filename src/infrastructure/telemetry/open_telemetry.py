"""Traces by OpenTelemetry, sent as OTLP over HTTP: which deliberation, round and agent took how long, and no word of what was said."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest
from application.ports.tracing import Span
from domain.errors.agent import AgentInvocationError

__all__ = ["OpenTelemetryTracer", "TracedCalls"]

_EXPORT_TIMEOUT_S = 2.0
_CLOSE_TIMEOUT_S = 4.0
# Those who asked for what has not begun yet; more do not fit into the queues of a process.
_MAX_REMEMBERED = 10_000
_MAX_ATTRIBUTE = 256
_UNOBSERVED_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_BAD_ENDS = frozenset({"failed", "inquorate", "halted"})


class OpenTelemetryTracer:
    """Draws spans that hold ids, numbers and states only. A collector that is away costs spans, and nothing else waits for it.

    A provider of its own, so that nobody's global one is touched: whoever embeds Conclave keeps theirs.
    """

    def __init__(self, endpoint: str, *, version: str, exporter: SpanExporter | None = None) -> None:
        """`endpoint` is the whole address that takes traces; spans go to `exporter` instead where a test gives one."""
        resource = Resource.create({SERVICE_NAME: "conclave", SERVICE_VERSION: version})
        self._provider = TracerProvider(
            resource=resource, span_limits=SpanLimits(max_attribute_length=_MAX_ATTRIBUTE), shutdown_on_exit=False
        )
        sent_by = exporter if exporter is not None else OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(sent_by))
        self._tracer = self._provider.get_tracer("conclave", version)
        self._propagator = TraceContextTextMapPropagator()
        self._askers: OrderedDict[str, trace.SpanContext] = OrderedDict()

    def accepted(self, deliberation_id: str) -> None:
        """Remember the span of the request that is being served, if there is one, until the deliberation begins here."""
        asker = trace.get_current_span().get_span_context()
        if asker.is_valid:
            self._askers[deliberation_id] = asker
            if len(self._askers) > _MAX_REMEMBERED:
                self._askers.popitem(last=False)

    def deliberation(self, deliberation_id: str, *, agents: int) -> AbstractContextManager[Span]:
        """A span under that of whoever asked; under none that only happens to be at work where it begins."""
        asker = self._askers.pop(deliberation_id, None)
        around = Context() if asker is None else trace.set_span_in_context(trace.NonRecordingSpan(asker), Context())
        attributes: dict[str, str | int] = {"conclave.deliberation_id": deliberation_id, "conclave.agents": agents}
        return self._drawn("deliberation", attributes, around)

    def round(self, deliberation_id: str, number: int, *, batch_id: str, agents: int) -> AbstractContextManager[Span]:
        """A span under that of the deliberation."""
        attributes: dict[str, str | int] = {
            "conclave.deliberation_id": deliberation_id,
            "conclave.round": number,
            "conclave.batch_id": batch_id,
            "conclave.agents": agents,
        }
        return self._drawn("round", attributes, None)

    def traced(self, orchestrator: AgentOrchestratorProtocol) -> TracedCalls:
        """That orchestrator, with a span for each call."""
        return TracedCalls(orchestrator, self._tracer)

    def call_headers(self) -> Mapping[str, str]:
        """The W3C `traceparent` of what is at work, for whoever is called from here; empty outside of every span."""
        headers: dict[str, str] = {}
        self._propagator.inject(headers)
        return headers

    def http_telemetry(self) -> Mapping[str, Any]:
        """What FastAPI's own tracing wants to know: a span for each request, under the caller's `traceparent`, without bodies."""
        return {
            "tracer_provider": self._provider,
            "tracing": True,
            "exclude": lambda scope: scope["path"] in _UNOBSERVED_PATHS,
        }

    async def close(self) -> None:
        """Send what is left, for some seconds at the most."""
        # In a thread that nobody joins: the vendor waits for a collector longer than a process has that is told to stop.
        done = threading.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            done.set()

        threading.Thread(target=shut_down, name="traces-last", daemon=True).start()
        await asyncio.to_thread(done.wait, _CLOSE_TIMEOUT_S)

    @contextmanager
    def _drawn(self, name: str, attributes: Mapping[str, str | int], around: Context | None) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name, around, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield _DrawnSpan(span)
            except BaseException as error:
                # The kind alone: what an error says may hold what somebody wrote.
                _fail(span, type(error).__name__)
                raise


class _DrawnSpan:
    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def ended_as(self, state: str) -> None:
        """Say how that ended which the span stands for."""
        self._span.set_attribute("conclave.state", state)
        if state in _BAD_ENDS:
            self._span.set_status(Status(StatusCode.ERROR, state))


class TracedCalls:
    """Asks through another orchestrator; each call is a span with the ids of who is asked, the tokens used and the kind of failure."""

    def __init__(self, orchestrator: AgentOrchestratorProtocol, tracer: trace.Tracer) -> None:
        self._orchestrator = orchestrator
        self._tracer = tracer

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """As the other does."""
        attributes: dict[str, str | int] = {
            "conclave.deliberation_id": request.context.topic_id,
            "conclave.batch_id": request.batch_id,
            "conclave.round": request.round_number,
            "conclave.agent_id": request.agent_id,
            "conclave.attempt": request.attempt,
        }
        with self._tracer.start_as_current_span(
            "agent.call",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                output = await self._orchestrator.invoke(request)
            except AgentInvocationError as error:
                _fail(span, error.kind)
                raise
            except BaseException as error:
                _fail(span, type(error).__name__)
                raise
            # An orchestrator of somebody else's may return anything; who calls it finds out.
            if isinstance(output, AgentOutput):
                span.set_attribute("gen_ai.usage.input_tokens", output.usage.input_tokens)
                span.set_attribute("gen_ai.usage.output_tokens", output.usage.output_tokens)
                if output.model is not None:
                    span.set_attribute("gen_ai.response.model", output.model)
            return output

    def prompt_of(self, request: AgentRequest) -> str | None:
        """As the other says."""
        describe = getattr(self._orchestrator, "prompt_of", None)
        return None if describe is None else describe(request)


def _fail(span: trace.Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, kind))
