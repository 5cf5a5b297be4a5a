"""What this process has used of the machine, as the kernel counts it."""

from __future__ import annotations

import os
import resource
import sys
import time

from application.services.swarm.swarm import ProcessUsage

__all__ = ["cores", "process_usage"]

# getrusage(2): kilobytes on Linux, bytes on macOS.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def process_usage() -> ProcessUsage:
    """Processor seconds so far, and the most memory that was resident at one time."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    return ProcessUsage(cpu_s=time.process_time(), peak_rss_bytes=peak)


def cores() -> int:
    """How many processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
