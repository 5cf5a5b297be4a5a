"""The other instances of a swarm on this machine: processes that end with this one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio import Task
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress

__all__ = ["InstanceProcesses"]

_END_S = 5.0


class InstanceProcesses:
    """Each gets what it has to know on its standard input, which nobody else can read, and ends when that is closed.

    So none outlives this process, however it dies.
    """

    def __init__(self, module: str, names: list[str], facts: Mapping[str, object]) -> None:
        """`module` is what `python -m` runs; `facts` are JSON, the same for all."""
        self._module = module
        self._names = names
        self._facts = facts
        self._processes: dict[str, Process] = {}
        self._watching: set[Task[None]] = set()
        self._closing = False

    @property
    def pids(self) -> dict[str, int]:
        """The process of each instance."""
        return {name: process.pid for name, process in self._processes.items()}

    async def start(self, ended: Callable[[str, str], None]) -> set[str]:
        """Start them all; their names. `ended` is told the name of each that ended by itself, and how."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        for name in self._names:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                # A file of the working folder is not to be taken for a library.
                "-P",
                "-m",
                self._module,
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=None,
                env=environment,
                # Ctrl-C is for the process of the roles, which then ends these.
                start_new_session=True,
            )
            self._processes[name] = process
            if process.stdin is not None:
                process.stdin.write(json.dumps({**self._facts, "name": name}).encode() + b"\n")
            watching = asyncio.create_task(self._watch(name, process, ended), name=f"watch {name}")
            self._watching.add(watching)
        return set(self._names)

    def release(self) -> None:
        """From now on they may end without a word."""
        self._closing = True

    async def close(self) -> None:
        """End those that still run: by closing their input, then by SIGKILL."""
        self.release()
        for process in self._processes.values():
            if process.stdin is not None:
                process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await asyncio.gather(*(process.wait() for process in self._processes.values()))
        except TimeoutError:
            for process in self._processes.values():
                with suppress(ProcessLookupError):
                    process.kill()
            await asyncio.gather(*(process.wait() for process in self._processes.values()))
        await asyncio.gather(*self._watching, return_exceptions=True)

    async def _watch(self, name: str, process: Process, ended: Callable[[str, str], None]) -> None:
        code = await process.wait()
        if not self._closing:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            ended(name, f"its process {process.pid} ended ({how})")
