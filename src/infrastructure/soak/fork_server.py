"""The small process from which every agent of a soak is forked: it starts them, rings for them, and dies together with them.

Run as a script, by path, with the number of a socket: one JSON document a line each way. It imports what the agents need once, so that they
share its pages. When the other end of the socket is gone, however that happened, every agent is killed and the process ends.
"""

import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

if not __package__:
    # Run by its path, in a process that knows no other.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120 - pathlib is not light

from infrastructure.soak.native import Inotify, die_with_parent, set_title  # noqa: E402 - found by the lines above

__all__ = ["ForkServer", "main"]

_POLL_MS = 5
_MOST_LINE = 1 << 20


class ForkServer:
    """Starts agents on request and says which has ended; `configuration` is the first line that came over the socket."""

    def __init__(self, control: socket.socket, configuration: "dict[str, Any]", rest: bytes) -> None:
        self._control = control
        self._configuration = configuration
        self._unread = rest
        # By pid: the agent, and the end of its bell to write to.
        self._agents: dict[int, tuple[str, int]] = {}
        self._bells: dict[str, int] = {}
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._inotify: Inotify | None = None
        self._messages = configuration.get("messages")
        self._known: dict[str, int] = {}
        self._ends = False

    def run(self) -> None:
        """Serve until the socket ends."""
        if "folder" in self._configuration:
            _mark(self._configuration["folder"])
        if self._messages and not self._configuration.get("polls"):
            try:
                self._inotify = Inotify()
                self._inotify.watch(self._messages)
            except OSError:
                self._inotify = None
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup[0], select.POLLIN)
        if self._inotify is not None:
            poll.register(self._inotify.file, select.POLLIN)
        self._tell({"open": os.getpid(), "watches": self._inotify is not None})
        polls = bool(self._messages) and self._inotify is None
        while not self._ends:
            ready = {file for file, _ in poll.poll(_POLL_MS if polls else None)}
            if self._inotify is not None and self._inotify.file in ready:
                self._ring_for([name for _, name, there in self._inotify.read() if there])
            elif polls:
                self._ring_for(self._changed())
            if self._control.fileno() in ready:
                self._hear()
            if self._wakeup[0] in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup[0], 4096)
                self._reap()
        self._kill_all()

    def _hear(self) -> None:
        try:
            text = self._control.recv(_MOST_LINE)
        except BlockingIOError:
            return
        except OSError:
            text = b""
        if not text:
            self._ends = True
            return
        lines = (self._unread + text).split(b"\n")
        self._unread = lines.pop()
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, request: "dict[str, Any]") -> None:
        if "start" in request:
            started = {}
            for agent in request["start"]:
                try:
                    started[agent] = self._start(agent)
                except OSError as error:
                    self._tell({"failed": agent, "why": os.strerror(error.errno or 0)})
            self._tell({"started": started})
        for agent in request.get("stop", ()):
            bell = self._bells.get(agent)
            if bell is not None:
                _ring(bell, b"q")
        if "quit" in request:
            self._ends = True

    def _start(self, agent: str) -> int:
        ear, bell = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(ear)
            os.close(bell)
            raise
        if pid == 0:
            self._become(agent, ear, bell, parent)
        os.close(ear)
        os.set_blocking(bell, False)
        self._agents[pid] = (agent, bell)
        self._bells[agent] = bell
        return pid

    def _become(self, agent: str, ear: int, bell: int, parent: int) -> None:
        """What the child does, to its end."""
        code = 1
        try:
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
            for file in (bell, *(other for _, other in self._agents.values()), *self._wakeup, self._control.fileno()):
                os.close(file)
            if self._inotify is not None:
                self._inotify.close()
            set_title(f"agent-worker-{agent}")
            gc.enable()
            _body(self._configuration)(self._configuration, agent, ear)
            code = 0
        except BaseException as error:  # noqa: BLE001 - nothing above this could say it any more
            os.write(2, f"agent {agent}: {type(error).__name__}: {error}\n".encode(errors="backslashreplace"))
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            agent, bell = self._agents.pop(pid, ("", -1))
            if not agent:
                continue
            os.close(bell)
            if self._bells.get(agent) == bell:
                del self._bells[agent]
            self._tell({"exited": agent, "pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def _ring_for(self, names: "list[str]") -> None:
        for name in names:
            if name.startswith("coordination-") and name.endswith(".json"):
                bell = self._bells.get(name[13:-5])
                if bell is not None:
                    _ring(bell, b"m")

    def _changed(self) -> "list[str]":
        """The messages that are new since the last look, told by the numbers of their files."""
        try:
            with os.scandir(self._messages) as entries:
                found = {entry.name: entry.inode() for entry in entries}
        except OSError:
            return []
        changed = [name for name, number in found.items() if self._known.get(name) != number]
        self._known = found
        return changed

    def _tell(self, event: "dict[str, Any]") -> None:
        try:
            self._control.setblocking(True)
            self._control.sendall(json.dumps(event).encode() + b"\n")
            self._control.setblocking(False)
        except OSError:
            self._ends = True

    def _kill_all(self) -> None:
        signal.set_wakeup_fd(-1)
        for pid in self._agents:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._agents:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _mark(folder: str) -> None:
    """Share a lock on its statuses with every agent, until the last one is gone: by then nothing of theirs comes any more."""
    # A file system that locks no folders is used without.
    with contextlib.suppress(OSError):
        statuses = os.open(os.path.join(folder, "status"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH118 - pathlib is not light
        fcntl.flock(statuses, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _ring(bell: int, what: bytes) -> None:
    # A full bell rings already, and a closed one has nobody to hear it.
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(bell, what)


def _body(configuration: "dict[str, Any]") -> "Any":
    """What an agent runs, by the configuration's transport."""
    if configuration["transport"] == "files":
        from infrastructure.soak.file_agent_body import run_file_agent

        return run_file_agent
    from infrastructure.soak.bus_agent import run_bus_agent

    return run_bus_agent


def main() -> None:
    """Read the configuration, import what agents need, and serve."""
    control = socket.socket(fileno=int(sys.argv[1]))
    text = b""
    while b"\n" not in text:
        more = control.recv(_MOST_LINE)
        if not more:
            return
        text += more
    line, _, rest = text.partition(b"\n")
    configuration = json.loads(line)
    die_with_parent(configuration["parent"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for place in configuration.get("path", ()):
        if place not in sys.path:
            sys.path.append(place)
    # Now, so that every agent has it from the start.
    _body(configuration)
    if configuration["transport"] != "files":
        from infrastructure.soak.bus_agent import warm_up

        warm_up(configuration)
    set_title("soak-server")
    gc.disable()
    gc.collect()
    gc.freeze()
    control.setblocking(False)
    ForkServer(control, configuration, rest).run()


if __name__ == "__main__":
    main()
