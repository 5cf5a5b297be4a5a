"""`/v1/runs` over HTTP: what is accepted and what is refused, who sees what, events that resume, and cancellation."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from application.ports.halt_checker import HaltChecker
from application.services.run_service import RunService
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.in_memory_run_registry import InMemoryRunRegistry
from tests.conclave_fixture import Answer, RunningServer, read_events, running_server
from tests.fake_run import form_of

KEYS = "ann:operator:secret-of-ann,ben:operator:secret-of-ben,eve:observer:secret-of-eve,root:admin:secret-of-root"
AT = datetime(2026, 5, 1, tzinfo=UTC)
COMPLETED = DeliberationStatus.COMPLETED


class Process:
    """One that runs until it is told otherwise."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        await self._ended.wait()
        return 0

    def terminate(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)

    kill = terminate


@dataclass
class Launcher:
    """Starts nothing; a test does the work."""

    processes: dict[str, Process] = field(default_factory=dict)
    command_lines: list[Sequence[str]] = field(default_factory=list)

    async def launch(self, run: Run, command_line: Sequence[str]) -> Process:
        self.command_lines.append(command_line)
        return self.processes.setdefault(run.id, Process())


class Site:
    """A server and what is behind it."""

    def __init__(self, server: RunningServer, registry: InMemoryRunRegistry, launcher: Launcher) -> None:
        self.server = server
        self.registry = registry
        self.launcher = launcher

    def ask(self, method: str, path: str, body: object = None, *, who: str | None = None, **headers: str) -> Answer:
        key = {"Authorization": f"Bearer secret-of-{who}"} if who else {}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.server.ask(method, f"/v1/runs{path}", body, headers={**key, **sent})

    def start(self, *, who: str | None = None, **arguments: Any) -> str:
        answer = self.ask("POST", "", {"kind": "swarm", "arguments": arguments}, who=who)
        assert answer.status == 202, answer
        return str(answer.document["id"])

    def work(self, run_id: str, number: int = 2, *, ends: bool = True) -> Any:
        """Do the work of a run, as its process would."""
        record = self.registry.take_over(run_id, at=AT)
        for each in range(number):
            record.note("fake.counted", {"each": each})
        if ends:
            record.end(COMPLETED, at=AT, result={"counted": number})
            record.close()
            self.launcher.processes[run_id].terminate()
        return record


@contextmanager
def a_site(*, launcher: Launcher | None = None, **options: Any) -> Iterator[Site]:
    registry, launcher = InMemoryRunRegistry(), launcher or Launcher()

    def open_runs(halt: HaltChecker) -> RunService:
        return RunService(registry=registry, launcher=launcher, form_of=form_of, halt=halt, max_running=2)

    with running_server(open_runs=open_runs, **options) as server:
        try:
            yield Site(server, registry, launcher)
        finally:
            # Else they would be waited for.
            for process in launcher.processes.values():
                process.terminate()


@pytest.fixture
def site() -> Iterator[Site]:
    with a_site() as opened:
        yield opened


@pytest.fixture(scope="module")
def idle() -> Iterator[Site]:
    """One for all the requests that start nothing."""
    with a_site() as opened:
        yield opened


@pytest.fixture
def guarded() -> Iterator[Site]:
    with a_site(keys=KEYS) as opened:
        yield opened


def test_a_run_is_accepted_with_where_it_is_and_all_its_arguments(site: Site) -> None:
    answer = site.ask("POST", "", {"kind": "swarm", "arguments": {"number": 5}})
    assert answer.status == 202
    document = answer.document
    assert answer.headers["location"] == f"/v1/runs/{document['id']}"
    assert document == {
        "id": document["id"],
        "kind": "swarm",
        "status": "queued",
        "started_at": None,
        "finished_at": None,
        "arguments": {"work": "count", "number": 5},
        "result": None,
        "reason": None,
    }
    assert site.launcher.command_lines == [["count", "5"]]
    site.work(document["id"])
    found = site.ask("GET", f"/{document['id']}").document
    assert (found["status"], found["result"]) == ("completed", {"counted": 2})
    assert found["started_at"] == found["finished_at"] == "2026-05-01T00:00:00Z"


def test_arguments_may_be_left_out(site: Site) -> None:
    assert site.ask("POST", "", {"kind": "pantheon"}).document["arguments"] == {"work": "count", "number": 3}


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ([], {""}),
        (None, {""}),
        ("swarm", {""}),
        ({}, {"/kind"}),
        ({"kind": "tango"}, {"/kind"}),
        ({"kind": ["swarm"]}, {"/kind"}),
        ({"kind": None, "arguments": []}, {"/kind", "/arguments"}),
        ({"kind": "swarm", "arguments": "x"}, {"/arguments"}),
        ({"kind": "swarm", "folder": "/etc", "a b": 1}, {"/folder", ""}),
        ({"kind": "swarm", "arguments": {"work": "os:system"}}, {"/arguments/work"}),
        ({"kind": "swarm", "arguments": {"out": "/etc", "number": -1}}, {"/arguments/out", "/arguments/number"}),
        ({"kind": "population"}, {"/kind"}),
        ({"kind": "swarm", "arguments": {"number": 2**70}}, {"/arguments/number"}),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_pointer_to_each_field(idle: Site, body: Any, pointers: set[str]) -> None:
    answer = idle.ask("POST", "", json.dumps(body).encode(), Content_Type="application/json")
    assert (answer.status, answer.problem in {"invalid-run", "invalid-request"}) == (422, True)
    assert {error["pointer"] for error in answer.document["errors"]} == pointers
    assert b"/etc" not in answer.body
    assert idle.launcher.command_lines == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b'{"kind": "swarm", "kind": "soak"}', {}, 400),
        (b'{"kind": NaN}', {}, 400),
        (b"\xff", {}, 400),
        (b'{"kind": "\\u0000"}', {}, 422),
        (b'{"kind": "swarm", "arguments": {"x": "' + b"y" * 70_000 + b'"}}', {}, 413),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
    ],
)
def test_a_body_is_strict_json_of_a_bounded_size(idle: Site, body: bytes, headers: dict[str, str], status: int) -> None:
    answer = idle.ask("POST", "", body, **(headers or {"Content_Type": "application/json"}))
    assert answer.status == status
    assert answer.problem


def test_no_input_makes_the_server_fail(site: Site) -> None:
    rng = random.Random(7)
    values: list[Any] = [None, True, -1, 2**63, 1e300, "", "x" * 500, "\u2028", "../../etc", [], {}, [[[]]], {"a": {}}]
    kinds: list[Any] = [*RunKind, *values]
    names = ["work", "number", "agents", "task", "", "a/b", "é", "__class__"]
    for _ in range(150):
        body: Any = {"kind": rng.choice(kinds), "arguments": {rng.choice(names): rng.choice(values) for _ in range(3)}}
        if rng.random() < 0.2:
            body = rng.choice(values)
        answer = site.ask("POST", "", json.dumps(body).encode(), Content_Type="application/json")
        assert answer.status in {202, 400, 422, 429}, (body, answer)
    for path in ("/x", "/%00", "/..%2f..", "/" + "a" * 5000, "/01a1fe80-63b9-7f58-8edb-dd5e04d9042d", "/%C3%A9/events"):
        assert site.ask("GET", path).status in {404, 405, 414}
    for query in ("limit=0", "limit=x", "cursor=%00", "cursor=../..", "status=gone", "cursor=" + "a" * 600):
        assert site.ask("GET", f"?{query}").status == 422


def test_there_is_nothing_at_an_id_of_nobody(idle: Site) -> None:
    nobody = new_run_id(AT)
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        answer = idle.ask(method, f"/{nobody}{path}")
        assert (answer.status, answer.problem) == (404, "run-not-found")


def test_more_runs_than_may_be_are_told_when_to_come_back(site: Site) -> None:
    site.start(), site.start()
    answer = site.ask("POST", "", {"kind": "swarm"})
    assert (answer.status, answer.problem, answer.headers["retry-after"]) == (429, "too-many-runs", "10")


def test_nothing_starts_while_halted_and_everything_can_be_read() -> None:
    halt = HaltCheckerStub()
    with a_site(halt=halt) as site:
        run_id = site.start()
        site.work(run_id)
        site.server.call(halt.set_halted("a drill"))
        answer = site.ask("POST", "", {"kind": "swarm"})
        assert (answer.status, answer.problem) == (503, "system-halted")
        assert "retry-after" in answer.headers
        assert site.ask("GET", f"/{run_id}").status == 200


def test_runs_are_listed_in_pages_newest_first(site: Site) -> None:
    ids = []
    for _ in range(5):
        ids.append(site.start())
        site.work(ids[-1])
    first = site.ask("GET", "?limit=3").document
    rest = site.ask("GET", f"?limit=3&cursor={first['next_cursor']}").document
    assert [item["id"] for item in (*first["items"], *rest["items"])] == ids[::-1]
    assert rest["next_cursor"] is None
    assert site.ask("GET", "?status=running").document["items"] == []
    assert len(site.ask("GET", "?status=completed").document["items"]) == 5


def test_runs_of_the_command_line_are_listed_too(site: Site) -> None:
    run = Run(new_run_id(AT), RunKind.SOAK, DeliberationStatus.RUNNING, {"agents": 50}, started_at=AT)
    record = site.registry.register(run)
    (item,) = site.ask("GET", "").document["items"]
    assert (item["id"], item["kind"], item["status"], item["arguments"]) == (run.id, "soak", "running", {"agents": 50})
    assert site.ask("POST", f"/{run.id}/cancel").status == 202
    assert record.unwanted() is not None
    record.close()


def test_events_come_as_they_are_written_and_resume_after_the_last_one_seen(site: Site) -> None:
    run_id = site.start()
    record = site.work(run_id, ends=False)
    with site.server.events(f"/v1/runs/{run_id}/events") as stream:
        assert stream.getheader("content-type") == "text/event-stream; charset=utf-8"
        threading.Timer(0.3, lambda: (record.end(COMPLETED, at=AT), record.close())).start()
        events = read_events(stream)
    assert [event["id"] for event in events] == [1, 2, 3, 4]
    assert [event["event"] for event in events] == ["run.started", "fake.counted", "fake.counted", "run.completed"]
    for event in events:
        assert (event["data"]["sequence"], event["data"]["type"]) == (event["id"], event["event"])
        assert event["data"]["run_id"] == run_id
        assert event["data"]["at"].endswith("Z")
    assert events[1]["data"]["each"] == 0
    with site.server.events(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": "2"}) as stream:
        assert [event["id"] for event in read_events(stream)] == [3, 4]
    with site.server.events(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": "4"}) as stream:
        assert read_events(stream) == []
    assert site.ask("GET", f"/{run_id}/events", Last_Event_ID="x").status == 422


@pytest.mark.parametrize("last", ["4", "2147483647"])
def test_after_the_terminal_event_of_a_run_nobody_is_told_to_come_back(site: Site, last: str) -> None:
    run_id = site.start()
    record = site.work(run_id, ends=False)
    record.end(COMPLETED, at=AT)
    record.close()
    with site.server.events(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": last}) as stream:
        said = stream.read()
    assert said.startswith(b"retry: ")
    assert b"id: " not in said
    assert b"not the end" not in said


def test_a_cancelled_run_is_202_until_it_has_ended_and_then_409_with_its_state(site: Site) -> None:
    run_id = site.start()
    record = site.work(run_id, ends=False)
    for _ in range(2):
        answer = site.ask("POST", f"/{run_id}/cancel")
        assert (answer.status, answer.document["status"]) == (202, "running")
    assert record.unwanted() is not None
    record.end(DeliberationStatus.CANCELLED, at=AT, result={"counted": 2})
    record.close()
    answer = site.ask("POST", f"/{run_id}/cancel")
    assert (answer.status, answer.problem, answer.document["state"]) == (409, "run-ended", "cancelled")


def test_observers_read_operators_start_and_cancel_and_nobody_gets_in_without_a_key(guarded: Site) -> None:
    run_id = guarded.start(who="ann")
    assert guarded.ask("GET", "").status == 401
    assert guarded.ask("POST", "", {"kind": "swarm"}).status == 401
    assert guarded.ask("POST", "", {"kind": "swarm"}, who="eve").status == 403
    assert guarded.ask("POST", f"/{run_id}/cancel", who="eve").status == 403
    assert guarded.ask("GET", "", who="eve").document["items"] == []


def test_a_caller_sees_the_runs_of_its_own_name_and_an_admin_everybodys(guarded: Site) -> None:
    of_ann, of_ben = guarded.start(who="ann"), guarded.start(who="ben")
    local = Run(new_run_id(AT), RunKind.SOAK, DeliberationStatus.RUNNING, {}, started_at=AT)
    record = guarded.registry.register(local)

    def seen(who: str) -> set[str]:
        return {item["id"] for item in guarded.ask("GET", "", who=who).document["items"]}

    assert (seen("ann"), seen("ben"), seen("root")) == ({of_ann}, {of_ben}, {of_ann, of_ben, local.id})
    for run_id in (of_ben, local.id):
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            assert guarded.ask(method, f"/{run_id}{path}", who="ann").problem == "run-not-found"
    assert guarded.ask("POST", f"/{of_ben}/cancel", who="root").status == 202
    record.close()
