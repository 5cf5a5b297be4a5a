"""A whole Conclave out of stubs, the REST server over it, and a client that sends exactly what it is told."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from api.bootstrap import verification_tools
from api.conclave import Conclave, Health
from api.main import RestServer, serve
from application.ports.agent_orchestrator import AgentOrchestratorProtocol
from application.ports.halt_channel import HaltChannel
from application.ports.halt_checker import HaltChecker
from application.ports.model_desk import ModelDesk
from application.ports.run_registry import RunProcess
from application.ports.usage_reader import UsageReader
from application.services.acceptance import Acceptance
from application.services.api_keys import ApiKeyring
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_output_service import DeliberationOutputService
from application.services.deliberation_service import DeliberationService, OrchestratorIdentity
from application.services.halt_service import HaltService
from application.services.quote_service import QuoteService
from application.services.recount_service import RecountService
from application.services.resolution_service import ResolutionService
from application.services.run_service import RunService
from application.services.topic_balance import TopicBalance
from application.services.track_record_service import TrackRecordService
from application.services.witness_service import WitnessService
from application.services.worth_service import WorthService
from domain.errors.dependency import DependencyUnavailableError
from domain.models.agent_pool import AgentPool
from domain.models.run import Run
from infrastructure.halt.dual_channel_halt_checker import DualChannelHaltChecker
from infrastructure.queues.embedded_queue import EmbeddedQueue
from infrastructure.rosters.file_roster_source import FileRosterSource
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.halt_notes_stub import HaltNotesStub
from infrastructure.stubs.in_memory_ballot_history import InMemoryBallotHistory
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.in_memory_resolution_history import InMemoryResolutionHistory
from infrastructure.stubs.in_memory_run_registry import InMemoryRunRegistry
from infrastructure.stubs.in_memory_usage_reader import InMemoryUsageReader
from infrastructure.stubs.in_memory_witness_log import InMemoryWitnessLog
from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.signer import CheckpointSigner

__all__ = ["Answer", "RunningServer", "ServerProcess", "open_stub_conclave", "running_server", "server_process"]

CLIENT_TIMEOUT_S = 30.0
REPOSITORY = Path(__file__).parents[1]

_Result = TypeVar("_Result")


@asynccontextmanager
async def open_stub_conclave(
    *,
    orchestrator: AgentOrchestratorProtocol | None = None,
    repository: Any = None,
    halt: HaltCheckerStub | None = None,
    channels: Sequence[HaltChannel] | None = None,
    keys: str = "",
    health: Mapping[str, Callable[[], Awaitable[Health]]] | None = None,
    max_running: int = 10,
    max_queued: int = 100,
    desk: ModelDesk | None = None,
    usage: UsageReader | None = None,
    open_runs: Callable[[HaltChecker], RunService] | None = None,
    watch_topics: bool = False,
    data_dir: Path | None = None,
) -> AsyncIterator[Conclave]:
    """An open Conclave that needs nothing outside the process.

    `halt` is obeyed and cannot be changed over REST; with `channels` instead, those are watched, and REST changes them.
    """
    store = repository if repository is not None else InMemoryRepository()
    halt_channels = channels or [HaltChannelStub("database"), HaltChannelStub("file")]
    checker = DualChannelHaltChecker(channels=halt_channels, stale_s=1.0 if channels else float("inf"))
    for channel in halt_channels if channels is None else ():
        checker.look(channel)
    obeyed: Any = checker if channels else halt or HaltCheckerStub()
    metrics = PrometheusMetrics(version="0")
    pool = AgentPool()
    fan_out = ConcurrentDeliberationService(
        orchestrator=orchestrator or AgentOrchestratorStub(), halt_checker=obeyed, pool=pool, metrics=metrics, desk=desk
    )
    log = store.log if isinstance(store, InMemoryRepository) else InMemoryWitnessLog()
    resolved = InMemoryResolutionHistory(store, log)
    worth = WorthService(InMemoryBallotHistory(store), metrics=metrics, resolved=resolved)
    record = TrackRecordService(resolved, orchestrator="simulated")
    topics = TopicBalance(store, is_on=watch_topics, metrics=metrics)
    deliberations = DeliberationService.with_worker(
        fan_out=fan_out,
        store=store,
        queue=EmbeddedQueue(),
        halt_checker=obeyed,
        orchestrator=OrchestratorIdentity("simulated", simulated=True),
        metrics=metrics,
        max_running=max_running,
        max_queued=max_queued,
        worth=worth,
        record=record,
        topics=topics,
    )
    runs = (open_runs or _no_runs)(obeyed)
    metrics.watch_pool(pool, lambda: fan_out.waiting_count)
    spent = store.spent_calls if isinstance(store, InMemoryRepository) else tuple
    signer = CheckpointSigner(SigningKey.from_seed(bytes(range(32))), "conclave.test/witness")
    witness = WitnessService(log=log, signer=signer, tools=verification_tools())
    halting = HaltService(channels=halt_channels, watch=checker, log=log, notes=HaltNotesStub())
    if channels:
        await checker.first_look()
    own_folder = tempfile.TemporaryDirectory(prefix="conclave-")
    await deliberations.start()
    try:
        yield Conclave(
            deliberations=deliberations,
            acceptance=Acceptance(deliberations=deliberations, reader=store),
            outputs=DeliberationOutputService(store, metrics=metrics),
            worth=worth,
            recounts=RecountService(witness=witness, record=record, metrics=metrics),
            resolutions=ResolutionService(witness=witness, record=record, metrics=metrics),
            record=record,
            topics=topics,
            quotes=QuoteService(desk=fan_out.desk),
            usage=usage if usage is not None else InMemoryUsageReader(spent),
            witness=witness,
            halt=halting,
            rosters=FileRosterSource(),
            fan_out=fan_out,
            runs=runs,
            keys=ApiKeyring.parse(keys) if keys else ApiKeyring(),
            health=health if health is not None else {"database": _works},
            render_metrics=metrics.render,
            data_dir=data_dir if data_dir is not None else Path(own_folder.name),
            orchestrator="simulated",
            simulated=True,
        )
    finally:
        await runs.stop()
        await deliberations.stop(drain_s=0.0)
        checker.close()
        own_folder.cleanup()


class _NoLauncher:
    """Where no kind of run is known, nothing is started."""

    async def launch(self, run: Run, command_line: Sequence[str]) -> RunProcess:
        raise DependencyUnavailableError(dependency="the process of the run", problem="there are none here")


def _no_runs(halt: HaltChecker) -> RunService:
    return RunService(registry=InMemoryRunRegistry(), launcher=_NoLauncher(), form_of=lambda _kind: None, halt=halt)


async def _works() -> Health:
    return Health(works=True)


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The slug of the problem that the body describes."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.document["status"] == self.status
        return str(self.document["type"]).rpartition(":")[2]


@dataclass
class Client:
    """Sends one request a connection, and raw bytes where a client library would be too well-behaved."""

    port: int

    def ask(self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer; a `body` that is no bytes is sent as JSON."""
        given = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            given.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CLIENT_TIMEOUT_S)
        try:
            connection.request(method, path, body=body, headers=given)
            return _answer(connection.getresponse())
        finally:
            connection.close()

    def post(self, body: object, *, query: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        """Submit a deliberation."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        return self.ask("POST", f"/v1/deliberations{query}", body, headers=sent)

    @contextmanager
    def connect(self) -> Iterator[socket.socket]:
        """A bare connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=CLIENT_TIMEOUT_S) as connection:
            yield connection

    def send_raw(self, data: bytes) -> bytes:
        """Everything that comes back on `data`, until the server hangs up."""
        with self.connect() as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
            return read_all(connection)

    @contextmanager
    def events(self, path: str, *, headers: Mapping[str, str] | None = None) -> Iterator[http.client.HTTPResponse]:
        """An event stream that has answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CLIENT_TIMEOUT_S)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            yield connection.getresponse()
        finally:
            connection.close()


def _answer(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def read_all(connection: socket.socket) -> bytes:
    """What arrives until the other side closes or resets."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return bytes(received)


def read_events(stream: http.client.HTTPResponse) -> list[dict[str, Any]]:
    """The events of a stream that ends, each as `{"id", "event", "data"}`."""
    found = []
    for block in stream.read().decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append({**fields, "id": int(fields["id"]), "data": json.loads(fields["data"])})
    return found


@dataclass
class RunningServer(Client):
    """A server in a thread of its own, over the Conclave it serves."""

    conclave: Conclave
    server: RestServer
    loop: asyncio.AbstractEventLoop

    def call(self, work: Awaitable[_Result]) -> _Result:
        """The result of `work`, done on the server's loop."""

        async def done() -> _Result:
            return await work

        return asyncio.run_coroutine_threadsafe(done(), self.loop).result(CLIENT_TIMEOUT_S)

    def stop(self) -> None:
        """Tell the server to stop, as a signal would."""
        self.loop.call_soon_threadsafe(self.server.stop)


@contextmanager
def running_server(*, drain_s: float = 0.2, **options: Any) -> Iterator[RunningServer]:
    """A server on a free port; `options` are those of `open_stub_conclave`."""
    listening: list[RunningServer] = []
    ready = threading.Event()

    async def run() -> None:
        async with open_stub_conclave(**options) as conclave:
            server = RestServer(conclave, port=0, drain_s=drain_s, hang_up_s=1)

            def announce(urls: tuple[str, ...]) -> None:
                port = int(urls[0].rpartition(":")[2])
                listening.append(RunningServer(port, conclave, server, asyncio.get_running_loop()))
                ready.set()

            await server.run(on_listening=announce)

    def work() -> None:
        try:
            asyncio.run(run())
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="rest-server")
    thread.start()
    ready.wait(CLIENT_TIMEOUT_S)
    try:
        yield listening[0]
    finally:
        if listening and thread.is_alive():
            listening[0].stop()
        thread.join(CLIENT_TIMEOUT_S)


@dataclass
class ServerProcess(Client):
    """A server in a process of its own, which can be measured and sent signals."""

    process: subprocess.Popen[str]

    @property
    def rss_bytes(self) -> int:
        """The resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) * 1024


@contextmanager
def server_process(*arguments: str) -> Iterator[ServerProcess]:
    """`python -m tests.conclave_fixture` on a free port."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])}
    command = [sys.executable, "-m", "tests.conclave_fixture", *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield ServerProcess(int(process.stdout.readline().rpartition(":")[2]), process)
        finally:
            process.kill()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _main(arguments: argparse.Namespace) -> signal.Signals | None:
    hanging = [f"archon-{number}" for number in range(1, arguments.hanging + 1)]
    async with open_stub_conclave(orchestrator=AgentOrchestratorStub(hanging=hanging)) as conclave:
        return await serve(conclave, port=0, drain_s=arguments.drain, on_listening=lambda urls: _say(urls[0]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hanging", type=int, default=0)
    parser.add_argument("--drain", type=float, default=5.0)
    _say(str(asyncio.run(_main(parser.parse_args()))))
