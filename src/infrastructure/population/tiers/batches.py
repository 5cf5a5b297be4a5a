"""Checks batches of states and takes them apart into arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import le

import numpy as np
from numpy.typing import NDArray

from application.ports.state_store import StateBatch
from domain.errors.population import StateConflictError

__all__ = ["Opened", "checked", "matched", "opened", "packed"]

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Opened:
    """A batch as arrays; `states` has the shape (keys, size)."""

    tick: int
    keys: Numbers
    expected: Numbers
    versions: Numbers
    states: NDArray[np.uint8]


def checked(batch: StateBatch, size: int) -> None:
    """Raise `ValueError` where the fields of that batch do not go together."""
    count = len(batch.keys)
    if not count == len(batch.expected) == len(batch.versions) or len(batch.states) != count * size:
        raise ValueError(f"a batch of {count} keys has as many versions, and {size} bytes of state for each")
    if any(map(le, batch.versions, batch.expected)):
        raise ValueError("a version follows the one that was expected")


def opened(batch: StateBatch, size: int) -> Opened:
    """That batch. Raises `ValueError` where its fields do not go together."""
    checked(batch, size)
    keys, expected, versions = (_numbers(found) for found in (batch.keys, batch.expected, batch.versions))
    return Opened(batch.tick, keys, expected, versions, np.frombuffer(batch.states, np.uint8).reshape(keys.size, size))


def packed(
    tick: int, keys: Numbers, versions: Numbers, states: NDArray[np.generic], *, anew: bool = False
) -> StateBatch:
    """A batch of the next versions of these states, or, `anew`, of states that are not there yet in any."""
    expected = np.zeros_like(versions) if anew else versions - 1
    flat = np.ascontiguousarray(states).reshape(-1).view(np.uint8)
    return StateBatch(tick, keys.data, expected.data, versions.data, flat.data)


def matched(keys: Numbers, expected: Numbers, found: Numbers) -> None:
    """Raise `StateConflictError` for the first key whose version is not the expected one."""
    wrong = np.flatnonzero(expected != found)
    if wrong.size:
        first = wrong[0]
        raise StateConflictError(agent=int(keys[first]), expected=int(expected[first]), found=int(found[first]))


def _numbers(found: Sequence[int]) -> Numbers:
    return np.asarray(found, np.int64)
