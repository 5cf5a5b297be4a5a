"""What API keys spend by the day, and the budgets that refuse a call before it could pass them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from domain.errors.budget import BudgetExceededError
from domain.models.money import Charge, KeyBudget, Reservation, usd

__all__ = ["EVERYBODY", "Movement", "budget_of", "spend"]

EVERYBODY = "*"
"""The name under which the budget of all keys stands that have none of their own."""


@dataclass(frozen=True, slots=True)
class Movement:
    """Picodollars that a key's day is changed by: what a call reserves, which a budget may refuse, or the difference to what one took."""

    key_name: str
    day: str
    amount: int
    is_reservation: bool

    @classmethod
    def of(cls, reservation: Reservation | None, charge: Charge | None) -> list[Movement]:
        """What an entry moves: first what the call before took, then what the next one reserves."""
        moves: list[Movement] = []
        if charge is not None and charge.is_certain:
            kept = charge.reserved
            change = (charge.cost or 0) - (kept.hold.cost or 0)
            if change:
                moves.append(cls(kept.key_name, kept.day, change, is_reservation=False))
        if reservation is not None and reservation.hold.cost:
            moves.append(cls(reservation.key_name, reservation.day, reservation.hold.cost, is_reservation=True))
        return moves


def budget_of(budgets: Mapping[str, KeyBudget], key_name: str) -> KeyBudget | None:
    """The budget of that key: its own, else that of everybody."""
    return budgets.get(key_name, budgets.get(EVERYBODY))


def spend(
    movements: Iterable[Movement], budgets: Mapping[str, KeyBudget], used: Callable[[str, str, str], int]
) -> dict[tuple[str, str], int]:
    """By how much each key's day changes with these movements, made in their order.

    `used` says what a key has spent or held before them, from one day to another (YYYY-MM-DD, both included). Raises
    `BudgetExceededError` for the first reservation that passes a budget.
    """
    changes: dict[tuple[str, str], int] = {}
    before: dict[tuple[str, str, str], int] = {}
    for moved in movements:
        budget = budget_of(budgets, moved.key_name) if moved.is_reservation else None
        if budget is not None:
            month = moved.day[:7]
            for name, limit, first, last in (
                ("key_day", budget.day, moved.day, moved.day),
                # Days compare as texts as they do in time, and no month has more than 31.
                ("key_month", budget.month, f"{month}-01", f"{month}-31"),
            ):
                if limit is None:
                    continue
                place = (moved.key_name, first, last)
                if place not in before:
                    before[place] = used(*place)
                here = (
                    change for (key, day), change in changes.items() if key == moved.key_name and first <= day <= last
                )
                taken = before[place] + sum(here)
                if taken + moved.amount > limit:
                    raise BudgetExceededError(budget=name, limit=usd(limit), used=usd(taken), wanted=usd(moved.amount))
        turn = (moved.key_name, moved.day)
        changes[turn] = changes.get(turn, 0) + moved.amount
    return changes
