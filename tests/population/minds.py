"""Behaviours as users bring them, some of which do what no behaviour should; named by `tests.population.minds:Class`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infrastructure.population.own_behaviour import ShardView

__all__ = [
    "Average",
    "Bookkeeping",
    "Careless",
    "Deadly",
    "Eager",
    "Exact",
    "Interrupted",
    "Leaving",
    "Raising",
    "Remembering",
]

_TICK = 7


class Average:
    """Everybody takes the mean of what it was sent, and goes a random part of the way to what its neighbours think."""

    def step(self, view: ShardView) -> NDArray[np.float64]:
        """See `OwnBehaviour`."""
        found = view.opinion.copy()
        for agent in range(found.size):
            heard = view.inbox.opinions[view.inbox.offsets[agent] : view.inbox.offsets[agent + 1]]
            if heard.size:
                found[agent] = heard.mean()
        neighbours = view.neighbours
        ends = neighbours.offsets[1:]
        known = np.maximum(ends - neighbours.offsets[:-1], 1)
        sums = np.concatenate([np.zeros(1), np.cumsum(np.rint(neighbours.opinions * 2**39))])
        means = (sums[ends] - sums[neighbours.offsets[:-1]]) / known / 2**39
        return np.asarray(found + view.uniform() * 0.1 * (means - found))


class Remembering:
    """Counts in the agents' own bytes how often each was spoken to, and thinks that."""

    def step(self, view: ShardView) -> NDArray[np.float64]:
        """See `OwnBehaviour`."""
        state = view.state
        heard = np.diff(view.inbox.offsets).astype(np.uint8)
        state[:, 0] += heard
        view.keep(state)
        return np.asarray(state[:, 0] / 255.0)


class Exact:
    """Thinks how many messages it was handed, in hundredths."""

    def step(self, view: ShardView) -> NDArray[np.float64]:
        """See `OwnBehaviour`."""
        return np.asarray(np.diff(view.inbox.offsets) / 100.0)


class Leaving:
    """Wants the whole process to end in the middle."""

    def step(self, view: ShardView) -> NDArray[np.float64]:
        """See `OwnBehaviour`."""
        if view.tick == _TICK and view.shard == 1:
            sys.exit(3)
        return view.opinion


class Raising:
    """Breaks in the middle."""

    def step(self, view: ShardView) -> NDArray[np.float64]:
        """See `OwnBehaviour`."""
        if view.tick == _TICK and view.shard == 1:
            raise ZeroDivisionError("of the test")
        return view.opinion


class Careless:
    """Answers what is no opinion from the seventh tick on; CARELESS says what."""

    def step(self, view: ShardView) -> NDArray[np.float64]:
        """See `OwnBehaviour`."""
        if view.tick < _TICK:
            return view.opinion
        found = view.opinion.copy()
        what = os.environ["CARELESS"]
        if what == "shape":
            return found[:-1]
        if what == "text":
            return np.array(["a"] * found.size)
        found[3] = float(what)
        return found


class Deadly:
    """Kills its process in the middle of a tick, where DEADLY is set."""

    def step(self, view: ShardView) -> NDArray[np.float64]:
        """See `OwnBehaviour`."""
        if view.tick == int(os.environ.get("DEADLY", "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.asarray(view.opinion * 0.5 + view.uniform() * 0.5)


class Eager:
    """Asks the run to end before its first tick, where EAGER names a file that is not there yet: the first of all workers does."""

    def __init__(self) -> None:
        # The second signal would end the run at once.
        try:
            Path(os.environ["EAGER"]).touch(exist_ok=False)
        except (KeyError, FileExistsError):
            return
        own = sys.modules["__main__"].__spec__
        carries_shards = own is not None and own.name.endswith("shard_process")
        os.kill(os.getppid() if carries_shards else os.getpid(), signal.SIGTERM)

    def step(self, view: ShardView) -> NDArray[np.float64]:
        """See `OwnBehaviour`."""
        return view.opinion


class Interrupted:
    """Asks its process to end in the middle of a tick, where INTERRUPTED is set."""

    def step(self, view: ShardView) -> NDArray[np.float64]:
        """See `OwnBehaviour`."""
        # The second signal would end it at once.
        if view.tick == _TICK and view.id[0] == 0 and "INTERRUPTED" in os.environ:
            os.kill(os.getpid(), signal.SIGTERM)
        return view.opinion


class Bookkeeping:
    """Keeps in its working memory whom it heard last, counts its ticks in a metric of its own, and thinks what both come to."""

    def step(self, view: ShardView) -> NDArray[np.float64]:
        """See `OwnBehaviour`."""
        memory, metrics = view.memory, view.metrics
        last = np.where(view.peers[:, 0] == 2**32 - 1, 0, view.peers[:, 0])
        memory[:, :4] = last.astype("<u4").view(np.uint8).reshape(-1, 4)
        view.keep_memory(memory)
        metrics[:, 4] += 1
        # The first ones are not its own to write.
        metrics[:, 0] = -1
        view.keep_metrics(metrics)
        return np.asarray((last % 7 + view.metrics[:, 4] % 5) / 20.0)
