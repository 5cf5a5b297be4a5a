"""The agents of a soak as processes, forked from one small server; the server and all of them end with this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from domain.errors.dependency import DependencyUnavailableError
from infrastructure.soak import fork_server

__all__ = ["ForkedAgents"]

_OPEN_WITHIN_S = 20.0
_CLOSE_WITHIN_S = 1.0
_CHUNK = 1 << 16


class ForkedAgents:
    """An `AgentHost` of processes titled `agent-worker-N`.

    None outlives this process: the kernel kills them with the server, and the server leaves when its socket ends. When the server is
    killed its agents die with it, are told as crashes, and a new one is started.
    """

    def __init__(self, configuration: Mapping[str, Any], *, light: bool, errors: Path) -> None:
        """`configuration` goes to the server; a `light` one has the standard library only. `errors` is the file for their complaints."""
        self.on_exit: Callable[[str, int, int], None] = lambda _agent, _pid, _code: None
        self._configuration = dict(configuration)
        self._light = light
        self._errors = errors
        self._server: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._unread = b""
        self._opened: asyncio.Future[Mapping[str, Any]] | None = None
        self._starting: list[asyncio.Future[Mapping[str, int]]] = []
        self._pids: dict[str, int] = {}
        self._ended = asyncio.Event()
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Start the server."""
        self._socket = self._start_server()
        self._unread = b""
        loop = asyncio.get_running_loop()
        self._opened = loop.create_future()
        loop.add_reader(self._socket, self._hear)
        self._send({**self._configuration, "parent": os.getpid(), "path": [] if self._light else sys.path})
        try:
            async with asyncio.timeout(_OPEN_WITHIN_S):
                await self._opened
        except TimeoutError as error:
            raise self._away("did not start in time") from error

    async def start(self, agents: Sequence[str]) -> Mapping[str, int]:
        """Fork these."""
        async with self._lock:
            if self._socket is None:
                await self.open()
            answer: asyncio.Future[Mapping[str, int]] = asyncio.get_running_loop().create_future()
            self._starting.append(answer)
            self._send({"start": list(agents)})
        return await answer

    async def stop(self, agents: Sequence[str], *, within_s: float) -> None:
        """Ask, wait, and kill who has not left by then."""
        wanted = {agent: self._pids[agent] for agent in agents if agent in self._pids}
        if not wanted:
            return
        self._send({"stop": list(wanted)})
        if not await self._gone(wanted, within_s):
            for agent, pid in wanted.items():
                if self._pids.get(agent) == pid:
                    _kill(pid)
            await self._gone(wanted, _CLOSE_WITHIN_S)

    def kill(self, agent: str) -> int | None:
        """SIGKILL."""
        pid = self._pids.get(agent)
        return pid if pid is not None and _kill(pid) else None

    def helpers(self) -> Sequence[int]:
        """The server, which rings for every message."""
        return [] if self._server is None else [self._server.pid]

    async def close(self) -> None:
        """End the server, and with it every agent."""
        self._drop_socket()
        server, self._server = self._server, None
        if server is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _CLOSE_WITHIN_S
        while server.poll() is None and loop.time() < deadline:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)
        if server.poll() is None:
            server.kill()
        # The kernel needs a moment at most.
        server.wait()
        self._pids.clear()

    def _start_server(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            flags = ["-I", "-S"] if self._light else ["-I"]
            command = [sys.executable, *flags, str(Path(fork_server.__file__).resolve()), str(theirs.fileno())]
            try:
                with self._errors.open("ab") as errors:
                    self._server = subprocess.Popen(  # noqa: S603 - ourselves
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=errors,
                        pass_fds=(theirs.fileno(),),
                        # Ctrl-C in a terminal is for the orchestrator, which ends the agents in order.
                        start_new_session=True,
                        cwd="/",
                    )
            except OSError as error:
                ours.close()
                raise self._away(f"cannot be started ({error.strerror})") from error
        return ours

    async def _gone(self, wanted: Mapping[str, int], within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                while any(self._pids.get(agent) == pid for agent, pid in wanted.items()):
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def _send(self, request: Mapping[str, Any]) -> None:
        if self._socket is None:
            return
        # Small, and read at once: were the socket full, the server would not be there any more.
        self._socket.setblocking(True)
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            self._lose_server()
        else:
            self._socket.setblocking(False)

    def _hear(self) -> None:
        if self._socket is None:
            return
        try:
            text = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            text = b""
        if not text:
            self._lose_server()
            return
        lines = (self._unread + text).split(b"\n")
        self._unread = lines.pop()
        for line in lines:
            self._note(json.loads(line))

    def _note(self, event: Mapping[str, Any]) -> None:
        if "open" in event and self._opened is not None and not self._opened.done():
            self._opened.set_result(event)
        elif "started" in event:
            self._pids.update(event["started"])
            answer = self._starting.pop(0)
            if not answer.done():
                answer.set_result(event["started"])
        elif "exited" in event:
            agent, pid = event["exited"], event["pid"]
            if self._pids.get(agent) == pid:
                del self._pids[agent]
            self._ended.set()
            self.on_exit(agent, pid, event["code"])

    def _lose_server(self) -> None:
        """Its agents have died with it."""
        self._drop_socket()
        server, self._server = self._server, None
        if server is not None:
            server.kill()
            server.wait()
        lost = self._away("has died")
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(lost)
        for answer in self._starting:
            if not answer.done():
                answer.set_exception(lost)
        self._starting.clear()
        pids, self._pids = self._pids, {}
        self._ended.set()
        for agent, pid in pids.items():
            self.on_exit(agent, pid, -signal.SIGKILL)

    def _drop_socket(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _away(self, problem: str) -> DependencyUnavailableError:
        return DependencyUnavailableError(
            dependency="the server that agents are forked from",
            problem=f"it {problem}",
            remedy=f"See {str(self._errors)!r}, and whether this user may start more processes (ulimit -u).",
        )


def _kill(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False
