"""The event streams of the REST door: whole, resumed, live and ended."""

from __future__ import annotations

import http.client
from typing import Any

import pytest

from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from tests.conclave_fixture import RunningServer, running_server
from tests.integration.rest_questions import QUESTION, SMALL, ask_events


def test_events_tell_the_whole_story_in_order_and_end(server: RunningServer, ended: dict[str, Any]) -> None:
    events = ask_events(server, ended["id"])
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert all(event["event"] == event["data"]["type"] for event in events)
    assert all(event["id"] == event["data"]["sequence"] for event in events)
    assert (events[0]["event"], events[-1]["event"]) == ("deliberation.queued", "deliberation.completed")
    assert sum(event["event"] == "agent.ended" for event in events) == 72


def test_events_resume_exactly_after_the_last_one_seen(server: RunningServer, ended: dict[str, Any]) -> None:
    everything = ask_events(server, ended["id"])
    assert ask_events(server, ended["id"], Last_Event_ID="40") == everything[40:]


def test_whoever_has_seen_the_end_gets_an_empty_stream(server: RunningServer, ended: dict[str, Any]) -> None:
    last = len(ask_events(server, ended["id"]))
    assert ask_events(server, ended["id"], Last_Event_ID=str(last)) == []
    assert ask_events(server, ended["id"], Last_Event_ID=str(last + 1000)) == []


def test_events_are_seen_while_they_happen(slow_server: RunningServer) -> None:
    deliberation = slow_server.post(SMALL).document
    path = f"/v1/deliberations/{deliberation['id']}"
    with slow_server.events(f"{path}/events") as stream:
        assert stream.getheader("content-type", "").startswith("text/event-stream")
        assert stream.getheader("cache-control") == "no-cache"
        assert stream.getheader("x-accel-buffering") == "no"
        seen = b""
        while b"agent.started" not in seen:
            seen += stream.readline()
        assert slow_server.ask("POST", f"{path}/cancel").status == 202
        assert b"event: deliberation.cancelled" in stream.read()


def test_a_head_of_an_event_stream_ends_at_once(slow_server: RunningServer) -> None:
    deliberation = slow_server.post(SMALL).document
    answer = slow_server.ask("HEAD", f"/v1/deliberations/{deliberation['id']}/events")
    assert (answer.status, answer.body) == (200, b"")
    slow_server.ask("POST", f"/v1/deliberations/{deliberation['id']}/cancel")


@pytest.mark.parametrize("beyond", [0, 1000])
def test_after_the_terminal_event_of_a_deliberation_nobody_is_told_to_come_back(
    server: RunningServer, ended: dict[str, Any], beyond: int
) -> None:
    path = f"/v1/deliberations/{ended['id']}/events"
    with server.events(path) as stream:
        last = max(int(line[4:]) for line in stream.read().splitlines() if line.startswith(b"id: "))
    with server.events(path, headers={"Last-Event-ID": str(last + beyond)}) as stream:
        said = stream.read()
    assert said.startswith(b"retry: ")
    assert b"id: " not in said
    assert b"not the end" not in said


@pytest.mark.parametrize("last", ["-1", "x", "9" * 400, "1.0"])
def test_a_bad_last_event_id_is_pointed_at(server: RunningServer, ended: dict[str, Any], last: str) -> None:
    answer = server.ask("GET", f"/v1/deliberations/{ended['id']}/events", headers={"Last-Event-ID": last})
    assert answer.status == 422
    assert [error["pointer"] for error in answer.document["errors"]] == ["/header/last-event-id"]


def test_one_stream_too_many_is_told_to_come_back_while_health_still_answers() -> None:
    with running_server(orchestrator=AgentOrchestratorStub(latency_seconds=3600.0)) as server:
        deliberation = server.post(QUESTION).document
        path = f"/v1/deliberations/{deliberation['id']}/events"
        streams = []
        for _ in range(100):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request("GET", path)
            assert connection.getresponse().status == 200
            streams.append(connection)
        refused = server.ask("GET", path)
        assert (refused.status, refused.problem) == (429, "too-many-streams")
        assert int(refused.headers["retry-after"]) > 0
        assert server.ask("GET", "/healthz").status == 200
        for connection in streams:
            connection.close()
