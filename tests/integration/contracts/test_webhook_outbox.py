"""What every adapter promises that keeps what webhooks are to be told: each end once, held by one, and nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from application.ports.webhook_outbox import Attempt, DeliveryState, WebhookOutbox, delivery_id
from domain.models.deliberation import Deliberation
from domain.witness.entry import accepted
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.sql_webhook_outbox import SqlWebhookOutbox
from infrastructure.stubs.in_memory_webhook_outbox import InMemoryWebhookOutbox
from tests.deliberation_specimens import SettableClock, committing, deliberation, ended, opening, started

LEASE_S = 30.0


@dataclass(frozen=True)
class Post:
    """An adapter under test: outboxes over the same data, its clock, and what brings a deliberation to its end."""

    outbox: WebhookOutbox
    another: Callable[[], Awaitable[WebhookOutbox]]
    clock: SettableClock
    accept: Callable[[str | None], Awaitable[Deliberation]]
    end: Callable[[Deliberation], Awaitable[Deliberation]]

    async def one_ends(self, key_name: str | None = None) -> Deliberation:
        """A deliberation, accepted and ended."""
        return await self.end(await self.accept(key_name))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def post(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Post]:
    """Each adapter in turn, empty."""
    clock = SettableClock()
    if request.param == "memory":
        over: list[Deliberation] = []
        stub = InMemoryWebhookOutbox(lambda: over, clock=clock)

        async def accept(key_name: str | None) -> Deliberation:
            return deliberation(key_name=key_name)

        async def end(running: Deliberation) -> Deliberation:
            over.append(ended(started(running), []))
            return over[-1]

        async def same() -> WebhookOutbox:
            return stub

        yield Post(stub, same, clock, accept, end)
        return
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/conclave.db"
        upgrade(url)
    else:
        url = request.getfixturevalue("empty_postgres")
    opened: list[Callable[[], Awaitable[None]]] = []

    async def another() -> WebhookOutbox:
        database = await open_database(url)
        opened.append(database.close)
        return SqlWebhookOutbox(database, clock=clock)

    database = await open_database(url)
    opened.append(database.close)
    repository = SqlDeliberationRepository(database)
    opened.append(repository.close)

    async def store(key_name: str | None) -> Deliberation:
        new = deliberation(key_name=key_name)
        await repository.add(new, accepted(new))
        running = started(new)
        await repository.append(opening(running))
        return running

    async def finish(running: Deliberation) -> Deliberation:
        over_now = ended(running, [])
        await repository.append(committing(running.id, deliberation=over_now))
        return over_now

    yield Post(await another(), another, clock, store, finish)
    for close in reversed(opened):
        await close()


async def test_each_end_becomes_one_delivery_however_often_it_is_gathered_for(post: Post) -> None:
    await post.outbox.gather("ops")
    ends = [await post.one_ends() for _ in range(3)]
    assert [await post.outbox.gather("ops") for _ in range(2)] == [3, 0]
    found = await post.outbox.claim("ops", lease="a/1", lease_s=LEASE_S, limit=10)
    assert {delivery.deliberation_id for delivery in found} == {end.id for end in ends}
    assert {delivery.id for delivery in found} == {delivery_id("ops", end.id) for end in ends}
    assert {(delivery.event, delivery.attempts) for delivery in found} == {("deliberation.completed", 1)}


async def test_what_ended_before_a_receiver_was_first_gathered_for_is_not_told(post: Post) -> None:
    await post.one_ends()
    assert await post.outbox.gather("ops") == 0
    later = await post.one_ends()
    assert await post.outbox.gather("ops") == 1
    assert [each.deliberation_id for each in await post.outbox.listed(state=None, limit=5)] == [later.id]


async def test_what_is_still_at_work_is_not_told_and_is_not_passed_over_either(post: Post) -> None:
    await post.outbox.gather("ops")
    slow = await post.accept(None)
    quick = await post.one_ends()
    assert await post.outbox.gather("ops") == 1
    await post.end(slow)
    assert await post.outbox.gather("ops") == 1
    told = await post.outbox.listed(state=None, limit=5)
    assert {each.deliberation_id for each in told} == {quick.id, slow.id}


async def test_each_receiver_is_told_for_itself_and_of_its_own_key_alone(post: Post) -> None:
    await post.outbox.gather("all")
    await post.outbox.gather("anns", key_name="ann")
    hers, his = await post.one_ends("ann"), await post.one_ends("ben")
    assert await post.outbox.gather("all") == 2
    assert await post.outbox.gather("anns", key_name="ann") == 1
    assert await post.outbox.gather("anns", key_name="ann") == 0
    assert await post.outbox.pending() == {"all": 2, "anns": 1}
    claimed = await post.outbox.claim("anns", lease="a/1", lease_s=LEASE_S, limit=5)
    assert [each.deliberation_id for each in claimed] == [hers.id]
    assert his.id not in {each.deliberation_id for each in claimed}


async def test_of_many_claimants_one_gets_each_delivery(post: Post) -> None:
    outboxes = [await post.another() for _ in range(4)]
    await asyncio.gather(*(outbox.gather("ops") for outbox in outboxes))
    ends = [await post.one_ends() for _ in range(12)]
    gathered = await asyncio.gather(*(outbox.gather("ops") for outbox in outboxes))
    claims = await asyncio.gather(
        *(
            outbox.claim("ops", lease=f"{number}/1", lease_s=LEASE_S, limit=3)
            for number, outbox in enumerate(outboxes)
            for _ in range(3)
        )
    )
    got = [delivery.deliberation_id for claim in claims for delivery in claim]
    rest = await post.outbox.claim("ops", lease="last/1", lease_s=LEASE_S, limit=12)
    got += [delivery.deliberation_id for delivery in rest]
    assert sum(gathered) == 12
    assert sorted(got) == sorted(end.id for end in ends)


async def test_a_claim_takes_no_more_than_it_asks_for_and_the_first_to_end_first(post: Post) -> None:
    await post.outbox.gather("ops")
    first = await post.one_ends()
    await post.outbox.gather("ops")
    post.clock.advance(1)
    await post.one_ends()
    await post.outbox.gather("ops")
    assert await post.outbox.claim("ops", lease="a/1", lease_s=LEASE_S, limit=0) == []
    found = await post.outbox.claim("ops", lease="a/1", lease_s=LEASE_S, limit=1)
    assert [delivery.deliberation_id for delivery in found] == [first.id]


async def test_what_is_not_settled_is_free_when_the_lease_has_run_out_under_the_same_id(post: Post) -> None:
    await post.outbox.gather("ops")
    await post.one_ends()
    await post.outbox.gather("ops")
    (first,) = await post.outbox.claim("ops", lease="a/1", lease_s=LEASE_S, limit=1)
    assert await post.outbox.claim("ops", lease="b/1", lease_s=LEASE_S, limit=1) == []
    post.clock.advance(LEASE_S + 1)
    (again,) = await post.outbox.claim("ops", lease="b/1", lease_s=LEASE_S, limit=1)
    assert (again.id, again.attempts, again.age_s) == (first.id, 2, LEASE_S + 1)
    assert not await post.outbox.settle(first.id, lease="a/1", attempt=Attempt(DeliveryState.DELIVERED, status=200))
    assert await post.outbox.settle(first.id, lease="b/1", attempt=Attempt(DeliveryState.DELIVERED, status=200))


async def test_what_failed_waits_for_its_time_and_is_tried_again(post: Post) -> None:
    await post.outbox.gather("ops")
    await post.one_ends()
    await post.outbox.gather("ops")
    (first,) = await post.outbox.claim("ops", lease="a/1", lease_s=LEASE_S, limit=1)
    failed = Attempt(DeliveryState.PENDING, wait_s=60, status=500, problem="it answered with status 500")
    assert await post.outbox.settle(first.id, lease="a/1", attempt=failed)
    (listed,) = await post.outbox.listed(state=DeliveryState.PENDING, limit=5)
    assert (listed.status, listed.problem, listed.attempts) == (500, "it answered with status 500", 1)
    assert listed.next_at == post.clock.now() + timedelta(seconds=60)
    post.clock.advance(59)
    assert await post.outbox.claim("ops", lease="a/1", lease_s=LEASE_S, limit=1) == []
    post.clock.advance(1)
    (again,) = await post.outbox.claim("ops", lease="a/1", lease_s=LEASE_S, limit=1)
    assert (again.id, again.attempts, again.age_s) == (first.id, 2, 60)


@pytest.mark.parametrize("state", [DeliveryState.DELIVERED, DeliveryState.GONE, DeliveryState.GIVEN_UP])
async def test_what_is_settled_is_never_claimed_again_and_forgotten_in_its_time(
    post: Post, state: DeliveryState
) -> None:
    await post.outbox.gather("ops")
    await post.one_ends()
    await post.outbox.gather("ops")
    (first,) = await post.outbox.claim("ops", lease="a/1", lease_s=LEASE_S, limit=1)
    assert await post.outbox.settle(first.id, lease="a/1", attempt=Attempt(state, status=200))
    assert not await post.outbox.settle(first.id, lease="a/1", attempt=Attempt(DeliveryState.PENDING))
    post.clock.advance(3600)
    assert await post.outbox.claim("ops", lease="a/1", lease_s=LEASE_S, limit=1) == []
    assert [each.state for each in await post.outbox.listed(state=state, limit=5)] == [state]
    assert (await post.outbox.forget(older_than_s=3601), await post.outbox.forget(older_than_s=3599)) == (0, 1)
    assert await post.outbox.gather("ops") == 0


async def test_what_was_let_go_is_tried_at_once_and_what_was_settled_stays_so(post: Post) -> None:
    await post.outbox.gather("ops")
    for _ in range(2):
        await post.one_ends()
    await post.outbox.gather("ops")
    first, second = await post.outbox.claim("ops", lease="a/1", lease_s=LEASE_S, limit=2)
    await post.outbox.settle(first.id, lease="a/1", attempt=Attempt(DeliveryState.DELIVERED, status=204))
    assert await post.outbox.release("a/1") == 1
    again = await post.outbox.claim("ops", lease="b/1", lease_s=LEASE_S, limit=2)
    assert [delivery.id for delivery in again] == [second.id]
