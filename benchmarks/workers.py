"""Scale-out over Postgres: deliberations a second of one worker and of two, and what submitting costs, with a model of 200 ms.

    python -m benchmarks.workers [--deliberations 150] [--agents 24] [--rounds 3]

Real processes and real HTTP: `conclave serve`, `conclave worker`, Postgres and the test LLM server, all on this machine. Each round
measures one worker and then two; the medians over the rounds are printed as one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.llm_server.handle import LlmServer
from tests.servers.postgres import PostgresServer

_MODEL_S = 0.2
_PATIENCE_S = 120.0
_SOURCES = Path(__file__).parents[1] / "src"
_PORT_MARK = "127.0.0.1:"


@contextlib.contextmanager
def _process(settings: Mapping[str, str], *arguments: str) -> Iterator[int]:
    """A `conclave` command that listens: its port."""
    command = [sys.executable, "-m", "api.cli.main", *arguments]
    process = subprocess.Popen(
        command, env={**settings, "PYTHONPATH": str(_SOURCES)}, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if _PORT_MARK in line:
                yield int(line.partition(_PORT_MARK)[2].partition(",")[0].partition(" ")[0])
                break
        else:
            raise RuntimeError(f"{arguments[0]} did not start")
    finally:
        process.terminate()
        process.communicate(timeout=30)


class _Caller:
    """One keep-alive connection to the server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        headers = {"Content-Type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())


def _throughput(settings: Mapping[str, str], caller: _Caller, *, workers: int, count: int, agents: int) -> float:
    """Deliberations a second from the first submission to the last end, with the workers running before."""
    body = {
        "question": "Should the city centre be closed to private cars?",
        "answer": {"kind": "choice", "options": ["yes", "no"]},
        "agents": {"roster": "archons", "count": agents},
    }
    with contextlib.ExitStack() as stack:
        for _ in range(workers):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            own = {**settings, "CONCLAVE_DATA_DIR": folder}
            stack.enter_context(_process(own, "worker", "--metrics-port", "0"))
        began = time.perf_counter()
        for _ in range(count):
            while (status := caller.ask("POST", "/v1/deliberations", body)[0]) == 429:
                time.sleep(0.02)
            assert status == 202, status
        until = began + _PATIENCE_S
        while any(
            caller.ask("GET", f"/v1/deliberations?limit=1&status={each}")[1]["items"] for each in ("running", "queued")
        ):
            if time.perf_counter() > until:
                raise TimeoutError(f"not all of {count} deliberations ended within {_PATIENCE_S:g} s")
            time.sleep(0.2)
        return count / (time.perf_counter() - began)


def _submission(caller: _Caller, *, count: int) -> list[float]:
    """Milliseconds of each submission while no worker runs."""
    body = {"question": "Yes or no?", "answer": {"kind": "verdict"}, "agents": {"roster": "archons", "count": 72}}
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        status, _ = caller.ask("POST", "/v1/deliberations", body)
        taken.append((time.perf_counter() - began) * 1000)
        assert status == 202, status
    return sorted(taken)


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliberations", type=int, default=150)
    parser.add_argument("--agents", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with LlmServer() as llm, PostgresServer() as postgres, tempfile.TemporaryDirectory() as folder:
        llm.configure(latency_seconds=_MODEL_S)
        postgres.create_database("workers")
        settings = {
            "CONCLAVE_DATA_DIR": folder,
            "CONCLAVE_DATABASE_URL": postgres.url("workers"),
            "CONCLAVE_QUEUE": "procrastinate",
            "CONCLAVE_LLM_BASE_URL": llm.base_url,
            "CONCLAVE_LLM_API_KEY": "key",
            "CONCLAVE_LLM_MODEL": "test-model",
            "CONCLAVE_LOG_LEVEL": "warning",
        }
        command = [sys.executable, "-m", "api.cli.main", "db", "upgrade"]
        subprocess.run(command, env={**settings, "PYTHONPATH": str(_SOURCES)}, check=True, capture_output=True)
        with _process(settings, "serve", "--port", "0") as port:
            caller = _Caller(port)
            one: list[float] = []
            two: list[float] = []
            for _ in range(arguments.rounds):
                for workers, found in ((1, one), (2, two)):
                    found.append(
                        _throughput(
                            settings, caller, workers=workers, count=arguments.deliberations, agents=arguments.agents
                        )
                    )
            submissions = _submission(caller, count=90)
    document = {
        "model_ms": _MODEL_S * 1000,
        "agents": arguments.agents,
        "deliberations": arguments.deliberations,
        "one_worker_per_s": round(statistics.median(one), 2),
        "two_workers_per_s": round(statistics.median(two), 2),
        "ratio": round(statistics.median(two) / statistics.median(one), 2),
        "ratios": [round(second / first, 2) for first, second in zip(one, two, strict=True)],
        "submission_ms": {
            "p50": round(submissions[len(submissions) // 2], 1),
            "p95": round(submissions[int(len(submissions) * 0.95)], 1),
        },
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
