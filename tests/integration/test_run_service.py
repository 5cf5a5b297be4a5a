"""Runs in processes of their own: bounded, told to end, terminated and killed where they do not, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from application.services import run_service
from application.services.run_service import RunService
from domain.errors.deliberation import ServiceStoppingError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError
from domain.errors.run import InvalidRunError, RunEndedError, RunNotFoundError, TooManyRunsError
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from infrastructure.persistence.migrate import upgrade
from infrastructure.runs.file_run_registry import FileRunRegistry
from infrastructure.runs.run_processes import ProcessLauncher, environment_of_runs
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.fake_run import form_of
from tests.patience import eventually_in_loop

REPOSITORY = Path(__file__).parents[2]
COMPLETED, CANCELLED, FAILED = DeliberationStatus.COMPLETED, DeliberationStatus.CANCELLED, DeliberationStatus.FAILED
HALTED = DeliberationStatus.HALTED
_PATIENCE_S = 40.0


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that is made once: each test has it as a copy."""
    path = tmp_path_factory.mktemp("made") / "conclave.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def data(tmp_path: Path, database: Path) -> Path:
    """A data folder with its database."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "conclave.db").write_bytes(database.read_bytes())
    return tmp_path / "data"


class Site:
    """A service over a data folder."""

    def __init__(self, data: Path, **options: Any) -> None:
        environ = {**os.environ, "CONCLAVE_DATA_DIR": str(data), "PYTHONPATH": str(REPOSITORY)}
        environ |= {"CONCLAVE_API_KEY": "a-callers-secret", "FOREIGN": "x", "MY_PROVIDER_KEY": "k"}
        environment = environment_of_runs(environ, also=["MY_PROVIDER_KEY"], sources=REPOSITORY / "src")
        self.halt = HaltCheckerStub()
        self.registry = FileRunRegistry(data / "runs")
        self.service = RunService(
            registry=self.registry,
            launcher=ProcessLauncher(self.registry.folder, environment, program="tests.fake_run"),
            form_of=form_of,
            halt=self.halt,
            **options,
        )

    async def start(self, work: str, number: int = 3) -> Run:
        return await self.service.start(RunKind.SWARM, {"work": work, "number": number}, key_name=None)

    async def until(self, run_id: str, holds: Callable[[Run], bool]) -> Run:
        async def look() -> Run | None:
            run = await self.service.get(run_id, key_name=None)
            return run if holds(run) else None

        found = await eventually_in_loop(look)
        assert found is not None
        return found

    async def ended(self, run: Run) -> Run:
        """The run once nothing of it is there any more."""
        found = await self.until(run.id, lambda run: run.status.is_terminal)
        await eventually(lambda: run.id not in self.service._slots)
        return found

    async def noted(self, run: Run, type_: str) -> Any:
        """The data of the first event of that type."""
        async with asyncio.timeout(_PATIENCE_S):
            async for event in self.service.events(run.id):
                if event is not None and event.type == type_:
                    return event.data
        raise AssertionError(f"there is no {type_!r}")


@asynccontextmanager
async def a_site(data: Path, **options: Any) -> AsyncIterator[Site]:
    site = Site(data, **options)
    try:
        yield site
    finally:
        await site.service.stop()


@pytest.fixture
async def site(data: Path) -> AsyncIterator[Site]:
    async with a_site(data) as opened:
        yield opened


async def eventually(holds: Callable[[], bool]) -> None:
    async def now() -> bool:
        return holds()

    await eventually_in_loop(now)


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_run_is_queued_then_runs_then_has_its_result_and_its_events(site: Site) -> None:
    run = await site.service.start(RunKind.SOAK, {"number": 2}, key_name="ann")
    assert (run.status, run.arguments, run.key_name) == (
        DeliberationStatus.QUEUED,
        {"work": "count", "number": 2},
        "ann",
    )
    types = [event.type async for event in site.service.events(run.id) if event is not None]
    assert types == ["run.started", "fake.counted", "fake.counted", "run.completed"]
    found = await site.ended(run)
    assert (found.status, found.result, found.key_name) == (COMPLETED, {"counted": 2}, "ann")
    # A reader who has seen everything is not kept.
    assert [event async for event in site.service.events(run.id, after=4)] == []
    assert [event.sequence async for event in site.service.events(run.id, after=2) if event] == [3, 4]
    with pytest.raises(RunEndedError):
        await site.service.cancel(run.id, key_name=None)
    with pytest.raises(RunNotFoundError):
        await site.service.get(run.id, key_name="ben")


async def test_a_run_gets_settings_and_no_secret_of_a_caller_and_works_apart(site: Site, data: Path) -> None:
    found = await site.ended(await site.start("env"))
    assert found.result is not None
    names = found.result["names"]
    assert isinstance(names, list)
    assert {"CONCLAVE_DATA_DIR", "CONCLAVE_RUN_ID", "CONCLAVE_RUN_FOLDER", "MY_PROVIDER_KEY", "PATH"} <= {*names}
    assert not {"CONCLAVE_API_KEY", "FOREIGN"} & {*names}
    # What it is to do came by standard input, where nobody else reads it.
    assert found.result["visible"] == []
    folder = data / "runs" / found.id
    assert {path.name for path in folder.iterdir()} >= {"out", "stdout.json", "stderr.log", "run.json", "events.jsonl"}
    assert (folder / "out").is_dir()
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())} == {0}


async def test_runs_that_break_have_failed_and_say_no_place(site: Site) -> None:
    failing, dying = await site.start("fail"), await site.start("die")
    found = await asyncio.gather(site.ended(failing), site.ended(dying))
    assert {run.status for run in found} == {FAILED}
    assert [(run.reason, run.result) for run in found] == [
        ("the far end is away", None),
        ("its process ended before its work did (exit code 70)", None),
    ]


async def test_a_killed_process_fails_its_run_with_what_it_had_told(site: Site) -> None:
    run = await site.start("hang")
    pid = (await site.noted(run, "fake.hanging"))["pid"]
    os.kill(pid, signal.SIGKILL)
    found = await site.ended(run)
    assert (found.status, found.reason) == (FAILED, "its process ended before its work did (signal 9)")
    events = site.registry.events(run.id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.type for event in events][-2:] == ["fake.hanging", "run.failed"]


async def test_a_cancelled_run_winds_up_and_keeps_what_it_counted(site: Site) -> None:
    run = await site.start("wait", 2)
    await site.noted(run, "fake.counted")
    assert (await site.service.cancel(run.id, key_name=None)).status is DeliberationStatus.RUNNING
    found = await site.ended(run)
    assert (found.status, found.result, found.reason) == (CANCELLED, {"counted": 2}, "it was cancelled")


async def test_a_run_that_hangs_when_it_is_cancelled_is_killed_after_its_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_service, "CANCEL_GRACE_S", 0.3)
    monkeypatch.setattr(run_service, "_TERMINATE_S", 0.2)
    run = await site.start("hang")
    pid = (await site.noted(run, "fake.hanging"))["pid"]
    await site.service.cancel(run.id, key_name=None)
    found = await site.ended(run)
    assert (found.status, found.reason) == (CANCELLED, "its process did not end by itself and was ended")
    assert not is_there(pid)


async def test_a_halt_ends_a_run_that_hangs_after_its_grace(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (run_service._HALT_GRACE_S, run_service._TERMINATE_S) == (2.0, 2.0)
    monkeypatch.setattr(run_service, "_HALT_GRACE_S", 0.3)
    monkeypatch.setattr(run_service, "_TERMINATE_S", 0.2)
    run = await site.start("hang")
    pid = (await site.noted(run, "fake.hanging"))["pid"]
    await site.halt.set_halted("a drill")
    found = await site.ended(run)
    assert found.status is HALTED
    assert not is_there(pid)
    assert site.registry.events(run.id)[-1].type == "run.halted"


async def test_a_halt_that_only_the_server_knows_of_ends_a_run_with_what_it_counted(site: Site) -> None:
    run = await site.start("wait", 2)
    await site.noted(run, "fake.counted")
    await site.halt.set_halted("a drill")
    found = await site.ended(run)
    assert (found.status, found.result, found.reason) == (HALTED, {"counted": 2}, "the system was halted")


async def test_whatever_a_run_started_ends_with_it(site: Site) -> None:
    run = await site.start("breed")
    child = (await site.noted(run, "fake.bred"))["pid"]
    assert (await site.ended(run)).status is COMPLETED
    await eventually(lambda: not is_there(child))


async def test_only_so_many_runs_are_under_way_at_a_time(data: Path) -> None:
    async with a_site(data, max_running=2) as site:
        started = await asyncio.gather(*(site.start("wait") for _ in range(5)), return_exceptions=True)
        runs = [run for run in started if isinstance(run, Run)]
        refusals = [error for error in started if isinstance(error, TooManyRunsError)]
        assert (len(runs), len(refusals)) == (2, 3)
        assert (refusals[0].limit, refusals[0].retry_after_s) == (2, 10)
        await site.service.cancel(runs[0].id, key_name=None)
        await site.ended(runs[0])
        again = await site.start("count")
        assert (await site.ended(again)).status is COMPLETED


async def test_nothing_is_started_while_halted_or_for_what_cannot_be_run(site: Site, data: Path) -> None:
    with pytest.raises(InvalidRunError) as refused:
        await site.service.start(RunKind.SWARM, {"work": "x", "number": True, "folder": "/"}, key_name=None)
    assert {problem.pointer for problem in refused.value.problems} == {
        "/arguments/work",
        "/arguments/number",
        "/arguments/folder",
    }
    with pytest.raises(InvalidRunError) as refused:
        await site.service.start(RunKind.POPULATION, {}, key_name=None)
    assert [problem.pointer for problem in refused.value.problems] == ["/kind"]
    await site.halt.set_halted("a drill")
    with pytest.raises(SystemHaltedError):
        await site.start("count")
    assert not (data / "runs").exists()
    assert site.service.running_count == 0


async def test_a_process_that_cannot_be_started_is_said_and_its_run_has_failed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DependencyUnavailableError):
        await site.start("count")
    (run,) = site.registry.page(limit=5).items
    assert (run.status, run.reason) == (FAILED, "the process of the run is away")
    assert site.service.running_count == 0


async def test_a_folder_that_cannot_be_written_to_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    async with a_site(tmp_path / "data") as site:
        with pytest.raises(DependencyUnavailableError):
            await site.start("count")
        assert site.service.running_count == 0


async def test_a_service_that_stops_ends_its_runs_and_takes_no_more(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_service, "_STOP_GRACE_S", 1.5)
    monkeypatch.setattr(run_service, "_TERMINATE_S", 0.2)
    site = Site(data)
    waiting, hanging = await site.start("wait"), await site.start("hang")
    await site.noted(waiting, "fake.counted")
    pid = (await site.noted(hanging, "fake.hanging"))["pid"]
    await site.service.stop()
    assert site.service.running_count == 0
    assert not is_there(pid)
    assert (await site.service.get(waiting.id, key_name=None)).result == {"counted": 3}
    assert {run.status for run in site.registry.page(limit=5).items} == {CANCELLED}
    with pytest.raises(ServiceStoppingError):
        await site.start("count")


_SERVER = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_run_service import Site
from tests.patience import eventually_in_loop
async def main():
    site = Site(Path(sys.argv[1]))
    runs = [await site.start(work) for work in ("wait", "hang")]
    await site.noted(runs[0], "fake.counted")
    print((await site.noted(runs[1], "fake.hanging"))["pid"], *(run.id for run in runs), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_the_runs_of_a_killed_server_end_by_themselves(data: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])}
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else happens meanwhile
        [sys.executable, "-c", _SERVER, str(data)], env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        pid, waiting, hanging = server.stdout.readline().split()
        server.kill()
    site = Site(data)
    ended = await site.until(waiting, lambda run: run.status.is_terminal)
    assert (ended.status, ended.result, ended.reason) == (
        CANCELLED,
        {"counted": 3},
        "the server that started it is gone",
    )
    hung = await site.until(hanging, lambda run: run.status.is_terminal)
    assert hung.status is CANCELLED
    await eventually(lambda: not is_there(int(pid)))
