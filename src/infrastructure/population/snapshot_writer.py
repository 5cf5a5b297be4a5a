"""Writes one snapshot after the other beside the ticks, so that no tick waits for the disk."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from infrastructure.population.snapshots import Snapshots

__all__ = ["SnapshotWriter"]


class SnapshotWriter:
    """At most one snapshot is under way; the one before it is waited for."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def write(self, tick: int, columns: Mapping[str, NDArray[Any]]) -> None:
        """Begin to write these columns, which nobody may change any more. Raises what `settle` raises."""
        self.settle()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._writing = self._thread.submit(self._snapshots.write, tick, columns)

    def settle(self) -> None:
        """Return once what was begun is on its way to the disk. Raises `PopulationFolderError` where it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait for the last one and end the thread; may be called twice."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
