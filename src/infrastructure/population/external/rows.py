"""Rows of a population that other processes speak for, over a message bus: what they are told goes out, what they think comes in."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from application.ports.population_engine import Access
from domain.errors.deliberation import FieldProblem
from domain.errors.population import InvalidPopulationError
from domain.models.run import JsonValue
from infrastructure.population.attachment import Host
from infrastructure.population.external.letters import Heard
from infrastructure.population.external.post import Partner, Post
from infrastructure.population.external.speech import Speech
from infrastructure.population.mover import Mover

__all__ = ["ExternalRows"]

_MICRO_BATCH = 4_000
# Exchanges whose times are told apart.
_REMEMBERED = 10_000
_NEVER_ADOPTS = 2.0


class ExternalRows:
    """See `Attachment`. The first `external` rows hold the opinions that their partners last said, and no rule moves them.

    They speak and are spoken to like everybody. A run with them cannot be repeated: what comes in depends on others and on the clock.
    """

    name = "external"
    access: Access | None = None

    def __init__(self, host: Host, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """Open the bus. Raises `BusError`, and `InvalidPopulationError` where there is no bus."""
        spec = host.spec
        if host.open_bus is None:
            raise InvalidPopulationError([FieldProblem("/external", "needs a bus, and this population was given none")])
        self._spec = spec
        self._columns = host.columns
        self._mover = host.mover or Mover(host.columns)
        self._clock = clock
        self._speech = Speech(spec, host.columns, host.graph, host.rest, rows=spec.external)
        self._held = host.columns.opinion[0][: spec.external].copy()
        self._keep_still()
        names = spec.external_to.split(",")
        edges = np.linspace(0, spec.external, len(names) + 1).astype(np.int64).tolist()
        self._partners = [
            Partner(name, first, last) for name, first, last in zip(names, edges, edges[1:], strict=False)
        ]
        self._batches = 0
        self._exchange_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._began = self._ended = clock()
        self._post = Post(host.open_bus, self._partners)

    def after_tick(self, tick: int) -> bool:
        """See `Attachment`."""
        began = self._clock()
        if not self._exchange_s:
            self._began = began
        letters = self._letters(tick)
        for _, said in self._post.exchange(tick, letters, self._spec.external_deadline_s):
            self._held[said.rows] = said.opinions
        self._ended = self._clock()
        self._exchange_s.append(self._ended - began)
        now = self._columns.opinion[tick % 2][: self._spec.external]
        rows = np.flatnonzero((now != self._held) & (self._columns.alive[: now.size] == 1))
        self._mover.move(tick, rows, self._held[rows])
        # On the grid, as they are kept.
        self._held[rows] = now[rows]
        return False

    def columns(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Nothing beside their opinions."""
        return iter(())

    def restore(self, found: Mapping[str, NDArray[Any]], tick: int) -> None:
        """See `Attachment`."""
        if found:
            raise ValueError("external rows keep no columns")
        self._held = self._columns.opinion[tick % 2][: self._spec.external].copy()
        self._keep_still()

    def document(self) -> Mapping[str, JsonValue]:
        """See `Attachment`."""
        took = sorted(self._exchange_s)
        went = sum(one.delivered for one in self._partners)
        came = sum(one.applied for one in self._partners)
        wall = self._ended - self._began
        return {
            "rows": self._spec.external,
            "bus": self._spec.bus,
            "reproducible": False,
            "why": "what other processes say, and when, is not part of the seed",
            "partners": [one.document() for one in self._partners],
            "away": [one.name for one in self._partners if one.away],
            "micro_batches": self._batches,
            "messages_per_second": (went + came) / wall if wall > 0 else None,
            "exchange_ms": {
                "p50": took[len(took) // 2] * 1e3 if took else None,
                "max": took[-1] * 1e3 if took else None,
            },
        }

    def close(self) -> None:
        """See `Attachment`."""
        self._post.close()

    def _keep_still(self) -> None:
        """Let no built-in rule move them."""
        columns, rows = self._columns, slice(0, self._spec.external)
        columns.susceptibility[rows] = 0.0
        if self._spec.behaviour == "threshold":
            columns.bound[rows] = _NEVER_ADOPTS

    def _letters(self, tick: int) -> dict[str, list[Heard]]:
        rows, senders = self._speech.of(tick)
        opinions = self._columns.opinion[(tick - 1) % 2][senders]
        found: dict[str, list[Heard]] = {}
        for partner in self._partners:
            first, last = np.searchsorted(rows, [partner.first, partner.last])
            # Nothing said is said too, so that every partner knows the tick.
            begins = range(int(first), max(int(last), int(first) + 1), _MICRO_BATCH)
            found[partner.name] = [
                Heard(
                    tick,
                    rows[begin : min(begin + _MICRO_BATCH, last)],
                    senders[begin : min(begin + _MICRO_BATCH, last)],
                    opinions[begin : min(begin + _MICRO_BATCH, last)],
                    last=begin == begins[-1],
                )
                for begin in begins
            ]
            self._batches += len(found[partner.name])
        return found
