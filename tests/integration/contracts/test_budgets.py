"""What no API key may spend more than, held against every adapter: calls reserve before they are made, and settle for what they took."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from application.ports.deliberation_repository import Commit, LedgerCharge
from domain.errors.budget import BudgetExceededError
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation
from domain.models.money import Charge, Hold, Reservation, usd
from domain.witness.entry import Entry, agent_ended, call_intended
from tests.deliberation_specimens import NOON, record
from tests.integration.contracts.store import LEASE_S, Repository, Store


def _reserved(cost: int | None, *, at: datetime = NOON, key: str = "saver") -> Reservation:
    return Reservation(key, at.date().isoformat(), Hold(10, cost))


def _intent(
    running: Deliberation, agent: int, cost: int | None, *, at: datetime = NOON, key: str = "saver", attempt: int = 1
) -> Entry:
    reserved = _reserved(cost, at=at, key=key)
    entry = call_intended(
        running.id,
        at=at,
        round_number=0,
        agent_id=f"archon-{agent}",
        attempt=attempt,
        model="one/small",
        prompt=None,
        prompt_salt=b"",
        hold=reserved.hold,
    )
    entry.reservation = reserved
    return entry


def _end(running: Deliberation, agent: int, reserved: Reservation, *, took: int | None) -> Entry:
    answers = running.specification.question.answer
    usage = Usage(1, uncertain_tokens=10, uncertain_usd=usd(reserved.hold.cost or 0))
    if took is not None:
        usage = Usage(1, 3, 2, usd(took))
    entry = agent_ended(running.id, replace(record(agent), usage=usage), answers)
    cost = reserved.hold.cost if took is None else took
    known = (3, 2) if took is not None else (0, 0)
    entry.charge = Charge(1, "one/small", *known, cost, is_certain=took is not None, reserved=reserved)
    return entry


async def _append(repository: Repository, running: Deliberation, *entries: Entry) -> None:
    await repository.append(Commit(running.id, entries))


async def test_a_call_that_would_pass_the_budget_of_its_day_is_refused_and_nothing_of_it_stored(store: Store) -> None:
    running = await store.start(key_name="saver")
    await _append(store.repository, running, _intent(running, 0, 60))
    before = await store.sequences(running.id)
    with pytest.raises(BudgetExceededError) as refused:
        await _append(store.repository, running, _intent(running, 1, 41))
    assert (refused.value.budget, refused.value.limit) == ("key_day", usd(100))
    assert (refused.value.used, refused.value.wanted) == (usd(60), usd(41))
    assert await store.sequences(running.id) == before
    await _append(store.repository, running, _intent(running, 1, 40))


async def test_what_a_call_took_less_than_it_held_is_free_for_others(store: Store) -> None:
    running = await store.start(key_name="saver")
    await _append(store.repository, running, _intent(running, 0, 100))
    await _append(store.repository, running, _end(running, 0, _reserved(100), took=30))
    with pytest.raises(BudgetExceededError):
        await _append(store.repository, running, _intent(running, 1, 71))
    await _append(store.repository, running, _intent(running, 1, 70))


async def test_what_nobody_knows_stays_held(store: Store) -> None:
    running = await store.start(key_name="saver")
    await _append(store.repository, running, _intent(running, 0, 100))
    await _append(store.repository, running, _end(running, 0, _reserved(100), took=None))
    with pytest.raises(BudgetExceededError):
        await _append(store.repository, running, _intent(running, 1, 1))


async def test_the_next_day_begins_with_nothing_spent_and_the_month_goes_on(store: Store) -> None:
    running = await store.start(key_name="saver")
    for day in range(2):
        await _append(store.repository, running, _intent(running, day, 100, at=NOON + timedelta(days=day)))
    third = NOON + timedelta(days=2)
    with pytest.raises(BudgetExceededError) as refused:
        await _append(store.repository, running, _intent(running, 2, 51, at=third))
    assert (refused.value.budget, refused.value.used) == ("key_month", usd(200))
    await _append(store.repository, running, _intent(running, 2, 50, at=third))
    await _append(store.repository, running, _intent(running, 3, 100, at=NOON + timedelta(days=30)))


async def test_what_is_settled_later_is_counted_on_the_day_of_its_intent(store: Store) -> None:
    running = await store.start(key_name="saver")
    await _append(store.repository, running, _intent(running, 0, 100))
    tomorrow = NOON + timedelta(days=1)
    await _append(store.repository, running, _intent(running, 1, 100, at=tomorrow))
    await _append(store.repository, running, _end(running, 0, _reserved(100), took=0))
    with pytest.raises(BudgetExceededError):
        await _append(store.repository, running, _intent(running, 2, 1, at=tomorrow))
    await _append(store.repository, running, _intent(running, 2, 100))


async def test_one_key_does_not_spend_the_money_of_another(store: Store) -> None:
    running = await store.start()
    await _append(store.repository, running, _intent(running, 0, 10**6, key="somebody"))
    await _append(store.repository, running, _intent(running, 1, 100, key="monthly"))
    await _append(store.repository, running, _intent(running, 2, 100))


async def test_a_model_without_a_price_holds_no_money(store: Store) -> None:
    running = await store.start(key_name="saver")
    await _append(store.repository, running, _intent(running, 0, 100), _intent(running, 1, None))


async def test_of_calls_that_are_committed_together_none_is_stored_where_they_pass_the_budget_together(
    store: Store,
) -> None:
    running = await store.start(key_name="saver")
    with pytest.raises(BudgetExceededError):
        await _append(store.repository, running, _intent(running, 0, 60), _intent(running, 1, 60))
    await _append(store.repository, running, _intent(running, 0, 100))


async def test_however_many_spend_at_once_the_budget_is_kept_to_the_last_picodollar(store: Store) -> None:
    repositories = [store.repository, await store.open_another(), await store.open_another()]
    running = [await store.start(key_name="saver", agents=12) for _ in repositories]

    async def spend(repository: Repository, one: Deliberation, agent: int) -> bool:
        try:
            await _append(repository, one, _intent(one, agent, 7))
        except BudgetExceededError:
            return False
        return True

    made = await asyncio.gather(
        *(
            spend(repository, one, agent)
            for repository, one in zip(repositories, running, strict=True)
            for agent in range(12)
        )
    )
    assert sum(made) == 100 // 7
    with pytest.raises(BudgetExceededError):
        await _append(store.repository, running[0], _intent(running[0], 99, 3))
    await _append(store.repository, running[0], _intent(running[0], 99, 2))


async def test_whoever_goes_on_reads_what_each_call_held_and_took(store: Store) -> None:
    running = await store.start(key_name="saver")
    await _append(
        store.repository, running, _intent(running, 0, 40), _intent(running, 1, 30), _intent(running, 2, None)
    )
    await _append(
        store.repository,
        running,
        _end(running, 0, _reserved(40), took=12),
        _end(running, 1, _reserved(30), took=None),
    )
    store.clock.advance(LEASE_S + 1)
    claim = await store.repository.claim(running.id, lease="me/1", lease_s=LEASE_S)
    assert claim is not None
    day = NOON.date().isoformat()
    assert [(call.model, call.day, call.held_tokens, call.held_cost) for call in claim.calls] == [
        ("one/small", day, 10, 40),
        ("one/small", day, 10, 30),
        ("one/small", day, 10, None),
    ]
    assert sorted(claim.charges, key=lambda charge: charge.agent_id) == [
        LedgerCharge(0, "archon-0", "answer", 1, "one/small", 3, 2, 12, is_certain=True),
        LedgerCharge(0, "archon-1", "answer", 1, "one/small", 0, 0, 30, is_certain=False),
    ]
