"""A purse: what one deliberation may still take, every call held against it before it is made."""

from __future__ import annotations

from domain.errors.budget import BudgetExceededError
from domain.models.budget import Limits
from domain.models.money import Hold, picodollars, usd

__all__ = ["Purse"]


class Purse:
    """Tokens and picodollars of one deliberation. What is spent and held together never exceeds its limits.

    A call holds the most that it can take, and settles for what it took. One whose end nobody knows keeps all that it held.
    """

    __slots__ = (
        "_cost_held",
        "_cost_limit",
        "_cost_spent",
        "_token_limit",
        "_tokens_held",
        "_tokens_spent",
        "calls_held",
    )

    def __init__(self, limits: Limits, *, tokens_spent: int = 0, cost_spent: int = 0) -> None:
        self._token_limit = limits.max_total_tokens
        self._cost_limit = picodollars(limits.max_cost_usd)
        self._tokens_spent = tokens_spent
        self._cost_spent = cost_spent
        self._tokens_held = 0
        self._cost_held = 0
        self.calls_held = 0

    @property
    def tokens_used(self) -> int:
        """Spent or held."""
        return self._tokens_spent + self._tokens_held

    @property
    def cost_used(self) -> int:
        """Picodollars spent or held."""
        return self._cost_spent + self._cost_held

    def lacks(self, hold: Hold, *, at_best: bool = False) -> BudgetExceededError | None:
        """Why the call cannot be made now; `at_best`: even if nothing that is held were taken."""
        tokens = self._tokens_spent if at_best else self.tokens_used
        if tokens + hold.tokens > self._token_limit:
            return BudgetExceededError(
                budget="max_total_tokens", limit=self._token_limit, used=tokens, wanted=hold.tokens
            )
        cost = self._cost_spent if at_best else self.cost_used
        if hold.cost and cost + hold.cost > self._cost_limit:
            return BudgetExceededError(
                budget="max_cost_usd", limit=usd(self._cost_limit), used=usd(cost), wanted=usd(hold.cost)
            )
        return None

    def try_hold(self, hold: Hold) -> BudgetExceededError | None:
        """Keep so much for a call; or why that is too much, then nothing is held."""
        problem = self.lacks(hold)
        if problem is not None:
            return problem
        self._tokens_held += hold.tokens
        self._cost_held += hold.cost or 0
        self.calls_held += 1
        return None

    def settle(self, hold: Hold, *, tokens: int, cost: int) -> None:
        """The call took so much of what it held; more than that, where its provider counts otherwise, is spent all the same."""
        self._tokens_held -= hold.tokens
        self._cost_held -= hold.cost or 0
        self._tokens_spent += tokens
        self._cost_spent += cost
        self.calls_held -= 1
