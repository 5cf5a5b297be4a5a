"""Sums up the ledger of calls and their charges in SQLite or Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Case,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    select,
)

from application.ports.usage_reader import MAX_USAGE_ITEMS, UsageBy, UsageItem
from domain.models.money import usd
from infrastructure.persistence.database import Database
from infrastructure.persistence.tables import calls, charges, deliberations

__all__ = ["SqlUsageReader"]

# SQLite sums up in 64 bits and fails beyond: at nine million dollars, if picodollars were summed up as they are.
_PART = 10**6


class SqlUsageReader:
    """`UsageReader` over one database: one statement for each answer, so that it is of one moment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        is_postgres = database.dialect.name == "postgresql"
        # The two databases have different names for where a text stands in another, and for the order of its code points.
        slash = (func.strpos if is_postgres else func.instr)(_MODEL, "/")
        self._statements = {by: _statement(by, slash, collation="C" if is_postgres else "BINARY") for by in UsageBy}

    async def usage(self, by: UsageBy, *, key_name: str | None, limit: int = MAX_USAGE_ITEMS) -> Sequence[UsageItem]:
        """As in `UsageReader`."""
        statement = self._statements[by]
        if key_name is not None:
            statement = statement.where(deliberations.c.key_name == bindparam("own"))
        values = {"own": key_name, "most": max(0, limit)}

        def read(connection: Connection) -> list[UsageItem]:
            return [_item(row) for row in connection.execute(statement, values)]

        return await self._database.read(read)


_MODEL = func.coalesce(charges.c.model, calls.c.model, "")
_IS_CERTAIN = func.coalesce(charges.c.is_certain, literal(False))


def _of_certain(value: ColumnElement[int]) -> Case[int]:
    return case((_IS_CERTAIN, func.coalesce(value, 0)), else_=0)


def _of_uncertain(value: ColumnElement[int | None]) -> Case[int]:
    return case((_IS_CERTAIN, 0), else_=func.coalesce(value, 0))


def _unpriced() -> Case[int]:
    return case(
        (and_(_IS_CERTAIN, charges.c.cost.is_(None)), 1), (and_(~_IS_CERTAIN, calls.c.held_cost.is_(None)), 1), else_=0
    )


def _statement(by: UsageBy, slash: ColumnElement[int], *, collation: str) -> Select[*tuple[Any, ...]]:
    keys: Mapping[UsageBy, ColumnElement[str]] = {
        UsageBy.DELIBERATION: calls.c.deliberation_id,
        UsageBy.KEY: func.coalesce(deliberations.c.key_name, ""),
        UsageBy.PROVIDER: case((slash > 0, func.substr(_MODEL, 1, slash - 1)), else_=""),
        UsageBy.MODEL: _MODEL,
        UsageBy.DAY: calls.c.day,
    }
    key = keys[by]
    cost, held_cost = _of_certain(charges.c.cost), _of_uncertain(calls.c.held_cost)
    sums = (
        func.count().label("calls"),
        func.sum(_of_certain(charges.c.input_tokens)).label("input_tokens"),
        func.sum(_of_certain(charges.c.output_tokens)).label("output_tokens"),
        func.sum(_of_uncertain(calls.c.held_tokens)).label("uncertain_tokens"),
        func.sum(_unpriced()).label("unpriced_calls"),
        *(
            func.sum(part).label(f"{name}_{place}")
            for name, amount in (("cost", cost), ("held", held_cost))
            for place, part in (("whole", amount // _PART), ("rest", amount % _PART))
        ),
    )
    same_call = and_(*(calls.c[column.name] == column for column in charges.primary_key))
    statement = (
        select(key.label("key"), *sums)
        .select_from(
            calls.outerjoin(charges, same_call).join(deliberations, deliberations.c.id == calls.c.deliberation_id)
        )
        .group_by(key)
        .limit(bindparam("most"))
    )
    if by is UsageBy.DAY:
        return statement.order_by(key.desc())
    if by is UsageBy.DELIBERATION:
        return statement.order_by(func.max(deliberations.c.position).desc())
    rest = cast(func.sum(cost % _PART), BigInteger)
    whole = cast(func.sum(cost // _PART), BigInteger) + rest // _PART
    return statement.order_by(whole.desc(), (rest % _PART).desc(), key.collate(collation))


def _item(row: Row[*tuple[Any, ...]]) -> UsageItem:
    found = row._mapping
    number = {name: int(value) for name, value in found.items() if name != "key"}
    return UsageItem(
        str(found["key"]),
        number["calls"],
        number["input_tokens"],
        number["output_tokens"],
        usd(number["cost_whole"] * _PART + number["cost_rest"]),
        usd(number["held_whole"] * _PART + number["held_rest"]),
        number["uncertain_tokens"],
        number["unpriced_calls"],
    )
