"""Keeps what each API key has spent in a day, within the transaction of an append."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, bindparam, func, select, text

from domain.models.money import KeyBudget
from domain.models.spending import Movement, spend
from infrastructure.persistence.tables import spending

__all__ = ["move"]

_OF = spending.c
# Made once, because making a statement takes longer than running it.
_USED = select(func.coalesce(func.sum(_OF.amount), 0)).where(
    _OF.key_name == bindparam("key"), _OF.day >= bindparam("first"), _OF.day <= bindparam("last")
)
_MOVE = text(
    "INSERT INTO spending (key_name, day, amount) VALUES (:key, :day, :amount) "
    "ON CONFLICT (key_name, day) DO UPDATE SET amount = spending.amount + excluded.amount"
)


def move(connection: Connection, movements: Iterable[Movement], budgets: Mapping[str, KeyBudget]) -> None:
    """Make these movements, in their order. Raises `BudgetExceededError` for the first that passes a budget.

    The end of the log is locked by now, so that nobody else spends the same money meanwhile.
    """

    def used(key_name: str, first: str, last: str) -> int:
        return int(connection.execute(_USED, {"key": key_name, "first": first, "last": last}).scalar_one())

    for (key_name, day), amount in spend(movements, budgets, used).items():
        if amount:
            connection.execute(_MOVE, {"key": key_name, "day": day, "amount": amount})
