"""The folder of runs with everything that may lie in it: garbage, links, half-written files, a full disk, and dead processes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.errors.dependency import DependencyUnavailableError
from domain.errors.run import RunEndedError, RunNotFoundError
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs import file_run_record
from infrastructure.runs.file_run_record import MAX_EVENT_BYTES, MAX_RESULT_BYTES, EventsFile
from infrastructure.runs.file_run_registry import MAX_RESULT_IN_PAGE_BYTES, FileRunRegistry
from infrastructure.runs.private_files import opened_folder

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
COMPLETED, FAILED, RUNNING = DeliberationStatus.COMPLETED, DeliberationStatus.FAILED, DeliberationStatus.RUNNING

_HOLDER = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs.file_run_registry import FileRunRegistry
from tests.patience import eventually
at = datetime.now(UTC)
record = FileRunRegistry(Path(sys.argv[1])).register(Run(new_run_id(at), RunKind.SOAK, DeliberationStatus.RUNNING, {}, at))
for number in range(20):
    record.note("fake.counted", {"number": number})
eventually(lambda: os.stat(Path(sys.argv[1]) / record.id / "events.jsonl").st_size >= 2000)
if sys.argv[2] == "forks" and os.fork() == 0:
    sys.stdin.readline()
    os._exit(0)
print(record.id, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def registry(folder: Path) -> FileRunRegistry:
    return FileRunRegistry(folder, now=lambda: AT)


def a_run(number: int = 0, **fields: Any) -> Run:
    at = AT + timedelta(seconds=number)
    return Run(new_run_id(at), RunKind.SWARM, RUNNING, started_at=at, **fields)


def ended(registry: FileRunRegistry, number: int = 0, **fields: Any) -> str:
    record = registry.register(a_run(number, **fields))
    record.end(COMPLETED, at=AT, result={"heads": 1})
    record.close()
    return record.id


@contextmanager
def another_process(folder: Path, how: str = "alone") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds a run, and the run's id."""
    command = [sys.executable, "-c", _HOLDER, str(folder), how]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=here) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def listed(registry: FileRunRegistry) -> list[str]:
    return [run.id for run in registry.page(limit=1000).items]


def test_folders_and_files_are_for_this_user_alone(registry: FileRunRegistry, folder: Path) -> None:
    ended(registry)
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_foreign_things_are_neither_listed_nor_touched(registry: FileRunRegistry, folder: Path, tmp_path: Path) -> None:
    mine = ended(registry)
    (folder / "notes.txt").write_text("mine")
    (folder / "photos").mkdir()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder / mine, elsewhere)
    linked, empty, wrong, lying = (new_run_id(AT + timedelta(seconds=number)) for number in range(1, 5))
    (elsewhere / "run.json").write_text((elsewhere / "run.json").read_text().replace(mine, linked))
    (folder / linked).symlink_to(elsewhere)
    (folder / empty).mkdir()
    (folder / wrong).write_text("a file in place of a folder")
    shutil.copytree(folder / mine, folder / lying)
    again = FileRunRegistry(folder, now=lambda: AT)
    assert listed(again) == [mine]
    for run_id in (linked, empty, wrong, lying):
        with pytest.raises(RunNotFoundError):
            again.get(run_id)
        with pytest.raises(RunNotFoundError):
            again.events(run_id)
    ended(again, 9)
    assert (folder / "notes.txt").read_text() == "mine"
    assert elsewhere.is_dir()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"id": "other"}',
        b"[" * 100_000,
        b'{"id": %s, "kind": "tango", "status": "running", "arguments": {}}',
        b'{"id": %s, "kind": "swarm", "status": "gone", "arguments": {}}',
        b'{"id": %s, "kind": "swarm", "status": "running", "arguments": []}',
        b'{"id": %s, "kind": "swarm", "status": "running", "arguments": {}, "started_at": 5}',
        b'{"id": %s, "kind": "swarm", "status": "running", "arguments": {}, "started_at": "yesterday"}',
        b'{"id": %s, "kind": "swarm", "status": "running", "arguments": {}, "started_at": "2026-05-01T12:00:00"}',
        b'{"id": %s, "kind": "swarm", "status": "running", "arguments": {}, "key_name": 7}',
        b'{"id": %s, "kind": "swarm", "status": "running", "arguments": {"x": NaN}}',
        b'{"id": %s, "kind": "swarm", "status": "running", "arguments": {"x": "\\ud800"}}',
        b'{"id": %s, "kind": "swarm", "status": "running", "arguments": {"x": ' + b"[" * 40 + b"]" * 40 + b"}}",
        b'{"id": %s, "kind": "swarm", "status": "running", "arguments": {"x": "' + b"y" * 300_000 + b'"}}',
    ],
    ids=range(18),
)
def test_what_is_no_run_is_not_listed_and_disturbs_nobody(
    registry: FileRunRegistry, folder: Path, content: bytes
) -> None:
    mine = ended(registry)
    other = new_run_id(AT + timedelta(seconds=1))
    (folder / other).mkdir()
    (folder / other / "run.json").write_bytes(content.replace(b"%s", json.dumps(other).encode()))
    assert listed(registry) == [mine]
    with pytest.raises(RunNotFoundError):
        registry.get(other)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
@pytest.mark.parametrize("name", ["run.json", "result.json", "events.jsonl", "bus.json", "process.lock"])
def test_what_is_no_file_is_not_opened(
    registry: FileRunRegistry, folder: Path, tmp_path: Path, name: str, kind: str
) -> None:
    run_id = ended(registry)
    place = folder / run_id / name
    secret = tmp_path / "secret"
    secret.write_bytes(place.read_bytes() if place.exists() else b"{}")
    place.unlink(missing_ok=True)
    if kind == "link":
        place.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    again = FileRunRegistry(folder, now=lambda: AT)
    if name == "run.json":
        assert listed(again) == []
        return
    found = again.get(run_id)
    assert found.status is COMPLETED
    assert (found.result is None) == (name == "result.json")
    assert (again.events(run_id) == []) == (name == "events.jsonl")


def test_a_link_in_the_place_of_an_event_file_is_not_written_through(
    registry: FileRunRegistry, folder: Path, tmp_path: Path
) -> None:
    run = a_run()
    announcement = registry.announce(run)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (folder / run.id / "events.jsonl").symlink_to(victim)
    (folder / run.id / "cancel").symlink_to(victim)
    with pytest.raises(DependencyUnavailableError):
        registry.take_over(run.id, at=AT)
    registry.request_end(run.id)
    assert not (folder / run.id / "cancel").is_symlink()
    announcement.close()
    assert registry.get(run.id).status is FAILED
    assert victim.read_text() == "precious"


def test_a_half_written_event_is_not_there_and_the_end_takes_its_place(registry: FileRunRegistry, folder: Path) -> None:
    record = registry.register(a_run())
    record.note("fake.counted", {"number": 1})
    record.close()
    events = folder / record.id / "events.jsonl"
    whole = events.read_bytes()
    events.write_bytes(whole + b'{"sequence":3,"type":"fake.counted","filling":"' + b"x" * 1000)
    # As if nobody had read it yet.
    assert [event.type for event in registry.events(record.id)] == ["run.started", "fake.counted"]
    assert registry.get(record.id).status is FAILED
    assert [event.type for event in registry.events(record.id)] == ["run.started", "fake.counted", "run.failed"]
    assert events.read_bytes().startswith(whole)
    assert len(events.read_bytes().removeprefix(whole).splitlines()) == 1


def test_garbage_between_events_is_passed_over(registry: FileRunRegistry, folder: Path) -> None:
    run_id = ended(registry)
    events = folder / run_id / "events.jsonl"
    first, last = events.read_bytes().splitlines(keepends=True)
    garbage = b'{"sequence":1,"type":"x"}\n\xff\n' + b"[" * 70_000 + b"\n" + b'{"sequence":7,"run_id":"x"}\n{}\n\n'
    events.write_bytes(first + garbage + last)
    assert [event.type for event in registry.events(run_id)] == ["run.started", "run.completed"]


def test_the_last_event_of_a_long_file_is_found_without_reading_all_of_it(
    registry: FileRunRegistry, folder: Path
) -> None:
    record = registry.register(a_run())
    for number in range(6_000):
        record.note("fake.counted", {"number": number, "filling": "x" * 100})
    record.end(COMPLETED, at=AT)
    record.close()
    assert (folder / record.id / "events.jsonl").stat().st_size > 1_000_000
    with opened_folder(folder / record.id) as found:
        events = EventsFile(record.id, within=found)
        events.close()
    assert events.last is not None
    assert (events.last.sequence, events.last.is_terminal) == (6_002, True)


def test_a_run_ended_between_its_last_two_steps_gets_its_last_event(registry: FileRunRegistry, folder: Path) -> None:
    run_id = ended(registry)
    events = folder / run_id / "events.jsonl"
    events.write_bytes(events.read_bytes().splitlines(keepends=True)[0])
    found = registry.settle(run_id, FAILED, reason="no")
    assert found.status is COMPLETED
    assert [event.type for event in registry.events(run_id)] == ["run.started", "run.completed"]


@pytest.mark.parametrize("how", ["alone", "forks"])
def test_a_run_whose_process_is_killed_has_failed_at_once(registry: FileRunRegistry, folder: Path, how: str) -> None:
    with another_process(folder, how) as (process, run_id):
        assert registry.get(run_id).status is RUNNING
        assert [run.status for run in registry.page(limit=1).items] == [RUNNING]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        found = registry.get(run_id)
    assert (found.status, found.reason) == (FAILED, "its process ended before its work did")
    events = registry.events(run_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].type == "run.failed"


def test_what_cannot_be_recorded_of_the_dead_is_seen_all_the_same(
    registry: FileRunRegistry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another_process(folder) as (process, run_id):
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("infrastructure.runs.file_run_registry.replace_file", refuse)
    assert registry.get(run_id).status is FAILED
    monkeypatch.undo()
    assert json.loads((folder / run_id / "run.json").read_text())["status"] == "running"
    assert registry.get(run_id).status is FAILED
    assert json.loads((folder / run_id / "run.json").read_text())["status"] == "failed"


def test_a_full_disk_costs_notes_but_neither_the_work_nor_its_end(
    registry: FileRunRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = registry.register(a_run())
    write = file_run_record._write_all
    fail = True

    def full(file: int, content: bytes, *, at: int) -> None:
        if fail:
            write(file, content[:10], at=at)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, content, at=at)

    monkeypatch.setattr(file_run_record, "_write_all", full)
    for number in range(5):
        record.note("fake.counted", {"number": number})
    record._write_waiting()
    fail = False
    record.note("fake.counted", {"number": 5})
    (said,) = record.end(COMPLETED, at=AT, result={"heads": 1})
    record.close()
    assert said == "5 of its events could not be recorded: No space left on device"
    events = registry.events(record.id)
    assert [event.sequence for event in events] == [1, 2, 3]
    assert (events[1].data, events[2].data) == ({"number": 5}, {"events_lost": 5})
    assert registry.get(record.id).result == {"heads": 1}


def test_an_end_that_finds_no_room_is_said_and_the_run_has_failed(
    registry: FileRunRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = registry.register(a_run())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(file_run_record, "replace_file", full)
        said = record.end(COMPLETED, at=AT, result={"heads": 1})
        record.close()
    assert [text.partition(":")[0] for text in said] == [
        "its result could not be kept",
        "its end could not be recorded",
    ]
    assert registry.get(record.id).status is FAILED


@pytest.mark.parametrize("result", [{"x": float("nan")}, {"x": object()}, {"x": "y" * (MAX_RESULT_BYTES + 1)}])
def test_a_result_that_cannot_be_kept_is_left_out_and_said(registry: FileRunRegistry, result: dict[str, Any]) -> None:
    record = registry.register(a_run())
    assert len(record.end(COMPLETED, at=AT, result=result)) == 1
    record.close()
    found = registry.get(record.id)
    assert (found.status, found.result, found.reason) == (COMPLETED, None, "its result could not be kept")


@pytest.mark.parametrize("data", [{"x": float("inf")}, {"x": object()}, {"x": "y" * MAX_EVENT_BYTES}])
def test_an_event_that_cannot_be_kept_is_counted(registry: FileRunRegistry, data: dict[str, Any]) -> None:
    record = registry.register(a_run())
    record.note("fake.odd", data)
    assert len(record.end(COMPLETED, at=AT)) == 1
    record.close()
    assert [event.sequence for event in registry.events(record.id)] == [1, 2]


def test_a_lone_surrogate_does_not_get_further_than_the_record(registry: FileRunRegistry) -> None:
    record = registry.register(a_run())
    record.note("fake.odd", {"x": "a\ud800b"})
    record.end(COMPLETED, at=AT, result={"x": "a\ud800b"})
    record.close()
    assert registry.get(record.id).result == {"x": "a?b"}
    assert registry.events(record.id)[1].data == {"x": "a?b"}


def test_an_event_cannot_pass_itself_off_as_another(registry: FileRunRegistry) -> None:
    record = registry.register(a_run())
    record.note("fake.odd", {"sequence": 99, "type": "run.completed", "run_id": "x", "at": "never", "more": 1})
    record.end(COMPLETED, at=AT)
    record.close()
    event = registry.events(record.id)[1]
    assert (event.sequence, event.type, event.run_id, event.at, event.data) == (
        2,
        "fake.odd",
        record.id,
        AT,
        {"more": 1},
    )


def test_a_large_result_stands_in_the_run_but_not_in_a_page(registry: FileRunRegistry) -> None:
    record = registry.register(a_run())
    record.end(COMPLETED, at=AT, result={"x": "y" * MAX_RESULT_IN_PAGE_BYTES})
    record.close()
    assert registry.page(limit=1).items[0].result is None
    assert registry.get(record.id).result is not None


def test_more_notes_than_can_be_written_are_counted(registry: FileRunRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_run_record, "MAX_EVENTS_BYTES", 1_000)
    record = registry.register(a_run())
    for number in range(50):
        record.note("fake.counted", {"number": number})
    (said,) = record.end(COMPLETED, at=AT)
    record.close()
    events = registry.events(record.id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].is_terminal
    assert said.startswith(f"{52 - len(events)} of its events")


def test_what_a_process_left_that_died_while_it_added_a_run_is_removed(registry: FileRunRegistry, folder: Path) -> None:
    ended(registry)
    for name in (f".new-{new_run_id(AT)}", f".gone-{new_run_id(AT)}"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")
    assert len(listed(registry)) == 1
    ended(registry, 1)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [".lock"]


def test_what_was_written_by_a_removed_run_goes_with_it_but_no_link_is_followed(folder: Path, tmp_path: Path) -> None:
    registry = FileRunRegistry(folder, keep=1, now=lambda: AT)
    first = ended(registry)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("precious")
    out = folder / first / "out"
    out.mkdir()
    (out / "metrics.json").write_text("{}")
    (out / "link").symlink_to(kept)
    second = ended(registry, 1)
    assert listed(registry) == [second]
    assert not (folder / first).exists()
    assert (kept / "file").read_text() == "precious"


@pytest.mark.parametrize("obstacle", ["file", "no rights"])
def test_a_run_that_cannot_be_registered_is_refused(tmp_path: Path, obstacle: str) -> None:
    place = tmp_path / "data"
    if obstacle == "file":
        place.write_text("not a folder")
    else:
        place.mkdir()
        (place / "runs").write_text("not a folder either")
    with pytest.raises(DependencyUnavailableError):
        FileRunRegistry(place / "runs").register(a_run())
    with pytest.raises(DependencyUnavailableError):
        FileRunRegistry(place / "runs").announce(a_run())


def test_a_thousand_runs_are_listed_from_what_is_known_of_them(registry: FileRunRegistry, folder: Path) -> None:
    ids = [ended(registry, number) for number in range(5)]
    assert len(listed(registry)) == 5
    for run_id in ids:
        (folder / run_id / "run.json").write_text("garbage, which is not read again")
    assert len(listed(registry)) == 5
    assert listed(FileRunRegistry(folder)) == []


_BUSY = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs.file_run_registry import FileRunRegistry
registry = FileRunRegistry(Path(sys.argv[1]), keep=8)
print("ready", flush=True)
while True:
    at = datetime.now(UTC)
    record = registry.register(Run(new_run_id(at), RunKind.SWARM, DeliberationStatus.RUNNING, {}, at))
    for number in range(20):
        record.note("fake.counted", {"number": number})
    record.end(DeliberationStatus.COMPLETED, at=at, result={"heads": 1})
    record.close()
"""


def test_processes_killed_at_any_moment_leave_only_whole_runs(folder: Path, sized: Callable[[int, int], int]) -> None:
    registry = FileRunRegistry(folder, keep=8)
    moments = random.Random(11)
    busy: list[subprocess.Popen[str]] = []

    def breed() -> None:
        busy.append(subprocess.Popen([sys.executable, "-c", _BUSY, str(folder)], stdout=subprocess.PIPE, text=True))

    def look() -> None:
        for run in registry.page(limit=8).items:
            # Others remove old runs meanwhile, and end those that were running.
            with contextlib.suppress(RunNotFoundError, RunEndedError):
                events = registry.events(run.id)
                assert [event.sequence for event in events] == list(range(1, len(events) + 1))
                assert run.result == {"heads": 1} or run.status is not COMPLETED
                registry.request_end(run.id)

    try:
        for _ in range(3):
            breed()
        for process in busy:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for _ in range(sized(3, 300)):
            for _ in range(moments.randrange(1, 12)):
                look()
            victim = busy.pop(0)
            victim.kill()
            victim.communicate()
            if sized(0, 1):
                breed()
    finally:
        for process in busy:
            process.kill()
            process.communicate()
    runs = registry.page(limit=99).items
    assert runs
    assert {run.status for run in runs} <= {COMPLETED, FAILED}
    for run in runs:
        registry.settle(run.id, FAILED, reason="")
        assert registry.events(run.id)[-1].is_terminal
