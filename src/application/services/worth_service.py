"""Says what the result of an ended deliberation is worth, from its ballots and earlier ones of the same agents."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from application.ports.ballot_history import BallotHistory, Earlier
from application.ports.metrics import Metrics, NullMetrics
from application.ports.resolution_history import ResolutionHistory
from domain.analysis.past import PastBallots
from domain.analysis.worth import Worth, assess
from domain.models.deliberation import Deliberation

__all__ = ["MOST_EARLIER", "WorthService"]

MOST_EARLIER = 200
"""So many earlier deliberations are looked at, the latest."""

_KEPT_WORTHS = 256
_KEPT_BALLOTS = 2 * MOST_EARLIER
# Ballots that are assessed in about 3 ms, where a recount is cheap; more than that is done in a thread.
_SMALL = 60
_DEAR = 10
_FEW_OPTIONS = 4

_T = TypeVar("_T")


class WorthService:
    """What is said of a deliberation does not change: earlier ones are those that ended no later than it did.

    What takes more than 5 ms is computed in a thread. What was computed is kept for a while, and so are the ballots of earlier
    deliberations, so that the next one costs only its own. Belongs to one event loop.
    """

    def __init__(
        self, history: BallotHistory, *, metrics: Metrics | None = None, resolved: ResolutionHistory | None = None
    ) -> None:
        """`resolved` knows how earlier questions turned out; without it nobody is held against a truth."""
        self._resolved = resolved
        self._history = history
        self._metrics = metrics if metrics is not None else NullMetrics()
        self._worths: OrderedDict[tuple[str, bool], Worth] = OrderedDict()
        self._ballots: OrderedDict[str, PastBallots] = OrderedDict()

    async def of(self, deliberation: Deliberation) -> Worth | None:
        """What it is worth; None while it has not ended, and for one that is shown without its rounds.

        Raises `DependencyUnavailableError`.
        """
        if not deliberation.status.is_terminal or (deliberation.roll_call.asked and not deliberation.rounds):
            return None
        # Once its texts are erased, no name of a persona may be left.
        key = (deliberation.id, deliberation.erased)
        known = self._worths.get(key)
        if known is not None:
            return known
        past = await self._earlier(deliberation)
        worth = await self._assessed(deliberation, past)
        _keep(self._worths, key, worth, _KEPT_WORTHS)
        return worth

    async def note_end(self, deliberation: Deliberation) -> None:
        """Assess what just ended, and count its warnings once. Raises `DependencyUnavailableError`."""
        worth = await self.of(deliberation)
        if worth is not None and worth.agreement.is_warning:
            self._metrics.groupthink_warned()

    async def _assessed(self, deliberation: Deliberation, past: Sequence[PastBallots]) -> Worth:
        ballots = deliberation.roll_call.asked * (len(past) + 1)
        answer = deliberation.specification.question.answer
        # Estimates are counted exactly, as fractions, and rules that compare options by twos grow with their square or cube.
        dear = _DEAR if answer.kind.is_estimate or len(answer.options) > _FEW_OPTIONS else 1
        if ballots * dear <= _SMALL:
            return assess(deliberation, past)
        return await asyncio.to_thread(assess, deliberation, past)

    async def _earlier(self, deliberation: Deliberation) -> list[PastBallots]:
        """The latest ones, in the order of their end; none where there is no outcome to judge."""
        if deliberation.outcome is None or deliberation.finished_at is None:
            return []
        asked = Earlier(
            agent_id=deliberation.specification.roster.agents[0].id,
            key_name=deliberation.key_name,
            orchestrator=deliberation.orchestrator,
            until=deliberation.finished_at,
            besides=deliberation.id,
            limit=MOST_EARLIER,
        )
        ids = await self._history.earlier(asked)
        missing = [own for own in ids if own not in self._ballots]
        found = {each.deliberation_id: each for each in await self._history.ballots(missing)} if missing else {}
        past = [each for own in ids if (each := self._ballots.get(own) or found.get(own)) is not None]
        for each in past:
            _keep(self._ballots, each.deliberation_id, each, _KEPT_BALLOTS)
        if self._resolved is not None:
            # Only what was known at its end, so that what is said of it does not change.
            truths = await self._resolved.truths(ids, until=deliberation.finished_at)
            past = [
                each if (truth := truths.get(each.deliberation_id)) is None else replace(each, truth=truth)
                for each in past
            ]
        return sorted(past, key=lambda each: each.finished_at)


_K = TypeVar("_K")


def _keep(cache: OrderedDict[_K, _T], key: _K, value: _T, most: int) -> None:
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > most:
        cache.popitem(last=False)
