"""Operations and runs as pages over HTTP: who sees what, what is asked again, and what stands there at first load."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from api.conclave import Health
from application.ports.bus_traffic import BusTraffic
from application.ports.halt_checker import HaltChecker
from application.ports.provider_standing import ProviderStanding
from application.ports.run_series import RunSeries
from application.services.run_service import RunService
from domain.models.deliberation import DeliberationStatus
from domain.models.money import KeyBudget
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs.file_run_registry import FileRunRegistry
from infrastructure.runs.file_run_series import FileRunSeries
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from tests.conclave_fixture import Answer, RunningServer, running_server
from tests.fake_run import form_of
from tests.patience import eventually

KEYS = "ann:operator:ann-secret-1,ben:operator:ben-secret-1,eve:observer:eve-secret-1,root:admin:root-secret-1"
AT = datetime(2026, 5, 1, tzinfo=UTC)
HOSTILE = "<img src=x onerror=alert(1)>\N{RIGHT-TO-LEFT OVERRIDE}"


class Counting:
    """A reader that counts how often it is asked."""

    def __init__(self, reader: FileRunSeries) -> None:
        self.looks = 0
        self._reader = reader

    def read(self, run: Run) -> RunSeries:
        self.looks += 1
        return self._reader.read(run)


class NoLauncher:
    async def launch(self, run: Run, command_line: Sequence[str]) -> Any:
        raise AssertionError("no test here starts a run")


@dataclass
class House:
    server: RunningServer
    registry: FileRunRegistry
    series: Counting
    file: HaltChannelStub

    def get(self, path: str, *, who: str | None = None, **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.server.ask("GET", path, headers={**given, **self.cookie(who)})

    def page(self, path: str, *, who: str | None = None) -> str:
        answer = self.get(path, who=who)
        assert answer.status == 200, answer
        return answer.body.decode()

    def cookie(self, who: str | None) -> dict[str, str]:
        if who is None:
            return {}
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
        body = urlencode({"key": f"{who}-secret-1", "next": "/"}).encode()
        answer = self.server.ask("POST", "/sign-in", body, headers=headers)
        return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}

    def change(self, method: str, body: object, *, who: str) -> Answer:
        cookie = self.cookie(who)
        token = self.server.ask("GET", "/session", headers=cookie).document["csrf_token"]
        return self.server.ask(method, "/v1/halt", body, headers={**cookie, "X-CSRF-Token": token})

    def add_run(self, *, key_name: str | None = None, task: str = "count") -> str:
        """One that has ended."""
        run = Run(new_run_id(datetime.now(UTC)), RunKind.SOAK, DeliberationStatus.RUNNING, {"task": task}, AT)
        record = self.registry.register(replace(run, key_name=key_name))
        out = self.registry.folder / run.id / "out"
        out.mkdir()
        totals = {"crashes": 0, "injected": 0}
        rows = [json.dumps({"cycle": n, "duration": n * 10, "totals": totals}) + "\n" for n in (1, 2, 3)]
        (out / "stability-metrics.jsonl").write_text("".join(rows))
        record.end(DeliberationStatus.FAILED, at=AT, result={"passed": False}, reason=HOSTILE)
        record.close()
        return run.id


@contextmanager
def a_house(folder: Path, **options: Any) -> Iterator[House]:
    registry = FileRunRegistry(folder / "runs")
    series = Counting(FileRunSeries(registry.folder))
    channels = [HaltChannelStub("database"), HaltChannelStub("file")]

    def open_runs(halt: HaltChecker) -> RunService:
        return RunService(registry=registry, launcher=NoLauncher(), form_of=form_of, halt=halt, series=series)

    with running_server(channels=channels, open_runs=open_runs, **options) as server:
        yield House(server, registry, series, channels[1])


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with a_house(tmp_path) as found:
        yield found


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[House]:
    with a_house(tmp_path, keys=KEYS) as found:
        yield found


@pytest.mark.parametrize("path", ["/operations", "/operations/runs", "/room/operations"])
def test_who_is_not_signed_in_is_sent_to_sign_in(keyed: House, path: str) -> None:
    answer = keyed.get(path)
    assert answer.status == 303
    assert answer.headers["location"] == f"/sign-in?next={path}"


def test_the_first_load_says_how_everything_stands(house: House) -> None:
    page = house.page("/operations")
    for words in (
        "0 of 72 slots",
        "Nothing is halted",
        "Everything it needs is there",
        "database",
        "No call was made yet",
    ):
        assert words in page
    assert "style=" not in page
    assert not re.search(r"\son\w+=", page)


def test_a_dependency_that_is_away_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    async def broken() -> Health:
        return Health(works=False, detail=HOSTILE)

    with a_house(tmp_path, health={"database": broken}) as house:
        page = house.page("/operations")
    assert "Something it needs is away" in page
    assert "&lt;img src=x" in page
    assert "<img src=x" not in page
    assert "\\u202e" in page


@pytest.mark.parametrize(("who", "sees"), [("root", True), ("ann", False), ("eve", False)])
def test_the_halt_button_is_the_admins_alone(keyed: House, who: str, sees: bool) -> None:
    assert ('id="halt-form"' in keyed.page("/operations", who=who)) is sees


@pytest.mark.parametrize(("who", "sees"), [("root", True), ("ann", True), ("eve", False)])
def test_forms_that_start_runs_are_for_operators(keyed: House, who: str, sees: bool) -> None:
    assert ("data-run=" in keyed.page("/operations/runs", who=who)) is sees


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_an_observer_who_halts_all_the_same_is_refused(keyed: House, method: str) -> None:
    assert keyed.change(method, {"reason": "no"}, who="eve").problem == "forbidden"
    assert "Nothing is halted" in keyed.page("/operations", who="eve")


def test_a_halt_says_reason_and_who_until_it_is_cleared(keyed: House) -> None:
    assert keyed.change("POST", {"reason": f"a drill {HOSTILE}"}, who="root").status == 200
    page = keyed.page("/operations", who="eve")
    assert "No agent is asked" in page
    assert "a drill &lt;img src=x" in page
    assert "<bdi>root</bdi>" in page
    assert keyed.change("DELETE", {"reason": "over"}, who="root").status == 200
    assert "Nothing is halted" in keyed.page("/room/operations", who="root")


def test_a_halt_that_came_by_another_way_is_shown_as_nobodys(house: House) -> None:
    house.file.set("touched by hand", AT)
    house.server.call(house.server.conclave.halt.look())
    assert "not known here" in house.page("/operations")


def test_a_halt_by_the_local_caller_is_somebodys_on_this_machine(house: House) -> None:
    assert house.server.ask("POST", "/v1/halt", {"reason": "a drill"}).status == 200
    assert "somebody on this machine, without a key" in house.page("/operations")


def test_a_channel_that_is_away_is_named_and_leaves_the_system_in_doubt(house: House) -> None:
    house.file.problem = f"the folder is gone {HOSTILE}"
    house.server.call(house.server.conclave.halt.look())
    page = house.page("/operations")
    assert 'data-condition="in_doubt"' in page
    assert "the folder is gone &lt;img src=x" in page
    assert "<img src=x" not in page


def test_a_part_that_is_asked_for_again_is_not_sent_again_while_nothing_is_new(house: House) -> None:
    first = house.get("/room/operations")
    again = house.get("/room/operations", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    fresh = house.get("/room/operations", If_None_Match='"another"')
    assert (fresh.status, fresh.headers["cache-control"]) == (200, "private, no-cache")


def test_viewers_of_one_second_share_what_was_read(house: House) -> None:
    run_id = house.add_run()
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(house.get(f"/room/runs/{run_id}/series"))) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} == {200}
    assert house.series.looks <= 2


def test_a_deliberation_under_way_is_listed_with_a_link_for_those_who_see_it(tmp_path: Path) -> None:
    stub = AgentOrchestratorStub(hanging=["archon-1"])
    with a_house(tmp_path, keys=KEYS, orchestrator=stub) as house:
        key = {"Authorization": "Bearer ann-secret-1"}
        made = house.server.post({"question": HOSTILE, "agents": {"count": 1}}, headers=key).document["id"]
        for who, sees in (("ann", True), ("root", True), ("ben", False)):
            assert (f"/deliberations/{made}" in house.page("/operations", who=who)) is sees
        page = house.page("/operations", who="ann")
    assert "<img" not in page.replace('<img src="/static/icon.svg"', "")
    assert "&lt;img src=x" in page


def test_who_has_nothing_under_way_is_told_of_how_much_others_have(tmp_path: Path) -> None:
    stub = AgentOrchestratorStub(hanging=["archon-1"])
    with a_house(tmp_path, keys=KEYS, orchestrator=stub) as house:
        key = {"Authorization": "Bearer ann-secret-1"}
        made = house.server.post({"question": "Shall we?", "agents": {"count": 1}}, headers=key).document["id"]
        eventually(lambda: house.server.conclave.deliberations.running_count == 1)
        for who, ask in (("ben", True), ("eve", False)):
            page = house.page("/operations", who=who)
            assert "None of yours is running or queued (1 of others)." in page
            assert "No deliberation is running or queued" not in page
            assert ('<a href="/ask">Ask a question</a>' in page) is ask
        house.server.ask("POST", f"/v1/deliberations/{made}/cancel", headers=key)
        eventually(lambda: house.server.conclave.deliberations.running_count == 0)
        eventually(lambda: "No deliberation is running or queued." in house.page("/operations", who="eve"))
        eventually(lambda: "No deliberation is running or queued." in house.page("/operations", who="root"))


def test_a_run_is_seen_by_its_own_key_and_by_admins(keyed: House) -> None:
    run_id = keyed.add_run(key_name="ann")
    for path in (f"/operations/runs/{run_id}", f"/room/runs/{run_id}", f"/room/runs/{run_id}/series"):
        assert [keyed.get(path, who=who).status for who in ("ann", "root", "ben", "eve")] == [200, 200, 404, 404]
    assert run_id in keyed.page("/operations/runs", who="ann")
    assert run_id not in keyed.page("/operations/runs", who="ben")


@pytest.mark.parametrize("name", ["..%2F..%2Fetc", "x", "01a1fff3-5216-7370-b239-662218857b42"])
def test_a_run_that_is_none_is_not_found(house: House, name: str) -> None:
    for path in (f"/operations/runs/{name}", f"/room/runs/{name}", f"/room/runs/{name}/series"):
        assert house.get(path).status == 404


def test_a_run_stands_whole_on_its_page_at_first_load(house: House) -> None:
    run_id = house.add_run(task=HOSTILE)
    page = house.page(f"/operations/runs/{run_id}")
    assert "Not all criteria are met." in page
    assert "3 cycles: duration of a cycle from 10 ms to 30 ms" in page
    assert '<td class="number">20</td>' in page
    assert "&lt;img src=x onerror=alert(1)&gt;\\u202e" in page
    assert "<img src=x" not in page
    document = house.get(f"/room/runs/{run_id}/series").document
    assert (document["has_ended"], document["is_whole"]) == (True, True)
    assert document["figures"][0]["lines"][0]["values"] == [10.0, 20.0, 30.0]


def test_runs_are_listed_by_state_and_by_page(house: House) -> None:
    made = [house.add_run() for _ in range(31)]
    first = house.page("/operations/runs?status=failed")
    cursor = re.search(r'cursor=([^"&]+)"', first)
    assert cursor is not None
    assert made[0] not in first
    assert made[0] in house.page(f"/operations/runs?cursor={cursor[1]}")
    assert "There is no run here that is completed" in house.page("/operations/runs?status=completed")
    assert house.get("/operations/runs?cursor=no").status == 422


def test_providers_buses_and_budgets_are_shown_as_they_stand(tmp_path: Path) -> None:
    with a_house(tmp_path, keys=KEYS) as house:
        conclave = house.server.conclave
        standing = ProviderStanding(
            "openai/small", "openai", 4, 30, None, 1, 2, 3, 450, breaker="open", failures=5, opens_in_s=9
        )
        given = {
            "providers": lambda: [standing],
            "buses": lambda: [BusTraffic("shm", 12_345, 6, 7, 0.002, 0.001, 0.005)],
            "budgets": {"ann": KeyBudget(day=10**12), "*": KeyBudget(month=2 * 10**12)},
        }
        for name, value in given.items():
            object.__setattr__(conclave, name, value)
        key = {"Authorization": "Bearer ann-secret-1"}
        house.server.post({"question": "Shall we?", "agents": {"count": 2}}, query="?wait=20", headers=key)
        page, bens = house.page("/operations", who="ann"), house.page("/operations", who="ben")
    words = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "1 of 4 2 3 of 30 450 no limit" in words
    assert "open tried again in 9 s 5 failures" in words
    assert "shm 12,345 7 6 2 ms 1 ms 5 ms" in words
    assert "$0.00 of $1.00" in words
    assert "No call was made yet" in bens
