"""Behaviours that users bring: a class of their own whose `step` gives the next opinions of a whole shard."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from domain.errors.deliberation import FieldProblem
from domain.errors.population import BehaviourError, InvalidPopulationError
from infrastructure.population.agent_ledger import KEPT_METRICS
from infrastructure.population.field import Field, TickKeys
from infrastructure.population.randomness import draw, mixed

__all__ = [
    "Inbox",
    "Neighbours",
    "OwnBehaviour",
    "ShardView",
    "behaviour_class",
    "checked_opinions",
    "inbox_of",
    "load_behaviour",
]

_32 = np.uint64(32)


class OwnBehaviour(Protocol):
    """What a user's class has to offer; it is made without arguments, in each worker, and anew when agents move between shards.

    It keeps nothing in itself from tick to tick: what an agent remembers stands in its `state`. It gives the same answer for the
    same agents, whatever shards there are: a random number comes from `view.uniform`, never from a generator of its own.
    """

    def step(self, view: ShardView) -> NDArray[np.float64]:
        """The next opinions of the agents of `view`, shape (agents,), each from 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class Inbox:
    """What the agents of a shard were sent: agent number i in the view hears `opinions[offsets[i]:offsets[i + 1]]`.

    Higher priorities come first, and within one the senders in the order of their rows.
    """

    offsets: NDArray[np.int64]
    senders: NDArray[np.uint32]
    opinions: NDArray[np.float64]
    priorities: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Whom the agents of a shard know, and what those think, as compressed rows like an inbox; empty for `mixed`."""

    offsets: NDArray[np.int64]
    rows: NDArray[np.uint32]
    opinions: NDArray[np.float64]


class ShardView:
    """One shard before a step: copies of its columns in agent order, its inbox and its neighbours."""

    def __init__(self, field: Field, keys: TickKeys, *, shard: int, rows: NDArray[np.int64], inbox: Inbox) -> None:
        columns = field.columns
        self._field, self._keys = field, keys
        self.tick = keys.tick
        self.shard = shard
        self.rows = rows
        self.inbox = inbox
        self.id = columns.id[rows]
        self.type = columns.type[rows]
        self.alive = columns.alive[rows] == 1
        self.opinion: NDArray[np.float64] = columns.opinion[(keys.tick - 1) % 2][rows]
        self.bound: NDArray[np.float64] = columns.bound[rows]
        self.susceptibility: NDArray[np.float64] = columns.susceptibility[rows]
        self.activity: NDArray[np.float64] = columns.activity[rows]

    @property
    def state(self) -> NDArray[np.uint8]:
        """The bytes of the agents' own, shape (agents, state bytes); a copy, which `keep` writes back."""
        return self._field.columns.state[self.rows]

    def keep(self, state: NDArray[np.uint8]) -> None:
        """Write the agents' bytes back."""
        self._field.columns.state[self.rows] = state

    @property
    def memory(self) -> NDArray[np.uint8]:
        """The agents' working memory, shape (agents, memory bytes); a copy, which `keep_memory` writes back."""
        return self._field.columns.memory[self.rows]

    def keep_memory(self, memory: NDArray[np.uint8]) -> None:
        """Write the working memory back."""
        self._field.columns.memory[self.rows] = memory

    @property
    def metrics(self) -> NDArray[np.int64]:
        """The agents' metrics before this tick, shape (agents, metrics); the first ones are those of `KEPT_METRICS`."""
        return self._field.columns.metrics[self.rows]

    def keep_metrics(self, metrics: NDArray[np.int64]) -> None:
        """Write the metrics behind the first ones back, of as many columns as `metrics` has."""
        own = len(KEPT_METRICS)
        self._field.columns.metrics[self.rows, own:] = metrics[:, own:]

    @property
    def peers(self) -> NDArray[np.uint32]:
        """The rows of those whom the agents heard last before this tick, the latest first, shape (agents, peers); `NOBODY` where none."""
        return self._field.columns.peers[self.rows]

    @property
    def neighbours(self) -> Neighbours:
        """Whom these agents know, with their opinions before this tick."""
        graph = self._field.graph
        if graph is None:
            none = np.zeros(self.rows.size + 1, np.int64)
            return Neighbours(none, np.zeros(0, np.uint32), np.zeros(0, np.float64))
        first = graph.offsets[self.rows]
        count = graph.offsets[self.rows + 1] - first
        offsets = np.zeros(count.size + 1, np.int64)
        np.cumsum(count, out=offsets[1:])
        edges = np.arange(int(offsets[-1])) + np.repeat(first - offsets[:-1], count)
        rows = graph.targets[edges]
        return Neighbours(offsets, rows, self._field.columns.opinion[(self.tick - 1) % 2][rows])

    def uniform(self, number: int = 0) -> NDArray[np.float64]:
        """A random number from 0 to 1 for each agent; another `number` gives others."""
        bits = draw(mixed(self._keys.own + number), self.id) >> np.uint64(11)
        return bits.astype(np.float64) * 2.0**-53


def behaviour_class(name: str) -> Any:
    """The class `module:Class`, looked for in the working folder too. Raises `InvalidPopulationError`."""
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        # After the libraries, so that a file there is not taken for one of them.
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise _unmade(name, error) from error


def load_behaviour(name: str) -> Any:
    """An object of that class. Raises `InvalidPopulationError`."""
    made = behaviour_class(name)
    try:
        found = made()
    except Exception as error:
        raise _unmade(name, error) from error
    if not callable(getattr(found, "step", None)):
        raise InvalidPopulationError([FieldProblem("/behaviour", f"{name!r} has no method step")])
    return found


def _unmade(name: str, error: Exception) -> InvalidPopulationError:
    problem = f"cannot be made from {name!r}: {type(error).__name__}: {error}"
    return InvalidPopulationError([FieldProblem("/behaviour", problem)])


def inbox_of(
    who: NDArray[np.uint64],
    values: NDArray[np.float64],
    priorities: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    limit: int,
) -> tuple[Inbox, int]:
    """The inbox of these rows, of at most `limit` messages each (0: of all), and how many were refused for it."""
    recipients = (who >> _32).astype(np.int64)
    order = np.lexsort((who, priorities, recipients))
    recipients, who, values, priorities = recipients[order], who[order], values[order], priorities[order]
    refused = 0
    if limit and recipients.size:
        begins = np.flatnonzero(np.diff(recipients, prepend=-1))
        sizes = np.diff(begins, append=recipients.size)
        kept = np.arange(recipients.size) - np.repeat(begins, sizes) < limit
        refused = int(recipients.size - np.count_nonzero(kept))
        recipients, who, values, priorities = recipients[kept], who[kept], values[kept], priorities[kept]
    offsets = np.append(np.searchsorted(recipients, rows), recipients.size).astype(np.int64)
    return Inbox(offsets, (who & np.uint64(0xFFFFFFFF)).astype(np.uint32), values, priorities), refused


def checked_opinions(found: Any, view: ShardView, name: str) -> NDArray[np.float64]:
    """What a behaviour answered, if it is one finite opinion from 0 to 1 for each agent. Raises `BehaviourError`."""
    problem, agent = "", int(view.id[0]) if view.id.size else -1
    try:
        opinions = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        raise BehaviourError(
            behaviour=name, shard=view.shard, agent=agent, tick=view.tick, problem="step answered no array of numbers"
        ) from None
    if opinions.shape != view.opinion.shape:
        problem = f"step answered the shape {opinions.shape} for {view.opinion.shape}"
    else:
        wrong = np.flatnonzero(~((opinions >= 0.0) & (opinions <= 1.0)))
        if wrong.size:
            agent = int(view.id[wrong[0]])
            problem = f"step answered the opinion {float(opinions[wrong[0]])}, which is none from 0 to 1"
    if problem:
        raise BehaviourError(behaviour=name, shard=view.shard, agent=agent, tick=view.tick, problem=problem)
    return opinions
