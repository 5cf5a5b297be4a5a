"""What nobody may pay for twice, held against every adapter: the ledger of calls, and the fence before whoever lost a lease."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from application.ports.deliberation_repository import Claim, Commit
from domain.errors.deliberation import (
    CallExistsError,
    DeliberationEndedError,
    DeliberationNotFoundError,
    LeaseLostError,
)
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import Deliberation
from domain.witness.entry import Entry, accepted, call_intended, commitment
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from tests.deliberation_specimens import NOON, committing, deliberation, ended, intent, opening, record, started
from tests.integration.contracts.store import LEASE_S, Repository, Store

_SALT = bytes(range(16))


def _call(
    deliberation_id: str, agent: int, *, attempt: int = 1, prompt: str | None = "Think.", seconds: float = 0.0
) -> Entry:
    return call_intended(
        deliberation_id,
        at=NOON + timedelta(seconds=seconds),
        round_number=0,
        agent_id=f"archon-{agent}",
        attempt=attempt,
        model=None,
        prompt=prompt,
        prompt_salt=_SALT,
    )


async def _held(store: Store, lease: str) -> Deliberation:
    new = deliberation()
    await store.repository.add(new, accepted(new), lease=lease, lease_s=LEASE_S)
    running = started(new)
    await store.repository.append(replace(opening(running), lease=lease))
    return running


async def _take_over(store: Store, deliberation_id: str, lease: str, repository: Repository | None = None) -> Claim:
    store.clock.advance(LEASE_S + 1)
    claim = await (repository or store.repository).claim(deliberation_id, lease=lease, lease_s=LEASE_S)
    assert claim is not None
    return claim


async def _ledger(store: Store, deliberation_id: str, lease: str = "reader/1") -> Sequence[Any]:
    return (await _take_over(store, deliberation_id, lease)).calls


async def test_whoever_holds_it_appends(store: Store) -> None:
    running = await _held(store, "me/1")
    await store.repository.append(replace(committing(running.id, [intent(0)], [record(1)]), lease="me/1"))
    over = ended(running, [record(1)])
    span = await store.repository.append(replace(committing(running.id, deliberation=over), lease="me/1"))
    found = await store.repository.get(running.id)
    assert found is not None
    assert (found, found.witness) == (over, span)


async def test_an_append_under_a_lease_that_another_took_over_stores_nothing(store: Store) -> None:
    running = await _held(store, "me/1")
    another = await store.open_another()
    await _take_over(store, running.id, "you/1", another)
    over = ended(running, [record(0)])
    for late in (
        committing(running.id, [intent(0)]),
        committing(running.id, records=[record(0)]),
        committing(running.id, (), [record(0)], over),
    ):
        with pytest.raises(LeaseLostError) as refusal:
            await store.repository.append(replace(late, lease="me/1"))
        assert (refusal.value.deliberation_id, refusal.value.lease) == (running.id, "me/1")
    assert await store.sequences(running.id) == [1, 2]
    await another.append(replace(committing(running.id, [intent(0)]), lease="you/1"))
    assert await store.sequences(running.id) == [1, 2, 3]


async def test_an_append_under_a_lease_that_was_released_stores_nothing(store: Store) -> None:
    running = await _held(store, "me/1")
    await store.repository.release({running.id: "me/1"})
    with pytest.raises(LeaseLostError):
        await store.repository.append(replace(committing(running.id, [intent(0)]), lease="me/1"))
    assert await store.sequences(running.id) == [1, 2]


async def test_a_lease_that_ran_out_still_appends_until_another_has_claimed(store: Store) -> None:
    running = await _held(store, "me/1")
    store.clock.advance(LEASE_S * 100)
    await store.repository.append(replace(committing(running.id, [intent(0)]), lease="me/1"))
    assert await store.sequences(running.id) == [1, 2, 3]


async def test_whoever_comes_too_late_is_told_that_it_ended_or_is_anothers_before_anything_else(store: Store) -> None:
    running = await _held(store, "me/1")
    call = replace(committing(running.id, [intent(0)], [record(1)]), lease="me/1")
    await store.repository.append(call)
    await _take_over(store, running.id, "you/1")
    with pytest.raises(LeaseLostError):
        await store.repository.append(replace(call, deliberation=running))
    over = ended(running, [record(1)])
    await store.repository.append(replace(committing(running.id, deliberation=over), lease="you/1"))
    for lease in ("me/1", "you/1"):
        with pytest.raises(DeliberationEndedError):
            await store.repository.append(replace(call, lease=lease, deliberation=running))
    with pytest.raises(DeliberationNotFoundError):
        await store.repository.append(Commit("unknown", [_call("unknown", 0)], lease="me/1"))


async def test_a_lost_lease_costs_the_neighbours_in_a_batch_nothing(store: Store) -> None:
    lost, kept, free = await _held(store, "me/1"), await _held(store, "me/2"), await store.start()
    await store.repository.release({lost.id: "me/1"})
    results = await asyncio.gather(
        store.repository.append(replace(committing(kept.id, [intent(0)]), lease="me/2")),
        store.repository.append(replace(committing(lost.id, [intent(0)], [record(1)]), lease="me/1")),
        store.repository.append(committing(free.id, [intent(0)])),
        store.repository.append(replace(committing(kept.id, records=[record(0)]), lease="me/2")),
        store.repository.add(added := deliberation(), accepted(added)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), LeaseLostError, *[type(None)] * 3]
    assert await store.sequences(kept.id) == [1, 2, 3, 4]
    assert await store.sequences(lost.id) == [1, 2]
    assert await store.sequences(free.id) == [1, 2, 3]
    assert await store.sequences(added.id) == [1]


async def test_of_a_claim_and_an_append_at_once_nothing_is_stored_after_the_claim(store: Store) -> None:
    another = await store.open_another()
    for turn in range(10):
        running = await _held(store, f"me/{turn}")
        store.clock.advance(LEASE_S + 1)
        appends = [
            store.repository.append(Commit(running.id, [_call(running.id, number)], lease=f"me/{turn}"))
            for number in range(3)
        ]
        claim, *results = await asyncio.gather(
            another.claim(running.id, lease=f"you/{turn}", lease_s=LEASE_S),
            *(appends if turn % 2 else reversed(appends)),
            return_exceptions=True,
        )
        assert isinstance(claim, Claim)
        stored = [result for result in results if result is None]
        assert all(isinstance(result, LeaseLostError) for result in results if result is not None)
        # Everything that the claimant was not shown is refused.
        assert len(claim.calls) == len(stored) == len(await store.sequences(running.id)) - 2
        with pytest.raises(LeaseLostError):
            await store.repository.append(Commit(running.id, [_call(running.id, 7)], lease=f"me/{turn}"))


async def test_the_ledger_is_in_the_order_of_the_log_and_says_what_the_entries_say(store: Store) -> None:
    running, other = await store.start(), await store.start()
    first = [_call(running.id, 2), _call(running.id, 0, prompt=None)]
    await store.repository.append(Commit(running.id, first))
    await store.repository.append(Commit(other.id, [_call(other.id, 2)]))
    await store.repository.append(committing(running.id, records=[record(2)]))
    await store.repository.append(Commit(running.id, [_call(running.id, 0, attempt=2, prompt="Think. ☂", seconds=9)]))
    claim = await _take_over(store, running.id, "you/1")
    assert [(call.round_number, call.agent_id, call.purpose, call.attempt) for call in claim.calls] == [
        (0, "archon-2", "answer", 1),
        (0, "archon-0", "answer", 1),
        (0, "archon-0", "answer", 2),
    ]
    assert [call.prompt_sha256 for call in claim.calls] == [
        (commitment(_SALT, "Think.") or {})["sha256"],
        None,
        (commitment(_SALT, "Think. ☂") or {})["sha256"],
    ]
    by_index = {entry.index: entry.entry for entry in claim.entries}
    for call in claim.calls:
        assert b'"type":"call.intended"' in by_index[call.leaf_index]
        assert f'"agent_id":"{call.agent_id}"'.encode() in by_index[call.leaf_index]
        assert call.prompt_sha256 is None or call.prompt_sha256.encode() in by_index[call.leaf_index]


async def test_a_call_that_is_in_the_ledger_is_refused_with_all_that_comes_with_it(store: Store) -> None:
    running = await store.start()
    await store.repository.append(Commit(running.id, [_call(running.id, 0)]))
    again = Commit(running.id, [_call(running.id, 1), _call(running.id, 0, prompt="Think again.", seconds=1)])
    with pytest.raises(CallExistsError) as refusal:
        await store.repository.append(again)
    refused = refusal.value
    assert (refused.deliberation_id, refused.round_number, refused.agent_id, refused.attempt) == (
        running.id,
        0,
        "archon-0",
        1,
    )
    assert [call.agent_id for call in await _ledger(store, running.id)] == ["archon-0"]
    assert await store.sequences(running.id) == [1, 2, 3]


async def test_one_append_with_the_same_call_twice_is_refused(store: Store) -> None:
    running = await store.start()
    with pytest.raises(CallExistsError):
        await store.repository.append(Commit(running.id, [_call(running.id, 0), _call(running.id, 0, seconds=1)]))
    assert list(await _ledger(store, running.id)) == []
    assert await store.sequences(running.id) == [1, 2]


async def test_the_next_attempt_and_the_same_agent_elsewhere_are_other_calls(store: Store) -> None:
    running, other = await store.start(), await store.start()
    await store.repository.append(Commit(running.id, [_call(running.id, 0), _call(running.id, 0, attempt=2)]))
    await store.repository.append(Commit(other.id, [_call(other.id, 0)]))
    assert [call.attempt for call in await _ledger(store, running.id)] == [1, 2]
    assert [call.attempt for call in await _ledger(store, other.id, "reader/2")] == [1]


async def test_a_repeated_call_costs_its_neighbours_in_a_batch_nothing(store: Store) -> None:
    running, other = await store.start(), await store.start()
    await store.repository.append(Commit(running.id, [_call(running.id, 0)]))
    results = await asyncio.gather(
        store.repository.append(Commit(running.id, [_call(running.id, 1)])),
        store.repository.append(Commit(running.id, [_call(running.id, 2), _call(running.id, 1, seconds=1)])),
        store.repository.append(committing(running.id, records=[record(0)])),
        store.repository.append(Commit(other.id, [_call(other.id, 0)])),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), CallExistsError, type(None), type(None)]
    assert [call.agent_id for call in await _ledger(store, running.id)] == ["archon-0", "archon-1"]
    assert await store.sequences(running.id) == [1, 2, 3, 4, 5]
    assert await store.sequences(other.id) == [1, 2, 3]


async def test_of_twenty_that_intend_the_same_call_one_may_make_it(store: Store) -> None:
    running = await store.start()
    repositories = [store.repository, await store.open_another()]
    results = await asyncio.gather(
        *(
            repositories[number % 2].append(Commit(running.id, [_call(running.id, 0, seconds=number)]))
            for number in range(20)
        ),
        return_exceptions=True,
    )
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, CallExistsError) for result in results) == 19
    assert len(await _ledger(store, running.id)) == 1
    assert await store.sequences(running.id) == [1, 2, 3]


@pytest.mark.parametrize("store", ["sqlite", "postgres"], indirect=True)
@pytest.mark.parametrize("what", ["call", "record", "end"])
async def test_an_append_whose_acknowledgement_was_lost_is_stored_once_although_the_lease_was_lost_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    running = await _held(store, "me/1")
    repository = store.repository
    assert isinstance(repository, SqlDeliberationRepository)
    commit = {
        "call": Commit(running.id, [_call(running.id, 0)], lease="me/1"),
        "record": replace(committing(running.id, records=[record(0)]), lease="me/1"),
        "end": replace(committing(running.id, (), [record(0)], ended(running, [record(0)])), lease="me/1"),
    }[what]
    write = repository._database.write

    async def write_and_hear_nothing(work: Any) -> Any:
        await write(work)
        raise DependencyUnavailableError(dependency="database", problem="the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr(repository._database, "write", write_and_hear_nothing)
        with pytest.raises(DependencyUnavailableError):
            await repository.append(commit)
    before = await store.sequences(running.id)
    if what != "end":
        await _take_over(store, running.id, "you/1", await store.open_another())
    await repository.append(commit)
    assert await store.sequences(running.id) == before
    # The same once more is a new append, which has to hold the lease.
    with pytest.raises((LeaseLostError, DeliberationEndedError)):
        await repository.append(commit)
