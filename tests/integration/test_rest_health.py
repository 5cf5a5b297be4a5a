"""What the REST door says of the server itself: its health, pool and metrics, also when it is full, halted, broken or stopping."""

from __future__ import annotations

from typing import Any

from api.conclave import Health
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.conclave_fixture import RunningServer, running_server
from tests.integration.rest_questions import QUESTION, SMALL


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
