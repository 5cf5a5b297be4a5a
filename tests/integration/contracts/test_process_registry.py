"""Who is known to be dead, held against every adapter: nobody who lives, and nobody twice once forgotten."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from application.ports.process_registry import NoRegistry, ProcessRegistry
from infrastructure.queues.process_locks import ProcessLocks

_PROGRAM = """
import sys
from pathlib import Path
from infrastructure.queues.process_locks import ProcessLocks
locks = ProcessLocks(Path(sys.argv[1]))
print(locks.own, flush=True)
sys.stdin.readline()
locks.close()
"""
_STRANGER = "0123456789abcdef" * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the processes of a machine meet; it is not there yet."""
    return tmp_path / "data" / "processes"


@pytest.fixture
def locks(folder: Path) -> Iterator[ProcessLocks]:
    """Those of this process."""
    opened = ProcessLocks(folder)
    yield opened
    opened.close()


@pytest.fixture(params=["locks", "none"])
def registry(request: pytest.FixtureRequest) -> ProcessRegistry:
    """Each adapter in turn."""
    found: ProcessRegistry = request.getfixturevalue("locks") if request.param == "locks" else NoRegistry()
    return found


@contextmanager
def _other_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds its lock, and its name."""
    command = [sys.executable, "-c", _PROGRAM, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def _end(process: subprocess.Popen[str], how: str) -> None:
    if how == "closed":
        process.communicate("\n", timeout=30)
    else:
        process.send_signal(signal.SIGKILL)
        process.wait(30)


def test_it_knows_itself_by_a_name_that_fits_into_a_lease_and_is_not_dead(registry: ProcessRegistry) -> None:
    assert registry.own
    assert "/" not in registry.own
    assert list(registry.dead()) == []


def test_forgetting_whom_nobody_knows_changes_nothing(registry: ProcessRegistry) -> None:
    registry.forget(_STRANGER)
    assert list(registry.dead()) == []


def test_no_two_have_the_same_name(folder: Path) -> None:
    assert len({NoRegistry().own for _ in range(20)}) == 20
    opened = [ProcessLocks(folder) for _ in range(20)]
    assert len({each.own for each in opened}) == 20
    for each in opened:
        each.close()


def test_one_that_was_given_its_name_keeps_it() -> None:
    assert NoRegistry("worker-7").own == "worker-7"


def test_a_living_process_is_never_named_dead(locks: ProcessLocks, folder: Path) -> None:
    with _other_process(folder) as (_, name):
        assert (folder / name).is_file()
        assert [list(locks.dead()) for _ in range(50)] == [[]] * 50


def test_a_process_that_was_killed_is_named_dead_until_it_is_forgotten(locks: ProcessLocks, folder: Path) -> None:
    with _other_process(folder) as (process, name), _other_process(folder) as (_, living):
        _end(process, "killed")
        assert list(locks.dead()) == [name]
        assert list(locks.dead()) == [name]
        locks.forget(name)
        assert list(locks.dead()) == []
        locks.forget(name)
        assert sorted(each.name for each in folder.iterdir()) == sorted([locks.own, living])


def test_a_process_that_closed_its_own_is_no_longer_there(locks: ProcessLocks, folder: Path) -> None:
    with _other_process(folder) as (process, name):
        _end(process, "closed")
        assert not (folder / name).exists()
        assert list(locks.dead()) == []


def test_closing_removes_its_file_and_leaves_the_others(folder: Path) -> None:
    kept, closed = ProcessLocks(folder), ProcessLocks(folder)
    closed.close()
    assert [each.name for each in folder.iterdir()] == [kept.own]
    kept.close()
    assert list(folder.iterdir()) == []


def test_closing_after_another_has_taken_the_file_away_is_no_error(folder: Path) -> None:
    closed = ProcessLocks(folder)
    (folder / closed.own).unlink()
    closed.close()


def test_its_file_is_its_owners_alone_and_locked_from_the_moment_it_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    lock = fcntl.flock

    def look_and_lock(file: int, operation: int) -> None:
        seen.append([each.name for each in folder.iterdir() if "." not in each.name])
        lock(file, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", look_and_lock)
        opened = ProcessLocks(folder)
    assert seen == [[]]
    assert (folder / opened.own).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    with (folder / opened.own).open("r+b") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    opened.close()


def test_what_no_process_has_made_is_left_alone(
    locks: ProcessLocks, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (folder / "notes.txt").write_text("x")
    (folder / _STRANGER.upper()).write_text("x")
    (folder / f"{_STRANGER}.new").write_text("x")
    (folder / f"{_STRANGER}0").write_text("x")
    (folder / _STRANGER).symlink_to(target)
    (folder / f"{_STRANGER[:-1]}0").mkdir()
    (folder / f"{_STRANGER[:-1]}1").symlink_to(tmp_path / "nowhere")
    before = sorted(folder.iterdir())
    with caplog.at_level(logging.DEBUG):
        assert [list(locks.dead()) for _ in range(5)] == [[]] * 5
    assert (sorted(folder.iterdir()), target.read_text()) == (before, "precious")
    # Said once for each, although it is asked each second.
    assert len(caplog.records) == 3


def test_a_file_that_is_removed_while_it_is_looked_at_is_nobodys_death(
    locks: ProcessLocks, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / _STRANGER).write_text("")
    opened = os.open

    def remove_and_open(path: Path, flags: int, mode: int = 0o777) -> int:
        (folder / _STRANGER).unlink(missing_ok=True)
        return opened(path, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", remove_and_open)
        assert list(locks.dead()) == []


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        ProcessLocks(tmp_path / "file" / "processes")
