"""What processes take and how long they waited for a core, read from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping

from application.ports.soak_agents import Load, ProcessMemory, Resources

__all__ = ["OwnMemory", "ProcGauge", "is_alive"]

_KIB = 1024
_NS = 1e9
_STEAL = 8


class ProcGauge:
    """A `ProcessGauge` over proc(5). Where only the resident set size may be read (another user's process), it stands for the others."""

    def memory(self, pids: Iterable[int]) -> Mapping[int, ProcessMemory]:
        """By smaps_rollup, or by statm alone."""
        found = {}
        for pid in pids:
            measured = _rollup(pid) or _statm(pid)
            if measured is not None:
                found[pid] = measured
        return found

    def load(self, pids: Iterable[int]) -> Load:
        """By schedstat; this process stands under 0."""
        worked: dict[int, float] = {}
        waited: dict[int, float] = {}
        for key, name in ((0, "self"), *((pid, str(pid)) for pid in pids)):
            fields = _text(f"/proc/{name}/schedstat").split()
            if len(fields) >= 2:
                worked[key] = int(fields[0]) / _NS
                waited[key] = int(fields[1]) / _NS
        return Load(worked, waited, _stolen(), os.cpu_count() or 1)

    def resources(self) -> Resources:
        """How many descriptors are open here."""
        return Resources(descriptors=_descriptors("self"))


class OwnMemory:
    """What this process takes, measured anew at most once a second: that costs more than a message does."""

    def __init__(self, *, max_age_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_age_s = max_age_s
        self._clock = clock
        self._measured: ProcessMemory | None = None
        self._at = float("-inf")

    def __call__(self) -> ProcessMemory:
        """Zeros where /proc tells nothing."""
        now = self._clock()
        if self._measured is None or now - self._at >= self._max_age_s:
            self._at = now
            self._measured = _rollup(os.getpid()) or _statm(os.getpid()) or ProcessMemory(0, 0, 0, 0)
        return self._measured


def is_alive(pid: int) -> bool:
    """Whether that process runs; one that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    state = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return not state or state[0] not in ("Z", "X")


def _rollup(pid: int) -> ProcessMemory | None:
    found = {}
    for line in _text(f"/proc/{pid}/smaps_rollup").split("\n")[1:]:
        name, _, rest = line.partition(":")
        if rest:
            found[name] = int(rest.split()[0]) * _KIB
    if "Rss" not in found:
        return None
    pss = found.get("Pss", found["Rss"])
    return ProcessMemory(
        rss=found["Rss"],
        pss=pss,
        uss=found.get("Private_Clean", 0) + found.get("Private_Dirty", 0),
        # Older kernels than 5.4 do not part it.
        anonymous=found.get("Pss_Anon", pss),
        descriptors=_descriptors(str(pid)),
    )


def _statm(pid: int) -> ProcessMemory | None:
    fields = _text(f"/proc/{pid}/statm").split()
    if len(fields) < 3:
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    rss, shared = int(fields[1]) * page, int(fields[2]) * page
    return ProcessMemory(rss=rss, pss=rss, uss=rss - shared, anonymous=rss - shared)


def _descriptors(name: str) -> int:
    try:
        return len(os.listdir(f"/proc/{name}/fd"))  # noqa: PTH208 - the quickest count
    except OSError:
        return 0


def _stolen() -> float:
    """Seconds that the host of this machine took from its cores, all together."""
    fields = _text("/proc/stat").partition("\n")[0].split()
    return int(fields[_STEAL]) / os.sysconf("SC_CLK_TCK") if len(fields) > _STEAL else 0.0


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - fifty of them a cycle
            return file.read()
    except OSError:
        return ""
