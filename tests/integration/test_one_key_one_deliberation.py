"""Many callers, several processes, crashes: as many deliberations as there were idempotency keys, over real HTTP."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from infrastructure.persistence.migrate import upgrade
from tests.servers.keeper import free_port

CALLERS = 50
PATIENCE_S = 60.0
LATER = {409, 429, 503}


@dataclass
class Service:
    """`conclave serve` processes over one database, by the ports that they listen on."""

    environ: dict[str, str]
    ports: list[int]
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        """Start those that do not run, and wait until they listen."""
        for port in self.ports:
            if port not in self.processes:
                self.processes[port] = _serve({**self.environ, "CONCLAVE_PORT": str(port)})

    def kill(self) -> None:
        """Kill them all at once, with no chance to tidy up."""
        for process in self.processes.values():
            process.send_signal(signal.SIGKILL)
        for process in self.processes.values():
            process.communicate()
        self.processes.clear()

    def stored(self) -> list[str]:
        """The ids of all deliberations that there are."""
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            status, page = _ask(self.ports[0], "GET", f"/v1/deliberations?limit=200&cursor={cursor}")
            assert status == 200, page
            found += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
        return found


def _serve(environ: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "api.cli.main", "serve"]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE)
    assert process.stderr is not None
    for line in process.stderr:
        if b"listening" in line:
            # Read on, or a full pipe would hold the process up.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process
    raise AssertionError(f"it did not start: {process.wait()}")


def _ask(port: int, method: str, path: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    headers = {"Content-Type": "application/json"} | ({} if key is None else {"Idempotency-Key": key})
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def _body(key: str) -> dict[str, Any]:
    return {"question": f"Shall we begin with {key}?", "agents": {"count": 1}}


def _accepted(port: int, key: str) -> str:
    """The id that a caller who does not give up is told in the end."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        status, document = _ask(port, "POST", "/v1/deliberations", _body(key), key)
        if status == 202:
            return str(document["id"])
        assert status in LATER, document
    raise AssertionError(f"{key!r} was not accepted in {PATIENCE_S:g} s")


@pytest.fixture(params=["sqlite", "postgres", "two processes on postgres"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """Servers over an empty database, killed at the end."""
    environ = {
        **os.environ,
        "CONCLAVE_DATA_DIR": str(tmp_path),
        "CONCLAVE_ORCHESTRATOR": "simulated",
        "CONCLAVE_MAX_RUNNING_DELIBERATIONS": "100",
    }
    if request.param != "sqlite":
        environ["CONCLAVE_DATABASE_URL"] = request.getfixturevalue("postgres_url")
        upgrade(environ["CONCLAVE_DATABASE_URL"])
    found = Service(environ, [free_port() for _ in range(2 if "two" in request.param else 1)])
    with ExitStack() as stack:
        stack.callback(found.kill)
        found.start()
        yield found


def test_of_fifty_posts_at_once_under_each_key_one_is_accepted(
    service: Service, sized: Callable[[int, int], int]
) -> None:
    keys = [f"key-{number}" for number in range(sized(20, 200))]
    ports = itertools.cycle(service.ports)
    asked = [(next(ports), key) for key in keys for _ in range(CALLERS)]
    with ThreadPoolExecutor(CALLERS) as callers:
        told = list(callers.map(lambda each: (each[1], _accepted(*each)), asked))
    ids = {key: {own for asked_key, own in told if asked_key == key} for key in keys}
    assert [len(each) for each in ids.values()] == [1] * len(keys)
    assert sorted(service.stored()) == sorted(own for each in ids.values() for own in each)


def test_what_was_posted_when_the_server_was_killed_is_posted_again_without_a_double(
    service: Service, sized: Callable[[int, int], int]
) -> None:
    keys = [f"key-{number}" for number in range(sized(60, 600))]
    told: dict[str, str] = {}
    for each in _parts(keys, 3):
        enough = threading.Semaphore(0)
        with ThreadPoolExecutor(CALLERS) as callers:
            posting = [callers.submit(_posted_once, service.ports, key, told, enough) for key in each]
            for _ in range(len(each) // 3):
                assert enough.acquire(timeout=PATIENCE_S)
            service.kill()
            for post in posting:
                post.result()
        service.start()
    acknowledged = dict(told)
    with ThreadPoolExecutor(CALLERS) as callers:
        again = dict(zip(keys, callers.map(lambda key: _accepted(service.ports[0], key), keys), strict=True))
    assert {key: again[key] for key in acknowledged} == acknowledged
    assert sorted(service.stored()) == sorted(again.values())
    assert len(set(again.values())) == len(keys)


def _parts(keys: Sequence[str], number: int) -> list[Sequence[str]]:
    size = len(keys) // number
    return [keys[start : start + size] for start in range(0, size * number, size)]


def _posted_once(ports: Sequence[int], key: str, told: dict[str, str], enough: threading.Semaphore) -> None:
    """Post it without trying again, as a caller would that dies together with the server."""
    try:
        status, document = _ask(ports[hash(key) % len(ports)], "POST", "/v1/deliberations", _body(key), key)
    except (OSError, HTTPException):
        return
    if status == 202:
        told[key] = str(document["id"])
        enough.release()
