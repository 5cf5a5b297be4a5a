"""The folder of runs with everything that may lie in it: garbage, links, half-written files, and what others left."""

from __future__ import annotations

import json
import os
import shutil
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.errors.dependency import DependencyUnavailableError
from domain.errors.run import RunNotFoundError
from domain.models.run_event import new_run_id
from infrastructure.private_files import opened_folder
from infrastructure.runs.file_run_record import EventsFile
from infrastructure.runs.file_run_registry import FileRunRegistry
from tests.integration.file_runs.kept_runs import AT, COMPLETED, FAILED, a_run


def ended(registry: FileRunRegistry, number: int = 0, **fields: Any) -> str:
    record = registry.register(a_run(number, **fields))
    record.end(COMPLETED, at=AT, result={"heads": 1})
    record.close()
    return record.id


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
