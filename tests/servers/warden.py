"""The parent of one test server: a process that outlives the tests just long enough to leave nothing behind.

`Keeper` runs this file with a name, the owner as JSON and the number of the signal to end with. Lines on standard input
(`run {...}`, `signal 15`) are answered on standard output (`folder PATH`, `started PID`, `failed WHY`, `exited CODE`).
The end of the test run, be it a return, Ctrl-C or SIGKILL, arrives as the end of standard input.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LAST_SECONDS = 5.0


class Warden:
    """Parent of the server and of every process that the server leaves orphaned, until the last of them is gone."""

    def __init__(self, folder: Path, owner: tuple[int, int] | None, last_signal: int) -> None:
        self._folder = folder
        self._owner = owner
        self._last_signal = last_signal
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._main: int | None = None
        self._exit_code: int | None = None
        if self._libc is not None:
            self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._woken, wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _note)

    def serve(self) -> None:
        """Obey the lines on standard input until it ends, then leave nothing behind."""
        unread = b""
        while True:
            ready = select.select([0, self._woken], [], [])[0]
            if self._woken in ready:
                self._reap()
            if 0 in ready:
                piece = os.read(0, 65536)
                if not piece:
                    break
                *lines, unread = (unread + piece).split(b"\n")
                for line in lines:
                    self._obey(line.decode())
        self._end()

    def _obey(self, line: str) -> None:
        said, _, rest = line.partition(" ")
        if said == "run":
            request = json.loads(rest)
            try:
                self._start(request["command"], request["environment"], Path(request["log"]))
            except (OSError, subprocess.SubprocessError) as error:
                _answer("failed", str(error))
        elif said == "signal" and self._main is not None:
            os.kill(self._main, int(rest))

    def _start(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        user, group = self._owner or (None, None)
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                env=environment,
                user=user,
                group=group,
                extra_groups=None if self._owner is None else [],
                umask=0o077,
                preexec_fn=self._die_with_the_warden,  # noqa: PLW1509 - this process has one thread
            )
        child.returncode = 0  # tells Popen to let it be: `_reap` collects it, together with its orphans
        self._main = child.pid
        _answer("started", str(child.pid))

    def _die_with_the_warden(self) -> None:
        if self._libc is not None:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def _reap(self) -> bool:
        """Collect the dead and, once the server is among them, kill its orphans. True when nobody is left."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                if self._main is None:
                    _kill(_children())
                return False
            if pid == self._main:
                self._main = None
                self._exit_code = os.waitstatus_to_exitcode(status)
        if self._exit_code is not None:
            _answer("exited", str(self._exit_code))
            self._exit_code = None
        return True

    def _end(self) -> None:
        deadline = time.monotonic() + _LAST_SECONDS
        if self._main is not None:
            os.kill(self._main, self._last_signal)
        while not self._reap():
            if not select.select([self._woken], [], [], max(0.0, deadline - time.monotonic()))[0]:
                _kill(_children() if self._main is None else {self._main})
                deadline += 1.0
        shutil.rmtree(self._folder)


def _children() -> set[int]:
    """Ids of this process's children, those adopted from a dead server included; empty where /proc is missing."""
    mine = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                mine.add(int(stat.parent.name))
    return mine


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _answer(word: str, rest: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{word} {rest}".replace("\n", " ").encode() + b"\n")


def _note(_number: int, _frame: FrameType | None) -> None:
    """Python runs no wake-up for a signal without a handler of its own."""


def _private_folder(name: str, owner: tuple[int, int] | None) -> Path:
    """A new folder that only the server's user can enter, below a temporary folder which that user can reach."""
    places = [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - the fall-back where TMPDIR is root's own
    for place in places:
        if owner is None or all(
            parent.stat().st_mode & 0o001 for parent in (place.resolve(), *place.resolve().parents)
        ):
            folder = Path(tempfile.mkdtemp(prefix=f"conclave-{name}-", dir=place))
            if owner is not None:
                os.chown(folder, *owner)
            return folder
    raise PermissionError(f"user {owner!r} can enter none of {places!r}; set TMPDIR to a folder open to all users")


def _main() -> None:
    name, owner = sys.argv[1], json.loads(sys.argv[2])
    pair = None if owner is None else (int(owner[0]), int(owner[1]))
    folder = _private_folder(name, pair)
    _answer("folder", str(folder))
    Warden(folder, pair, int(sys.argv[3])).serve()


if __name__ == "__main__":
    _main()
