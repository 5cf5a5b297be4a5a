"""What is looked at before a soak starts, so that it does not fail hours later: system, space, rights, descriptors, processes."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.soak import SoakPlan

__all__ = ["check_before_soak"]

_PAGE = 4_096
_FILES_AN_AGENT = 6
_OUTPUT_A_CYCLE = 1_024
_SPARE_DESCRIPTORS = 128
_SPARE_PROCESSES = 32
_MEMORY_AN_AGENT = 8 * 2**20


def check_before_soak(
    plan: SoakPlan,
    *,
    coordination: Path | None,
    output: Path,
    history_bytes: int = 0,
    free_bytes: Callable[[Path], int] | None = None,
) -> list[str]:
    """What is doubtful but no reason not to start, in sentences.

    Raises `ConfigurationError` for what has to be asked differently and `DependencyUnavailableError` for what has to be made room for.
    """
    if not sys.platform.startswith("linux"):
        raise ConfigurationError(
            variable="conclave soak",
            problem=f"agents are measured through /proc, which {sys.platform!r} does not have",
            remedy="Run it on Linux, in a container for example.",
        )
    free = free_bytes or _free_bytes
    doubts = []
    if coordination is not None:
        need = plan.most_agents * _FILES_AN_AGENT * max(_PAGE, _PAGE * plan.messages_per_cycle)
        _want_room(coordination, need, free, option="--coord-dir")
        _want_writable(coordination, option="--coord-dir")
        doubts += _open_to_others(coordination)
    _want_writable(output, option="--output-dir")
    _want_room(output, plan.cycles * _OUTPUT_A_CYCLE, free, option="--output-dir")
    if free(_existing(output)) < plan.cycles * _OUTPUT_A_CYCLE + history_bytes:
        doubts.append(
            f"{str(output)!r} has no room for a history of {history_bytes:,} bytes: what does not fit is left out"
        )
    _want_descriptors(plan.most_agents)
    _want_processes(plan.most_agents)
    available = _available_memory()
    if available is not None and available < plan.most_agents * _MEMORY_AN_AGENT:
        doubts.append(f"only {available >> 20} MiB of memory are free for {plan.most_agents} agents of up to 8 MiB")
    return doubts


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _want_writable(path: Path, *, option: str) -> None:
    found = _existing(path)
    if path.is_symlink() and option == "--coord-dir":
        raise ConfigurationError(
            variable=option,
            problem=f"{str(path)!r} is a link",
            remedy="Give the folder itself, which no link can exchange.",
        )
    if not found.is_dir():
        raise ConfigurationError(variable=option, problem=f"{str(found)!r} is no folder", remedy="Give a folder.")
    if not os.access(found, os.W_OK | os.X_OK):
        raise ConfigurationError(
            variable=option,
            problem=f"{str(found)!r} may not be written to by this user",
            remedy=f"Give the rights to it, or another {option}.",
        )


def _want_room(path: Path, need: int, free: Callable[[Path], int], *, option: str) -> None:
    left = free(_existing(path))
    if left < need:
        raise DependencyUnavailableError(
            dependency=f"the file system of {str(path)!r}",
            problem=f"it has {left:,} bytes left and this soak may need {need:,}",
            remedy=f"Free space there, give another {option}, or ask for less (agents, cycles).",
        )


def _open_to_others(path: Path) -> list[str]:
    if path.is_dir() and path.stat().st_mode & 0o022:
        return [f"{str(path)!r} may be written to by other users, who can then act as agents"]
    return []


def _want_descriptors(agents: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = agents + _SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        raise DependencyUnavailableError(
            dependency="the limit of open files",
            problem=f"it is {hard} and {agents} agents need {need}",
            remedy=f"Raise it (ulimit -n {need}, or LimitNOFILE= of the service), or start fewer agents.",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def _want_processes(agents: int) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    # The limit does not hold for root.
    if os.geteuid() == 0 or soft == resource.RLIM_INFINITY or soft >= agents + _SPARE_PROCESSES:
        return
    raise DependencyUnavailableError(
        dependency="the limit of processes",
        problem=f"it is {soft} and {agents} agents need {agents + _SPARE_PROCESSES}",
        remedy="Raise it (ulimit -u, or TasksMax= of the service), or start fewer agents.",
    )


def _free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _available_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
