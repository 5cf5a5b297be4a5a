"""The folder in which every run has a folder of its own, shared by the processes of a machine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domain.errors.dependency import DependencyUnavailableError
from domain.errors.run import RunNotFoundError
from domain.models.run_event import is_run_id
from infrastructure.private_files import FOLDER_MODE, open_entry, opened_folder

__all__ = ["RunsFolder", "as_unavailable", "remove_folder", "run_names"]

_LOCK_FILE = ".lock"


class RunsFolder:
    """Finds the folders of runs among whatever else lies there, and lets one process at a time change which there are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make it, where it is not there. Raises `OSError`."""
        self.path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """What may be runs, newest first. Raises `OSError`."""
        try:
            with opened_folder(self.path) as runs:
                return run_names(runs)
        except FileNotFoundError:
            return []

    @contextmanager
    def opened(self, run_id: str) -> Iterator[int]:
        """A descriptor of that run's folder. Raises `RunNotFoundError`, and `OSError` where nobody can tell."""
        with contextlib.ExitStack() as stack:
            if not is_run_id(run_id):
                raise RunNotFoundError(run_id=run_id)
            try:
                runs = stack.enter_context(opened_folder(self.path))
                found = stack.enter_context(opened_folder(run_id, within=runs))
            except (FileNotFoundError, NotADirectoryError):
                raise RunNotFoundError(run_id=run_id) from None
            except OSError as error:
                # A link that is not followed.
                if error.errno in {errno.ELOOP, errno.EMLINK}:
                    raise RunNotFoundError(run_id=run_id) from None
                raise
            yield found

    @contextmanager
    def locked(self) -> Iterator[int]:
        """A descriptor of it, held against everybody who would add, remove or settle a run. Raises `OSError`."""
        with opened_folder(self.path) as runs:
            lock = open_entry(_LOCK_FILE, os.O_RDWR | os.O_CREAT, within=runs)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield runs
            finally:
                # Whoever was forked off within holds it on otherwise.
                fcntl.flock(lock, fcntl.LOCK_UN)
                os.close(lock)


def run_names(runs: int) -> list[str]:
    """What may be runs in the folder of that descriptor, newest first. Raises `OSError`."""
    return sorted(filter(is_run_id, os.listdir(runs)), reverse=True)


def remove_folder(name: str, *, within: int) -> None:
    """Remove that folder with all that is in it, as far as that can be done now."""
    # A link is not followed by this, and what cannot be removed now is tried again with the next run.
    shutil.rmtree(name, ignore_errors=True, dir_fd=within)


@contextmanager
def as_unavailable() -> Iterator[None]:
    """An `OSError` within is raised as `DependencyUnavailableError`, which says what to look at."""
    try:
        yield
    except OSError as error:
        raise DependencyUnavailableError(
            dependency="the folder of runs",
            problem=error.strerror or str(error),
            remedy="See that CONCLAVE_DATA_DIR is a folder on this machine that this user may write to, with room in it.",
        ) from error
