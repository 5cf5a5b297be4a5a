"""The runs of a data folder, each in a folder of its own, whichever process began it and whatever else lies there.

It is one file, because adding, taking over, settling and reading a run rely on each other's order of steps: a process may die between
any two of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

from application.ports.idempotency import REMEMBERED_FOR, IdempotencyKey
from application.ports.run_registry import RememberedRun, RunPage, Unwanted
from domain.errors.deliberation import InvalidSpecificationError
from domain.errors.run import RunEndedError, RunKeyTakenError, RunNotFoundError, RunTakenError
from domain.models.deliberation import DeliberationStatus
from domain.models.run import JsonValue, Run
from domain.models.run_event import RunEvent, is_run_id, run_event_type, was_begun_before
from infrastructure.private_files import DIRECTORY, FOLDER_MODE, opened_folder, read_file, replace_file
from infrastructure.runs.file_run_record import (
    BUS_FILE,
    CANCEL_FILE,
    EVENTS_FILE,
    MAX_RESULT_BYTES,
    POPULATION_FILE,
    RESULT_FILE,
    RUN_FILE,
    EventsFile,
    FileRunRecord,
)
from infrastructure.runs.run_documents import encode, read_object, read_run, run_document
from infrastructure.runs.run_events import RunEvents
from infrastructure.runs.run_locks import LAUNCHER, PROCESS, RunLock, is_held
from infrastructure.runs.runs_folder import RunsFolder, as_unavailable, remove_folder, run_names

__all__ = ["DIED", "MAX_RESULT_IN_PAGE_BYTES", "MAX_RUNS", "FileRunRegistry"]

_logger = logging.getLogger(__name__)

MAX_RUNS = 1_000
DIED = "its process ended before its work did"
_MAX_RUN_BYTES = 256 * 1024
MAX_RESULT_IN_PAGE_BYTES = 64 * 1024
_KEY_FILE = "idempotency.json"
_MAX_KEY_BYTES = 1024
# The characters of an id that say the millisecond.
_UNSEEN = ".new-"
_GONE = ".gone-"


class _Closable(Protocol):
    def close(self) -> None: ...


_Made = TypeVar("_Made", bound=_Closable)


class FileRunRegistry:
    """A `RunRegistry` over one folder, which the processes of a machine share, and in which nothing that is foreign is touched.

    Folders are for this user alone. Of more than `keep` runs the oldest that have ended are removed when one is added.
    """

    def __init__(
        self, folder: Path, *, keep: int = MAX_RUNS, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Makes nothing before a run is added."""
        self.folder = folder
        self._keep = keep
        self._now = now
        self._runs = RunsFolder(folder)
        self._events = RunEvents()
        # Runs that have ended, which change no more.
        self._ended: dict[str, Run] = {}

    def prepare(self) -> None:
        """Make the folder, where it is not there. Raises `DependencyUnavailableError`."""
        with as_unavailable():
            self._runs.prepare()

    def register(self, run: Run) -> FileRunRecord:
        """As in `RunRegistry`."""
        running = replace(run, status=DeliberationStatus.RUNNING)

        def make(folder: int, lock: RunLock) -> FileRunRecord:
            return FileRunRecord(running, folder=folder, lock=lock, launched=False, now=self._now)

        return self._add(run.id, PROCESS, make)

    def announce(self, run: Run, *, idempotency: IdempotencyKey | None = None) -> RunLock:
        """As in `RunRegistry`. What its caller calls it lies in the folder of the run, and comes and goes with that."""
        queued = replace(run, status=DeliberationStatus.QUEUED, started_at=None)

        def make(folder: int, lock: RunLock) -> RunLock:
            if idempotency is not None:
                named = {"key_sha256": _digest(idempotency), "body_sha256": idempotency.body_sha256}
                replace_file(_KEY_FILE, encode(named), within=folder)
            replace_file(RUN_FILE, encode(run_document(queued)), within=folder)
            os.close(folder)
            return lock

        return self._add(run.id, LAUNCHER, make, idempotency=idempotency)

    def remembered(self, idempotency: IdempotencyKey) -> RememberedRun | None:
        """As in `RunRegistry`."""
        with as_unavailable():
            try:
                with opened_folder(self.folder) as runs:
                    return self._named(_digest(idempotency), runs)
            except FileNotFoundError:
                return None

    def forget_key(self, run_id: str) -> None:
        """As in `RunRegistry`."""
        with (
            as_unavailable(),
            contextlib.suppress(RunNotFoundError, FileNotFoundError),
            self._runs.opened(run_id) as found,
        ):
            os.unlink(_KEY_FILE, dir_fd=found)

    def take_over(self, run_id: str, *, at: datetime) -> FileRunRecord:
        """As in `RunRegistry`."""
        with as_unavailable(), self._runs.opened(run_id) as found, self._runs.locked():
            run = _stored(run_id, found)
            if run.status is not DeliberationStatus.QUEUED:
                raise RunTakenError(run_id=run_id, status=run.status.value)
            running = replace(run, status=DeliberationStatus.RUNNING, started_at=at)
            folder = os.dup(found)
            try:
                lock = RunLock(PROCESS, within=found)
            except BlockingIOError:
                os.close(folder)
                raise RunTakenError(run_id=run_id, status=DeliberationStatus.RUNNING.value) from None
            except BaseException:
                os.close(folder)
                raise
            try:
                return FileRunRecord(running, folder=folder, lock=lock, launched=True, now=self._now)
            except BaseException:
                lock.close()
                os.close(folder)
                raise

    def get(self, run_id: str) -> Run:
        """As in `RunReader`."""
        with as_unavailable(), self._runs.opened(run_id) as found:
            run = self._alive_or_ended(_stored(run_id, found), found)
            return _with_result(run, found, limit=MAX_RESULT_BYTES)

    def page(
        self,
        *,
        status: DeliberationStatus | None = None,
        key_name: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> RunPage:
        """As in `RunReader`."""
        if cursor is not None and not is_run_id(cursor):
            raise InvalidSpecificationError.at("/cursor", "is none that a page came with: begin without one")
        items: list[Run] = []
        with as_unavailable():
            for name in self._names():
                if cursor is not None and name >= cursor:
                    continue
                with contextlib.suppress(RunNotFoundError):
                    run = self._glance(name)
                    if status not in {None, run.status} or key_name not in {None, run.key_name}:
                        continue
                    if len(items) == limit:
                        return RunPage(items, items[-1].id)
                    with self._runs.opened(name) as found:
                        items.append(_with_result(run, found, limit=MAX_RESULT_IN_PAGE_BYTES))
        return RunPage(items, None)

    def events(self, run_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[RunEvent]:
        """As in `RunReader`. What is half-written is not there yet."""
        with as_unavailable(), self._runs.opened(run_id) as found:
            _stored(run_id, found)
            return self._events.read(run_id, within=found, after=after, limit=limit)

    def request_end(self, run_id: str, why: Unwanted = Unwanted.CANCELLED) -> Run:
        """As in `RunRegistry`."""
        with as_unavailable(), self._runs.opened(run_id) as found:
            run = self._alive_or_ended(_stored(run_id, found), found)
            if run.status.is_terminal:
                raise RunEndedError(run_id=run_id, status=run.status.value)
            if read_file(CANCEL_FILE, within=found, limit=_MAX_RUN_BYTES) is None:
                replace_file(CANCEL_FILE, why.name.encode(), within=found)
            return run

    def settle(self, run_id: str, status: DeliberationStatus, *, reason: str) -> Run:
        """As in `RunRegistry`."""
        with as_unavailable(), self._runs.opened(run_id) as found, self._runs.locked():
            run = self._end_dead(run_id, found, status, at=self._now(), reason=reason, despite_launcher=True)
            return _with_result(run, found, limit=MAX_RESULT_BYTES)

    def _add(
        self,
        run_id: str,
        lock_name: str,
        make: Callable[[int, RunLock], _Made],
        *,
        idempotency: IdempotencyKey | None = None,
    ) -> _Made:
        """What `make` makes of a new folder and a lock in it, both its own from then on; others see the folder once it is whole."""
        if not is_run_id(run_id):
            raise ValueError(f"{run_id!r} is no id of a run")
        unseen = f"{_UNSEEN}{run_id}"
        self.prepare()
        with as_unavailable():
            with self._runs.locked() as runs:
                if idempotency is not None and (taken := self._named(_digest(idempotency), runs)) is not None:
                    raise RunKeyTakenError(run_id=taken.run_id, body_sha256=taken.body_sha256)
                gone = self._set_aside(runs)
                os.mkdir(unseen, FOLDER_MODE, dir_fd=runs)
                made: _Made | None = None
                try:
                    made = _make(unseen, runs, lock_name, make)
                    os.rename(unseen, run_id, src_dir_fd=runs, dst_dir_fd=runs)
                except BaseException:
                    if made is not None:
                        made.close()
                    remove_folder(unseen, within=runs)
                    raise
            with opened_folder(self.folder) as runs:
                for name in gone:
                    remove_folder(name, within=runs)
        return made

    def _named(self, digest: str, runs: int) -> RememberedRun | None:
        """The run of the last day that has that key."""
        oldest = self._now() - REMEMBERED_FOR
        for name in run_names(runs):
            if was_begun_before(name, oldest):
                break
            with contextlib.suppress(OSError), opened_folder(name, within=runs) as found:
                told = read_object(read_file(_KEY_FILE, within=found, limit=_MAX_KEY_BYTES)) or {}
                if told.get("key_sha256") == digest:
                    return RememberedRun(name, str(told.get("body_sha256")))
        return None

    def _set_aside(self, runs: int) -> list[str]:
        """Rename what is to be removed: runs that are too many, and what processes left that died while they added or removed one."""
        left = [name for name in os.listdir(runs) if name.startswith((_UNSEEN, _GONE))]
        names = self._names()
        surplus = len(names) - self._keep + 1
        for name in reversed(names):
            if surplus <= 0:
                break
            with contextlib.suppress(OSError), opened_folder(name, within=runs) as found:
                run = read_run(read_file(RUN_FILE, within=found, limit=_MAX_RUN_BYTES), run_id=name)
                if (run is None or not run.status.is_terminal) and _lives(found):
                    continue
                os.rename(name, f"{_GONE}{name}", src_dir_fd=runs, dst_dir_fd=runs)
                left.append(f"{_GONE}{name}")
            surplus -= 1
        return left

    def _names(self) -> list[str]:
        """What may be runs, newest first."""
        names = self._runs.names()
        if len(self._ended) > len(names):
            there = set(names)
            self._ended = {name: run for name, run in self._ended.items() if name in there}
        return names

    def _glance(self, run_id: str) -> Run:
        """The run without its result. Raises `RunNotFoundError` for what is none."""
        run = self._ended.get(run_id)
        if run is None:
            with self._runs.opened(run_id) as found:
                run = self._alive_or_ended(_stored(run_id, found), found)
            if run.status.is_terminal:
                self._ended[run_id] = run
        return run

    def _alive_or_ended(self, run: Run, found: int) -> Run:
        if run.status.is_terminal or _lives(found):
            return run
        at = _last_sign(found) or self._now()
        try:
            with self._runs.locked():
                return self._end_dead(run.id, found, DeliberationStatus.FAILED, at=at, reason=DIED)
        except OSError as error:
            # Seen all the same where nothing can be written.
            _logger.warning("the end of run %s cannot be recorded: %s", run.id, error.strerror)
            return replace(run, status=DeliberationStatus.FAILED, finished_at=at, reason=DIED)

    def _end_dead(
        self,
        run_id: str,
        found: int,
        status: DeliberationStatus,
        *,
        at: datetime,
        reason: str,
        despite_launcher: bool = False,
    ) -> Run:
        """Record that the run has ended so, unless it did by itself or still lives. Under the lock alone."""
        run = _stored(run_id, found)
        if is_held(PROCESS, within=found) or (not despite_launcher and is_held(LAUNCHER, within=found)):
            return run
        if not run.status.is_terminal:
            run = replace(run, status=status, finished_at=at, reason=reason)
            replace_file(RUN_FILE, encode(run_document(run)), within=found, synced=True)
        with contextlib.closing(EventsFile(run_id, within=found)) as events:
            if events.last is None or not events.last.is_terminal:
                data: dict[str, JsonValue] = {} if run.reason is None else {"reason": run.reason}
                events.append(run.finished_at or at, run_event_type(run.status), data, last=True)
        return run


def _digest(idempotency: IdempotencyKey) -> str:
    # The name of a caller holds no line break, so that no two pairs read the same.
    return hashlib.sha256(f"{idempotency.scope}\n{idempotency.key}".encode()).hexdigest()


def _make(unseen: str, runs: int, lock_name: str, make: Callable[[int, RunLock], _Made]) -> _Made:
    with contextlib.ExitStack() as stack:
        folder = os.open(unseen, DIRECTORY, dir_fd=runs)
        stack.callback(os.close, folder)
        lock = RunLock(lock_name, within=folder)
        stack.callback(lock.close)
        made = make(folder, lock)
        stack.pop_all()
        return made


def _stored(run_id: str, found: int) -> Run:
    run = read_run(read_file(RUN_FILE, within=found, limit=_MAX_RUN_BYTES), run_id=run_id)
    if run is None:
        raise RunNotFoundError(run_id=run_id)
    return run


def _with_result(run: Run, found: int, *, limit: int) -> Run:
    if not run.status.is_terminal:
        return run
    return replace(run, result=read_object(read_file(RESULT_FILE, within=found, limit=limit)))


def _lives(found: int) -> bool:
    return is_held(PROCESS, within=found) or is_held(LAUNCHER, within=found)


def _last_sign(found: int) -> datetime | None:
    """When the run was last seen to do something."""
    seen = []
    for name in (RUN_FILE, EVENTS_FILE, BUS_FILE, POPULATION_FILE):
        with contextlib.suppress(OSError):
            seen.append(os.stat(name, dir_fd=found, follow_symlinks=False).st_mtime)
    try:
        return datetime.fromtimestamp(max(seen), UTC) if seen else None
    except (ValueError, OverflowError, OSError):
        return None
