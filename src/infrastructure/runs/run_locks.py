"""Tells whether whoever holds a run lives: a lock that the kernel lets go of with its process, and who took it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from pathlib import Path
from typing import Self

from infrastructure.private_files import open_entry

__all__ = ["LAUNCHER", "PROCESS", "RunLock", "is_held"]

PROCESS = "process.lock"
"""Held by the process that does the work."""

LAUNCHER = "launcher.lock"
"""Held by the server that started it, from before to after."""

_MAX_OWNER_BYTES = 1024
_PATIENCE_S = 1.0
_LOOK_S = 0.005


class RunLock:
    """A lock of a run, held until `close` or the death of this process, whatever it forked meanwhile."""

    def __init__(self, name: str, *, within: int) -> None:
        """Take it. Raises `BlockingIOError` when another holds it, and `OSError`."""
        self._file = open_entry(name, os.O_RDWR | os.O_CREAT, within=within)
        try:
            self._lock()
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(_owner(os.getpid())).encode(), 0)
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        """Let go of it."""
        with contextlib.suppress(OSError):
            # A process that was forked off meanwhile would hold it on.
            fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self) -> None:
        # Whoever looks whether it is held holds it for some microseconds.
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise
            time.sleep(_LOOK_S)


def is_held(name: str, *, within: int) -> bool:
    """Whether a process that lives holds that lock of the run in the folder `within`. In doubt it does."""
    try:
        file = open_entry(name, os.O_RDONLY, within=within)
    except FileNotFoundError:
        return False
    except OSError:
        return not _is_foreign(name, within)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        # What it forked may hold the lock after its death.
        return not _is_dead(os.pread(file, _MAX_OWNER_BYTES, 0))
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(file)


def _is_foreign(name: str, within: int) -> bool:
    """Whether a link, a folder or the like lies where the lock should."""
    try:
        return not stat.S_ISREG(os.stat(name, dir_fd=within, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _is_dead(said: bytes) -> bool:
    """Whether the owner is certain to be dead: a process of this very name space of pids, which is not there or began another time."""
    try:
        owner = json.loads(said)
        pid, own = int(owner["pid"]), _owner(os.getpid())
    except (ValueError, TypeError, KeyError):
        return False
    if not own["space"] or owner.get("space") != own["space"]:
        return False
    return bool(owner != _owner(pid))


def _owner(pid: int) -> dict[str, object]:
    """That process, so that no other can be taken for it: pid, when it began (ticks since boot), and its name space of pids."""
    began, space = "", ""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        # A zombie has ended; only whoever started it does not know yet.
        began = "" if fields[0] in {"Z", "X"} else fields[19]
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return {"pid": pid, "began": began, "space": space}
