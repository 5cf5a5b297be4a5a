"""A run on the command line: recorded where REST lists it, halted, cancelled, interrupted and killed, with its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.cli.exit_codes import code_of_error
from domain.errors.conclave_error import ConclaveError
from domain.errors.configuration import ConfigurationError
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.persistence.migrate import upgrade
from infrastructure.runs.file_run_registry import FileRunRegistry
from infrastructure.settings import load_settings
from tests.command_line import Command, Ran
from tests.fake_run import main as fake_main
from tests.patience import eventually

REPOSITORY = Path(__file__).parents[2]
COMPLETED, CANCELLED, FAILED = DeliberationStatus.COMPLETED, DeliberationStatus.CANCELLED, DeliberationStatus.FAILED
HALTED = DeliberationStatus.HALTED
_PATIENCE_S = 60.0


class Site:
    """A data folder, and processes that run in it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.registry = FileRunRegistry(data / "runs")
        self.environment = {
            **os.environ,
            "CONCLAVE_DATA_DIR": str(data),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]),
        }

    @contextmanager
    def running(self, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Run]]:
        """A process and its run, once it has noted an event."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fake_run", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:

            def begun() -> Run | None:
                assert process.poll() is None, process.communicate()
                found = self.newest()
                return found if found is not None and len(self.registry.events(found.id)) >= 2 else None

            found = eventually(begun)
            assert found is not None
            yield process, found
        finally:
            process.kill()
            process.communicate()

    def newest(self) -> Run | None:
        items = self.registry.page(limit=1).items
        return self.registry.get(items[0].id) if items else None

    @property
    def last(self) -> Run:
        found = self.newest()
        assert found is not None
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that is made once and copied."""
    path = tmp_path_factory.mktemp("made") / "conclave.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def site(tmp_path: Path, made: Path) -> Site:
    data = tmp_path / "data"
    data.mkdir()
    (data / "conclave.db").write_bytes(made.read_bytes())
    return Site(data)


@pytest.fixture
def run(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs in this process, in the data folder of the site."""

    def command(*arguments: str, **settings: str) -> Ran:
        with monkeypatch.context() as patch:
            for name, value in {"CONCLAVE_DATA_DIR": str(site.data), **settings}.items():
                patch.setenv(name, value)
            try:
                code = fake_main(list(arguments))
            except ConclaveError as error:
                code = code_of_error(error)
        written = capsys.readouterr()
        return Ran(code, written.out, written.err)

    return command


def test_a_run_prints_one_document_and_stands_in_the_folder(site: Site, run: Command) -> None:
    ran = run("count", "2", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == {"counted": 2}
    assert (site.last.status, site.last.result, site.last.key_name) == (COMPLETED, {"counted": 2}, None)
    types = [event.type for event in site.registry.events(site.last.id)]
    assert types == ["run.started", "fake.counted", "fake.counted", "run.completed"]
    counts = json.loads((site.data / "runs" / site.last.id / "bus.json").read_text())
    assert counts["memory"]["sent"] == 2


def test_without_json_the_result_is_rendered_and_the_data_folder_made(tmp_path: Path, run: Command) -> None:
    data = tmp_path / "new" / "data"
    assert run("count", "1", CONCLAVE_DATA_DIR=str(data)) == Ran(0, "counted 1\n", "")
    assert Site(data).last.status is COMPLETED


def test_a_run_that_fails_ends_with_the_code_of_its_error(site: Site, run: Command) -> None:
    assert run("fail", "--json") == Ran(4, "", "")
    assert (site.last.status, site.last.reason) == (FAILED, "the far end is away")
    assert site.registry.events(site.last.id)[-1].type == "run.failed"


def test_a_run_that_breaks_has_failed_and_hides_nothing_from_its_caller(site: Site, run: Command) -> None:
    with pytest.raises(ZeroDivisionError):
        run("break", "--json")
    assert (site.last.status, site.last.reason) == (FAILED, "it broke (ZeroDivisionError)")


@pytest.mark.parametrize("doubt", [False, True])
def test_nothing_begins_while_halted_or_in_doubt(site: Site, run: Command, doubt: bool) -> None:
    if doubt:
        (site.data / "HALT").mkdir()
    else:
        (site.data / "HALT").write_text("a drill")
    ran = run("count", "--json")
    assert (ran.code, ran.stdout) == (1, "")
    assert site.newest() is None


def test_a_run_that_cannot_be_registered_does_not_begin(site: Site, run: Command) -> None:
    (site.data / "runs").write_text("in the way")
    ran = run("count", "--json")
    assert (ran.code, ran.stdout) == (4, "")


@pytest.mark.parametrize("run_id", ["x", "01a1fe80-63b9-7f58-8edb-dd5e04d9042d"])
def test_the_id_of_a_run_that_nobody_announced_is_refused(site: Site, run: Command, run_id: str) -> None:
    ran = run("count", CONCLAVE_RUN_ID=run_id)
    assert (ran.code != 0, ran.stdout) == (True, "")
    assert site.newest() is None


def test_an_announced_run_is_taken_over_and_has_a_folder_for_what_it_writes(site: Site, run: Command) -> None:
    at = datetime.now(UTC)
    announced = Run(new_run_id(at), RunKind.SWARM, DeliberationStatus.QUEUED, {"work": "count"}, key_name="ann")
    announcement = site.registry.announce(announced)
    assert run("count", "1", "--json", CONCLAVE_RUN_ID=announced.id).code == 0
    announcement.close()
    found = site.registry.get(announced.id)
    assert (found.status, found.result, found.key_name) == (COMPLETED, {"counted": 1}, "ann")
    again = run("count", "1", CONCLAVE_RUN_ID=announced.id)
    assert (again.code != 0, again.stdout) == (True, "")


@pytest.mark.parametrize("name", ["CONCLAVE_RUN_ID", "CONCLAVE_RUN_FOLDER"])
def test_what_belongs_to_one_run_may_stand_in_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / ".env").write_text(f"{name}=01a1fe80-63b9-7f58-8edb-dd5e04d9042d\n")
    with pytest.raises(ConfigurationError, match=name):
        load_settings({}, tmp_path / ".env")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_winds_up_and_still_prints_what_was_counted(
    site: Site, number: signal.Signals, code: int
) -> None:
    with site.running("wait", "2", "--json") as (process, held):
        process.send_signal(number)
        stdout, _ = process.communicate(timeout=_PATIENCE_S)
        assert (process.returncode, json.loads(stdout)) == (code, {"counted": 2})
    assert (site.last.id, site.last.status, site.last.reason) == (held.id, CANCELLED, "it was interrupted")


def test_interrupted_twice_it_leaves_work_that_does_not_wind_up(site: Site) -> None:
    with site.running("stubborn", "2", "--json") as (process, held):
        process.send_signal(signal.SIGINT)
        eventually(lambda: "fake.asked_to_end" in {event.type for event in site.registry.events(held.id)})
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(_PATIENCE_S) == 130
    assert site.last.status is CANCELLED


def test_cancelled_from_elsewhere_it_winds_up_and_ends_with_one(site: Site) -> None:
    with site.running("wait", "2", "--json") as (process, held):
        site.registry.request_end(held.id)
        stdout, _ = process.communicate(timeout=_PATIENCE_S)
        assert (process.returncode, json.loads(stdout)) == (1, {"counted": 2})
    assert (site.last.status, site.last.reason) == (CANCELLED, "it was cancelled")


def test_a_halt_in_its_middle_ends_it_and_keeps_what_was_counted(site: Site) -> None:
    with site.running("wait", "2", "--json") as (process, _):
        (site.data / "HALT").write_text("a drill")
        stdout, _ = process.communicate(timeout=_PATIENCE_S)
        assert (process.returncode, json.loads(stdout)) == (1, {"counted": 2})
    assert (site.last.status, site.last.reason) == (HALTED, "the system was halted: a drill")


def test_a_halt_ends_even_a_process_whose_work_hangs(site: Site) -> None:
    with site.running("hang", "2", "--json") as (process, _):
        (site.data / "HALT").write_text("a drill")
        _, stderr = process.communicate(timeout=_PATIENCE_S)
        assert (process.returncode, "the work hangs" in stderr) == (1, True)
    assert site.last.status is HALTED


def test_a_killed_run_is_listed_as_failed_with_what_it_had_noted(site: Site) -> None:
    with site.running("hang", "5", "--json") as (process, held):
        process.kill()
        process.wait()
        found = site.registry.get(held.id)
        assert (found.status, found.reason) == (FAILED, "its process ended before its work did")
        assert site.registry.events(held.id)[-1].type == "run.failed"
