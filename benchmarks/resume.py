"""How soon work goes on after SIGKILL: by the server's next start, and by another worker. Medians; wants an idle machine.

`python -m benchmarks.resume [--times N]`
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.conclave_fixture import Client
from tests.llm_server.handle import LlmServer
from tests.servers.keeper import free_port
from tests.servers.postgres import PostgresServer

__all__ = ["resume", "takeover"]

_AGENTS = 72
_READY_LIMIT_S, _CALL_LIMIT_S, _TAKEOVER_LIMIT_S = 3.0, 1.0, 10.0
_PATIENCE_S = 60.0
_POLL_S = 0.005
_REPOSITORY = Path(__file__).parents[1]


@contextmanager
def _process(*arguments: str, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CONCLAVE_", "OPENAI_"))}
    environment["PYTHONPATH"] = str(_REPOSITORY / "src")
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli.main", *arguments, "--json"],
        env={**environment, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=settings["CONCLAVE_DATA_DIR"],
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _until(holds: Callable[[], bool], what: str) -> float:
    """When it held first, by the monotonic clock."""
    until = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not come within {_PATIENCE_S!r} s")
        time.sleep(_POLL_S)
    return time.monotonic()


def _is_ready(client: Client) -> bool:
    try:
        return client.ask("GET", "/readyz").status == 200
    except (OSError, http.client.HTTPException):
        return False


def _settings(folder: Path, llm: LlmServer, **more: str) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    asks = {"CONCLAVE_LLM_BASE_URL": llm.base_url, "CONCLAVE_LLM_API_KEY": "k", "CONCLAVE_LLM_MODEL": "test-model"}
    return {"CONCLAVE_DATA_DIR": str(folder), **asks, **more}


def _ask(client: Client, agents: int) -> str:
    members = [
        {"id": f"voice-{number}", "persona": f"You are voice number {number} and {'slow' if number == 0 else 'swift'}."}
        for number in range(agents)
    ]
    body = {
        "question": "Does it go on?",
        "answer": {"kind": "choice", "options": ["yes", "no"]},
        "agents": {"members": members},
    }
    return str(client.post(body).document["id"])


def _answered(client: Client, deliberation_id: str) -> int:
    return len(client.ask("GET", f"/v1/deliberations/{deliberation_id}/outputs").document["items"])


def _last_call(llm: LlmServer) -> float:
    return float(max(entry["arrived_monotonic"] for entry in llm.journal() if entry["counted"]))


def resume(llm: LlmServer) -> tuple[float, float]:
    """Seconds from the start of a killed server until it is ready, and from then until the last of 72 calls begins, 71 being done."""
    port = free_port()
    client = Client(port)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as first:
        settings = _settings(Path(folder), llm)
        llm.reset()
        llm.configure(faults=[{"contains": "number 0 and slow", "fault": "hang"}])
        process = first.enter_context(_process("serve", "--port", str(port), settings=settings))
        _until(lambda: _is_ready(client), "a server")
        deliberation_id = _ask(client, _AGENTS)
        _until(lambda: _answered(client, deliberation_id) == _AGENTS - 1, "all answers but one")
        process.kill()
        process.wait()
        llm.reset()
        started = time.monotonic()
        with _process("serve", "--port", str(port), settings=settings):
            ready = _until(lambda: _is_ready(client), "the server's return")
            llm.wait_until(requests_at_least=1, timeout_seconds=_PATIENCE_S)
            called = _last_call(llm)
            _until(lambda: _answered(client, deliberation_id) == _AGENTS, "the last answer")
            if llm.stats()["requests"] != 1:
                raise AssertionError(f"{llm.stats()['requests']} calls were made, and one was left to make")
    return ready - started, max(called - ready, 0.0)


def takeover(llm: LlmServer, postgres: PostgresServer, *, is_same_machine: bool) -> float:
    """Seconds from the death of a worker until another one begins the call that it died in.

    On the `same_machine` they share a data folder, by which one learns that the other is dead.
    """
    port, name = free_port(), f"takeover_{time.monotonic_ns()}"
    client = Client(port)
    postgres.create_database(name)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        shared = {"CONCLAVE_DATABASE_URL": postgres.url(name), "CONCLAVE_QUEUE": "procrastinate"}
        here = _settings(Path(folder) / "here", llm, **shared)
        there = here if is_same_machine else _settings(Path(folder) / "there", llm, **shared)
        with _process("db", "upgrade", settings=here) as upgrade:
            upgrade.wait(_PATIENCE_S)
        llm.reset()
        llm.configure(fault="hang")
        stack.enter_context(_process("serve", "--port", str(port), settings=here))
        first = stack.enter_context(_process("worker", settings=here))
        _until(lambda: _is_ready(client), "a server")
        _ask(client, 1)
        llm.wait_until(requests_at_least=1, timeout_seconds=_PATIENCE_S)
        second = stack.enter_context(_process("worker", settings=there))
        assert second.stdout is not None
        second.stdout.readline()
        died = time.monotonic()
        first.kill()
        llm.wait_until(requests_at_least=2, timeout_seconds=_PATIENCE_S)
        return _last_call(llm) - died


def _figure(what: str, seconds: Sequence[float], limit: float) -> dict[str, Any]:
    median = statistics.median(seconds)
    found = {"what": what, "median_s": round(median, 3), "all_s": [round(each, 3) for each in seconds]}
    return {**found, "limit_s": limit, "within": median <= limit}


def main() -> None:
    """Measure and print one JSON line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = range(parser.parse_args().times)
    with LlmServer() as llm, PostgresServer() as postgres:
        resumed = [resume(llm) for _ in times]
        figures = [
            _figure("start until ready", [ready for ready, _ in resumed], _READY_LIMIT_S),
            _figure("ready until the last call of 72 begins", [call for _, call in resumed], _CALL_LIMIT_S),
        ]
        for is_same_machine in (True, False):
            took = [takeover(llm, postgres, is_same_machine=is_same_machine) for _ in times]
            where = "the same machine" if is_same_machine else "another machine"
            figures.append(_figure(f"death of a worker until a worker on {where} goes on", took, _TAKEOVER_LIMIT_S))
    for figure in figures:
        sys.stdout.write(json.dumps(figure) + "\n")


if __name__ == "__main__":
    main()
