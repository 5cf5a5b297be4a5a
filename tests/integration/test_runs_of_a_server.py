"""Runs of a whole server, with the commands that users have: started over REST, followed, counted, and ended with the server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conclave_fixture import Client, read_events

_PORT = re.compile(r"http://127\.0\.0\.1:(\d+)")
_PATIENCE_S = 60.0


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    """A server in a process of its own."""
    settings = {"CONCLAVE_DATA_DIR": str(folder / "data"), "CONCLAVE_ORCHESTRATOR": "simulated"}
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "api.cli.main", "serve", "--port", "0", "--json"],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        while (found := _PORT.search(process.stdout.readline())) is None:
            assert process.poll() is None, (folder / "log").read_text()
        yield Client(int(found[1])), process
    finally:
        process.kill()
        process.communicate()


def started(client: Client, kind: str, **arguments: Any) -> str:
    answer = client.ask("POST", "/v1/runs", {"kind": kind, "arguments": arguments})
    assert answer.status == 202, answer
    return str(answer.document["id"])


def until(client: Client, run_id: str, holds: Callable[[Any], bool]) -> Any:
    limit = time.monotonic() + _PATIENCE_S
    while time.monotonic() < limit:
        document = client.ask("GET", f"/v1/runs/{run_id}").document
        if holds(document):
            return document
        threading.Event().wait(0.05)
    raise AssertionError(document)


def messages(client: Client, transport: str) -> float:
    text = client.ask("GET", "/metrics").body.decode()
    found = re.search(rf'conclave_bus_messages_total{{transport="{transport}"}} (\S+)', text)
    assert found is not None
    return float(found[1])


def test_runs_are_followed_counted_refused_while_halted_and_listed_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path) as (client, process):
        assert messages(client, "memory") == 0
        run_id = started(client, "pantheon", task="--roles=/etc/passwd and three more words", step=["word_count"])
        with client.events(f"/v1/runs/{run_id}/events") as stream:
            events = read_events(stream)
        assert (events[0]["event"], events[-1]["event"]) == ("run.started", "run.completed")
        assert [event["id"] for event in events] == list(range(1, len(events) + 1))
        found = until(client, run_id, lambda run: run["finished_at"])
        assert (found["status"], found["result"]["status"]) == ("completed", "executed")
        assert found["result"]["executed"] == [{"step": "word_count", "output": 5}]
        assert len(found["result"]["handoffs"]) == 9
        assert messages(client, "memory") >= 9

        assert client.ask("POST", "/v1/halt", {"reason": "a drill"}).status == 200
        answer = client.ask("POST", "/v1/runs", {"kind": "pantheon", "arguments": {"task": "no"}})
        assert (answer.status, answer.problem) == (503, "system-halted")
        assert client.ask("DELETE", "/v1/halt", {"reason": "over"}).status == 200

        second = started(client, "pantheon", task="again and again", cycles=10)
        process.terminate()
        assert process.wait(_PATIENCE_S) == 0
    assert "/etc/passwd" not in (tmp_path / "log").read_text()
    with serving(tmp_path) as (client, _):
        items = client.ask("GET", "/v1/runs").document["items"]
        assert [item["id"] for item in items] == [second, run_id]
        assert items[0]["status"] in {"cancelled", "completed"}
        assert items[1]["status"] == "completed"
        assert messages(client, "memory") >= 9
