"""Processor time and memory of this process and of those that carry shards for it, as the system counts them."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["cores", "cpu_seconds", "peak_rss_bytes", "resident_bytes", "resident_now"]

_PROC = Path("/proc")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_seconds(others: Sequence[int] = ()) -> float:
    """Processor time so far of this process, its ended children and the processes `others`, in seconds."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(_cpu_of(process) for process in others)


def peak_rss_bytes() -> int:
    """The most memory that this process ever had resident."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes(processes: Sequence[int]) -> int:
    """The memory of these processes together, shared pages once; 0 where the system does not say."""
    return sum(_proportional_bytes(process) for process in processes)


def resident_now() -> int:
    """The memory of this process and of its children now, in bytes, shared pages once; 0 where the system does not say."""
    children = _children()
    if children:
        return resident_bytes([os.getpid(), *children])
    try:
        return int((_PROC / "self" / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _children() -> list[int]:
    found: list[int] = []
    for task in (_PROC / "self" / "task").glob("*/children"):
        # A thread that has just ended has none.
        with contextlib.suppress(OSError):
            found += [int(process) for process in task.read_text().split()]
    return found


def _cpu_of(process: int) -> float:
    try:
        fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _proportional_bytes(process: int) -> int:
    try:
        lines = (_PROC / str(process) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
