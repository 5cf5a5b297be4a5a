"""The files that agents work on, one each."""

from __future__ import annotations

import re
from pathlib import Path

from domain.errors.configuration import ConfigurationError
from domain.models.swarm import MAX_AGENTS

__all__ = ["item_names"]

_DIGITS = re.compile(r"(\d+)")


def item_names(folder: Path) -> tuple[str, ...]:
    """The names of the files in a folder, `2.png` before `10.png`; hidden files, folders and links are left out.

    Raises `ConfigurationError` where there are none, or too many.
    """
    try:
        names = [
            entry.name
            for entry in folder.iterdir()
            if entry.is_file() and not entry.is_symlink() and not entry.name.startswith(".")
        ]
    except OSError as error:
        raise _unusable(f"{str(folder)!r} cannot be read ({error.strerror})") from error
    if not names:
        raise _unusable(f"{str(folder)!r} has no files")
    if len(names) > MAX_AGENTS:
        raise _unusable(f"{str(folder)!r} has {len(names)} files, and there are at most {MAX_AGENTS} agents")
    return tuple(sorted(names, key=_natural))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(name)]


def _unusable(problem: str) -> ConfigurationError:
    return ConfigurationError(variable="--items", problem=problem, remedy="Name a folder with one file for each agent.")
