"""Reads the ledger of calls within a transaction of the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select

from application.ports.deliberation_repository import LedgerCall, LedgerCharge
from domain.models.money import Charge
from infrastructure.persistence.tables import calls, charges

__all__ = ["charge_values", "read_charges", "read_ledger", "read_ledgers"]

_OF = calls.c
# Made once, because making a statement takes longer than running it.
_COLUMNS = tuple(column for column in calls.c if column is not _OF.deliberation_id)
_CALLS = select(*_COLUMNS).where(_OF.deliberation_id == bindparam("own")).order_by(_OF.leaf_index)
_THEIR_CALLS = (
    select(_OF.deliberation_id, *_COLUMNS)
    .where(_OF.deliberation_id.in_(bindparam("these", expanding=True)))
    .order_by(_OF.leaf_index)
)


_CHARGES = select(charges).where(charges.c.deliberation_id.in_(bindparam("these", expanding=True)))


def charge_values(charge: Charge, document: Mapping[str, Any]) -> tuple[Any, ...]:
    """The row of `charges` but for the deliberation, of a charge that is made with this entry, an intent or the end of an agent."""
    return (
        document["round"],
        document["agent_id"],
        document.get("purpose", "answer"),
        charge.attempt,
        charge.model,
        charge.input_tokens,
        charge.output_tokens,
        charge.cost,
        charge.is_certain,
    )


def read_ledger(connection: Connection, deliberation_id: str) -> list[LedgerCall]:
    """Every call that was intended in a deliberation, in the order of the log."""
    return [LedgerCall(*row) for row in connection.execute(_CALLS, {"own": deliberation_id})]


def read_ledgers(connection: Connection, deliberation_ids: Sequence[str]) -> Mapping[str, Sequence[LedgerCall]]:
    """The ledger of each of these, by deliberation."""
    found: dict[str, list[LedgerCall]] = {own: [] for own in deliberation_ids}
    for own, *call in connection.execute(_THEIR_CALLS, {"these": list(deliberation_ids)}):
        found[own].append(LedgerCall(*call))
    return found


def read_charges(connection: Connection, deliberation_ids: Sequence[str]) -> Mapping[str, Sequence[LedgerCharge]]:
    """What the calls of each of these took that are over, by deliberation; nothing for one without such calls."""
    found: dict[str, list[LedgerCharge]] = {}
    for own, *charge in connection.execute(_CHARGES, {"these": list(deliberation_ids)}):
        found.setdefault(own, []).append(LedgerCharge(*charge))
    return found
