"""What can go wrong with money and tokens: the call that is not made, because it could take more than may be spent."""

from __future__ import annotations

from typing import ClassVar

from domain.errors.conclave_error import ConclaveError

__all__ = ["BudgetExceededError"]


class BudgetExceededError(ConclaveError):
    """A call could take more than is left, so it is not made.

    `budget` names which: `max_cost_usd`, `max_total_tokens`, `key_day` or `key_month`. `limit`, `used` and `wanted` are tokens, or
    US dollars; `used` holds what calls in flight take at most.
    """

    slug: ClassVar[str] = "budget-exceeded"

    def __init__(self, *, budget: str, limit: float, used: float, wanted: float) -> None:
        unit = "tokens" if budget == "max_total_tokens" else "US dollars"
        super().__init__(
            f"the call may take {wanted:.6g} {unit}, and {used:.6g} of {limit:.6g} are used or held ({budget}): "
            "raise that limit, ask fewer agents or a cheaper model."
        )
        self.budget = budget
        self.limit = limit
        self.used = used
        self.wanted = wanted
