"""A batch: the agents asked at one time, with the one deadline and the one way to stop them all."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from application.ports.agent_orchestrator import AgentRequest
from application.ports.model_desk import Forecast
from domain.models.agent_output import AgentFailure, AgentOutput
from domain.models.budget import Usage
from domain.models.money import usd
from domain.models.roll_call import AgentState

__all__ = ["AttemptEnd", "Batch", "BatchObserver", "CallEnd", "ConcurrentResult", "Holding", "StopCause", "Stoppable"]

_CLOCK_TOLERANCE_S = 1e-6


class StopCause(Enum):
    """Why a batch was stopped before its agents had ended: the state, kind and message that they end with."""

    CANCELLED = (AgentState.CANCELLED, "cancelled", "the deliberation was cancelled")
    HALTED = (AgentState.HALTED, "halted", "the system was halted")
    SUSPENDED = (AgentState.CANCELLED, "suspended", "this process works on it no longer; another goes on with it")
    MISTRUSTED = (
        AgentState.FAILED,
        "ledger_mismatch",
        "the ledger of calls is not what the log says, so nobody was called",
    )

    @property
    def state(self) -> AgentState:
        """How the roll call counts an agent that was stopped so."""
        return self.value[0]


# Not frozen, because a frozen one takes three times as long to make, and there is one for each call.
@dataclass(slots=True)
class CallEnd:
    """A call that is over: which attempt it was, what it was to take at most, and what it took, None where nobody knows."""

    attempt: int
    forecast: Forecast
    usage: Usage | None

    @property
    def counted(self) -> Usage:
        """What it took as it is counted: where nobody knows, all that it may have taken, set apart."""
        if self.usage is not None:
            return self.usage
        hold = self.forecast.hold
        return Usage(1, uncertain_tokens=hold.tokens, uncertain_usd=usd(hold.cost or 0))


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended after which another one is made, and the call that it was."""

    state: AgentState
    kind: str
    call: CallEnd | None = None


class BatchObserver(Protocol):
    """Is told about each agent of a batch, and is waited for: this is where outcomes are recorded before they are seen."""

    async def reserve(self, request: AgentRequest, forecast: Forecast, previous: AttemptEnd | None = None) -> None:
        """Keep what a call may take at most, once what the `previous` one held is settled.

        Raises `BudgetExceededError` where it may not be made.
        """
        ...

    def give_back(self, forecast: Forecast) -> None:
        """What was kept for a call is free again: the call is not made."""
        ...

    async def agent_starting(
        self, request: AgentRequest, forecast: Forecast, previous: AttemptEnd | None = None
    ) -> None:
        """The agent has its slot and is about to be called; `previous` is how its attempt before this one ended.

        Raises `BudgetExceededError` where the call may not be made; what was kept for it is free again then.
        """
        ...

    async def agent_ended(
        self, request: AgentRequest, ending: AgentOutput | AgentFailure, last: CallEnd | None = None
    ) -> AgentState:
        """The agent ended, `last` being its last call; returns how the roll call counts it, once that is recorded."""
        ...


class Holding(Protocol):
    """Knows until when this process is the one that may call, without asking the store."""

    def is_certain(self) -> bool:
        """Whether it is now. An intent that was recorded in time is no leave to call long after."""
        ...

    async def renew(self) -> None:
        """Ask the store; where another has taken over, the batch is stopped when this returns. One that is away is asked again."""
        ...


class Stoppable(Protocol):
    """An agent at work. `is_calling` says whether a call of it is in flight now."""

    is_calling: bool

    def stop(self) -> None:
        """End it now; stopping again changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class ConcurrentResult:
    """What became of a batch: every request is either among the outputs or among the failures, in the order asked."""

    batch_id: str
    outputs: tuple[AgentOutput, ...]
    failures: tuple[AgentFailure, ...]
    total_ms: float
    started_at: datetime
    completed_at: datetime

    @property
    def failed_agents(self) -> tuple[str, ...]:
        """The ids of the agents that failed."""
        return tuple(failure.agent_id for failure in self.failures)

    @property
    def success_count(self) -> int:
        """How many agents gave an output."""
        return len(self.outputs)

    @property
    def failure_count(self) -> int:
        """How many agents failed."""
        return len(self.failures)

    @property
    def total_count(self) -> int:
        """How many agents were asked."""
        return len(self.outputs) + len(self.failures)


class Batch:
    """Can be stopped at any time; every agent still at work then ends with the cause, and those that ended keep their end.

    One timer serves all agents, where `asyncio.timeout` would set and cancel one or two for each: mostly they began in the order in
    which their limits fall due, because they all have the same time.
    """

    __slots__ = ("_due", "_limits", "_timer", "agent_timeout_s", "cause", "deadline", "halt_reason", "holding", "id")

    def __init__(
        self,
        batch_id: str,
        *,
        agent_timeout_s: float,
        deadline: float | None = None,
        holding: Holding | None = None,
    ) -> None:
        """Without a `holding` no other process can ever take over."""
        self.holding = holding
        self.id = batch_id
        self.agent_timeout_s = agent_timeout_s
        self.deadline = deadline
        self.cause: StopCause | None = None
        # Where an agent was told of the halt, and not the channels.
        self.halt_reason: str | None = None
        self._due: dict[Stoppable, None] = {}
        self._limits: dict[Stoppable, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def stop(self, cause: StopCause) -> None:
        """End every agent that has not ended. The first cause stands; stopping again changes nothing."""
        if self.cause is None:
            self.cause = cause
        for agent in list(self._due):
            agent.stop()

    def wind_down(self, cause: StopCause) -> None:
        """End every agent that is not being called now, and let no other call begin; calls in flight may be finished."""
        if self.cause is None:
            self.cause = cause
            for agent in list(self._due):
                if not agent.is_calling:
                    agent.stop()

    def enter(self, agent: Stoppable) -> None:
        """Let `stop` and the deadline reach this agent from now on."""
        self._due[agent] = None
        if self.cause is not None:
            agent.stop()
        elif self.deadline is not None and self._timer is None:
            self._set_timer(self.deadline)

    def start_clock(self, agent: Stoppable, began: float, *, left_s: float | None = None) -> None:
        """The agent's own time, `agent_timeout_s` seconds or what is left of it, runs from `began` on."""
        limit = began + (self.agent_timeout_s if left_s is None else left_s)
        self._limits[agent] = limit
        if self._timer is None:
            self._set_timer(limit)
        elif (len(self._limits) == 1 or left_s is not None) and limit < self._timer.when():
            self._timer.cancel()
            self._set_timer(limit)

    def stop_clock(self, agent: Stoppable, now: float) -> float:
        """The agent's own time stands still while it waits for leave to call; returns the seconds that are left of it."""
        return max(self._limits.pop(agent, now + self.agent_timeout_s) - now, 0.0)

    def end_of(self, agent: Stoppable) -> float:
        """The loop time at which this agent is stopped at the latest."""
        limit = self._limits.get(agent, math.inf)
        return limit if self.deadline is None else min(limit, self.deadline)

    def is_due(self, now: float) -> bool:
        """Whether the deadline has come at that loop time: nobody is called from then on."""
        return self.deadline is not None and self.deadline <= now + _CLOCK_TOLERANCE_S

    def leave(self, agent: Stoppable) -> None:
        """The agent ended."""
        self._due.pop(agent, None)
        self._limits.pop(agent, None)
        if not self._due and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, when: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(when, self._fall_due)

    def _fall_due(self) -> None:
        self._timer = None
        # A timer may fire up to one clock resolution early; whoever is that close is due as well.
        now = asyncio.get_running_loop().time()
        if self.is_due(now):
            for agent in self._due:
                agent.stop()
            return
        now += _CLOCK_TOLERANCE_S
        for agent, limit in list(self._limits.items()):
            if limit <= now:
                del self._limits[agent]
                agent.stop()
        nearest = min(self._limits.values(), default=math.inf)
        if self.deadline is not None:
            nearest = min(nearest, self.deadline)
        if self._due and nearest < math.inf:
            self._set_timer(nearest)
