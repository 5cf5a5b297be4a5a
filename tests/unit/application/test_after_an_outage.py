"""What the store or the queue lost while it was away is found again, and what was to be recorded then is not another thing later."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from application.ports.deliberation_repository import Commit, Waiting
from application.ports.work_queue import Job
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_service import DeliberationService, OrchestratorIdentity
from domain.errors.dependency import DependencyUnavailableError
from domain.models.agent_pool import AgentPool
from domain.models.deliberation import DeliberationStatus, WitnessSpan
from infrastructure.queues.embedded_queue import EmbeddedQueue
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, build, opened, specification
from tests.virtual_time import pass_time

_IDENTITY = OrchestratorIdentity("canned", simulated=True)


class Store(InMemoryRepository):
    """One that is away while a test says so."""

    def __init__(self) -> None:
        super().__init__(clock=VirtualClock())
        self.is_away = False

    async def append(self, commit: Commit) -> WitnessSpan | None:
        self._require()
        return await super().append(commit)

    async def waiting(self, *, limit: int, begun_only: bool = False) -> Sequence[Waiting]:
        self._require()
        return await super().waiting(limit=limit, begun_only=begun_only)

    def _require(self) -> None:
        if self.is_away:
            raise DependencyUnavailableError(dependency="database", problem="a test took it away")


class Queue(EmbeddedQueue):
    """One that is away, or loses what it is given, while a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = self.is_forgetful = False

    async def put(self, job: Job) -> None:
        if self.is_away:
            raise DependencyUnavailableError(dependency="queue", problem="a test took it away")
        if not self.is_forgetful:
            await super().put(job)


def _server(store: Store, queue: Queue) -> DeliberationService:
    """One that accepts and works on nothing."""
    return DeliberationService(
        repository=store,
        reader=store,
        leases=store,
        queue=queue,
        halt_checker=HaltCheckerStub(),
        orchestrator=_IDENTITY,
        clock=VirtualClock(),
    )


def _worker(store: Store, queue: Queue) -> DeliberationService:
    """One that seldom looks for what should be in the queue."""
    halt, clock = HaltCheckerStub(), VirtualClock()
    fan_out = ConcurrentDeliberationService(
        orchestrator=Canned({}), halt_checker=halt, pool=AgentPool(72), clock=VirtualClock()
    )
    return DeliberationService.with_worker(
        fan_out=fan_out,
        store=store,
        queue=queue,
        halt_checker=halt,
        orchestrator=_IDENTITY,
        clock=clock,
        queued_sweep_s=30.0,
    )


async def test_what_the_queue_did_not_take_is_put_there_as_soon_as_it_is_back() -> None:
    queue = Queue()
    server = _server(Store(), queue)
    queue.is_away = True
    await server.submit(specification(1))
    await pass_time(5)
    assert await queue.waiting_count() == 0
    queue.is_away = False
    await pass_time(1)
    assert await queue.waiting_count() == 1
    await server.stop()


async def test_a_server_that_stops_meanwhile_leaves_nothing_running() -> None:
    queue = Queue()
    server = _server(Store(), queue)
    queue.is_away = True
    await server.submit(specification(1))
    await server.stop()
    queue.is_away = False
    await pass_time(5)
    assert await queue.waiting_count() == 0


async def test_a_worker_that_met_an_outage_looks_at_once_for_what_the_queue_lost_in_it() -> None:
    store, queue = Store(), Queue()
    worker = _worker(store, queue)
    await worker.start()
    await pass_time(5)
    store.is_away = queue.is_forgetful = True
    lost = await _server(store, queue).submit(specification(1))
    await pass_time(3)
    store.is_away = queue.is_forgetful = False
    began = asyncio.get_running_loop().time()
    ended = await worker.wait(lost.id, timeout_s=20)
    assert ended.status is DeliberationStatus.COMPLETED
    assert asyncio.get_running_loop().time() - began < 5
    await worker.stop()


async def test_a_halt_is_not_forgotten_by_a_process_that_stops_before_it_could_be_recorded() -> None:
    store = Store()
    async with opened(build(Canned({"archon-0": None}), store)) as house:
        running = await house.service.submit(specification(3))
        await pass_time(5)
        store.is_away = True
        await house.halt.set_halted("a drill")
        await pass_time(1)
        stopping = asyncio.create_task(house.service.stop(drain_s=5))
        await pass_time(1)
        store.is_away = False
        await stopping
    found = await store.get(running.id)
    assert found is not None
    assert found.status is DeliberationStatus.HALTED
    assert found.outcome is None
