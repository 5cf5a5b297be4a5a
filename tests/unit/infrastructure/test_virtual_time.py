"""Holds the virtual clock to its promise: timers run in order, at once, and a deadlock is said instead of waited for."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, ParamSpec

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.virtual_time import VirtualClock, VirtualTimeLoop, run_in_virtual_time

P = ParamSpec("P")


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs one coroutine test on virtual time.

    A folder of tests does it with `def pytest_asyncio_loop_factories(config, item): return {"virtual": VirtualTimeLoop}` in
    its conftest.py instead.
    """

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_in_virtual_time(test(*args, **kwargs))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_days_pass_at_once() -> None:
    # Where they did not, the test would still be running.
    await asyncio.sleep(86_400)
    assert now() == 86_400
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 86_400)
    assert now() == 2 * 86_400


@in_virtual_time
async def test_timers_run_in_the_order_of_their_times_whatever_the_order_they_were_set_in() -> None:
    seen: list[tuple[str, float]] = []

    async def note(name: str, after: float) -> None:
        await asyncio.sleep(after)
        seen.append((name, now()))

    await asyncio.gather(note("late", 3600), note("soon", 0.001), note("middle", 5))
    assert seen == [("soon", 0.001), ("middle", 5), ("late", 3600)]


@in_virtual_time
async def test_the_clock_stands_still_while_anything_can_run() -> None:
    timer = asyncio.create_task(asyncio.sleep(1))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert now() == 0
    await timer
    assert now() == 1


@in_virtual_time
async def test_seventy_two_agents_of_an_hour_each_take_one_hour() -> None:
    service = ConcurrentDeliberationService(
        orchestrator=AgentOrchestratorStub(latency_seconds=3600), halt_checker=HaltCheckerStub()
    )
    context = ContextBundle(topic_id="t", topic_content="q")
    requests = [AgentRequest(agent_id=f"archon-{n}", context=context) for n in range(72)]
    result = await service.invoke_concurrent(requests, agent_timeout_s=4000)
    assert result.success_count == 72
    assert result.total_ms == 3_600_000


@in_virtual_time
async def test_bytes_between_two_sockets_of_the_loop_arrive_before_the_clock_moves() -> None:
    left, right = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=left)
    reader, other_writer = await asyncio.open_connection(sock=right)
    async with asyncio.timeout(1):
        writer.write(b"ballot\n")
        assert await reader.readline() == b"ballot\n"
    assert now() == 0
    for side in (writer, other_writer):
        side.close()
        await side.wait_closed()


@in_virtual_time
async def test_a_silent_peer_runs_into_the_virtual_timeout_at_once() -> None:
    left, right = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=left)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(120):
            await reader.readline()
    assert now() == 120
    right.close()
    writer.close()
    await writer.wait_closed()


@in_virtual_time
async def test_work_in_a_thread_is_waited_for_before_any_timer_fires() -> None:
    allowed = threading.Event()
    asyncio.get_running_loop().call_soon(allowed.set)
    async with asyncio.timeout(0.5):
        answer = await asyncio.to_thread(lambda: allowed.wait(5) and threading.current_thread().name)
    assert answer != threading.current_thread().name
    assert now() == 0


def test_a_thread_that_never_ends_is_waited_for_no_longer_than_the_patience() -> None:
    release = threading.Event()

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.to_thread(release.wait, 5)
        release.set()
        return now()

    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(thread_patience_s=0.02)) as runner:
        assert runner.run(main()) == 60


def test_a_wait_that_nothing_can_end_is_called_a_deadlock_and_names_who_waits() -> None:
    async def main() -> None:
        asyncio.current_task().set_name("the one who waits")  # type: ignore[union-attr]
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match=r"deadlock: nothing is ready or scheduled at 0 s.*'the one who waits'"):
        run_in_virtual_time(main())


def test_timers_that_renew_themselves_for_ever_do_not_hide_a_deadlock() -> None:
    async def main() -> None:
        def ping() -> None:
            asyncio.get_running_loop().call_later(15, ping)

        ping()
        await asyncio.Event().wait()

    with (
        pytest.raises(RuntimeError, match="deadlock: only timers ran up to 3600 s"),
        asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(horizon_s=3600)) as runner,
    ):
        runner.run(main())


def test_after_a_deadlock_the_tasks_are_cancelled_and_clean_up() -> None:
    cleaned: list[str] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleaned.append("up")

    with pytest.raises(RuntimeError, match="deadlock"):
        run_in_virtual_time(main())
    assert cleaned == ["up"]


def test_run_in_virtual_time_hands_back_the_result_and_closes_its_loop() -> None:
    async def main() -> asyncio.AbstractEventLoop:
        await asyncio.to_thread(int)
        await asyncio.sleep(600)
        return asyncio.get_running_loop()

    assert run_in_virtual_time(main()).is_closed()


def test_an_error_of_the_main_coroutine_comes_through() -> None:
    async def main() -> None:
        await asyncio.sleep(1)
        raise LookupError("nobody there")

    with pytest.raises(LookupError, match="nobody there"):
        run_in_virtual_time(main())


def test_the_same_program_runs_the_same_schedule_every_time() -> None:
    async def main() -> list[tuple[int, float]]:
        seen: list[tuple[int, float]] = []

        async def agent(number: int) -> None:
            for step in range(5):
                await asyncio.sleep(0.1 + (number * 7 + step * 3) % 11 / 10)
                seen.append((number, now()))

        await asyncio.gather(*(agent(number) for number in range(20)))
        return seen

    assert run_in_virtual_time(main()) == run_in_virtual_time(main())


@pytest.mark.parametrize("loop_given", [True, False])
@in_virtual_time
async def test_the_virtual_clock_tells_a_time_of_day_that_moves_with_the_loop(loop_given: bool) -> None:
    start = datetime(2030, 5, 17, 8, 0, tzinfo=UTC)
    clock = VirtualClock(asyncio.get_running_loop() if loop_given else None, start=start)
    await asyncio.sleep(5400)
    assert clock.now() == start + timedelta(minutes=90)
    assert clock.monotonic() == 5400


@in_virtual_time
async def test_a_call_from_a_thread_that_is_waited_for_is_heard() -> None:
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[str] = loop.create_future()

    def call(answer: Callable[[str], None]) -> None:
        loop.call_soon_threadsafe(answer, "from a thread")

    await asyncio.to_thread(call, heard.set_result)
    assert await heard == "from a thread"
