"""What the agents of a swarm do, as a port, and the coin flip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from domain.models.message import Payload
from domain.models.swarm import COIN_FLIP, HEADS, TAILS, Coin, SwarmPlan

__all__ = ["UNLIMITED", "AgentRefusedError", "CoinFlip", "SwarmTask", "TaskTerms"]

# So many agents of one instance act at once as there are.
UNLIMITED = 1_000_000


class AgentRefusedError(Exception):
    """An agent ended without a result, for a reason that its task knows; `kind` is short and machine-readable.

    `final` says that asking again cannot help.
    """

    def __init__(self, message: str, *, kind: str, final: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.final = final


@dataclass(frozen=True, slots=True)
class TaskTerms:
    """The rules that a task declares, which Safety holds its results to."""

    name: str
    # The agents are called this, a hyphen and their number.
    agent: str
    # The group that results are sent to, and the type of the message that carries one.
    group: str
    result_type: str
    # None: any JSON value.
    allowed: frozenset[str] | None = None
    # Whether an agent that acts twice comes to the same result both times.
    repeatable: bool = False

    def agent_id(self, number: int) -> str:
        """The id of that agent, which ends in its number."""
        return f"{self.agent}-{number}"


class SwarmTask(Protocol):
    """One task, as one instance of the swarm carries it out."""

    @property
    def terms(self) -> TaskTerms:
        """The rules of its results."""
        ...

    @property
    def slots(self) -> int:
        """How many agents of this instance can act at once."""
        ...

    async def perform(self, number: int, item: str | None) -> Payload:
        """The result of that agent, a JSON value. Whatever it raises, that agent failed with it, and may be asked once more.

        `AgentRefusedError` says why in the task's own words. `asyncio.CancelledError` without being cancelled is the agent's death.
        """
        ...

    async def close(self) -> None:
        """End what still goes on."""
        ...


class CoinFlip:
    """Each agent flips a fair coin once; the seed and the agent's number fix how it falls, wherever the agent is."""

    terms = TaskTerms(
        COIN_FLIP,
        agent="coin-agent",
        group="coin_group",
        result_type="coin_result",
        allowed=frozenset({HEADS, TAILS}),
        repeatable=True,
    )
    slots = UNLIMITED

    def __init__(self, plan: SwarmPlan) -> None:
        self._seed = plan.seed

    async def perform(self, number: int, item: str | None) -> Payload:  # noqa: ARG002 - as the port has it
        """`heads` or `tails`."""
        return Coin(self._seed, number).flip()

    async def close(self) -> None:
        """Nothing goes on."""
