"""The REST door over a real port: every call of the contract, answered as the contract says."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import pytest

from api.conclave import Health
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.conclave_fixture import RunningServer, read_events, running_server

QUESTION: dict[str, Any] = {
    "question": "Should the city centre be closed to private cars?",
    "answer": {"kind": "choice", "options": ["yes", "no", "weekends only"]},
    "seed": 7,
}
SMALL = {**QUESTION, "agents": {"count": 2}}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def slow_server() -> Iterator[RunningServer]:
    """Its agents take until the test ends."""
    with running_server(orchestrator=AgentOrchestratorStub(latency_seconds=3600.0)) as running:
        yield running


@pytest.fixture(scope="module")
def ended(server: RunningServer) -> dict[str, Any]:
    document: dict[str, Any] = server.post(QUESTION, query="?wait=30").document
    assert document["status"] == "completed"
    return document


def ask_events(server: RunningServer, deliberation_id: str, **headers: str) -> list[dict[str, Any]]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with server.events(f"/v1/deliberations/{deliberation_id}/events", headers=sent) as stream:
        assert stream.status == 200
        return read_events(stream)


def test_a_submission_is_accepted_with_its_place(slow_server: RunningServer) -> None:
    answer = slow_server.post(SMALL)
    assert answer.status == 202
    assert answer.headers["location"] == f"/v1/deliberations/{answer.document['id']}"
    assert answer.document["status"] in {"queued", "running"}
    assert slow_server.ask("GET", answer.headers["location"]).status == 200


def test_waiting_for_the_end_answers_with_it(server: RunningServer) -> None:
    answer = server.post(QUESTION, query="?wait=30")
    assert answer.status == 200
    assert answer.headers["location"] == f"/v1/deliberations/{answer.document['id']}"
    roll_call = answer.document["roll_call"]
    assert roll_call["asked"] == 72 == sum(count for state, count in roll_call.items() if state != "asked")
    assert answer.document["outcome"]["status"] == "decided"


def test_waiting_in_vain_answers_with_the_present_state(slow_server: RunningServer) -> None:
    answer = slow_server.post(SMALL, query="?wait=0.05")
    assert answer.status == 202
    assert answer.document["status"] in {"queued", "running"}


@pytest.mark.parametrize("wait", ["-1", "60.1", "nan", "inf", "soon", "1e400", "%00", "0x1"])
def test_an_impossible_wait_is_pointed_at(server: RunningServer, wait: str) -> None:
    answer = server.post(QUESTION, query=f"?wait={wait}")
    assert answer.status == 422
    assert answer.problem == "invalid-request"
    assert [error["pointer"] for error in answer.document["errors"]] == ["/query/wait"]


def test_outputs_are_never_cut(server: RunningServer, ended: dict[str, Any]) -> None:
    page = server.ask("GET", f"/v1/deliberations/{ended['id']}/outputs").document
    assert page["next_cursor"] is None
    assert {item["agent_id"] for item in page["items"]} == {f"archon-{number}" for number in range(1, 73)}


def test_outputs_of_one_round_are_that_round_s(server: RunningServer, ended: dict[str, Any]) -> None:
    path = f"/v1/deliberations/{ended['id']}/outputs"
    assert len(server.ask("GET", f"{path}?round=0").document["items"]) == 72
    assert server.ask("GET", f"{path}?round=1").document["items"] == []


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


def test_a_deliberation_that_is_cancelled_ends_as_cancelled(slow_server: RunningServer) -> None:
    deliberation = slow_server.post(SMALL).document
    answer = slow_server.ask("POST", f"/v1/deliberations/{deliberation['id']}/cancel", b"")
    assert answer.status == 202
    assert answer.document["id"] == deliberation["id"]
    assert ask_events(slow_server, deliberation["id"])[-1]["event"] == "deliberation.cancelled"


def test_a_body_on_a_cancellation_changes_nothing(slow_server: RunningServer) -> None:
    deliberation = slow_server.post(SMALL).document
    assert slow_server.ask("POST", f"/v1/deliberations/{deliberation['id']}/cancel", b"\x00{[").status == 202


def test_what_has_ended_cannot_be_cancelled_and_says_how_it_ended(server: RunningServer, ended: dict[str, Any]) -> None:
    answer = server.ask("POST", f"/v1/deliberations/{ended['id']}/cancel")
    assert answer.status == 409
    assert answer.problem == "deliberation-ended"
    assert answer.document["state"] == "completed"


def test_the_list_is_newest_first_in_pages_that_neither_miss_nor_repeat() -> None:
    with running_server() as server:
        posted = [server.post(SMALL).document["id"] for _ in range(5)]
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = server.ask("GET", f"/v1/deliberations?limit=2&cursor={cursor}").document
            assert len(page["items"]) <= 2
            found += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert found == posted[::-1]


def test_the_list_can_be_of_one_state(server: RunningServer, ended: dict[str, Any]) -> None:
    page = server.ask("GET", "/v1/deliberations?status=completed").document
    assert ended["id"] in {item["id"] for item in page["items"]}
    assert server.ask("GET", "/v1/deliberations?status=halted").document == {"items": [], "next_cursor": None}


def test_parameters_left_empty_are_as_good_as_absent(server: RunningServer, ended: dict[str, Any]) -> None:
    assert server.ask("GET", "/v1/deliberations?status=&limit=&cursor=").status == 200
    assert server.ask("GET", f"/v1/deliberations/{ended['id']}/outputs?round=").status == 200


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/query/limit"),
        ("limit=201", "/query/limit"),
        ("limit=-1", "/query/limit"),
        ("limit=ten", "/query/limit"),
        ("limit=1e3", "/query/limit"),
        (f"limit={'9' * 5000}", "/query/limit"),
        ("limit=%FF", "/query/limit"),
        ("status=done", "/query/status"),
        ("status=%00", "/query/status"),
        ("cursor=nonsense", "/query/cursor"),
        ("cursor=%00", "/query/cursor"),
        ("cursor=%FF%FE", "/query/cursor"),
        ("cursor=%ED%A0%80", "/query/cursor"),
        (f"cursor={'x' * 5000}", "/query/cursor"),
    ],
)
def test_a_bad_parameter_is_pointed_at(server: RunningServer, query: str, pointer: str) -> None:
    answer = server.ask("GET", f"/v1/deliberations?{query}")
    assert answer.status == 422
    assert [error["pointer"] for error in answer.document["errors"]] == [pointer]


@pytest.mark.parametrize("round_", ["-1", "x", "1.5", "99999999999999999999"])
def test_a_bad_round_is_pointed_at(server: RunningServer, ended: dict[str, Any], round_: str) -> None:
    answer = server.ask("GET", f"/v1/deliberations/{ended['id']}/outputs?round={round_}")
    assert [error["pointer"] for error in answer.document["errors"]] == ["/query/round"]


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


@pytest.mark.parametrize(
    "identity",
    [
        "nobody",
        "%00",
        "%FF",
        "..",
        "%2e%2e%2fetc",
        "%F0%9F%8F%9B",
        "a" * 5000,
        "1;DROP",
        "%0A",
        "00000000-0000-0000-0000-000000000000",
    ],
)
@pytest.mark.parametrize("part", ["", "/outputs", "/events"])
def test_what_is_no_deliberation_is_not_found(server: RunningServer, identity: str, part: str) -> None:
    answer = server.ask("GET", f"/v1/deliberations/{identity}{part}")
    assert answer.status == 404
    assert answer.problem in {"deliberation-not-found", "not-found"}


def test_what_is_no_deliberation_cannot_be_cancelled(server: RunningServer) -> None:
    assert server.ask("POST", "/v1/deliberations/%00/cancel").problem == "deliberation-not-found"


def test_the_rosters_are_listed_with_what_they_are_for(server: RunningServer) -> None:
    page = server.ask("GET", "/v1/rosters").document
    archons = next(item for item in page["items"] if item["name"] == "archons")
    assert archons["count"] == 72
    assert archons["description"]
    assert page["next_cursor"] is None


def test_a_roster_shows_every_agent(server: RunningServer) -> None:
    roster = server.ask("GET", "/v1/rosters/archons").document
    assert roster["name"] == "archons"
    assert len({agent["id"] for agent in roster["agents"]}) == 72
    assert all(agent["persona"] for agent in roster["agents"])


@pytest.mark.parametrize("name", ["nobody", "%00", "..", "%2e%2e", "ARCHONS", "a" * 3000, "%FF"])
def test_what_is_no_roster_is_not_found(server: RunningServer, name: str) -> None:
    assert server.ask("GET", f"/v1/rosters/{name}").problem == "roster-not-found"


def test_the_pool_counts_who_is_at_work(slow_server: RunningServer) -> None:
    before = slow_server.ask("GET", "/v1/pool").document
    assert before["capacity"] == before["active"] + before["available"] == 72


def test_an_idle_pool_is_free(server: RunningServer) -> None:
    assert server.ask("GET", "/v1/pool").document == {"capacity": 72, "active": 0, "available": 72, "waiting": 0}


def test_a_halted_system_refuses_work_and_can_still_be_read() -> None:
    halt = HaltCheckerStub()
    with running_server(halt=halt) as server:
        ended = server.post(QUESTION, query="?wait=30").document
        server.call(halt.set_halted("fire drill"))
        answer = server.post(QUESTION)
        assert (answer.status, answer.problem) == (503, "system-halted")
        assert int(answer.headers["retry-after"]) > 0
        assert server.ask("GET", f"/v1/deliberations/{ended['id']}/outputs").status == 200


def test_a_full_queue_says_when_to_come_back() -> None:
    with running_server(
        orchestrator=AgentOrchestratorStub(latency_seconds=3600.0), max_running=1, max_queued=1
    ) as server:
        assert [server.post(QUESTION).status for _ in range(3)] == [202, 202, 429]
        answer = server.post(QUESTION)
        assert answer.problem == "queue-full"
        assert int(answer.headers["retry-after"]) > 0


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
        assert (refused.status, refused.problem) == (503, "too-many-streams")
        assert int(refused.headers["retry-after"]) > 0
        assert server.ask("GET", "/healthz").status == 200
        for connection in streams:
            connection.close()


def test_alive_is_alive(server: RunningServer) -> None:
    answer = server.ask("GET", "/healthz")
    assert (answer.status, answer.document) == (200, {"status": "ok"})


def test_ready_names_each_dependency(server: RunningServer) -> None:
    answer = server.ask("GET", "/readyz")
    assert answer.status == 200
    assert answer.document == {
        "status": "ready",
        "halted": False,
        "dependencies": {"database": {"works": True, "detail": ""}},
    }


async def _away() -> Health:
    return Health(works=False, detail="it does not answer")


async def _broken() -> Health:
    raise RuntimeError("secret inside")


def test_not_ready_names_what_is_away_and_keeps_secrets() -> None:
    with running_server(health={"database": _away, "model": _broken}) as server:
        answer = server.ask("GET", "/readyz")
        assert answer.status == 503
        assert answer.document["status"] == "unavailable"
        assert answer.document["dependencies"]["database"] == {"works": False, "detail": "it does not answer"}
        assert answer.document["dependencies"]["model"]["works"] is False
        assert b"secret" not in answer.body
        assert server.ask("GET", "/healthz").status == 200


def test_metrics_are_for_prometheus(server: RunningServer, ended: dict[str, Any]) -> None:
    assert ended["status"] == "completed"
    answer = server.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert b"conclave_pool_capacity_agents 72" in answer.body


def test_metrics_come_in_the_format_that_is_asked_for(server: RunningServer) -> None:
    answer = server.ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def test_a_service_that_stops_says_so_before_it_hangs_up() -> None:
    with running_server(orchestrator=AgentOrchestratorStub(latency_seconds=3600.0), drain_s=2.0) as server:
        deliberation = server.post(QUESTION).document
        path = f"/v1/deliberations/{deliberation['id']}/events"
        with server.events(path) as stream:
            server.stop()
            refused = server.post(QUESTION)
            assert (refused.status, refused.problem) == (503, "service-stopping")
            assert int(refused.headers["retry-after"]) > 0
            ready = server.ask("GET", "/readyz")
            assert (ready.status, ready.document["status"]) == (503, "stopping")
            assert server.ask("GET", "/healthz").status == 200
            assert b"deliberation.queued" in stream.read()


def test_nothing_of_a_broken_service_leaks() -> None:
    class Broken(HaltCheckerStub):
        async def is_halted(self) -> bool:
            raise RuntimeError("secret inside")

    with running_server(halt=Broken()) as server:
        answer = server.post(QUESTION)
        assert (answer.status, answer.problem) == (500, "internal")
        assert b"secret" not in answer.body
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_deliberation_cut_off_by_the_shutdown_stays_to_be_gone_on_with() -> None:
    with running_server(orchestrator=AgentOrchestratorStub(latency_seconds=3600.0)) as server:
        deliberation = server.post(SMALL).document
        with server.events(f"/v1/deliberations/{deliberation['id']}/events") as stream:
            seen = b""
            while b"agent.started" not in seen:
                seen += stream.readline()
            server.call(server.conclave.deliberations.stop(drain_s=0.5))
            rest = stream.read()
        found = server.ask("GET", f"/v1/deliberations/{deliberation['id']}").document
        ready = server.ask("GET", "/readyz")
        assert (found["status"], found["roll_call"]["asked"]) == ("running", 0)
        assert b": not the end" in rest
        assert (ready.status, ready.document["status"]) == (503, "stopping")
