"""Finds the crews that a roster's members name, in Python files below the folder of the rosters and nowhere else."""

from __future__ import annotations

import sys
import threading
from hashlib import sha256
from pathlib import Path
from types import ModuleType

__all__ = ["MAX_CREW_BYTES", "CrewFiles", "crew_problem"]

MAX_CREW_BYTES = 1024 * 1024


def crew_problem(folder: Path, source: str) -> str | None:
    """What keeps `source`, as in `path/to/file.py:name`, from being used, or None. The file is looked for and not read."""
    try:
        _find(folder, source)
    except ValueError as error:
        return str(error)
    return None


class CrewFiles:
    """Runs each file once, and again when it has changed; it leaves no bytecode behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._modules: dict[Path, tuple[tuple[int, ...], ModuleType]] = {}

    def load(self, source: str) -> object:
        """What `source` names. Raises `ValueError` where there is nothing to use, and whatever the file raises."""
        path, name = _find(self._folder, source)
        with self._lock:
            module = self._module(path)
        try:
            return getattr(module, name)
        except AttributeError:
            raise ValueError(f"{source!r}: the file has no {name!r}") from None

    def _module(self, path: Path) -> ModuleType:
        stat = path.stat()
        state = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
        known = self._modules.get(path)
        if known is not None and known[0] == state:
            return known[1]
        with path.open("rb") as opened:
            code = opened.read(MAX_CREW_BYTES + 1)
        if len(code) > MAX_CREW_BYTES:
            raise ValueError(f"{path.name!r} is longer than {MAX_CREW_BYTES} bytes")
        module = ModuleType(f"conclave_crew_{sha256(str(path).encode()).hexdigest()[:16]}")
        module.__file__ = str(path)
        # Types made in the file look their module up by its name.
        sys.modules[module.__name__] = module
        exec(compile(code, str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the operator's own code
        self._modules[path] = (state, module)
        return module


def _find(folder: Path, source: str) -> tuple[Path, str]:
    place, _, name = source.rpartition(":")
    if not place.endswith(".py") or not name.isidentifier():
        raise ValueError(f"{source!r} is not of the form path/to/file.py:name")
    root = folder.resolve()
    path = Path(root, place).resolve()
    # Resolved before it is compared, so that neither `..` nor a link leads out of the folder.
    if Path(place).is_absolute() or "\x00" in place or not path.is_relative_to(root):
        raise ValueError(f"{source!r} does not lie below CONCLAVE_ROSTERS_DIR")
    if not path.is_file():
        raise ValueError(f"{source!r}: there is no such file below CONCLAVE_ROSTERS_DIR")
    return path, name
