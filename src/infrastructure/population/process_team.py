"""Workers that are processes of their own, on memory that has no name: what numpy does in one it can do in several at once."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from domain.errors.population import BehaviourError, PopulationError, ShardLostError
from infrastructure.population.arena import Arena

__all__ = ["ProcessTeam"]

_END_S = 5.0


class ProcessTeam:
    """See `WorkerTeam`. A process ends when this one does, however that happens."""

    def __init__(self, arena: Arena, plan: Mapping[str, Any], workers: int, *, cache: Path | None) -> None:
        """Start them and wait until they are ready. `plan` is what `shard_process` needs to know beside its number."""
        self._aborted = arena["worker.aborted"]
        self._members: list[tuple[subprocess.Popen[bytes], socket.socket, Any]] = []
        begin = {
            **plan,
            "layout": arena.layout.document(),
            "workers": workers,
            "parent": os.getpid(),
            "cache": str(cache) if cache else None,
        }
        try:
            for number in range(workers):
                self._start(arena.file, {**begin, "worker": number})
            self._gather()
        except BaseException:
            self.close()
            raise

    @property
    def processes(self) -> Sequence[int]:
        """See `WorkerTeam`."""
        return [process.pid for process, _, _ in self._members]

    def refresh(self, tick: int) -> None:
        """See `WorkerTeam`."""
        self._tell({"refresh": tick})
        self._gather()

    def relocate(self, tick: int) -> None:
        """See `WorkerTeam`."""
        self._tell({"relocate": tick})
        self._gather()

    def tick(self, number: int) -> None:
        """See `WorkerTeam`."""
        self._tell({"tick": number})
        self._gather()

    def close(self) -> None:
        """See `WorkerTeam`."""
        self._aborted[0] = 1
        for _, near, reader in self._members:
            reader.close()
            near.close()
        for process, _, _ in self._members:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._members.clear()

    def _start(self, file: int, begin: Mapping[str, Any]) -> None:
        near, far = socket.socketpair()
        with far:
            process = subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
                [sys.executable, "-P", "-m", "infrastructure.population.shard_process", str(file), str(far.fileno())],
                pass_fds=(file, far.fileno()),
                stdin=subprocess.DEVNULL,
                # Where this process found its packages, the other one finds them too.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                # Ctrl-C at the terminal is for this process to answer.
                start_new_session=True,
            )
        self._members.append((process, near, near.makefile("rb")))
        with contextlib.suppress(OSError):
            # Who is gone already is found when it is asked.
            near.sendall(json.dumps(begin).encode() + b"\n")

    def _tell(self, what: Mapping[str, int]) -> None:
        line = json.dumps(what).encode() + b"\n"
        for number, (_, near, _) in enumerate(self._members):
            try:
                near.sendall(line)
            except OSError as error:
                self._aborted[0] = 1
                raise ShardLostError(worker=number, problem="is gone") from error

    def _gather(self) -> None:
        """Wait until each has answered; the first error that says something is raised when all have."""
        found: list[PopulationError] = []
        with selectors.DefaultSelector() as selector:
            for number, (_, near, reader) in enumerate(self._members):
                selector.register(near, selectors.EVENT_READ, (number, reader))
            while selector.get_map():
                for key, _ in selector.select():
                    number, reader = key.data
                    selector.unregister(key.fileobj)
                    error = _error_in(reader, number)
                    if error is not None:
                        # The others would wait for what it has not sent.
                        self._aborted[0] = 1
                        found.append(error)
        for error in sorted(found, key=lambda one: isinstance(one, ShardLostError)):
            raise error


def _error_in(reader: Any, worker: int) -> PopulationError | None:
    try:
        line = reader.readline()
    except OSError:
        line = b""
    if not line.endswith(b"\n"):
        return ShardLostError(worker=worker, problem="ended in the middle of a tick")
    answer = json.loads(line)
    if "behaviour" in answer:
        return BehaviourError(**answer)
    if problem := answer.get("problem"):
        return ShardLostError(worker=worker, problem=problem)
    return None
