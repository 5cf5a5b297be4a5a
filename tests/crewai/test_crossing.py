"""The way between two loops: who is woken how often, in which order things are called, and who goes first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, cast

from infrastructure.orchestrators.crewai_crossing import Crossing, Letterbox, settle

SPOKEN: ContextVar[str] = ContextVar("spoken", default="nothing")


class Loop:
    """A loop that only notes what it is asked to call, and calls it when it is told to."""

    def __init__(self) -> None:
        self.woken = 0
        self.is_over = False
        self._due: list[tuple[Callable[..., object], tuple[Any, ...], Context | None]] = []

    def is_closed(self) -> bool:
        return self.is_over

    def call_soon_threadsafe(self, function: Callable[..., object], *arguments: Any) -> None:
        self.woken += 1
        self.call_soon(function, *arguments)

    def call_soon(self, function: Callable[..., object], *arguments: Any, context: Context | None = None) -> None:
        self._due.append((function, arguments, context))

    def run(self) -> None:
        while self._due:
            function, arguments, context = self._due.pop(0)
            (Context() if context is None else context).run(function, *arguments)


def letterbox(loop: Loop) -> Letterbox:
    return Letterbox(cast("asyncio.AbstractEventLoop", loop))


def test_what_is_posted_is_called_in_order_and_wakes_the_loop_once() -> None:
    loop = Loop()
    post, called = letterbox(loop).post, list[int]()
    for number in range(72):
        post(called.append, number)
    assert (called, loop.woken) == ([], 1)
    loop.run()
    assert called == list(range(72))
    post(called.append, 72)
    assert loop.woken == 2


def test_what_is_posted_while_the_letterbox_is_emptied_is_called_too() -> None:
    loop = Loop()
    box, called = letterbox(loop), list[str]()
    box.post(box.post, called.append, "later")
    loop.run()
    assert called == ["later"]


def test_what_is_called_sees_nothing_of_its_posters_context() -> None:
    loop = Loop()
    box, seen = letterbox(loop), list[str]()
    token = SPOKEN.set("a secret")
    box.post(lambda: seen.append(SPOKEN.get()))
    SPOKEN.reset(token)
    loop.run()
    assert seen == ["nothing"]


def test_a_closed_loop_is_not_woken() -> None:
    loop = Loop()
    loop.is_over = True
    letterbox(loop).post(print)
    assert loop.woken == 0


async def test_a_turn_comes_after_what_the_services_loop_had_to_do() -> None:
    service, done = Loop(), list[str]()
    crossing = Crossing(to_service=letterbox(service), to_crews=Letterbox(asyncio.get_running_loop()))
    service.call_soon(done.append, "the service's")
    turn = asyncio.create_task(crossing.take_turn())
    await asyncio.sleep(0)
    assert (service.woken, turn.done()) == (1, False)
    service.run()
    await turn
    assert done == ["the service's"]


async def test_a_turn_is_good_for_a_moment_and_then_the_services_loop_is_let_go_first_again() -> None:
    service, seconds = Loop(), [0.0]
    crossing = Crossing(
        to_service=letterbox(service), to_crews=Letterbox(asyncio.get_running_loop()), now=lambda: seconds[0]
    )

    async def take_turn() -> None:
        turn = asyncio.create_task(crossing.take_turn())
        while not turn.done():
            service.run()
            await asyncio.sleep(0)

    await take_turn()
    seconds[0] = 0.0009
    await take_turn()
    assert service.woken == 1
    seconds[0] = 0.0011
    await take_turn()
    assert service.woken == 2


async def test_a_future_that_nobody_waits_for_any_more_is_left_alone() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    future.cancel()
    settle(future, "an answer")
    assert future.cancelled()
