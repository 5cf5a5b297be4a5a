"""Names what stands in the way of what is appended, which the message of a database does not tell reliably."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select, tuple_

from application.ports.deliberation_repository import CallKey
from domain.errors.deliberation import (
    CallExistsError,
    DeliberationEndedError,
    DeliberationExistsError,
    DeliberationNotFoundError,
    LeaseLostError,
    RecordExistsError,
)
from infrastructure.persistence.appending import Appending
from infrastructure.persistence.leases import UNFINISHED
from infrastructure.persistence.tables import agent_records, calls, deliberations, witness_entries

__all__ = ["is_stored", "refuse_repeated"]

# Made once, because making a statement takes longer than running it.
_STANDING = select(deliberations.c.status, deliberations.c.lease_owner).where(deliberations.c.id == bindparam("own"))


def is_stored(connection: Connection, item: Appending) -> bool:
    """Whether an earlier try of the same call was committed after all."""
    first = next((appended.entry for appended in item.entries), None)
    own = item.deliberation_id
    if first is None:
        return False
    if first.data is None:
        # An end is stored with its deliberation, which ends once.
        status = connection.execute(select(deliberations.c.status).where(deliberations.c.id == own)).scalar()
        return status is not None and status == first.document["status"]
    same = select(witness_entries.c.idx).where(
        witness_entries.c.deliberation_id == own, witness_entries.c.leaf_hash == first.leaf
    )
    return connection.execute(same).first() is not None


def refuse_repeated(connection: Connection, item: Appending) -> None:
    """Returns where nothing stands in its way, or where it is stored already although that was in doubt.

    Raises `DeliberationExistsError`, `RecordExistsError`, `CallExistsError`, `LeaseLostError`, `DeliberationEndedError` and
    `DeliberationNotFoundError`.
    """
    own = item.deliberation_id
    if item.addition is not None:
        if connection.execute(select(deliberations.c.id).where(deliberations.c.id == own)).first() is not None:
            raise DeliberationExistsError(deliberation_id=own)
        return
    if item.doubtful and is_stored(connection, item):
        return
    _refuse_closed(connection, item)
    _refuse_repeated_calls(connection, item)
    places = item.places()
    if not places:
        return
    place = tuple_(agent_records.c.round_number, agent_records.c.agent_id)
    stored = select(agent_records.c.round_number, agent_records.c.agent_id).where(
        agent_records.c.deliberation_id == own, place.in_(places)
    )
    repeated = {(number, agent_id) for number, agent_id in connection.execute(stored)}
    for at, (round_number, agent_id) in enumerate(places):
        if (round_number, agent_id) in repeated or (round_number, agent_id) in places[:at]:
            raise RecordExistsError(deliberation_id=own, round_number=round_number, agent_id=agent_id)


def _refuse_closed(connection: Connection, item: Appending) -> None:
    """What has ended, or is another's, says so first: what the other has stored since is no business of this one."""
    own = item.deliberation_id
    found = connection.execute(_STANDING, {"own": own}).first()
    if found is None:
        raise DeliberationNotFoundError(deliberation_id=own)
    if found.status not in UNFINISHED:
        raise DeliberationEndedError(deliberation_id=own, status=found.status)
    if item.lease is not None and found.lease_owner != item.lease:
        raise LeaseLostError(deliberation_id=own, lease=item.lease)


def _refuse_repeated_calls(connection: Connection, item: Appending) -> None:
    intended = item.calls()
    if not intended:
        return
    key = tuple_(calls.c.round_number, calls.c.agent_id, calls.c.purpose, calls.c.attempt)
    question = select(calls.c.round_number, calls.c.agent_id, calls.c.purpose, calls.c.attempt)
    stored = question.where(
        calls.c.deliberation_id == item.deliberation_id, key.in_([tuple(each) for each in intended])
    )
    repeated = {CallKey(*row) for row in connection.execute(stored)}
    for at, each in enumerate(intended):
        if each in repeated or each in intended[:at]:
            raise CallExistsError(
                deliberation_id=item.deliberation_id,
                round_number=each.round_number,
                agent_id=each.agent_id,
                attempt=each.attempt,
            )
