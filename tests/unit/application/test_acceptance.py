"""A request is accepted once for each idempotency key, and a replay is answered in every state of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import pytest

from application.ports.deliberation_repository import RememberedKey
from application.ports.idempotency import IdempotencyKey
from application.services.acceptance import Acceptance
from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import (
    InvalidSpecificationError,
    QueueFullError,
    RosterNotFoundError,
    ServiceStoppingError,
)
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError
from domain.errors.idempotency import IdempotencyInProgressError, IdempotencyKeyReusedError
from domain.models.deliberation import Deliberation, Specification
from domain.witness.entry import accepted
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.deliberation_specimens import NOON, SettableClock, specification

KEY = IdempotencyKey("council", "first-try", "a1" * 32)
AWAY = DependencyUnavailableError(dependency="database", problem="it cannot be reached")


@dataclass
class Service:
    """Accepts into memory, or refuses with `refusal`; counts how often it was asked."""

    repository: InMemoryRepository
    refusal: ConclaveError | None = None
    before_add: Callable[[], Awaitable[None]] | None = None
    submitted: int = 0

    async def submit(
        self,
        specification: Specification,
        *,
        key_name: str | None = None,
        idempotency: IdempotencyKey | None = None,
    ) -> Deliberation:
        self.submitted += 1
        if self.refusal is not None:
            raise self.refusal
        if self.before_add is not None:
            await self.before_add()
        new = Deliberation.accept(specification, at=NOON, orchestrator="canned", simulated=True, key_name=key_name)
        await self.repository.add(new, accepted(new), idempotency=idempotency)
        return new

    async def get(self, deliberation_id: str, *, key_name: str | None = None) -> Deliberation:
        found = await self.repository.get(deliberation_id)
        assert found is not None
        return found


@dataclass
class Process:
    """One process's acceptance in front of its service; several may share a repository."""

    repository: InMemoryRepository = field(default_factory=lambda: InMemoryRepository(clock=SettableClock()))
    reader: Any = None

    def __post_init__(self) -> None:
        self.service = Service(self.repository)
        reader = self.repository if self.reader is None else self.reader
        self.acceptance = Acceptance(deliberations=self.service, reader=reader)  # type: ignore[arg-type]

    async def accept(self, key: IdempotencyKey | None = KEY) -> Deliberation:
        return await self.acceptance.accept(specification, key_name="council", idempotency=key)

    async def stored(self) -> list[str]:
        page = await self.repository.page(status=None, key_name=None, limit=100, cursor=None)
        return [each.id for each in page.items]


class Gate:
    """Holds back whoever passes until it is opened, and says when somebody has come."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


def no_specification() -> NoReturn:
    raise RosterNotFoundError(known=["archons"])


@pytest.fixture
def process() -> Process:
    return Process()


async def test_without_a_key_every_request_is_a_new_one(process: Process) -> None:
    first, second = await process.accept(None), await process.accept(None)
    assert first.id != second.id
    assert first.key_name == "council"


async def test_the_same_key_and_body_is_the_same_deliberation(process: Process) -> None:
    first = await process.accept()
    assert (await process.accept()).id == first.id
    assert await process.stored() == [first.id]


async def test_the_same_key_with_another_body_is_refused_and_names_what_was_accepted(process: Process) -> None:
    first = await process.accept()
    with pytest.raises(IdempotencyKeyReusedError) as refusal:
        await process.accept(replace(KEY, body_sha256="b2" * 32))
    assert refusal.value.deliberation_id == first.id
    assert await process.stored() == [first.id]


async def test_the_same_key_of_another_caller_is_another_request(process: Process) -> None:
    first, second = await process.accept(), await process.accept(replace(KEY, scope="other"))
    assert first.id != second.id


@pytest.mark.parametrize(
    "refusal",
    [
        SystemHaltedError("drill"),
        QueueFullError(waiting=100, limit=100, retry_after_s=5),
        ServiceStoppingError(),
        AWAY,
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_replay_is_answered_while_nothing_new_is_accepted(process: Process, refusal: ConclaveError) -> None:
    first = await process.accept()
    process.service.refusal = refusal
    assert (await process.accept()).id == first.id
    with pytest.raises(type(refusal)):
        await process.accept(replace(KEY, key="second-try"))


async def test_every_body_is_taken_for_that_of_an_erased_deliberation(process: Process) -> None:
    first = await process.accept()
    place = (KEY.scope, KEY.key)
    remembered, until = process.repository._keys[place]
    process.repository._keys[place] = replace(remembered, body_sha256=""), until
    assert (await process.accept(replace(KEY, body_sha256="b2" * 32))).id == first.id


async def test_a_replay_is_answered_although_its_roster_is_gone(process: Process) -> None:
    first = await process.accept()
    again = await process.acceptance.accept(no_specification, key_name="council", idempotency=KEY)
    assert again.id == first.id


async def test_what_cannot_be_specified_leaves_no_key_behind(process: Process) -> None:
    with pytest.raises(RosterNotFoundError):
        await process.acceptance.accept(no_specification, key_name="council", idempotency=KEY)
    accepted_after_all = await process.accept(replace(KEY, body_sha256="b2" * 32))
    assert await process.stored() == [accepted_after_all.id]


@pytest.mark.parametrize(
    "refusal", [SystemHaltedError("drill"), AWAY, InvalidSpecificationError.at("/question", "is empty")]
)
async def test_what_was_refused_leaves_no_key_behind(process: Process, refusal: ConclaveError) -> None:
    process.service.refusal = refusal
    with pytest.raises(type(refusal)):
        await process.accept()
    assert await process.repository.remembered(KEY.scope, KEY.key) is None
    process.service.refusal = None
    accepted_after_all = await process.accept(replace(KEY, body_sha256="b2" * 32))
    assert await process.stored() == [accepted_after_all.id]


async def test_a_request_that_is_still_being_accepted_is_neither_repeated_nor_guessed_at(process: Process) -> None:
    process.service.before_add = gate = Gate()
    first = asyncio.create_task(process.accept())
    await gate.reached.wait()
    for key in (KEY, replace(KEY, body_sha256="b2" * 32)):
        with pytest.raises(IdempotencyInProgressError) as refusal:
            await process.accept(key)
        assert refusal.value.retry_after_s == 1
    gate.open.set()
    stored = await first
    assert (await process.accept()).id == stored.id
    assert process.service.submitted == 1


async def test_another_key_does_not_wait_for_one_that_is_being_accepted(process: Process) -> None:
    process.service.before_add = gate = Gate()
    first = asyncio.create_task(process.accept())
    await gate.reached.wait()
    process.service.before_add = None
    await process.accept(replace(KEY, scope="other"))
    gate.open.set()
    await first
    assert len(await process.stored()) == 2


async def test_a_request_cut_off_before_it_was_stored_can_be_sent_again(process: Process) -> None:
    process.service.before_add = gate = Gate()
    cut_off = asyncio.create_task(process.accept())
    await gate.reached.wait()
    cut_off.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut_off
    gate.open.set()
    again = await process.accept()
    assert await process.stored() == [again.id]


async def test_a_request_cut_off_after_it_was_stored_is_answered_with_what_was_stored(process: Process) -> None:
    first = await process.service.submit(specification(), key_name="council", idempotency=KEY)
    again = Process(process.repository)
    assert (await again.accept()).id == first.id
    assert again.service.submitted == 0


async def test_two_processes_that_take_one_key_at_once_accept_one_deliberation(process: Process) -> None:
    other = Process(process.repository)
    gates = process.service.before_add, other.service.before_add = Gate(), Gate()
    racing = [asyncio.create_task(each.accept()) for each in (process, other)]
    for gate in gates:
        await gate.reached.wait()
    for gate in gates:
        gate.open.set()
    first, second = await asyncio.gather(*racing)
    assert first.id == second.id
    assert await process.stored() == [first.id]


async def test_of_two_processes_that_take_one_key_for_two_bodies_one_is_refused(process: Process) -> None:
    other = Process(process.repository)
    gates = process.service.before_add, other.service.before_add = Gate(), Gate()
    racing = [
        asyncio.create_task(process.accept()),
        asyncio.create_task(other.accept(replace(KEY, body_sha256="b2" * 32))),
    ]
    for gate in gates:
        await gate.reached.wait()
        gate.open.set()
    results = await asyncio.gather(*racing, return_exceptions=True)
    assert sorted(type(each).__name__ for each in results) == ["Deliberation", "IdempotencyKeyReusedError"]
    assert len(await process.stored()) == 1


async def test_a_store_that_cannot_be_asked_about_the_key_accepts_nothing() -> None:
    class Away:
        async def remembered(self, scope: str, key: str) -> RememberedKey | None:
            raise AWAY

    process = Process(reader=Away())
    with pytest.raises(DependencyUnavailableError):
        await process.accept()
    assert process.service.submitted == 0


async def test_after_a_day_the_key_is_free() -> None:
    clock = SettableClock()
    process = Process(InMemoryRepository(clock=clock))
    first = await process.accept()
    clock.advance(24 * 3600)
    second = await process.accept(replace(KEY, body_sha256="b2" * 32))
    assert first.id != second.id
