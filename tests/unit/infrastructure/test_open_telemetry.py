"""Holds traces to their promise: who, when and how it ended, under whoever asked, and never a word of what was said."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from application.ports.tracing import NullTracer, Tracer
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from domain.errors.agent import AgentInvocationError
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.telemetry.open_telemetry import OpenTelemetryTracer

SAID = "what-nobody-but-the-agents-may-read"


class Collected(SpanExporter):
    """Keeps spans as they would have been sent."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


class Drawn:
    """A tracer, and what it drew once that is asked for."""

    def __init__(self) -> None:
        self._collected = Collected()
        self.tracer = OpenTelemetryTracer("http://localhost:4318/v1/traces", version="0", exporter=self._collected)

    def spans(self) -> Collected:
        self.tracer._provider.force_flush()
        return self._collected


@pytest.fixture
def drawn() -> Iterator[Drawn]:
    made = Drawn()
    yield made
    made.tracer._provider.shutdown()


def request(number: int = 1) -> AgentRequest:
    context = ContextBundle(topic_id="d-1", topic_content=SAID, background=SAID)
    return AgentRequest(agent_id=f"archon-{number}", context=context, persona=SAID, batch_id="b-1", round_number=2)


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_both_tracers_are_adapters_of_the_port(drawn: Drawn) -> None:
    adapters: list[Tracer] = [NullTracer(), drawn.tracer]
    for tracer in adapters:
        tracer.accepted("d-1")
        with tracer.deliberation("d-1", agents=3) as span, tracer.round("d-1", 0, batch_id="b-1", agents=3):
            span.ended_as("completed")


def test_the_tracer_that_draws_nothing_makes_no_object() -> None:
    tracer = NullTracer()
    assert tracer.deliberation("d-1", agents=3) is tracer.round("d-2", 1, batch_id="b-1", agents=3)


async def test_calls_lie_within_their_round_and_rounds_within_their_deliberation(drawn: Drawn) -> None:
    service = ConcurrentDeliberationService(
        orchestrator=drawn.tracer.traced(AgentOrchestratorStub()), halt_checker=HaltCheckerStub()
    )
    with (
        drawn.tracer.deliberation("d-1", agents=3) as deliberation,
        drawn.tracer.round("d-1", 2, batch_id="b-1", agents=3),
    ):
        await service.invoke_concurrent([request(number) for number in range(3)])
        deliberation.ended_as("completed")
    spans = drawn.spans()
    (whole,), (round_,) = spans.named("deliberation"), spans.named("round")
    calls = spans.named("agent.call")
    assert whole.parent is None
    assert whole.context is not None
    assert round_.context is not None
    assert round_.parent is not None
    assert round_.parent.span_id == whole.context.span_id
    assert [call.parent.span_id if call.parent else None for call in calls] == [round_.context.span_id] * 3
    assert attributes(whole) == {
        "conclave.deliberation_id": "d-1",
        "conclave.agents": 3,
        "conclave.state": "completed",
    }
    assert attributes(round_)["conclave.round"] == 2
    assert {attributes(call)["conclave.agent_id"] for call in calls} == {"archon-0", "archon-1", "archon-2"}
    assert {attributes(call)["conclave.batch_id"] for call in calls} == {"b-1"}


async def test_no_word_of_question_answer_persona_or_error_is_in_a_span(drawn: Drawn) -> None:
    class Outspoken:
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            if request.agent_id == "archon-1":
                raise AgentInvocationError(f"the model said {SAID}", kind="garbage")
            if request.agent_id == "archon-2":
                raise ValueError(SAID)
            return AgentOutput(request.agent_id, request.request_id, SAID)

    service = ConcurrentDeliberationService(
        orchestrator=drawn.tracer.traced(Outspoken()), halt_checker=HaltCheckerStub()
    )
    with drawn.tracer.deliberation("d-1", agents=3):
        result = await service.invoke_concurrent([request(number) for number in range(3)])
    assert result.failure_count == 2
    spans = drawn.spans().spans
    assert len(spans) == 4
    assert [span.to_json() for span in spans if SAID in span.to_json()] == []
    kinds = {attributes(span)["conclave.agent_id"]: attributes(span).get("error.type") for span in spans[:3]}
    assert kinds == {"archon-0": None, "archon-1": "garbage", "archon-2": "ValueError"}


async def test_a_call_that_is_cancelled_ends_its_span_and_stays_cancelled(drawn: Drawn) -> None:
    class Hanging:
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            await asyncio.Event().wait()
            raise AssertionError

    call = asyncio.create_task(drawn.tracer.traced(Hanging()).invoke(request()))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    (span,) = drawn.spans().named("agent.call")
    assert attributes(span)["error.type"] == "CancelledError"


@pytest.mark.parametrize(("state", "code"), [("completed", StatusCode.UNSET), ("failed", StatusCode.ERROR)])
def test_a_bad_end_is_an_error_of_the_span(drawn: Drawn, state: str, code: StatusCode) -> None:
    with drawn.tracer.deliberation("d-1", agents=1) as span:
        span.ended_as(state)
    (ended,) = drawn.spans().named("deliberation")
    assert ended.status.status_code is code


def test_a_deliberation_lies_under_whoever_asked_for_it_and_not_under_what_is_at_work_when_it_begins(
    drawn: Drawn,
) -> None:
    tracer = drawn.tracer
    with tracer._tracer.start_as_current_span("request of d-1"):
        tracer.accepted("d-1")
    with tracer._tracer.start_as_current_span("request of d-2"), tracer.deliberation("d-1", agents=1):
        pass
    with tracer._tracer.start_as_current_span("request of d-3"), tracer.deliberation("unasked", agents=1):
        pass
    asked, unasked = drawn.spans().named("deliberation")
    (request_,) = drawn.spans().named("request of d-1")
    assert request_.context is not None
    assert asked.parent is not None
    assert asked.parent.span_id == request_.context.span_id
    assert unasked.parent is None


def test_who_asked_is_not_remembered_without_end(drawn: Drawn) -> None:
    with drawn.tracer._tracer.start_as_current_span("request"):
        for number in range(10_100):
            drawn.tracer.accepted(f"d-{number}")
    assert len(drawn.tracer._askers) == 10_000


def test_whoever_is_called_gets_the_traceparent_of_what_is_at_work(drawn: Drawn) -> None:
    assert drawn.tracer.call_headers() == {}
    with drawn.tracer.deliberation("d-1", agents=1):
        context = trace.get_current_span().get_span_context()
        expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        assert drawn.tracer.call_headers() == {"traceparent": expected}


def test_the_prompt_of_the_orchestrator_within_stays_known(drawn: Drawn) -> None:
    class Describing(AgentOrchestratorStub):
        def prompt_of(self, request: AgentRequest) -> str:
            return request.agent_id

    assert drawn.tracer.traced(Describing()).prompt_of(request()) == "archon-1"
    assert drawn.tracer.traced(AgentOrchestratorStub()).prompt_of(request()) is None
