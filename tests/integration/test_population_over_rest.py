"""Populations over REST: started with a deliberation that the caller sees, watched while they run, and counted at every scrape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.bootstrap.runs import form_of
from application.ports.halt_checker import HaltChecker
from application.services.run_service import RunService
from infrastructure.stubs.in_memory_run_registry import InMemoryRunRegistry
from tests.conclave_fixture import Answer, Client, RunningServer, read_events, running_server
from tests.integration.test_rest_runs import KEYS, Launcher
from tests.integration.test_runs_of_a_server import serving, started, until

_SAMPLE = re.compile(r"^conclave_population_(\w+?)(?:\{[^}]*=\"([^\"]*)\"\})? (\S+)$", re.M)
_SMALL = {"agents": 500, "kernel": "numpy", "shards": 2}


@pytest.fixture(scope="module")
def keyed() -> Iterator[tuple[RunningServer, Launcher]]:
    """A server with keys whose runs are begun by nobody."""
    launcher = Launcher()

    def open_runs(halt: HaltChecker) -> RunService:
        return RunService(
            registry=InMemoryRunRegistry(), launcher=launcher, form_of=form_of, halt=halt, max_running=100
        )

    with running_server(open_runs=open_runs, keys=KEYS) as server:
        try:
            yield server, launcher
        finally:
            for process in launcher.processes.values():
                process.terminate()


def asked(server: RunningServer, who: str, **arguments: Any) -> Answer:
    body = {"kind": "population", "arguments": arguments}
    return server.ask("POST", "/v1/runs", body, headers={"Authorization": f"Bearer secret-of-{who}"})


def deliberated(server: RunningServer, who: str) -> str:
    answer = server.ask(
        "POST",
        "/v1/deliberations?wait=30",
        {"question": "Trams?"},
        headers={"Authorization": f"Bearer secret-of-{who}"},
    )
    assert answer.status in {200, 202}, answer
    return str(answer.document["id"])


def test_a_population_begins_with_a_deliberation_of_the_callers_own(keyed: tuple[RunningServer, Launcher]) -> None:
    server, launcher = keyed
    own = deliberated(server, "ann")

    assert asked(server, "ann", **{"from": own}, agents=500).status == 202
    assert f"--from={own}" in launcher.command_lines[-1]
    assert asked(server, "root", **{"from": own}, agents=500).status == 202

    begun = len(launcher.command_lines)
    other, missing = asked(server, "ben", **{"from": own}), asked(server, "ben", **{"from": "nobody"})
    for refused in (other, missing):
        assert (refused.status, refused.problem) == (422, "invalid-run")
        assert [error["pointer"] for error in refused.document["errors"]] == ["/arguments/from"]
    assert other.document["errors"] == missing.document["errors"]
    assert len(launcher.command_lines) == begun


@pytest.mark.parametrize("named", [7, "", "../../etc/passwd", "a\u0000b", ["x"], "x" * 65])
def test_what_is_no_id_is_refused_as_an_argument(keyed: tuple[RunningServer, Launcher], named: Any) -> None:
    refused = asked(keyed[0], "ann", **{"from": named})
    assert refused.status == 422
    assert [error["pointer"] for error in refused.document["errors"]] == ["/arguments/from"]


def counted(client: Client) -> dict[tuple[str, str], float]:
    text = client.ask("GET", "/metrics").body.decode()
    return {(name, label): float(value) for name, label, value in _SAMPLE.findall(text)}


def test_a_population_is_started_watched_and_counted(tmp_path: Path) -> None:
    with serving(tmp_path) as (client, _):
        assert counted(client)["ticks_total", ""] == 0
        deliberation = client.ask("POST", "/v1/deliberations?wait=30", {"question": "Trams?"}).document["id"]
        run_id = started(client, "population", **_SMALL, ticks=20, seeds=2, **{"from": deliberation})
        with client.events(f"/v1/runs/{run_id}/events") as stream:
            events = read_events(stream)
        types = [event["event"] for event in events]
        assert types[0] == "run.started"
        assert types[-1] == "run.completed"
        assert types.count("population.started") == 2
        found = until(client, run_id, lambda run: run["finished_at"])

        result = found["result"]
        assert result["simulated"] is True
        assert result["deliberation_id"] == deliberation
        assert result["replicates"]["done"] == 2
        assert {row["answer"] for row in result["subgroups"]} <= {"yes", "no"}
        assert sum(row["agents"] for row in result["subgroups"]) == 500
        folder = next((tmp_path / "data" / "runs" / run_id).rglob("report.html"))
        assert "Simulated" in folder.read_text()

        metrics = counted(client)
        assert metrics["ticks_total", ""] == 40
        assert metrics["messages_total", "delivered"] == 2 * result["messages_routed"]
        assert metrics["tick_seconds_count", ""] == 40
        assert (metrics["running", ""], metrics["agents", ""]) == (0, 0)

        # While one is under way each scrape is as true as its last note, and progress says how fast it is.
        second = started(client, "population", **_SMALL, ticks=100_000)
        with client.events(f"/v1/runs/{second}/events") as stream:
            progress = next(event for event in _one_by_one(stream) if event["event"] == "population.progress")
        data = progress["data"]
        assert data["tick_ms"] > 0
        assert data["messages_per_second"] > 0
        assert (data["ticks"], data["seed"]) == (100_000, 0)
        metrics = counted(client)
        assert metrics["ticks_total", ""] >= 40 + data["tick"]
        assert (metrics["running", ""], metrics["agents", ""]) == (1, 500)

        assert client.ask("POST", f"/v1/runs/{second}/cancel").status == 202
        ended = until(client, second, lambda run: run["finished_at"])
        assert ended["status"] == "cancelled"
        metrics = counted(client)
        assert metrics["ticks_total", ""] == 40 + ended["result"]["ticks"]
        assert metrics["tick_seconds_bucket", "+Inf"] == metrics["ticks_total", ""]
        assert metrics["running", ""] == 0


def _one_by_one(stream: Any) -> Iterator[dict[str, Any]]:
    """Events as they come."""
    kind: str | None = None
    for line in _lines(stream):
        if line.startswith("event:"):
            kind = line.partition(":")[2].strip()
        elif line.startswith("data:"):
            yield {"event": kind, "data": json.loads(line.partition(":")[2])}


def _lines(stream: Any) -> Iterator[str]:
    for line in stream:
        yield line.decode().strip() if isinstance(line, bytes) else str(line).strip()
