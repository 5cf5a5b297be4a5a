"""The banner of the halt: drawn only when it is another one, and told to everybody who follows a feed."""

from __future__ import annotations

import asyncio
from html import escape

from api.dashboard.halt_banner import HaltBanner
from domain.models.halt import HaltCondition, HaltState
from tests.service_fixture import Canned, build, opened, specification
from tests.unit.api.dashboard.feed_fixture import Reader, Staggered, live_feed
from tests.virtual_time import pass_time

OPEN = HaltState(HaltCondition.OPEN)
HALTED = HaltState(HaltCondition.HALTED, "a <b>drill</b>")


class Watched:
    """A halt that a test sets, and what was drawn of it."""

    def __init__(self) -> None:
        self.state = OPEN
        self.drawn: list[HaltState] = []
        self.banner = HaltBanner(lambda: self.state, self._draw)

    def _draw(self, state: HaltState) -> str:
        self.drawn.append(state)
        return f"\n{escape(state.reason or '')}\n"


def told(reader: Reader) -> list[str]:
    """What the banner was to say, in order."""
    return [document["html"] for name, document in reader.frames if name == "halt"]


def test_it_is_drawn_anew_only_when_the_halt_is_another() -> None:
    halt = Watched()
    shown = [halt.banner.html() for _ in range(3)]
    halt.state = HALTED
    shown += [halt.banner.html() for _ in range(3)]
    halt.state = HaltState(HaltCondition.IN_DOUBT, HALTED.reason)
    halt.banner.html()
    assert shown == [""] * 3 + ["a &lt;b&gt;drill&lt;/b&gt;"] * 3
    assert [state.condition for state in halt.drawn] == ["open", "halted", "in doubt"]


async def test_who_follows_a_deliberation_hears_of_a_halt_and_of_its_end_within_a_second() -> None:
    halt = Watched()
    async with opened(build(Staggered({}))) as house:
        accepted = await house.service.submit(specification(2))
        feed, reader = live_feed(house, banner=halt.banner), Reader()
        reading = asyncio.create_task(reader.read(feed, accepted.id))
        await pass_time(2)
        for state in (HALTED, OPEN):
            halt.state = state
            await pass_time(1)
        reader.left.set()
        await reading
    assert told(reader) == ["", "a &lt;b&gt;drill&lt;/b&gt;", ""]
    assert reader.frames[0][0] == "snapshot"


async def test_who_waits_for_a_first_question_hears_of_a_halt_too() -> None:
    halt = Watched()
    async with opened(build(Canned({}))) as house:
        feed, reader = live_feed(house, banner=halt.banner), Reader()
        reading = asyncio.create_task(reader.read(feed))
        await pass_time(2)
        halt.state = HALTED
        await pass_time(1)
        reader.left.set()
        await reading
    assert told(reader) == ["", "a &lt;b&gt;drill&lt;/b&gt;"]


async def test_nobody_looks_once_nobody_follows() -> None:
    halt = Watched()
    wakes = asyncio.Event(), asyncio.Event()
    with halt.banner.watching(wakes[0]):
        with halt.banner.watching(wakes[1]):
            await pass_time(1)
        halt.state = HALTED
        await pass_time(1)
    looked = len(halt.drawn)
    halt.state = OPEN
    await pass_time(5)
    assert (len(halt.drawn), looked) == (2, 2)
    assert [wake.is_set() for wake in wakes] == [True, False]
    with halt.banner.watching(wakes[1]):
        halt.state = HALTED
        await pass_time(1)
    assert wakes[1].is_set()
