"""Records the calls that compare the texts of a deliberation, as those of its agents are: held, intended, charged and ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

from application.ports.clock import Clock
from application.ports.model_desk import Forecast
from application.services.continuation import Course
from application.services.key_turns import KeyTurns
from application.services.shared_purse import SharedPurse
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation
from domain.models.money import Charge, Reservation, picodollars, usd
from domain.models.roll_call import AgentState
from domain.witness.entry import COMPARISON, NOBODY, Entry, call_intended, texts_compared

__all__ = ["MOST_COMPARISONS", "EmbeddingRecord"]

MOST_COMPARISONS = 2
"""How often the texts of a deliberation are embedded at most: the second time only where the process died that did it first."""

_PATIENCE_S = 30.0


class EmbeddingRecord:
    """See `CallRecord`: for one comparison of the texts of one round. What it returns from `starting` is committed.

    A call that another process intended, and of whose end nothing is recorded, may have taken all that it held.
    """

    def __init__(
        self,
        deliberation: Deliberation,
        *,
        round_number: int,
        course: Course,
        purse: SharedPurse,
        turns: KeyTurns,
        clock: Clock,
        store: Callable[[Sequence[Entry]], Awaitable[object]],
        may_call: Callable[[], Awaitable[bool]],
        called: Callable[[Usage], None],
        needs_price: bool = False,
    ) -> None:
        """`store` commits, `may_call` says whether a call may begin, and `called` is told what one took that is over.

        Where money is limited a call `needs_price`.
        """
        self._deliberation = deliberation
        self._round = round_number
        self._course = course
        self._purse = purse
        self._turns = turns
        self._clock = clock
        self._store = store
        self._may_call = may_call
        self._called = called
        self._needs_price = needs_price
        self._attempt = course.attempts(round_number, NOBODY)
        models = course.models(round_number, NOBODY)
        self._model = models[-1] if models else None
        self._usage = course.usage(round_number, NOBODY)
        self._charge = course.open_charge(round_number, NOBODY)
        self._failure: str | None = "interrupted" if self._attempt else None
        self._reservation: Reservation | None = None
        self.batch_id = str(uuid4())
        self.until: float | None = clock.monotonic() + _PATIENCE_S

    @property
    def key_name(self) -> str | None:
        """The name of the API key of the deliberation."""
        return self._deliberation.key_name

    @property
    def usage(self) -> Usage:
        """What all the calls took."""
        return self._usage

    async def reserve(self, forecast: Forecast) -> None:
        """Hold what the call may take. Raises `BudgetExceededError`, and `DependencyUnavailableError` where it may not be made."""
        if self._attempt >= MOST_COMPARISONS:
            raise self._refused(forecast, "its call was cut off before, each time with the process that made it")
        if self._needs_price and forecast.hold.cost is None:
            raise self._refused(
                forecast, "it has no known price, and money is limited", remedy="Give it a price in the providers file."
            )
        await self._require_leave(forecast)
        await self._purse.hold(forecast.hold)

    def give_back(self, forecast: Forecast) -> None:
        """The call is not made."""
        self._purse.settle(forecast.hold, tokens=0, cost=0)

    async def starting(self, forecast: Forecast) -> None:
        """Commit the intent. Raises as `reserve`, and where the API key has not enough left; then nothing is held any more."""
        try:
            # Waiting for leave takes its time, in which the door may have been closed.
            await self._require_leave(forecast)
            await self._intend(forecast)
        except BaseException:
            self.give_back(forecast)
            raise

    async def _intend(self, forecast: Forecast) -> None:
        deliberation, now = self._deliberation, self._clock.now()
        attempt = self._attempt + 1
        entry = call_intended(
            deliberation.id,
            at=now,
            round_number=self._round,
            agent_id=NOBODY,
            attempt=attempt,
            model=forecast.model,
            prompt=forecast.prompt,
            prompt_salt=deliberation.question_salt,
            hold=forecast.hold,
            previous=(AgentState.FAILED.value, "interrupted", self._course.last_usage(self._round, NOBODY))
            if self._attempt
            else None,
            purpose=COMPARISON,
        )
        day: str = entry.document["at"][:10]
        reservation = entry.reservation = Reservation(deliberation.key_name or "", day, forecast.hold)
        entry.charge = self._charge
        await self._turns.take(reservation.key_name, lambda: self._store_alone(entry))
        self._attempt, self._model, self._charge, self._reservation = attempt, forecast.model, None, reservation

    def ended(self, usage: Usage | None, *, failure: str | None = None) -> None:
        """Settle with the purse; what is to be recorded of it stands in `closing`."""
        reservation = self._reservation
        if reservation is None:
            return
        self._reservation = None
        hold = reservation.hold
        taken = usage
        if usage is not None:
            # A call that was refused was made all the same.
            usage = Usage(1, usage.input_tokens, usage.output_tokens, usage.cost_usd)
            tokens, cost = usage.total_tokens, None if hold.cost is None else picodollars(usage.cost_usd)
            self._called(usage)
        else:
            usage = Usage(1, uncertain_tokens=hold.tokens, uncertain_usd=usd(hold.cost or 0))
            tokens, cost = hold.tokens, hold.cost
        self._purse.settle(hold, tokens=tokens, cost=cost or 0)
        self._charge = Charge(
            self._attempt,
            self._model,
            0 if taken is None else taken.input_tokens,
            0 if taken is None else taken.output_tokens,
            cost,
            taken is not None,
            reservation,
        )
        self._usage += usage
        self._failure = failure
        self._turns.land(reservation.key_name)

    def closing(self) -> list[Entry]:
        """That it is over, as an entry to be committed with the end of the deliberation; nothing where nobody was to be asked."""
        if not self._attempt:
            return []
        entry = texts_compared(
            self._deliberation.id,
            at=self._clock.now(),
            round_number=self._round,
            attempt=self._attempt,
            model=self._model,
            usage=self._usage,
            failure=self._failure,
        )
        entry.charge = self._charge
        return [entry]

    async def _require_leave(self, forecast: Forecast) -> None:
        if not await self._may_call():
            raise self._refused(
                forecast, "no call may be made now, because the system is halted or the work is stopped"
            )

    async def _store_alone(self, entry: Entry) -> None:
        await self._store([entry])

    def _refused(self, forecast: Forecast, problem: str, *, remedy: str = "") -> DependencyUnavailableError:
        return DependencyUnavailableError(
            dependency=f"the embedding model {forecast.model!r}", problem=problem, remedy=remedy
        )
