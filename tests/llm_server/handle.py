"""Starts the test LLM server as a process of its own, and lets tests configure it, read it and wait for it."""

import asyncio
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlencode

from tests.llm_server.rate_limit import most_in_window

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0
STOP_SECONDS = 5.0


class LlmServerError(Exception):
    """The server did not start, refused what it was asked, or did not come to the state waited for."""


class LlmServer:
    """A running server between `start` and `stop`, or inside `with`; it never outlives this process.

    Tests that share one call `reset` in between. All calls but `until` block for a loopback round trip; from a test
    whose own event loop must go on meanwhile, wait with `until`.
    """

    def __init__(self, *, models: Sequence[str] = (), dialect: str = "openai") -> None:
        self._models = models
        self.dialect = dialect
        self._process: subprocess.Popen[bytes] | None = None
        self.host = "127.0.0.1"
        self.port = 0

    @property
    def base_url(self) -> str:
        """The URL that a client of the OpenAI API is given, with the `/v1`."""
        return f"http://{self.host}:{self.port}/v1"

    @property
    def pid(self) -> int:
        """The process id of the server; raises LlmServerError before the start."""
        if self._process is None:
            raise LlmServerError("the server is not running: call start() first")
        return self._process.pid

    def start(self) -> Self:
        """Spawn the server on a free port and return when it answers; raises LlmServerError if it does not."""
        # The server needs the standard library only, and -S spares it the start-up work of installed packages.
        command = [sys.executable, "-S", "-m", "tests.llm_server", "--leash", "--parent", str(os.getpid())]
        command += ["--dialect", self.dialect]
        for model in self._models:
            command += ["--model", model]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process = process
        line = _first_line(process)
        if not line:
            self.stop()
            raise LlmServerError(f"the server said nothing on its start (exit status {process.returncode})")
        self.port = int(json.loads(line)["port"])
        return self

    def stop(self) -> None:
        """End the server and wait for its end; a second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def configure(self, **configuration: Any) -> None:
        """Replace the given keys of the configuration (see `Behaviour`); raises LlmServerError for unknown ones."""
        self._call("POST", "/_configure", configuration)

    def reset(self) -> None:
        """Forget configuration, journal and counts, and drop every request still waiting for its answer."""
        self._call("POST", "/_reset")

    def journal(self, *, since: int = 0) -> list[dict[str, Any]]:
        """Return the entries (see `Entry`) whose sequence is greater than `since`, in order of arrival."""
        return cast("list[dict[str, Any]]", self._call("GET", f"/_journal?since={since}")["entries"])

    def stats(self) -> dict[str, Any]:
        """Return the counts since the last reset (see `Journal.stats`)."""
        return self._call("GET", "/_stats")

    def bill(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return what each model took since the last reset (see `Journal.bill`), by `answered` and `abandoned`."""
        return self._call("GET", "/_bill")

    def most_in_window(self, *, seconds: float = 60.0, model: str | None = None) -> int:
        """Return the most chat completions that arrived in any window of that length, refused ones too."""
        moments = [
            entry["arrived_monotonic"]
            for entry in self.journal()
            if entry["counted"] and (model is None or entry["model"] == model)
        ]
        return most_in_window(moments, seconds=seconds)

    def release(self, *, count: int | None = None) -> int:
        """Let the answers that the fault `hold` keeps go, the oldest first, and return how many went."""
        return int(self._call("POST", "/_release" if count is None else f"/_release?count={count}")["released"])

    def wait_until(self, *, timeout_seconds: float = 5.0, **bounds: int) -> dict[str, Any]:
        """Return the counts as soon as all bounds hold at once; raises LlmServerError when time is up.

        Bounds are `in_flight_at_least`, `in_flight_at_most`, `requests_at_least`, `ended_at_least`, `held_at_least`,
        `disconnects_at_least` and `begun_at_least`. The last counts requests from the end of their heads; those that
        the others count as asked or in flight have been read to their end and stand in the journal.
        """
        query = urlencode({**bounds, "timeout_seconds": timeout_seconds})
        stats = self._call("GET", f"/_wait?{query}", timeout=timeout_seconds + 10)
        if not stats.pop("met"):
            raise LlmServerError(f"not within {timeout_seconds} s: {bounds!r}; the counts are {stats!r}")
        return stats

    async def until(self, *, timeout_seconds: float = 5.0, **bounds: int) -> dict[str, Any]:
        """Do as `wait_until` does, while the event loop goes on."""
        return await asyncio.to_thread(self.wait_until, timeout_seconds=timeout_seconds, **bounds)

    def _call(self, method: str, path: str, document: object = None, *, timeout: float = 30.0) -> dict[str, Any]:
        connection = HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, path, body=None if document is None else json.dumps(document))
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise LlmServerError(f"{method} {path} was refused: {answer['error']['message']}")
        return cast("dict[str, Any]", answer)


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """Return the first line the process writes, or nothing when it ends or is silent for too long."""
    if process.stdout is None:
        return b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(START_SECONDS) else b""
