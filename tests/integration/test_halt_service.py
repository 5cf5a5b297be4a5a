"""Setting and clearing the halt: witnessed first where that is possible, in force wherever it can be, recorded once in the end."""

from __future__ import annotations

import asyncio

import pytest

from application.services.halt_service import HaltService
from application.services.verification.entries import read_entry
from domain.errors.deliberation import InvalidSpecificationError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import HaltChannelUnreachableError, HaltNotClearableError, NotHaltedError
from domain.errors.witness import LogUnverifiedError
from domain.models.halt import ChannelReading, HaltCondition, HaltState
from infrastructure.halt.dual_channel_halt_checker import DualChannelHaltChecker
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from infrastructure.witness.canonical_json import parse_canonical
from tests.integration.away_logs import NOON, unavailable
from tests.integration.halt_house import House, open_house

PATIENCE_S = 10.0


@pytest.fixture
async def house() -> House:
    return await open_house()


async def test_a_halt_is_on_every_channel_and_in_the_log(house: House) -> None:
    state = await house.service.set("a drill", key_name="root")
    assert (state.condition, state.reason) == (HaltCondition.HALTED, "a drill")
    assert house.holding() == ["database", "file"]
    assert house.log.types == ["halt.set"]
    assert house.notes.kept == {}


async def test_its_entry_is_what_the_verifier_expects_and_commits_to_its_texts(house: House) -> None:
    await house.service.set("a drill", key_name="root")
    await house.service.clear("it is over", key_name="root")
    for place, kind in enumerate(("halt.set", "halt.cleared")):
        entry, owner = read_entry(house.log.inner.logged[place].entry, index=place, parse_canonical=parse_canonical)
        assert (entry["type"], owner) == (kind, None)
        assert b"drill" not in house.log.inner.logged[place].entry
        assert b"root" not in house.log.inner.logged[place].entry
    assert house.log.documents[0]["channels"] == ["database", "file"]
    told = {each.text for each in house.log.inner._texts[None]}
    assert told == {"a drill", "it is over", "root"}


async def test_it_is_recorded_before_it_takes_effect(house: House) -> None:
    house.log.answers.clear()
    halting = asyncio.create_task(house.service.set("a drill", key_name=None))
    async with asyncio.timeout(PATIENCE_S):
        await house.log.asked.wait()
    assert (house.holding(), house.condition()) == ([], HaltCondition.IN_DOUBT)
    house.log.answers.set()
    await halting
    assert house.log.types == ["halt.set"]


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_log_that_is_away_or_hangs_keeps_no_halt_from_taking_effect_and_has_it_once_in_the_end(
    house: House, hangs: bool
) -> None:
    if hangs:
        house.log.answers.clear()
    else:
        house.log.problem = unavailable()
    assert (await house.service.set("a drill", key_name=None)).condition is HaltCondition.HALTED
    assert house.holding() == ["database", "file"]
    assert len(house.notes.kept) == 1
    if not hangs:
        with pytest.raises(DependencyUnavailableError):
            await house.service.settle()
    house.log.problem = None
    house.log.answers.set()
    assert await house.service.settle() is False
    assert house.log.types == ["halt.set"]
    assert house.notes.kept == {}
    assert await house.service.settle() is False
    assert house.log.types == ["halt.set"]


async def test_nothing_is_added_to_a_log_that_does_not_verify(house: House) -> None:
    problem = LogUnverifiedError(problem="it was rolled back", remedy="Look.")
    problems: list[LogUnverifiedError | None] = [problem]
    service = HaltService(
        channels=[house.database, house.file],
        watch=house.watch,
        log=house.log,
        notes=house.notes,
        log_problem=lambda: problems[0],
    )
    assert (await service.set("a drill", key_name=None)).halted
    with pytest.raises(LogUnverifiedError):
        await service.clear("it is over", key_name=None)
    assert (house.log.types, house.holding()) == ([], ["database", "file"])
    problems[0] = None
    await service.settle()
    assert house.log.types == ["halt.set"]


@pytest.mark.parametrize("away", ["database", "file"])
async def test_either_channel_alone_holds_a_halt_and_the_other_is_set_once_it_is_back(house: House, away: str) -> None:
    channel = house.database if away == "database" else house.file
    channel.problem = "it is gone"
    await house.service.look()
    state = await house.service.set("a drill", key_name=None)
    assert (state.condition, state.channels[away].reachable) == (HaltCondition.HALTED, False)
    assert house.holding() == [name for name in ("database", "file") if name != away]
    assert await house.service.settle() is True
    channel.problem = None
    await house.service.look()
    assert await house.service.settle() is False
    assert house.holding() == ["database", "file"]
    assert house.log.types == ["halt.set"]


async def test_a_channel_that_hangs_holds_up_no_halt_for_long(house: House) -> None:
    house.database.answers.clear()
    async with asyncio.timeout(PATIENCE_S):
        state = await house.service.set("a drill", key_name=None)
    assert (state.condition, state.channels["database"].reachable) == (HaltCondition.HALTED, False)
    house.database.answers.set()


async def test_a_halt_over_a_halt_keeps_the_first_reason_and_is_not_recorded_again(house: House) -> None:
    await house.service.set("first", key_name=None)
    assert (await house.service.set("second", key_name=None)).reason == "first"
    assert house.log.types == ["halt.set"]


async def test_a_halt_that_reaches_a_further_channel_is_recorded(house: House) -> None:
    house.file.set("by hand", NOON)
    await house.service.look()
    state = await house.service.set("for everybody", key_name=None)
    assert (state.reason, house.log.documents[0]["channels"]) == ("by hand", ["database"])
    assert house.holding() == ["database", "file"]


async def test_a_channel_that_was_cleared_unseen_is_set_again_and_that_is_recorded(house: House) -> None:
    await house.service.set("first", key_name=None)
    house.database.clear()
    await house.service.set("second", key_name=None)
    assert house.holding() == ["database", "file"]
    assert (house.log.types, house.log.documents[1]["channels"]) == (["halt.set", "halt.set"], ["database"])


async def test_twenty_halts_at_a_time_are_one(house: House) -> None:
    states = await asyncio.gather(*(house.service.set(f"reason {number}", key_name=None) for number in range(20)))
    assert {state.reason for state in states} == {"reason 0"}
    assert house.log.types == ["halt.set"]


async def test_who_stops_waiting_for_a_halt_does_not_stop_it(house: House) -> None:
    house.log.answers.clear()
    halting = asyncio.create_task(house.service.set("a drill", key_name=None))
    async with asyncio.timeout(PATIENCE_S):
        await house.log.asked.wait()
        halting.cancel()
        house.log.answers.set()
        await house.watch.wait_until_halted()
    with pytest.raises(asyncio.CancelledError):
        await halting
    house.watch.close()


async def test_cleared_it_is_open_and_recorded(house: House) -> None:
    await house.service.set("a drill", key_name=None)
    state = await house.service.clear("it is over", key_name="root")
    assert (state.condition, house.holding()) == (HaltCondition.OPEN, [])
    assert house.log.types == ["halt.set", "halt.cleared"]


@pytest.mark.parametrize("away", ["database", "file"])
async def test_clearing_wants_every_channel_within_reach(house: House, away: str) -> None:
    await house.service.set("a drill", key_name=None)
    channel = house.database if away == "database" else house.file
    channel.problem = "it is gone"
    with pytest.raises(HaltNotClearableError) as caught:
        await house.service.clear("it is over", key_name=None)
    assert caught.value.unreachable == (away,)
    assert (house.holding(), house.log.types) == (["database", "file"], ["halt.set"])


async def test_clearing_wants_the_log(house: House) -> None:
    await house.service.set("a drill", key_name=None)
    house.log.problem = unavailable()
    with pytest.raises(DependencyUnavailableError):
        await house.service.clear("it is over", key_name=None)
    assert house.holding() == ["database", "file"]


async def test_clearing_what_is_not_halted_is_refused(house: House) -> None:
    with pytest.raises(NotHaltedError):
        await house.service.clear("it is over", key_name=None)
    assert house.log.types == []


async def test_a_process_that_holds_itself_is_not_cleared(house: House) -> None:
    await house.service.set("a drill", key_name=None)
    house.watch.hold("the log does not verify")
    with pytest.raises(HaltNotClearableError, match="the log does not verify"):
        await house.service.clear("it is over", key_name=None)
    assert house.holding() == ["database", "file"]


async def test_the_channel_that_reaches_all_processes_is_cleared_last_and_a_break_before_leaves_it_halted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.service.set("a drill", key_name=None)
    cleared = house.database.clear

    def break_off() -> bool:
        house.database.problem = "it has just gone"
        return cleared()

    monkeypatch.setattr(house.database, "clear", break_off)
    with pytest.raises(DependencyUnavailableError):
        await house.service.clear("it is over", key_name=None)
    house.database.problem = None
    assert house.holding() == ["database"]
    assert (await house.service.look()).condition is HaltCondition.HALTED


async def test_what_a_halt_lacks_when_it_is_cleared_is_recorded_before_and_set_no_more(house: House) -> None:
    house.log.problem = unavailable()
    house.database.problem = "it is gone"
    await house.service.look()
    await house.service.set("a drill", key_name=None)
    house.log.problem = house.database.problem = None
    state = await house.service.clear("it is over", key_name=None)
    assert state.condition is HaltCondition.OPEN
    assert house.log.types == ["halt.set", "halt.cleared"]
    assert (await house.service.settle(), house.holding()) == (False, [])


BAD_REASONS = ["", " \n", "x" * 1001, "a\x00b", "\ud800"]


@pytest.mark.parametrize("reason", BAD_REASONS)
async def test_a_halt_wants_a_reason(house: House, reason: str) -> None:
    for change in (house.service.set, house.service.clear):
        with pytest.raises(InvalidSpecificationError) as caught:
            await change(reason, key_name=None)
        assert [problem.pointer for problem in caught.value.problems] == ["/reason"]
    assert (house.log.types, house.holding()) == ([], [])


async def test_a_thousand_characters_are_a_reason(house: House) -> None:
    assert (await house.service.set("\N{OCTAGONAL SIGN}" * 1000, key_name=None)).halted


async def test_a_note_that_cannot_be_kept_is_remembered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise HaltChannelUnreachableError(channel="file", problem="the disk is full")

    house.log.problem = unavailable()
    monkeypatch.setattr(house.notes, "keep", refuse)
    assert (await house.service.set("a drill", key_name=None)).halted
    house.log.problem = None
    await house.service.settle()
    assert house.log.types == ["halt.set"]


def test_what_is_told_of_a_channel_is_what_a_state_shows() -> None:
    watch = DualChannelHaltChecker(channels=[HaltChannelStub("file")], stale_s=float("inf"))
    watch.tell("file", ChannelReading(halted=False))
    state: HaltState = watch.state
    assert state.condition is HaltCondition.OPEN
