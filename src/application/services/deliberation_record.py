"""What a deliberation at work has on record: each round's start with what comes beside it, past a store that is away for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from application.ports.clock import Clock
from application.ports.deliberation_repository import Claim, Commit, Commits
from application.services.event_feed import EventFeed
from domain.errors.budget import BudgetExceededError
from domain.errors.deliberation import LeaseLostError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import Deliberation, WitnessSpan
from domain.witness.entry import Entry

__all__ = ["DeliberationRecord"]

_logger = logging.getLogger(__name__)
_TURNS_TO_FIRST_INTENTS = 4
_STORE_PAUSES_S = (0.05, 0.1, 0.25, 0.5, 1.0)


class DeliberationRecord:
    """Commits the entries of one deliberation, and tells whoever follows it of each commit."""

    def __init__(
        self, claim: Claim, *, commits: Commits, feed: EventFeed, clock: Clock, lost: Callable[[], None]
    ) -> None:
        """`lost` is called when another is found to work on it by now."""
        self._id = claim.deliberation.id
        self._lease = claim.lease
        self._commits = commits
        self._feed = feed
        self._clock = clock
        self._lost = lost
        self._is_store_away = False
        self._opening: asyncio.Task[bool] | None = None
        self._beside_opening: list[Entry] | None = None

    def open(
        self, entry: Entry, deadline: float, *, started: Deliberation | None = None, group: asyncio.TaskGroup
    ) -> None:
        """Have the start of a round committed in a task of that group.

        It is not waited for here, so that it shares a commit with the first intents.
        """
        self._beside_opening = []
        self._opening = group.create_task(self._open([entry], deadline, started))

    async def store(
        self, entries: Sequence[Entry], deadline: float, *, deliberation: Deliberation | None = None
    ) -> WitnessSpan | None:
        """Commit, waiting for a store that is away until the deadline (at least for some seconds) before giving up.

        Nothing is recorded of a round before it has started: what comes early goes with the start, or waits for it. Raises
        `DependencyUnavailableError`, `LeaseLostError` and `BudgetExceededError`.
        """
        if self._opening is not None:
            beside = self._beside_opening
            if beside is not None:
                beside += entries
            await asyncio.wait([self._opening])
            if self._opening.result() and beside is not None:
                return None
        return await self._append(entries, deadline, deliberation=deliberation)

    async def _open(self, opening: Sequence[Entry], deadline: float, started: Deliberation | None) -> bool:
        """Commit the start of a round, together with what comes within a few turns of the event loop; whether all of that could be."""
        for _ in range(_TURNS_TO_FIRST_INTENTS):
            await asyncio.sleep(0)
        beside, self._beside_opening = self._beside_opening or [], None
        try:
            await self._append([*opening, *beside], deadline, deliberation=started)
        except BudgetExceededError:
            await self._append(opening, deadline, deliberation=started)
            return False
        return True

    async def _append(
        self, entries: Sequence[Entry], deadline: float, *, deliberation: Deliberation | None
    ) -> WitnessSpan | None:
        commit = Commit(self._id, entries, deliberation, self._lease)
        give_up = max(deadline, self._clock.monotonic() + sum(_STORE_PAUSES_S))
        pauses = iter(_STORE_PAUSES_S)
        while True:
            try:
                span = await self._commits.append(commit)
                break
            except LeaseLostError:
                self._lost()
                raise
            except DependencyUnavailableError as error:
                pause = next(pauses, _STORE_PAUSES_S[-1])
                if self._clock.monotonic() + pause > give_up:
                    raise
                self._note_store(away=error)
                await asyncio.sleep(pause)
        self._note_store(away=None)
        self._feed.announce(self._id)
        return span

    def _note_store(self, *, away: DependencyUnavailableError | None) -> None:
        """Say that the store went away, or is back: once, however many agents meet it and however often it is tried."""
        if self._is_store_away is (away is not None):
            return
        self._is_store_away = away is not None
        facts = {"deliberation_id": self._id}
        if away is None:
            _logger.warning("the store is back, deliberation %s goes on", self._id, extra=facts)
        else:
            _logger.warning("the store is away, deliberation %s waits: %s", self._id, away, extra=facts)
