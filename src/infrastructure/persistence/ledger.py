"""Reads the ledger of calls within a transaction of the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, select

from application.ports.deliberation_repository import LedgerCall
from infrastructure.persistence.tables import calls

__all__ = ["read_ledger", "read_ledgers"]

_OF = calls.c
# Made once, because making a statement takes longer than running it.
_COLUMNS = (_OF.round_number, _OF.agent_id, _OF.purpose, _OF.attempt, _OF.prompt_sha256, _OF.leaf_index)
_CALLS = select(*_COLUMNS).where(_OF.deliberation_id == bindparam("own")).order_by(_OF.leaf_index)
_THEIR_CALLS = (
    select(_OF.deliberation_id, *_COLUMNS)
    .where(_OF.deliberation_id.in_(bindparam("these", expanding=True)))
    .order_by(_OF.leaf_index)
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
