"""How long a halt takes under full load: until it is acknowledged, until no call begins any more, and until all are cancelled.

    python -m benchmarks.halt [--halts 40] [--database-url URL] [--out FILE]

One server over the test LLM server, both in processes of their own. Load: ten deliberations run, so that all 72 slots are taken, a
hundred more are queued, and a hundred event streams are open. Then it is halted over REST, and cleared, and loaded again.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.llm_server.handle import LlmServer
from tests.servers.keeper import free_port

RUNNING, QUEUED, STREAMS, SLOTS = 10, 100, 100, 72
BODY = {"question": "Should the city centre be closed to private cars?", "agents": {"count": SLOTS}}
LIMIT_ACK_MS, LIMIT_BEGIN_MS, LIMIT_CANCEL_MS = 50.0, 250.0, 2000.0
_PATIENCE_S = 60.0


@dataclass
class Halted:
    """One halt, in milliseconds after it was asked for (`ack_ms`) or acknowledged (the others)."""

    ack_ms: float
    last_call_ms: float
    cancelled_ms: float
    active: int
    queued: int


@dataclass
class Server:
    """A Conclave server in a process of its own."""

    port: int
    streams: list[http.client.HTTPConnection] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and document."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, body=sent, headers={"Content-Type": "application/json"} if sent else {})
            answer = connection.getresponse()
            raw = answer.read()
            return answer.status, json.loads(raw) if raw.startswith(b"{") else raw
        finally:
            connection.close()

    def gauge(self, name: str) -> float:
        """A metric of the server."""
        _, text = self.ask("GET", "/metrics")
        return next(float(line.split()[1]) for line in text.decode().splitlines() if line.startswith(f"{name} "))

    def until(self, name: str, at_least: float) -> float:
        """Wait until that metric has come so far."""
        end = time.monotonic() + _PATIENCE_S
        while (found := self.gauge(name)) < at_least and time.monotonic() < end:
            time.sleep(0.02)
        return found

    def follow(self, deliberation_ids: list[str]) -> None:
        """Open that many event streams, and leave them open."""
        for own in deliberation_ids:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)
            connection.request("GET", f"/v1/deliberations/{own}/events")
            connection.getresponse()
            self.streams.append(connection)

    def hang_up(self) -> None:
        """Close them all."""
        for connection in self.streams:
            connection.close()
        self.streams.clear()


@contextmanager
def server(folder: Path, llm: LlmServer, database_url: str | None) -> Iterator[Server]:
    """A server that has answered."""
    port = free_port()
    environ = {
        **os.environ,
        "CONCLAVE_DATA_DIR": str(folder),
        "CONCLAVE_LLM_BASE_URL": llm.base_url,
        "CONCLAVE_LLM_MODEL": "test-model",
        "CONCLAVE_LOG_LEVEL": "critical",
        "PYTHONPATH": os.pathsep.join(["src", "."]),
        **({} if database_url is None else {"CONCLAVE_DATABASE_URL": database_url}),
    }
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", str(port)]
    with subprocess.Popen(command, env=environ) as process:
        found = Server(port)
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            try:
                if found.ask("GET", "/readyz")[0] == http.HTTPStatus.OK:
                    break
            except OSError:
                time.sleep(0.05)
        try:
            yield found
        finally:
            found.hang_up()
            process.send_signal(signal.SIGTERM)
            process.wait(_PATIENCE_S)


def load(target: Server) -> tuple[int, int]:
    """Fill slots, queue and streams; how many are active and queued."""
    with ThreadPoolExecutor(8) as threads:
        missing = RUNNING + QUEUED - int(target.gauge("conclave_deliberations_queued"))
        made = list(threads.map(lambda _: target.ask("POST", "/v1/deliberations", BODY), range(max(missing, RUNNING))))
    ids = [document["id"] for status, document in made if status == http.HTTPStatus.ACCEPTED]
    active = target.until("conclave_pool_active_agents", SLOTS)
    target.follow((ids * STREAMS)[: STREAMS - len(target.streams)])
    return int(active), int(target.gauge("conclave_deliberations_queued"))


def halt_once(target: Server, llm: LlmServer) -> Halted:
    """Load it, halt it, look at the far end, and clear."""
    active, queued = load(target)
    seen = llm.stats()["requests"]
    began = time.monotonic()
    status, _ = target.ask("POST", "/v1/halt", {"reason": "a measurement"})
    acknowledged = time.monotonic()
    assert status == http.HTTPStatus.OK
    llm.wait_until(in_flight_at_most=0, timeout_seconds=10)
    cancelled = time.monotonic()
    # Whoever begins late has begun by then.
    time.sleep(0.5)
    arrived = [entry["arrived_monotonic"] for entry in llm.journal(since=max(0, seen - 200)) if entry["counted"]]
    target.hang_up()
    while target.ask("DELETE", "/v1/halt", {"reason": "measured"})[0] != http.HTTPStatus.OK:
        time.sleep(0.05)
    return Halted(
        ack_ms=(acknowledged - began) * 1000,
        last_call_ms=(max(arrived, default=acknowledged) - acknowledged) * 1000,
        cancelled_ms=(cancelled - acknowledged) * 1000,
        active=active,
        queued=queued,
    )


def report(found: list[Halted], *, database: str) -> dict[str, Any]:
    """Percentiles in milliseconds beside their limits."""
    rows = (
        ("ack_ms", LIMIT_ACK_MS, [each.ack_ms for each in found]),
        ("last_call_ms", LIMIT_BEGIN_MS, [each.last_call_ms for each in found]),
        ("cancelled_ms", LIMIT_CANCEL_MS, [each.cancelled_ms for each in found]),
    )
    document: dict[str, Any] = {
        "database": database,
        "halts": len(found),
        "active": statistics.median(each.active for each in found),
        "queued": statistics.median(each.queued for each in found),
        "streams": STREAMS,
        "cpus": os.cpu_count(),
        "load_1m": os.getloadavg()[0],
        "python": platform.python_version(),
    }
    print(
        f"{len(found)} halts on {database}, {document['active']:g} agents, {document['queued']:g} queued, {STREAMS} streams"
    )
    for name, limit, values in rows:
        ordered = sorted(values)
        p50, p95 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
        document[name] = {"p50": round(p50, 1), "p95": round(p95, 1), "max": round(ordered[-1], 1), "limit": limit}
        print(f"  {name:13} p50 {p50:8.1f}  p95 {p95:8.1f}  max {ordered[-1]:8.1f}  limit {limit:g}")
    return document


def main() -> int:
    """0 where every p95 keeps its limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--halts", type=int, default=40)
    parser.add_argument("--database-url")
    parser.add_argument("--latency-ms", type=float, default=500.0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        llm = stack.enter_context(LlmServer())
        llm.configure(latency_seconds=arguments.latency_ms / 1000)
        target = stack.enter_context(server(folder, llm, arguments.database_url))
        found = [halt_once(target, llm) for _ in range(arguments.halts)]
    document = report(found, database="SQLite" if arguments.database_url is None else "the database given")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")
    kept = all(document[name]["p95"] <= document[name]["limit"] for name in ("ack_ms", "last_call_ms", "cancelled_ms"))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
