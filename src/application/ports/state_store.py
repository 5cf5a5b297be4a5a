"""The port to what keeps the states of agents: one record for each agent, in versions that nobody overwrites unseen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["DurableStateStore", "StateBatch", "StateCache", "StateRecord", "StateStore"]


@dataclass(frozen=True, slots=True)
class StateRecord:
    """One state and its version; the versions of a key begin at 1 and grow."""

    version: int
    state: bytes


@dataclass(frozen=True, slots=True)
class StateBatch:
    """States that are written together, field by field and each key once: keys 0 to 2^32 - 1, the versions that must stand there
    until then (0: none), the versions that follow, and all bytes one state after the other. `tick` is when they came about.
    """

    tick: int
    keys: Sequence[int]
    expected: Sequence[int]
    versions: Sequence[int]
    states: bytes | memoryview


class StateStore(Protocol):
    """Keeps states of `size` bytes each. Every call may be made from any thread, and is taken as a whole or not at all.

    Of writers that expect the same version of a key exactly one gets through. Raises `DependencyUnavailableError` where what keeps
    the states is away, and `PopulationFolderError` where they cannot be written.
    """

    @property
    def size(self) -> int:
        """Bytes of a state."""
        ...

    def read(self, keys: Sequence[int]) -> Sequence[StateRecord | None]:
        """The newest record of each of these keys, None where there is none."""
        ...

    def write(self, batch: StateBatch) -> None:
        """Write all of these. Raises `StateConflictError` where another version stands there than was expected, `StateStoreFullError`
        where there is no room, and then nothing of it is written; `ValueError` for a batch whose fields do not go together.
        """
        ...

    def close(self) -> None:
        """Let go of everything; may be called twice."""
        ...


class StateCache(StateStore, Protocol):
    """A `StateStore` that holds what is written elsewhere too: it may forget a record by itself, and never gives an old one."""

    def drop(self, keys: Sequence[int]) -> None:
        """Hold nothing for these keys any more."""
        ...


class DurableStateStore(StateStore, Protocol):
    """A `StateStore` whose records outlive the process, and that can go back to what it held after certain ticks."""

    def begin(self) -> None:
        """Empty it, whatever lies there, and make it ready."""
        ...

    def rewind(self, tick: int) -> None:
        """Make ready what lies there, as it was after `tick`, which was among those to `keep`; later writes are forgotten.

        Raises `DamagedRecordError` where it is not whole.
        """
        ...

    def scan(self) -> Iterator[StateBatch]:
        """All that lies there, older versions included, each batch of one tick or before it. Raises `DamagedRecordError`."""
        ...

    def keep(self, ticks: Sequence[int]) -> None:
        """What was held after these ticks stays reachable by `rewind`; of what came between, only the newest matters."""
        ...

    def tidy(self) -> bool:
        """One short step of making room, a few ms; whether there is more to do."""
        ...

    def sync(self) -> None:
        """Return once all that was written would outlive a loss of power."""
        ...
