"""Halts that no channel takes, because disks are full or everything is away: they halt one process, and the others once they can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import HaltChannelUnreachableError
from domain.models.halt import HaltCondition
from tests.integration.away_logs import unavailable
from tests.integration.halt_house import House, open_house


@pytest.fixture
async def house() -> House:
    return await open_house()


def fill_up(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the channels be read, and not be set, until what is returned is called; the log takes nothing meanwhile."""
    is_full = True

    def with_room(name: str, change: Callable[..., bool]) -> Callable[..., bool]:
        def changed(*arguments: object) -> bool:
            if is_full:
                raise HaltChannelUnreachableError(channel=name, problem="the disk is full")
            return change(*arguments)

        return changed

    for channel in (house.database, house.file):
        for verb in ("set", "clear"):
            monkeypatch.setattr(channel, verb, with_room(channel.name, getattr(channel, verb)))
    house.log.problem = unavailable()

    def make_room() -> None:
        nonlocal is_full
        is_full = False
        house.log.problem = None

    return make_room


async def halted_in_vain(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A halt that no channel takes before what is returned is called."""
    make_room = fill_up(house, monkeypatch)
    with pytest.raises(DependencyUnavailableError):
        await house.service.set("a drill", key_name=None)
    return make_room


async def test_where_no_channel_can_be_set_that_is_said_and_nothing_is_recorded(house: House) -> None:
    house.database.problem = house.file.problem = "it is gone"
    await house.service.look()
    with pytest.raises(DependencyUnavailableError, match="NOT halted") as caught:
        await house.service.set("a drill", key_name=None)
    assert "NOT halted" in str(caught.value.told)
    assert "it is gone" not in str(caught.value.told)
    assert (house.log.types, house.notes.kept, house.holding()) == ([], {}, [])


async def test_a_halt_that_no_channel_takes_halts_this_process_until_one_takes_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_room = fill_up(house, monkeypatch)
    with pytest.raises(DependencyUnavailableError):
        await house.service.set("the model answers nonsense", key_name="root")
    state = await house.service.look()
    assert (state.condition, state.unreachable, house.holding()) == (HaltCondition.HALTED, (), [])
    assert str(state.reason).startswith("the model answers nonsense (this process alone is halted")
    assert house.service.set_by() == "root"
    assert await house.service.settle() is True
    assert (await house.service.look()).condition is HaltCondition.HALTED
    make_room()
    assert await house.service.settle() is False
    state = await house.service.look()
    assert (state.condition, state.reason) == (HaltCondition.HALTED, "the model answers nonsense")
    assert (house.holding(), house.log.types, house.notes.kept) == (["database", "file"], ["halt.set"], {})
    assert house.service.set_by() == "root"
    assert (await house.service.settle(), house.log.types) == (False, ["halt.set"])


async def test_a_process_that_goes_on_trying_says_so(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_up(house, monkeypatch)
    settling = asyncio.create_task(house.service.settle_for_ever())
    await asyncio.sleep(0)
    with pytest.raises(DependencyUnavailableError, match="This process alone is halted") as caught:
        await house.service.set("a drill", key_name=None)
    assert "This process alone is halted, and sets them as soon as it can" in str(caught.value.told)
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)


async def test_one_channel_with_room_takes_the_halt_and_the_other_gets_it_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_room = await halted_in_vain(house, monkeypatch)
    await house.service.look()
    house.database.problem = "it is gone"
    make_room()
    await house.service.look()
    assert (await house.service.settle(), house.holding()) == (True, ["file"])
    house.database.problem = None
    await house.service.look()
    assert (await house.service.settle(), house.holding()) == (False, ["database", "file"])
    assert house.log.types == ["halt.set"]


async def test_a_second_halt_while_no_channel_takes_the_first_is_the_first(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_room = fill_up(house, monkeypatch)
    for reason in ("first", "second"):
        with pytest.raises(DependencyUnavailableError, match="NOT halted"):
            await house.service.set(reason, key_name=None)
    await house.service.look()
    make_room()
    assert (await house.service.set("third", key_name=None)).reason == "first"
    await house.service.settle()
    assert (house.holding(), house.log.types) == (["database", "file"], ["halt.set"])


async def test_a_halt_of_this_process_alone_is_cleared_like_any_other_and_both_are_recorded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_room = await halted_in_vain(house, monkeypatch)
    with pytest.raises(DependencyUnavailableError):
        await house.service.clear("it is over", key_name=None)
    assert (await house.service.look()).condition is HaltCondition.HALTED
    make_room()
    assert (await house.service.clear("it is over", key_name=None)).condition is HaltCondition.OPEN
    assert house.log.types == ["halt.set", "halt.cleared"]
    assert (await house.service.settle(), house.holding(), house.log.types) == (False, [], ["halt.set", "halt.cleared"])


async def test_a_halt_that_the_log_has_and_no_channel_takes_is_not_recorded_twice(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_room = fill_up(house, monkeypatch)
    house.log.problem = None
    with pytest.raises(DependencyUnavailableError):
        await house.service.set("a drill", key_name=None)
    await house.service.look()
    make_room()
    await house.service.settle()
    assert (house.holding(), house.log.types) == (["database", "file"], ["halt.set"])


async def test_a_channel_that_takes_no_halt_but_can_be_read_is_not_called_away_while_it_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise HaltChannelUnreachableError(channel="database", problem="the disk is full")

    monkeypatch.setattr(house.database, "set", refuse)
    assert (await house.service.set("a drill", key_name=None)).unreachable == ("database",)
    await house.service.look()
    assert await house.service.settle() is True
    assert house.service.status().unreachable == ()


async def test_that_a_halt_took_effect_is_logged_only_where_it_did(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_room = await halted_in_vain(house, monkeypatch)
    assert "effect" not in caplog.text
    make_room()
    await house.service.settle()
    await house.service.clear("it is over", key_name=None)
    house.log.problem = unavailable()
    await house.service.set("a drill", key_name=None)
    assert "a halt took effect before it is recorded" in caplog.text
