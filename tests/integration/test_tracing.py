"""Traces from the caller through the server to a collector, over real connections."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from infrastructure.telemetry.open_telemetry import OpenTelemetryTracer
from tests.llm_server.handle import LlmServer

SOURCES = Path(__file__).resolve().parents[2] / "src"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
OPTIONS = ["at-all-hours", "never-at-night"]
SAID = "Should the harbour be opened at night?"


class Collector:
    """Takes traces on loopback, as an OTLP/HTTP collector does."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        outer = self

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.paths.append(self.path)
                outer.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[Span]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def text(span: Span, key: str) -> str | None:
    return next((pair.value.string_value for pair in span.attributes if pair.key == key), None)


@dataclass(frozen=True)
class Traced:
    """What became of one deliberation of three agents, asked for with a `traceparent` of the caller's own."""

    deliberation_id: str
    spans: list[Span]
    sent: list[bytes]
    traceparents_at_the_model: list[str | None]


def deliberate(collector: Collector, far_end: LlmServer, folder: Path, **settings: str) -> Traced:
    environment = os.environ | settings
    environment |= {
        "CONCLAVE_DATA_DIR": str(folder),
        "CONCLAVE_ORCHESTRATOR": "openai",
        "CONCLAVE_LLM_BASE_URL": far_end.base_url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
    }
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=SOURCES) as process:
        assert process.stdout is not None
        try:
            said = b"".join(iter(process.stdout.readline, b"}\n"))
            (url,) = json.loads(said + b"}")["urls"]
            body = {"question": SAID, "answer": {"kind": "choice", "options": OPTIONS}, "agents": {"count": 3}}
            asked = urllib.request.Request(
                f"{url}/v1/deliberations?wait=30",
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json", "traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"},
            )
            with urllib.request.urlopen(asked, timeout=60) as response:
                deliberation_id = json.load(response)["id"]
            with urllib.request.urlopen(f"{url}/healthz", timeout=10) as response:
                assert response.status == 200
        finally:
            process.terminate()
        assert process.wait(20) == 0
    assert set(collector.paths) == {"/v1/traces"}
    calls = [entry for entry in far_end.journal() if entry["path"].endswith("/chat/completions")]
    at_the_model = [entry["headers"].get("traceparent") for entry in calls]
    return Traced(deliberation_id, collector.spans(), collector.bodies, at_the_model)


def test_a_request_lies_in_the_trace_of_its_caller_and_no_text_is_sent(
    collector: Collector, llm_server: LlmServer, tmp_path: Path
) -> None:
    traced = deliberate(collector, llm_server, tmp_path)
    (request,) = [span for span in traced.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    calls = [span for span in traced.spans if span.name == "agent.call"]
    assert {text(call, "conclave.deliberation_id") for call in calls} == {traced.deliberation_id}
    assert len(calls) == 3
    unsaid = [SAID, *OPTIONS]
    assert [body for body in traced.sent if any(words.encode() in body for words in unsaid)] == []
    assert traced.traceparents_at_the_model == [None] * 3


def test_a_deliberation_lies_within_the_request_that_asked_for_it(
    collector: Collector, llm_server: LlmServer, tmp_path: Path
) -> None:
    spans = deliberate(collector, llm_server, tmp_path).spans
    (request,) = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    (whole,) = [span for span in spans if span.name == "deliberation"]
    (round_,) = [span for span in spans if span.name == "round"]
    calls = [span for span in spans if span.name == "agent.call"]
    assert whole.parent_span_id == request.span_id
    assert round_.parent_span_id == whole.span_id
    assert {call.parent_span_id for call in calls} == {round_.span_id}
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
    assert text(whole, "conclave.state") == "completed"


def test_models_are_told_of_the_trace_only_where_that_is_switched_on(
    collector: Collector, llm_server: LlmServer, tmp_path: Path
) -> None:
    traced = deliberate(collector, llm_server, tmp_path, CONCLAVE_TRACES_TO_LLM="true")
    calls = [span for span in traced.spans if span.name == "agent.call"]
    expected = {f"{span.trace_id.hex()}-{span.span_id.hex()}" for span in calls}
    assert {(told or "")[3:-3] for told in traced.traceparents_at_the_model} == expected


async def test_a_collector_that_is_away_does_not_keep_the_process(collector: Collector) -> None:
    collector.close()
    tracer = OpenTelemetryTracer(f"{collector.url}/v1/traces", version="0")
    with tracer.deliberation("d-1", agents=1):
        pass
    async with asyncio.timeout(10):
        await tracer.close()
