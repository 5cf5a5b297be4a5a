"""Idempotency keys: each stands for one deliberation, of its caller, for a day, however many ask at once."""

import asyncio
from dataclasses import replace

import pytest

from application.ports.deliberation_repository import RememberedKey
from application.ports.idempotency import IdempotencyKey
from domain.errors.idempotency import IdempotencyKeyTakenError
from domain.models.deliberation import Deliberation
from domain.witness.entry import accepted
from tests.deliberation_specimens import committing, deliberation, opening, record, started
from tests.integration.contracts.store import Repository, Store
from tests.integration.contracts.strange_ids import STRANGE_IDS

_DAY_S = 86_400.0
_KEY = IdempotencyKey("council", "6f2a – not ASCII, but stored all the same", "a1" * 32)


async def _add_under(repository: Repository, key: IdempotencyKey) -> Deliberation:
    added = deliberation()
    await repository.add(added, accepted(added), idempotency=key)
    return added


async def test_a_key_stands_for_the_deliberation_that_was_added_with_it(store: Store) -> None:
    assert await store.repository.remembered(_KEY.scope, _KEY.key) is None
    added = await _add_under(store.repository, _KEY)
    another = await store.open_another()
    assert await another.remembered(_KEY.scope, _KEY.key) == RememberedKey(added.id, _KEY.body_sha256)
    assert await another.get(added.id) == added


async def test_a_deliberation_without_a_key_leaves_none_behind(store: Store) -> None:
    await store.repository.add(added := deliberation(), accepted(added))
    assert await store.repository.remembered("", "") is None


async def test_the_same_key_of_another_caller_stands_for_something_else(store: Store) -> None:
    first = await _add_under(store.repository, _KEY)
    second = await _add_under(store.repository, replace(_KEY, scope=""))
    found = [await store.repository.remembered(scope, _KEY.key) for scope in (_KEY.scope, "", "nobody")]
    assert [each and each.deliberation_id for each in found] == [first.id, second.id, None]


@pytest.mark.parametrize("strange", STRANGE_IDS[:5] + STRANGE_IDS[6:])
async def test_a_key_that_nobody_sent_stands_for_nothing(store: Store, strange: str) -> None:
    await _add_under(store.repository, _KEY)
    assert await store.repository.remembered(_KEY.scope, strange) is None
    assert await store.repository.remembered(strange, _KEY.key) is None


async def test_a_key_that_is_taken_stores_nothing_and_says_what_it_stands_for(store: Store) -> None:
    first = await _add_under(store.repository, _KEY)
    second = deliberation()
    with pytest.raises(IdempotencyKeyTakenError) as refusal:
        await store.repository.add(second, accepted(second), idempotency=replace(_KEY, body_sha256="b2" * 32))
    assert (refusal.value.deliberation_id, refusal.value.body_sha256) == (first.id, _KEY.body_sha256)
    assert await store.repository.get(second.id) is None
    assert await store.repository.remembered(_KEY.scope, _KEY.key) == RememberedKey(first.id, _KEY.body_sha256)


async def test_a_key_that_is_taken_costs_its_neighbours_in_a_batch_nothing(store: Store) -> None:
    running = started(await _add_under(store.repository, _KEY))
    await store.repository.append(opening(running))
    neighbours = [deliberation() for _ in range(3)]
    results = await asyncio.gather(
        *(store.repository.add(each, accepted(each)) for each in neighbours[:2]),
        _add_under(store.repository, _KEY),
        store.repository.append(committing(running.id, records=[record(0)])),
        store.repository.add(neighbours[2], accepted(neighbours[2]), idempotency=replace(_KEY, key="another")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None)] * 2 + [IdempotencyKeyTakenError] + [type(None)] * 2
    assert [await store.sequences(each.id) for each in neighbours] == [[1]] * 3
    assert len(await store.repository.records(running.id)) == 1


async def test_of_twenty_adds_at_once_under_one_key_one_is_stored(store: Store) -> None:
    repositories = [store.repository, *[await store.open_another() for _ in range(3)]]
    added = [deliberation() for _ in range(20)]
    results = await asyncio.gather(
        *(repositories[number % 4].add(each, accepted(each), idempotency=_KEY) for number, each in enumerate(added)),
        return_exceptions=True,
    )
    winner = next(each for each, result in zip(added, results, strict=True) if result is None)
    lost = [result for result in results if result is not None]
    assert [type(each) for each in lost] == [IdempotencyKeyTakenError] * 19
    assert {each.deliberation_id for each in lost if isinstance(each, IdempotencyKeyTakenError)} == {winner.id}
    page = await store.repository.page(status=None, key_name=None, limit=50, cursor=None)
    assert [each.id for each in page.items] == [winner.id]


async def test_after_a_day_a_key_is_free_again(store: Store) -> None:
    first = await _add_under(store.repository, _KEY)
    store.clock.advance(_DAY_S - 0.000_001)
    assert await store.repository.remembered(_KEY.scope, _KEY.key) == RememberedKey(first.id, _KEY.body_sha256)
    with pytest.raises(IdempotencyKeyTakenError):
        await _add_under(store.repository, _KEY)
    store.clock.advance(0.000_001)
    assert await store.repository.remembered(_KEY.scope, _KEY.key) is None
    second = await _add_under(store.repository, replace(_KEY, body_sha256="c3" * 32))
    assert await store.repository.remembered(_KEY.scope, _KEY.key) == RememberedKey(second.id, "c3" * 32)
    assert await store.repository.get(first.id) is not None


async def test_a_key_is_free_after_a_day_however_many_others_have_expired_before_it(store: Store) -> None:
    for number in range(40):
        store.clock.advance(0.001)
        await _add_under(store.repository, replace(_KEY, key=f"{number}"))
    store.clock.advance(_DAY_S)
    latest = await _add_under(store.repository, replace(_KEY, key="39"))
    found = await store.repository.remembered(_KEY.scope, "39")
    assert found == RememberedKey(latest.id, _KEY.body_sha256)
    assert await store.repository.remembered(_KEY.scope, "38") is None
