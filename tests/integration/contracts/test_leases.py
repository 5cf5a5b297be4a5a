"""Who works on what, held against every adapter: one at a time, for as long as it renews, and whoever is dead holds nothing."""

import asyncio

import pytest

from application.ports.deliberation_repository import Claim, Renewal, Waiting
from domain.errors.deliberation import DeliberationEndedError, DeliberationNotFoundError
from domain.models.deliberation import Deliberation
from domain.witness.entry import accepted
from tests.deliberation_specimens import committing, deliberation, failed, intent, opening, record, started
from tests.integration.contracts.store import LEASE_S, Repository, Store

_STRANGE_IDS = ["", "unknown", "\x00", "\ud800", "x" * 100_000, "'; DROP TABLE deliberations; --", "%"]


async def _added(store: Store, lease: str | None, **facts: object) -> Deliberation:
    new = deliberation(**facts)  # type: ignore[arg-type]
    await store.repository.add(new, accepted(new), lease=lease, lease_s=LEASE_S)
    return new


async def _at_work(store: Store, lease: str | None) -> Deliberation:
    running = started(await _added(store, lease))
    await store.repository.append(opening(running))
    return running


async def _is_free(repository: Repository, deliberation_id: str) -> bool:
    return deliberation_id in {each.deliberation_id for each in await repository.waiting(limit=1_000)}


async def test_what_is_added_without_a_lease_is_held_by_nobody(store: Store) -> None:
    first, second = await _added(store, None, key_name="ключ"), await _added(store, None)
    assert list(await store.repository.waiting(limit=5)) == [Waiting(first.id, "ключ"), Waiting(second.id, None)]


async def test_what_is_added_under_a_lease_is_held_from_the_start(store: Store) -> None:
    added = await _added(store, "me/1")
    assert list(await store.repository.waiting(limit=5)) == []
    assert await store.repository.claim(added.id, lease="you/1", lease_s=LEASE_S) is None
    # Not even by the one who holds it: nobody uses a lease twice.
    assert await store.repository.claim(added.id, lease="me/1", lease_s=LEASE_S) is None


async def test_those_that_wait_come_oldest_first_and_no_more_than_asked_for(store: Store) -> None:
    added = [(await _added(store, None)).id for _ in range(4)]
    assert [each.deliberation_id for each in await store.repository.waiting(limit=3)] == added[:3]


async def test_those_that_are_still_queued_can_be_left_out(store: Store) -> None:
    await _added(store, None)
    running = await _at_work(store, None)
    await _at_work(store, "me/1")
    assert [each.deliberation_id for each in await store.repository.waiting(limit=9, begun_only=True)] == [running.id]


async def test_what_ended_neither_waits_nor_can_be_claimed(store: Store) -> None:
    over = await store.end(await store.start(), [record(0)])
    store.clock.advance(1_000_000)
    assert list(await store.repository.waiting(limit=9)) == []
    assert await store.repository.claim(over.id, lease="you/1", lease_s=LEASE_S) is None


async def test_what_was_never_there_cannot_be_claimed(store: Store) -> None:
    for strange in _STRANGE_IDS:
        assert await store.repository.claim(strange, lease="you/1", lease_s=LEASE_S) is None


async def test_a_claim_of_a_queued_one_is_what_was_accepted_and_nothing_has_happened(store: Store) -> None:
    added = await _added(store, None, key_name="mine")
    claim = await store.repository.claim(added.id, lease="you/1", lease_s=LEASE_S)
    assert claim is not None
    assert (claim.deliberation, claim.lease, list(claim.records), list(claim.calls)) == (added, "you/1", [], [])
    assert [entry.index for entry in claim.entries] == [0]
    assert not await _is_free(store.repository, added.id)


async def test_a_claim_of_one_at_work_comes_with_all_that_going_on_with_it_needs(store: Store) -> None:
    running = await _at_work(store, None)
    await store.start()
    await store.repository.append(committing(running.id, [intent(1), intent(0)]))
    await store.repository.append(committing(running.id, [intent(2)], records=[record(1), failed(0)]))
    claim = await store.repository.claim(running.id, lease="you/1", lease_s=LEASE_S)
    assert claim is not None
    assert claim.deliberation.rounds[0].records == (record(1), failed(0))
    assert claim.deliberation == await store.repository.get(running.id)
    assert list(claim.records) == list(await store.repository.records(running.id))
    assert [call.agent_id for call in claim.calls] == ["archon-1", "archon-0", "archon-2"]
    assert [b'"type":"call.intended"' in entry.entry for entry in claim.entries] == [
        False,
        False,
        True,
        True,
        True,
        False,
        False,
    ]


async def test_of_twenty_claimants_one_wins(store: Store) -> None:
    added = await _added(store, None)
    repositories = [store.repository, await store.open_another(), await store.open_another()]
    claims = await asyncio.gather(
        *(
            repositories[number % 3].claim(added.id, lease=f"claimant-{number}/1", lease_s=LEASE_S)
            for number in range(20)
        )
    )
    (won,) = [claim for claim in claims if claim is not None]
    assert won.deliberation.id == added.id
    assert await store.repository.renew({added.id: won.lease}, lease_s=LEASE_S) == Renewal(cancelled=[], lost=[])


async def test_many_claimants_share_many_without_overlap(store: Store) -> None:
    added = [(await _added(store, None)).id for _ in range(10)]
    repositories = [store.repository, await store.open_another()]

    async def claim_all(number: int) -> list[Claim]:
        repository = repositories[number % 2]
        # Each in another order, so that they meet everywhere.
        order = added[number:] + added[:number]
        claims = [await repository.claim(each, lease=f"claimant-{number}/{each}", lease_s=LEASE_S) for each in order]
        return [claim for claim in claims if claim is not None]

    won = [claim for claims in await asyncio.gather(*map(claim_all, range(8))) for claim in claims]
    assert sorted(claim.deliberation.id for claim in won) == sorted(added)
    held = {claim.deliberation.id: claim.lease for claim in won}
    assert await store.repository.renew(held, lease_s=LEASE_S) == Renewal(cancelled=[], lost=[])


async def test_a_lease_that_ran_out_can_be_claimed_and_one_that_was_renewed_cannot(store: Store) -> None:
    left, kept = await _added(store, "me/1"), await _added(store, "me/2")
    store.clock.advance(LEASE_S - 1)
    assert await store.repository.renew({kept.id: "me/2"}, lease_s=LEASE_S) == Renewal(cancelled=[], lost=[])
    assert list(await store.repository.waiting(limit=5)) == []
    store.clock.advance(2)
    assert list(await store.repository.waiting(limit=5)) == [Waiting(left.id, None)]
    assert await store.repository.claim(kept.id, lease="you/1", lease_s=LEASE_S) is None
    assert await store.repository.claim(left.id, lease="you/2", lease_s=LEASE_S) is not None


async def test_a_lease_that_ran_out_is_held_again_once_it_is_renewed_before_anybody_claims(store: Store) -> None:
    added = await _added(store, "me/1")
    store.clock.advance(LEASE_S + 1)
    assert await store.repository.renew({added.id: "me/1"}, lease_s=LEASE_S) == Renewal(cancelled=[], lost=[])
    assert await store.repository.claim(added.id, lease="you/1", lease_s=LEASE_S) is None


async def test_renewing_and_releasing_take_nothing_back_from_another(store: Store) -> None:
    added = await _added(store, "me/1")
    store.clock.advance(LEASE_S + 1)
    assert await store.repository.claim(added.id, lease="you/1", lease_s=LEASE_S) is not None
    await store.repository.request_cancel(added.id)
    # What another is to cancel is the other's business.
    assert await store.repository.renew({added.id: "me/1"}, lease_s=1000) == Renewal(cancelled=[], lost=[added.id])
    await store.repository.release({added.id: "me/1"})
    assert await store.repository.claim(added.id, lease="me/2", lease_s=LEASE_S) is None
    store.clock.advance(LEASE_S + 1)
    assert await store.repository.claim(added.id, lease="me/3", lease_s=LEASE_S) is not None


async def test_renewing_says_of_each_lease_what_became_of_it(store: Store) -> None:
    kept, wanted, taken = [await _added(store, f"me/{number}") for number in range(3)]
    over = await store.end(await _at_work(store, "me/3"), [record(0)])
    await store.repository.request_cancel(wanted.id)
    await store.repository.release({taken.id: "me/2"})
    assert await store.repository.claim(taken.id, lease="you/1", lease_s=LEASE_S) is not None
    held = {kept.id: "me/0", wanted.id: "me/1", taken.id: "me/2", over.id: "me/3", "unknown": "me/4"}
    renewal = await store.repository.renew(held, lease_s=LEASE_S)
    assert renewal == Renewal(cancelled=[wanted.id], lost=[taken.id, over.id, "unknown"])


async def test_of_renewing_and_claiming_at_once_one_wins(store: Store) -> None:
    another = await store.open_another()
    for number in range(12):
        added = await _added(store, f"me/{number}")
        store.clock.advance(LEASE_S + 1)
        renewing = store.repository.renew({added.id: f"me/{number}"}, lease_s=LEASE_S)
        claiming = another.claim(added.id, lease=f"you/{number}", lease_s=LEASE_S)
        if number % 2:
            renewal, claim = await asyncio.gather(renewing, claiming)
        else:
            claim, renewal = await asyncio.gather(claiming, renewing)
        assert (list(renewal.lost) == [added.id]) is (claim is not None)
        holder = f"me/{number}" if claim is None else f"you/{number}"
        assert await store.repository.renew({added.id: holder}, lease_s=LEASE_S) == Renewal(cancelled=[], lost=[])


async def test_what_was_released_can_be_claimed_at_once(store: Store) -> None:
    added, kept = await _added(store, "me/1"), await _added(store, "me/2")
    await store.repository.release({added.id: "me/1", kept.id: "me/1"})
    assert await store.repository.claim(added.id, lease="you/1", lease_s=LEASE_S) is not None
    assert await store.repository.claim(kept.id, lease="you/2", lease_s=LEASE_S) is None


async def test_what_a_dead_process_held_is_free_at_once_and_nothing_else_is(store: Store) -> None:
    dead = [await _added(store, "ab/1"), await _at_work(store, "ab/2")]
    alive = [await _added(store, lease) for lease in ("abc/1", "x-ab/1", "a%/1", "a_/1")]
    await store.end(await _at_work(store, "ab/3"), [record(0)])
    await _added(store, None)
    assert await store.repository.release_process("ab") == 2
    assert await store.repository.release_process("ab") == 0
    for each in dead:
        assert await store.repository.claim(each.id, lease=f"you/{each.id}", lease_s=LEASE_S) is not None
    for each in alive:
        assert not await _is_free(store.repository, each.id)


@pytest.mark.parametrize("process", ["%", "_b", "a_", "", "a"])
async def test_the_name_of_a_process_is_taken_as_it_is(store: Store, process: str) -> None:
    added = await _added(store, "ab/1")
    assert await store.repository.release_process(process) == 0
    assert not await _is_free(store.repository, added.id)


async def test_two_that_find_the_same_process_dead_release_it_once(store: Store) -> None:
    for number in range(20):
        await _added(store, f"dead/{number}")
    another = await store.open_another()
    assert sum(await asyncio.gather(*(each.release_process("dead") for each in (store.repository, another)))) == 20


async def test_a_cancellation_asked_for_elsewhere_is_heard_at_the_next_renewal(store: Store) -> None:
    wanted, other = await _at_work(store, "me/1"), await _at_work(store, "me/2")
    await (await store.open_another()).request_cancel(wanted.id)
    renewal = await store.repository.renew({wanted.id: "me/1", other.id: "me/2"}, lease_s=LEASE_S)
    assert renewal == Renewal(cancelled=[wanted.id], lost=[])
    found = await store.repository.get(wanted.id)
    assert found is not None
    assert found.cancel_requested


async def test_a_cancellation_that_nobody_heard_comes_with_the_claim(store: Store) -> None:
    added = await _added(store, None)
    await store.repository.request_cancel(added.id)
    claim = await store.repository.claim(added.id, lease="you/1", lease_s=LEASE_S)
    assert claim is not None
    assert claim.deliberation.cancel_requested


async def test_a_cancellation_is_not_forgotten_by_what_is_stored_after_it(store: Store) -> None:
    queued = await _added(store, "me/1")
    await store.repository.request_cancel(queued.id)
    await store.repository.append(committing(queued.id, deliberation=started(queued)))
    assert list((await store.repository.renew({queued.id: "me/1"}, lease_s=LEASE_S)).cancelled) == [queued.id]


async def test_cancelling_what_ended_or_never_was_is_refused(store: Store) -> None:
    over = await store.end(await store.start(), [record(0)])
    with pytest.raises(DeliberationEndedError) as refusal:
        await store.repository.request_cancel(over.id)
    assert refusal.value.status == "completed"
    with pytest.raises(DeliberationNotFoundError):
        await store.repository.request_cancel("unknown")


async def test_renewing_and_releasing_nothing_does_nothing(store: Store) -> None:
    renewal = await store.repository.renew({}, lease_s=LEASE_S)
    assert (list(renewal.cancelled), list(renewal.lost)) == ([], [])
    await store.repository.release({})
