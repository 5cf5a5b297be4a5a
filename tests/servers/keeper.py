"""Keep one server and its folder for a test run: whatever happens to the run, neither outlives it."""

import json
import os
import pwd
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_ANSWER_SECONDS = 30.0
_WARDEN = Path(__file__).with_name("warden.py")


class ServerFailedError(Exception):
    """A server did not do as it was told; `name` says which and `log` holds the last lines that it wrote."""

    def __init__(self, name: str, problem: str, log: str = "") -> None:
        self.name = name
        self.problem = problem
        self.log = log
        super().__init__(f"test server {name!r} {problem}" + (f"; the end of its log:\n{log}" if log else ""))


class Keeper:
    """Owns a private folder and at most one running process tree in it, and ends both with the test run.

    The process is a child of `warden.py`, which runs beside the tests and notices their end by the end of its input. A
    process that has been reported as ended has left no descendant behind. Run as root, the process and the folder
    belong to the unprivileged user `nobody`, since database servers refuse to be root.
    """

    def __init__(self, name: str, *, last_signal: signal.Signals = signal.SIGKILL) -> None:
        """Make the folder. `last_signal` is how the process is ended when the test run is gone."""
        self._name = name
        self._running = False
        self._exit_code: int | None = None
        self._unread = b""
        self.pid: int | None = None
        owner = unprivileged_user()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WARDEN), name, json.dumps(owner), str(last_signal.value)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self.owner: tuple[int, int] | None = owner
        self.folder = Path(self._expect("folder"))
        self.log = self.folder / f"{name}.log"

    @property
    def running(self) -> bool:
        """Whether the process was started and has not yet been seen to end."""
        self._hear(until=0.0)
        return self._running

    def run(self, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> None:
        """Start `command` in the folder with nothing but `environment`, appending what it prints to the log."""
        if self.running:
            raise ServerFailedError(self._name, f"runs already as process {self.pid!r}; stop it first")
        request = {
            "command": [str(word) for word in command],
            "environment": dict(environment or {}),
            "log": str(self.log),
        }
        self._exit_code = None
        self._say("run " + json.dumps(request))
        self.pid = int(self._expect("started"))
        self._running = True

    def hand_over(self, path: Path) -> None:
        """Make `path` a file that the process can read and no other user can."""
        path.chmod(0o600)
        if self.owner is not None:
            os.chown(path, *self.owner)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it still runs."""
        self._say(f"signal {number.value}")

    def wait(self, timeout: float) -> int | None:
        """The exit code once the process and all its descendants are gone, or None after `timeout` seconds."""
        self._hear(until=time.monotonic() + timeout)
        return self._exit_code

    def close(self) -> None:
        """Kill what still runs, remove the folder and end the keeper. Safe to call twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=_ANSWER_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._running = False

    def failure(self, problem: str) -> ServerFailedError:
        """An error that carries the end of the log."""
        tail = self.log.read_text(errors="replace").splitlines()[-20:] if self.log.exists() else []
        return ServerFailedError(self._name, problem, "\n".join(tail))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def _expect(self, word: str) -> str:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while (line := self._line(deadline)) is not None:
            said, _, rest = line.partition(" ")
            if said == word:
                return rest
            if said == "failed":
                raise ServerFailedError(self._name, f"could not be started: {rest}")
        raise ServerFailedError(self._name, f"has a warden that did not say {word!r} within {_ANSWER_SECONDS} s")

    def _hear(self, *, until: float) -> None:
        while self._running and (line := self._line(until)) is not None:
            said, _, rest = line.partition(" ")
            if said == "exited":
                self._exit_code = int(rest)
                self._running = False

    def _line(self, deadline: float) -> str | None:
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                return None
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                raise ServerFailedError(self._name, "lost its warden; end the test run and start it again")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()


def unprivileged_user() -> tuple[int, int] | None:
    """User and group id that a server is to run as, or None where the caller is unprivileged already."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def free_port() -> int:
    """A TCP port of loopback that nobody listens on.

    Taken from below the range that Linux gives to outgoing connections, so that a server which is stopped for a while
    finds its port free when it comes back.
    """
    while True:
        port = 15000 + secrets.randbelow(17000)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
