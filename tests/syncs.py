"""Sees every fsync and fdatasync of a command before it happens, and can hold it: by seccomp's user notification, as any user.

`python -m tests.syncs SOCKET COMMAND...` becomes the command, watched by the `SyncWatch` that listens at the socket. Linux 5.5 or
later; see seccomp_unotify(2).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from tests.patience import eventually

__all__ = ["NotSyncedError", "SyncWatch"]

# Of seccomp(2), fsync(2) and fdatasync(2).
_CALLS = {"x86_64": (317, 74, 75), "aarch64": (277, 82, 83)}
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
_SECCOMP_RET_USER_NOTIF = 0x7FC00000
_SECCOMP_RET_ALLOW = 0x7FFF0000
_SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
_NOTIF_RECV = 0xC0502100
_NOTIF_SEND = 0xC0182101
_LOAD_CALL_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NOTIFICATION = struct.Struct("QIIiIQ6Q")
_REPLY = struct.Struct("QqiI")
_PATIENCE_S = 20.0
# What was waiting for a sync alone comes long before this.
_GRACE_S = 0.4


class NotSyncedError(Exception):
    """Something was said to be durable although nothing, or not all of it, had reached the disk."""


class SyncWatch:
    """Watches the commands that `watched` names, and every process that they start. For use by `with`."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._folder = tempfile.TemporaryDirectory()
        self._address = str(Path(self._folder.name) / "watch")
        self._door = socket.socket(socket.AF_UNIX)
        self._changed = threading.Condition()
        self._held: list[tuple[int, int, str]] = []
        self._held_part: str | None = None
        self._threads: list[threading.Thread] = []
        self._is_over = False

    def __enter__(self) -> Self:
        self._door.bind(self._address)
        self._door.listen()
        self._spawn(self._take_commands)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        self.let_go()
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_PATIENCE_S)
        self._door.close()
        self._folder.cleanup()

    def watched(self, command: Sequence[str]) -> list[str]:
        """The command line that runs this one under watch, from the root of the repository."""
        return [sys.executable, "-m", "tests.syncs", self._address, *command]

    def hold(self, part: str) -> None:
        """From now on hold every sync of a file or folder whose path has this part."""
        with self._changed:
            self._held_part = part

    def let_go(self) -> None:
        """Hold none, and let those go that are held."""
        with self._changed:
            self._held_part = None
            while self._held:
                self._release_oldest()

    def require_first(self, happens: Callable[[], bool]) -> int:
        """Let held syncs go, one after the other, until it happens; how many had to go.

        Raises `NotSyncedError` when it happens before any was asked for, or while the first is held.
        """
        let_go = 0
        until = time.monotonic() + _PATIENCE_S
        while (came := eventually(lambda: self._first(happens, until=until))) == "held":
            if not let_go and _comes(happens):
                raise NotSyncedError(f"it happened while the sync of {self._held[0][2]!r} was held")
            with self._changed:
                self._release_oldest()
            let_go += 1
            if _comes(happens):
                return let_go
        if came == "late":
            raise TimeoutError(f"it did not happen within {_PATIENCE_S!r} s, and {let_go!r} syncs were let go")
        if not let_go:
            raise NotSyncedError("it happened, and nothing had been synced")
        return let_go

    def _first(self, happens: Callable[[], bool], *, until: float) -> str:
        """Whether it is `late`, it `happens`, or a sync is `held`; empty while none of them is so."""
        if time.monotonic() >= until:
            return "late"
        if happens():
            return "happens"
        return "held" if self._held else ""

    def _spawn(self, work: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def _take_commands(self) -> None:
        while True:
            try:
                connection, _ = self._door.accept()
            except OSError:
                return
            with connection:
                _, (listener,), _, _ = socket.recv_fds(connection, 1, 1)
            self._spawn(lambda listener=listener: self._attend(listener))  # type: ignore[misc]

    def _attend(self, listener: int) -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while not self._is_over:
            for _, event in poll.poll(100):
                if not event & select.POLLIN:
                    os.close(listener)
                    return
                self._take(listener)

    def _take(self, listener: int) -> None:
        notification = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _NOTIF_RECV, notification, True)
        except OSError as error:
            # Whoever asked was killed meanwhile.
            if error.errno in {errno.ENOENT, errno.EINTR}:
                return
            raise
        number, process, _, _, _, _, descriptor, *_ = _NOTIFICATION.unpack(notification)
        try:
            path = str(Path(f"/proc/{process}/fd/{descriptor}").readlink())
        except OSError:
            path = ""
        with self._changed:
            self.seen.append(path)
            self._held.append((listener, number, path))
            if self._held_part is None or self._held_part not in path:
                self._release(self._held.pop())

    def _release_oldest(self) -> None:
        if self._held:
            self._release(self._held.pop(0))

    def _release(self, held: tuple[int, int, str]) -> None:
        listener, number, _ = held
        reply = bytearray(_REPLY.pack(number, 0, 0, _SECCOMP_USER_NOTIF_FLAG_CONTINUE))
        try:
            fcntl.ioctl(listener, _NOTIF_SEND, reply, True)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


def _comes(happens: Callable[[], bool]) -> bool:
    until = time.monotonic() + _GRACE_S
    return eventually(lambda: "comes" if happens() else "late" if time.monotonic() >= until else "") == "comes"


def _become_watched(address: str, command: Sequence[str]) -> NoReturn:
    seccomp, *syncs = _CALLS[platform.machine()]
    steps = [
        (_LOAD_CALL_NUMBER, 0, 0, 0),
        (_JUMP_IF_EQUAL, 1, 0, syncs[0]),
        (_JUMP_IF_EQUAL, 0, 1, syncs[1]),
        (_RETURN, 0, 0, _SECCOMP_RET_USER_NOTIF),
        (_RETURN, 0, 0, _SECCOMP_RET_ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no process can be watched here: prctl")
    listener = libc.syscall(seccomp, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_NEW_LISTENER, program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "no process can be watched here: seccomp")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    os.close(listener)
    os.execvp(command[0], list(command))  # noqa: S606 - there is to be nothing between the filter and the command


if __name__ == "__main__":
    _become_watched(sys.argv[1], sys.argv[2:])
