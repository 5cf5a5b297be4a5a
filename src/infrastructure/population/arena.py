"""Memory that the processes of one population share and that has no name: whatever ends them, nothing of it stays behind."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from domain.errors.population import NotEnoughMemoryError

__all__ = ["Arena", "Layout", "Place"]

_LINE = 64
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
# MADV_POPULATE_WRITE of Linux 5.14, which the module has no name for.
_POPULATE_WRITE = 23


@dataclass(frozen=True, slots=True)
class Place:
    """Where one array lies: its offset in bytes, its type and its shape."""

    offset: int
    dtype: str
    shape: tuple[int, ...]


class Layout:
    """Arrays laid out one after the other, each on a cache line of its own."""

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.size = 0

    def add(self, name: str, dtype: DTypeLike, *shape: int) -> None:
        """Make room for one array."""
        kind = np.dtype(dtype)
        self.places[name] = Place(self.size, kind.str, shape)
        size = kind.itemsize
        for length in shape:
            size *= length
        self.size += -(-size // _LINE) * _LINE

    def document(self) -> dict[str, list[Any]]:
        """As it is told to another process."""
        return {name: [place.offset, place.dtype, list(place.shape)] for name, place in self.places.items()}

    @classmethod
    def from_document(cls, document: Mapping[str, list[Any]]) -> Layout:
        """What another process told."""
        layout = cls()
        for name, (offset, dtype, shape) in document.items():
            layout.places[name] = Place(offset, dtype, tuple(shape))
        return layout


class Arena:
    """Zeroed arrays in memory without a name: `shared`, in an anonymous file, which ends with the last process that has it open.

    All of it is reserved when it is made, so that memory that runs out is an error then and no signal later; but for a `sparse`
    one, of which only what is written to is taken.
    """

    def __init__(self, layout: Layout, *, shared: bool = True, sparse: bool = False, file: int | None = None) -> None:
        """Make one, or join that of the descriptor `file`. Raises `NotEnoughMemoryError`."""
        self.layout = layout
        self.file = -1
        size = max(layout.size, _LINE)
        if file is not None or shared:
            self.file = _reserved(size) if file is None else file
            self._memory = mmap.mmap(self.file, 0)
        else:
            self._memory = mmap.mmap(-1, size, flags=_PRIVATE) if sparse else _private(size)
        if file is None and not sparse:
            _take_all(self._memory)

    def __getitem__(self, name: str) -> NDArray[Any]:
        place = self.layout.places[name]
        count = 1
        for length in place.shape:
            count *= length
        return np.frombuffer(self._memory, np.dtype(place.dtype), count, place.offset).reshape(place.shape)

    def __contains__(self, name: str) -> bool:
        return name in self.layout.places

    def close(self) -> None:
        """Let go of it; the memory itself goes when the last array that lies in it does."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


def _private(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags=_PRIVATE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Random rows are reached without a walk through the page table each time.
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _take_all(memory: mmap.mmap) -> None:
    """Have every page now, so that what is measured as resident is what the population takes."""
    if sys.platform == "linux":
        # Older systems do not know it, and give the pages when they are first touched.
        with contextlib.suppress(OSError):
            memory.madvise(_POPULATE_WRITE)


def _reserved(size: int) -> int:
    file = _nameless()
    try:
        os.ftruncate(file, size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
    except OSError as error:
        os.close(file)
        if error.errno in {errno.ENOMEM, errno.ENOSPC}:
            raise NotEnoughMemoryError(needed_bytes=size, available_bytes=0, fits_agents=0) from error
        raise
    return file


def _nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("conclave-population", os.MFD_CLOEXEC)
    # Elsewhere a file that is removed before anything is written to it.
    file, path = tempfile.mkstemp(prefix="conclave-population-")
    os.unlink(path)  # noqa: PTH108 - beside the descriptor that was just opened
    return file
