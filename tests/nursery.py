"""Starts Conclave's own commands as processes of their own in a tenth of the time: forked from one that has imported them.

`python -m tests.nursery FD` is the process they are forked from; `Nursery` is the hand that tests hold it by.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

__all__ = ["Nursery", "ProcessEndedError", "RunningProcess"]

REPOSITORY = Path(__file__).parents[1]
_PACKAGES = ("domain", "application", "infrastructure", "api")
# What a server imports only once it starts.
_LATER = ("alembic.command", "pydantic.v1", "sqlalchemy.dialects.postgresql.psycopg", "uvicorn.lifespan.off", "uvloop")
_PR_SET_PDEATHSIG = 1
_PATIENCE_S = 60.0
_LONGEST = 256 * 1024


class ProcessEndedError(Exception):
    """The process ended before it said what was waited for."""


class RunningProcess:
    """One process. `line` hears what it prints, `kill` and `terminate` end it, `wait` tells how it ended."""

    def __init__(self, pid: int, said: int, nursery: Nursery) -> None:
        self.pid = pid
        self.started_at = time.monotonic()
        self._said = said
        self._unread = b""
        self._nursery = nursery
        self._status: int | None = None

    def line(self, *, timeout_s: float = _PATIENCE_S) -> str:
        """The next line that it prints. Raises `ProcessEndedError` when it ends first, and `TimeoutError`."""
        until = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            if not select.select([self._said], [], [], max(until - time.monotonic(), 0))[0]:
                raise TimeoutError(f"process {self.pid!r} said nothing for {timeout_s!r} s")
            piece = os.read(self._said, 65536)
            if not piece:
                raise ProcessEndedError(f"process {self.pid!r} ended before it said anything more")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def has_ended(self, *, within_s: float = 0.0) -> bool:
        """Whether it ended by then; its output closes with it."""
        until = time.monotonic() + within_s
        while self._status is None:
            if not select.select([self._said], [], [], max(until - time.monotonic(), 0))[0]:
                return False
            piece = os.read(self._said, 65536)
            if not piece:
                self._reap()
            self._unread += piece
        return True

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def terminate(self) -> None:
        """SIGTERM."""
        if self._status is None:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """How it ended: an exit code, or the negative number of the signal that killed it. Raises `TimeoutError`."""
        if not self.has_ended(within_s=_PATIENCE_S):
            raise TimeoutError(f"process {self.pid!r} did not end within {_PATIENCE_S!r} s")
        assert self._status is not None
        return self._status

    def _reap(self) -> None:
        self._status = self._nursery.reap(self.pid)
        os.close(self._said)


class Nursery:
    """Forks processes that end with it, and it with the tests. Settings are all that they get of an environment. For any thread."""

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])}
        command = [sys.executable, "-m", "tests.nursery", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=REPOSITORY
        )
        theirs.close()
        self._line = ours
        self._line.settimeout(_PATIENCE_S)
        self._turn = threading.Lock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()
        self._process.wait(_PATIENCE_S)

    def start(self, *arguments: str, settings: Mapping[str, str], folder: Path, log: Path) -> RunningProcess:
        """`conclave ARGUMENTS` in `folder`; what it writes to stderr is appended to `log`."""
        request = {"start": list(arguments), "settings": dict(settings), "folder": str(folder)}
        said, say = os.pipe()
        with self._turn, log.open("ab") as errors:
            socket.send_fds(self._line, [json.dumps(request).encode()], [say, errors.fileno()])
            os.close(say)
            return RunningProcess(self._answer(), said, self)

    def run(self, *arguments: str, settings: Mapping[str, str], folder: Path, log: Path) -> int:
        """The exit code of `conclave ARGUMENTS`."""
        return self.start(*arguments, settings=settings, folder=folder, log=log).wait()

    def reap(self, pid: int) -> int:
        """How one ended that has closed its output, which is the last thing it does."""
        with self._turn:
            self._line.send(json.dumps({"reap": pid}).encode())
            return self._answer()

    def _answer(self) -> int:
        answer = self._line.recv(_LONGEST)
        if not answer:
            raise ProcessEndedError("the nursery is gone")
        return int(answer)


def _serve(line: socket.socket) -> None:
    own = [
        module.name
        for package in _PACKAGES
        for module in pkgutil.walk_packages([str(REPOSITORY / "src" / package)], f"{package}.")
        # As heavy as a third of the rest, and no command but its own needs it.
        if not module.name.startswith("api.mcp.")
    ]
    for name in (*own, *_LATER):
        # What belongs to an extra that is not installed here is not needed either.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    if threading.active_count() != 1:
        raise RuntimeError(f"forking would lose threads: {threading.enumerate()!r}")
    while True:
        message, given, _, _ = socket.recv_fds(line, _LONGEST, 2)
        if not message:
            return
        request = json.loads(message)
        if "reap" in request:
            _, status = os.waitpid(request["reap"], 0)
            line.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            _become(request, line, *given)
        for descriptor in given:
            os.close(descriptor)
        line.send(json.dumps(pid).encode())


def _become(request: Mapping[str, Any], line: socket.socket, say: int, errors: int) -> NoReturn:
    """Be the command, and nothing of the nursery any more."""
    code = 70
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        line.close()
        os.dup2(say, 1)
        os.dup2(errors, 2)
        os.close(say)
        os.close(errors)
        # The ones there were belong to what the nursery itself was given.
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.environ.clear()
        os.environ.update(request["settings"])
        os.chdir(request["folder"])
        from api.cli.main import execute

        code = execute(request["start"])
    except BaseException:  # noqa: BLE001 - the last place where anything can be said about it
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
