"""One agent of a soak that talks by files alone: it reads its message, does it, and writes its response.

Runs in a small process of its own, so it imports next to nothing; an agent in another language does what stands here.
"""

import contextlib
import errno
import json
import mmap
import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

__all__ = ["MOST_BYTES", "FileAgent", "work"]

MOST_BYTES = 1_048_576
"""A longer message or response is not read."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)
_RETRY_S = 0.05
_POLL_MS = 5
_REST_MS = 100
_LOOK_MS = 1_000
_STATUS_EVERY_S = 5.0
_MOST_ITERATIONS = 10_000_000
_MOST_SIZE = 256 * 1024 * 1024


class FileAgent:
    """Answers each message once, and says in its status file how it is; `pack` and `unpack` are between text and what lies in files."""

    def __init__(
        self,
        folder: str,
        agent: str,
        *,
        bell: int = -1,
        pack: "Callable[[bytes, str], bytes] | None" = None,
        unpack: "Callable[[bytes, str], bytes] | None" = None,
        ended: "Callable[[], bool] | None" = None,
    ) -> None:
        """`bell` is a pipe: a byte says look at the file, `q` and its end say leave; without one the file is looked at every 5 ms.

        `ended` is asked once a second whether the run is over.
        """
        self.agent = agent
        self._bell = bell
        self._pack = pack
        self._unpack = unpack
        self._ended = ended
        self._messages = os.open(folder + "/messages", _FOLDER)
        self._responses = os.open(folder + "/responses", _FOLDER)
        self._status = os.open(folder + "/status", _FOLDER)
        self._drafts = os.open(folder + "/drafts", _FOLDER)
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._name = f"coordination-{agent}.json"
        self._seen = (0, 0)
        self._last_id = ""
        self._began = time.monotonic()
        self._count = 0
        self._errors = 0
        self._shares = (0, 0)
        self._first_rss = 0
        self._said_at = 0.0
        self._leaves = False
        self._page = os.sysconf("SC_PAGE_SIZE")

    def leave(self, _number: int = 0, _frame: "FrameType | None" = None) -> None:
        """End after what is being done, as a signal handler may ask."""
        self._leaves = True

    def serve(self) -> None:
        """Answer until told to leave."""
        self._rest()
        self._say("ready")
        rested = True
        while not self._leaves:
            message = self._look()
            if message is not None:
                self._answer(message)
                rested = False
            if self._wait(_LOOK_MS if rested else _REST_MS):
                continue
            if not rested:
                # Measured in the quiet after the work, so that no other agent waits for it.
                self._rest()
                rested = True
            elif self._ended is not None and self._ended():
                break
        self._say("stopped")

    def _wait(self, most_ms: int) -> bool:
        """Whether there may be something to do."""
        if self._bell < 0:
            deadline = time.monotonic() + most_ms / 1e3
            while time.monotonic() < deadline and not self._leaves:
                if self._is_new():
                    return True
                time.sleep(_POLL_MS / 1e3)
            return False
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        if not poll.poll(most_ms):
            return False
        rung = os.read(self._bell, 4096)
        if not rung or b"q" in rung:
            self._leaves = True
        return True

    def _is_new(self) -> bool:
        try:
            found = os.stat(self._name, dir_fd=self._messages, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_ino, found.st_mtime_ns) != self._seen

    def _look(self) -> "dict[str, Any] | None":
        """The message, if there is one that was not answered yet."""
        try:
            file = os.open(self._name, _READ, dir_fd=self._messages)
        except OSError:
            return None
        try:
            found = os.fstat(file)
            seen = (found.st_ino, found.st_mtime_ns)
            if seen == self._seen:
                return None
            self._seen = seen
            text = _all_of(file, found.st_size)
            if self._unpack is not None:
                text = self._unpack(text, self._name)
            message = _message_in(text)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self._errors += 1
            return None
        finally:
            os.close(file)
        if message["messageId"] == self._last_id:
            return None
        return message

    def _answer(self, message: "dict[str, Any]") -> None:
        began = time.perf_counter()
        try:
            response = work(str(message.get("type")), message.get("data"))
        except (ValueError, TypeError, OverflowError, MemoryError) as error:
            self._errors += 1
            response = {"error": str(error)}
        self._last_id = message["messageId"]
        self._count += 1
        rss = self._rss()
        document = {
            "agentId": self.agent,
            "messageId": self._last_id,
            "timestamp": int(time.time() * 1e3),
            "processingTime": round((time.perf_counter() - began) * 1e3, 3),
            "coordinationCount": self._count,
            "errorCount": self._errors,
            "uptime": round((time.monotonic() - self._began) * 1e3),
            "memory": self._memory(rss),
            "memoryGrowthRate": self._growth(rss),
            "response": response,
        }
        name = f"response-{self.agent}-{self._last_id}.json"
        while not self._write(self._responses, name, document) and not self._leaves and not self._is_new():
            time.sleep(_RETRY_S)

    def _say(self, status: str) -> None:
        rss = self._rss()
        self._said_at = time.monotonic()
        document = {
            "agentId": self.agent,
            "status": status,
            "pid": os.getpid(),
            "timestamp": int(time.time() * 1e3),
            "uptime": round((time.monotonic() - self._began) * 1e3),
            "coordinationCount": self._count,
            "errorCount": self._errors,
            "memory": self._memory(rss),
            "memoryGrowthRate": self._growth(rss),
        }
        while not self._write(self._status, f"agent-{self.agent}-status.json", document):
            if self._leaves or status != "ready" or self._count:
                return
            time.sleep(_RETRY_S)

    def _write(self, folder: int, name: str, document: "dict[str, Any]") -> bool:
        """Whether the file is there, whole; not when there is no room."""
        text = json.dumps(document, separators=(",", ":")).encode()
        if self._pack is not None and folder == self._responses:
            text = self._pack(text, name)
        try:
            file = os.open(name, _WRITE, 0o600, dir_fd=self._drafts)
            try:
                view = memoryview(text)
                while view:
                    view = view[os.write(file, view) :]
            finally:
                os.close(file)
            os.rename(name, name, src_dir_fd=self._drafts, dst_dir_fd=folder)
        except OSError as error:
            self._errors += 1
            if error.errno in _FULL:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._drafts)
                return False
            raise
        return True

    def _rest(self) -> None:
        shares = _shares()
        if shares is not None:
            self._shares = shares
        if self._said_at and time.monotonic() - self._said_at >= _STATUS_EVERY_S:
            self._say("ready")

    def _rss(self) -> int:
        rss = int(os.pread(self._statm, 256, 0).split()[1]) * self._page
        # The first work brings in what the interpreter needs for it, which is no growth.
        if self._count == 1 or not self._first_rss:
            self._first_rss = rss
        return rss

    def _memory(self, rss: int) -> "dict[str, int]":
        return {
            "rss": rss,
            "heapUsed": self._shares[1],
            "heapTotal": self._shares[0],
            "external": 0,
            "arrayBuffers": 0,
        }

    def _growth(self, rss: int) -> float:
        return round(100.0 * (rss - self._first_rss) / self._first_rss, 3) if self._first_rss else 0.0


def work(kind: str, data: object) -> "dict[str, Any]":
    """Do what a message of that type asks for. Raises `ValueError` and `TypeError` for what is none."""
    details = data if isinstance(data, dict) else {}
    if kind == "ping":
        return {"pong": True}
    if kind == "compute":
        iterations = _whole(details.get("iterations", 0), _MOST_ITERATIONS)
        state = 1
        for _ in range(iterations):
            # A linear congruential generator (Numerical Recipes): work that no interpreter can leave out.
            state = (1_664_525 * state + 1_013_904_223) & 0xFFFFFFFF
        return {"result": state, "iterations": iterations}
    if kind == "memory_test":
        size = _whole(details.get("size", 0), _MOST_SIZE)
        if size:
            # Pages of its own, which go back to the system for certain.
            with mmap.mmap(-1, size) as pages:
                for place in range(0, size, mmap.PAGESIZE):
                    pages[place] = 1
        return {"allocated": size}
    raise ValueError(f"unknown type {kind!r}")


def _message_in(text: bytes) -> "dict[str, Any]":
    """The message. Raises `ValueError`, `KeyError` and `TypeError` for what is none."""
    message = json.loads(text)
    if not isinstance(message["messageId"], str) or "/" in message["messageId"]:
        raise ValueError("no id")
    return dict(message)


def _whole(value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"not a whole number from 0 to {most}")
    return value


def _all_of(file: int, size: int) -> bytes:
    if size > MOST_BYTES:
        raise ValueError("too long")
    return os.read(file, MOST_BYTES)


def _shares() -> "tuple[int, int] | None":
    """The proportional and the unique set size of this process, in bytes."""
    try:
        with open("/proc/self/smaps_rollup", "rb") as file:  # noqa: PTH123 - pathlib is not light
            lines = file.read().split(b"\n")
    except OSError:
        return None
    found = {}
    for line in lines[1:]:
        name, _, rest = line.partition(b":")
        if rest:
            found[name] = int(rest.split()[0]) * 1024
    return found.get(b"Pss", 0), found.get(b"Private_Clean", 0) + found.get(b"Private_Dirty", 0)


def leave_on_signals(agent: FileAgent) -> None:
    """Have SIGTERM and SIGINT end that agent in order."""
    signal.signal(signal.SIGTERM, agent.leave)
    signal.signal(signal.SIGINT, agent.leave)
