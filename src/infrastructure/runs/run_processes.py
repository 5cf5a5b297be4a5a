"""Starts a run in a process of its own, with what it needs of this one's environment and nothing else, and never through a shell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import site
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from domain.errors.dependency import DependencyUnavailableError
from domain.models.run import Run
from infrastructure.private_files import opened_folder
from infrastructure.runs.bounded_log import BoundedLog

__all__ = ["OUTPUT_FOLDER", "ProcessLauncher", "RunningProcess", "environment_of_runs"]

OUTPUT_FOLDER = "out"
_LOG_S = 2.0

# What Python, TLS, proxies and the language of messages come from; the names are compared in capitals.
_KEPT = frozenset({
    "HOME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TEMP", "TMP", "TMPDIR",
    "TZ", "USER", "VIRTUAL_ENV", "SSL_CERT_DIR", "SSL_CERT_FILE", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "OPENAI_API_KEY", "OPENAI_BASE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "PYTHONHOME", "PYTHONPATH",
})  # fmt: skip
_PREFIX = "CONCLAVE_"
# The secret of a caller, what kills a process in a test, and what says which run this one is.
_NOT_PASSED_ON = frozenset(f"{_PREFIX}{name}" for name in ("API_KEY", "CRASH_AT", "RUN_ID", "RUN_FOLDER"))


class ProcessLauncher:
    """A `RunLauncher`: each run in a session of its own, so that a signal reaches all that it starts, and none that the server gets.

    Its arguments, which may be anybody's texts, reach it by standard input: the list of processes shows everybody the other ones. What a
    run prints lies in its folder, of standard error the first part and the last. It works in the folder that this process works in,
    where the same `.env` is read.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], *, program: str = "api.cli.launched_run") -> None:
        """`folder` is that of all runs, `program` the module that reads a command line, a JSON list of texts, from standard input."""
        self._program = program
        self._folder = folder
        self._environment = environment

    async def launch(self, run: Run, command_line: Sequence[str]) -> RunningProcess:
        """As in `RunLauncher`."""
        # After the name of the command, because what follows may end in texts that are no options.
        arguments = [*command_line[:2], "--json", *command_line[2:]]
        process, log = await asyncio.to_thread(self._start, run, arguments)
        return RunningProcess(process, log)

    def _start(self, run: Run, arguments: Sequence[str]) -> tuple[subprocess.Popen[bytes], BoundedLog]:
        folder = self._folder / run.id
        own = {f"{_PREFIX}RUN_ID": run.id, f"{_PREFIX}RUN_FOLDER": str(folder / OUTPUT_FOLDER)}
        # Without -P the folder that this process works in would come before the library.
        command = [sys.executable, "-P", "-m", self._program]
        try:
            with opened_folder(self._folder) as runs, opened_folder(run.id, within=runs) as found:
                os.mkdir(OUTPUT_FOLDER, 0o700, dir_fd=found)
                with (
                    tempfile.TemporaryFile() as stdin,
                    _file("stdout.json", found) as stdout,
                    _log("stderr.log", found) as (stderr, log),
                ):
                    stdin.write(json.dumps(arguments).encode())
                    stdin.seek(0)
                    process = subprocess.Popen(  # noqa: S603 - every argument was checked, and no shell reads them
                        command,
                        env={**self._environment, **own},
                        stdin=stdin,
                        stdout=stdout,
                        stderr=stderr,
                        start_new_session=True,
                    )
                    return process, log
        except (OSError, ValueError) as error:
            problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise DependencyUnavailableError(
                dependency="the process of the run", problem=f"it cannot be started: {problem}"
            ) from error


class RunningProcess:
    """A `RunProcess`. Waited for by a thread of its own, so that many of them hold up nobody else."""

    def __init__(self, process: subprocess.Popen[bytes], log: BoundedLog) -> None:
        """Inside the event loop that waits for it; `log` takes what it says on standard error."""
        self._process = process
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._turn = threading.Lock()
        self._reaped = False
        threading.Thread(target=self._wait, name="run-process", daemon=True).start()

    @property
    def pid(self) -> int:
        """Also that of its session."""
        return self._process.pid

    async def wait(self) -> int:
        """As in `RunProcess`."""
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        """As in `RunProcess`: what it started learns of it from it."""
        with self._turn:
            if not self._reaped:
                self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """As in `RunProcess`."""
        with self._turn:
            if not self._reaped:
                self._kill_session()

    def _kill_session(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wait(self) -> None:
        # Not reaped yet, so that its number is still nobody else's while the rest of its session is ended.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with self._turn:
            self._kill_session()
            code = self._process.wait()
            self._reaped = True
        # Nobody of its session has the other end any more; who left it may have.
        self._log.wait(_LOG_S)
        with contextlib.suppress(RuntimeError):
            # A loop that is closed has nobody left who waits.
            self._loop.call_soon_threadsafe(self._tell, code)

    def _tell(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)


def environment_of_runs(environ: Mapping[str, str], *, also: Iterable[str] = (), sources: Path) -> dict[str, str]:
    """What of `environ` a run gets: settings, what is named in `also` (the keys of providers), and what Python itself wants.

    `sources` is the folder that this process has its packages from; a run is made of the same.
    """
    wanted = {*also}
    found = {
        name: value
        for name, value in environ.items()
        if name in wanted
        or name.upper() in _KEPT
        or (name.upper().startswith(_PREFIX) and name.upper() not in _NOT_PASSED_ON)
    }
    if sources not in {Path(place).resolve() for place in (*site.getsitepackages(), site.getusersitepackages())}:
        path = [entry for entry in found.get("PYTHONPATH", "").split(os.pathsep) if entry]
        found["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(sources), *path]))
    return found


@contextlib.contextmanager
def _log(name: str, within: int) -> Iterator[tuple[int, BoundedLog]]:
    """Where a process may write, and what takes it from there into the file of that name."""
    source, sink = os.pipe()
    try:
        target = _open_file(name, within)
    except BaseException:
        os.close(source)
        os.close(sink)
        raise
    try:
        yield sink, BoundedLog(source=source, target=target)
    finally:
        os.close(sink)


@contextlib.contextmanager
def _file(name: str, within: int) -> Iterator[int]:
    descriptor = _open_file(name, within, os.O_APPEND)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_file(name: str, within: int, flags: int = 0) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | flags, 0o600, dir_fd=within)
