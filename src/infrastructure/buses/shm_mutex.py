"""A robust mutex in shared memory: when its holder dies, the kernel hands it to the next one and says so."""

from __future__ import annotations

import ctypes
import errno
import mmap
import sys
import time

from domain.errors.bus import BusUnavailableError

__all__ = ["RobustMutex", "require_robust_mutexes"]

_PATIENCE_S = 10
_SHARED = _ROBUST = 1


class _Moment(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def require_robust_mutexes() -> None:
    """Raises `BusUnavailableError` off Linux."""
    if not sys.platform.startswith("linux"):
        raise BusUnavailableError(
            transport="shm", problem=f"{sys.platform} has no robust mutexes", remedy="Use the file or redis bus."
        )


class RobustMutex:
    """One holder at a time among all threads of all processes that map the same memory (POSIX, PTHREAD_MUTEX_ROBUST).

    Waiting blocks the thread: it is meant for sections of microseconds.
    """

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        """Over 128 bytes of `memory`."""
        self._library = ctypes.CDLL(None)
        self._place = (ctypes.c_char * 128).from_buffer(memory, offset)
        address = ctypes.c_void_p(ctypes.addressof(self._place))
        self._address = address
        self._try = self._library.pthread_mutex_trylock
        self._unlock = self._library.pthread_mutex_unlock

    def create(self) -> None:
        """Make it, once for all processes, before anybody else maps it."""
        attributes = (ctypes.c_char * 64)()
        steps = (
            self._library.pthread_mutexattr_init(attributes),
            self._library.pthread_mutexattr_setpshared(attributes, _SHARED),
            self._library.pthread_mutexattr_setrobust(attributes, _ROBUST),
            self._library.pthread_mutex_init(self._address, attributes),
        )
        if any(steps):
            raise BusUnavailableError(
                transport="shm", problem=f"no robust mutex could be made ({steps})", remedy="Use the file or redis bus."
            )

    def acquire(self) -> None:
        """Wait for it. Raises `BusUnavailableError` where a living holder stands still for 10 s."""
        outcome = self._try(self._address)
        if outcome == errno.EBUSY:
            outcome = self._wait()
        if outcome == errno.EOWNERDEAD:
            self._library.pthread_mutex_consistent(self._address)
        elif outcome:
            raise BusUnavailableError(
                transport="shm",
                problem=f"its lock cannot be had ({errno.errorcode.get(outcome, outcome)})",
                remedy="See whether one of its processes is stopped (state T): let it go on, or kill it.",
            )

    def release(self) -> None:
        """Let the next one in."""
        self._unlock(self._address)

    def detach(self) -> None:
        """Forget the memory, so that it can be unmapped."""
        del self._place, self._address

    def _wait(self) -> int:
        until = _Moment(int(time.time()) + _PATIENCE_S, 0)
        return int(self._library.pthread_mutex_timedlock(self._address, ctypes.byref(until)))
